/*!
Whole systems: Debian as it is installed, with its own systemd, kernel, initrd and AppArmor, booted in a guest.

```text
<cache>/systems/<id>-N/disk.ext4    the root, made once by mmdebstrap            root.rs
                       vmlinuz, initrd.img, kernel (its release)
                       complete     written last, with the sizes of the others: on a mismatch the folder is made again

 host                                         guest
 play.rs ── story.rs ── system.rs ── ttyS1 ──▶ agent.sh, a service of the root
                            │                   /dev/vda  a copy of the root that is thrown away
                            │                   /dev/vdb  packages, a repository for apt      packages.rs
```

A boot takes most of the time, so all scenarios of a system are one story: its steps build on each other, and each prints its own line.
*/
pub mod boots;
pub mod packages;
pub mod play;
pub mod root;
mod story;
pub mod system;

/// A Debian release whose system the lab can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Release {
    /// The name of the release in the lab.
    pub id: &'static str,
    /// The suite of Debian's archive.
    pub suite: &'static str,
    /// Whether its systemd loads BPF programs of its own (`+BPF_FRAMEWORK`).
    pub systemd_uses_bpf: bool,
    /// Whether its systemd has `systemctl soft-reboot`.
    pub soft_reboot: bool,
}

/// All releases, oldest first.
pub const RELEASES: [Release; 2] = [
    Release { id: "debian-12", suite: "bookworm", systemd_uses_bpf: false, soft_reboot: false },
    Release { id: "debian-13", suite: "trixie", systemd_uses_bpf: true, soft_reboot: true },
];

/// Returns their names.
#[must_use]
pub fn ids() -> Vec<&'static str> {
    RELEASES.iter().map(|release| release.id).collect()
}
