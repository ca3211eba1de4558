/*!
The root of a system, made by mmdebstrap from the machine's own package source, and kept in the cache.

All files are Debian's except four: the agent and its unit, /etc/fstab, and a machine id for a system that has not booted yet. The package
of systemd is in /srv/archive, since guests have no network and the story installs it again. A run that is killed leaves a folder without
the file `complete`, or a temporary folder beside it; the next run replaces the first and removes the second. It also replaces a folder
whose files do not have the sizes in `complete`.
*/
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, bail, ensure};

use super::Release;
use crate::{cache, debian, tool};

/// Raised when this file makes other roots than those in caches.
const VERSION: u32 = 2;

/// The packages of a small server, beside those of `minbase` and all dependencies.
const PACKAGES: [&str; 20] = [
    "linux-image-cloud-amd64",
    "initramfs-tools",
    "systemd",
    "systemd-sysv",
    "systemd-resolved",
    "libbpf1",
    "dbus",
    "udev",
    "kmod",
    "apparmor",
    "apt",
    "debian-archive-keyring",
    "cron",
    "rsyslog",
    "openssh-server",
    "nftables",
    "iproute2",
    "iputils-ping",
    "procps",
    "polkitd",
];

/// Keeps the package of systemd in the root, in the installed version: mmdebstrap's shell runs it with the root as its argument.
// With the network of the machine: systemd-resolved in the root has replaced /etc/resolv.conf there.
const KEEP_SYSTEMD: &str = "mkdir -p \"$1/srv/archive\" && cd \"$1/srv/archive\" && APT_CONFIG=\"$MMDEBSTRAP_APT_CONFIG\" apt-get download -qq systemd";

/// The size of the disk in bytes, most of which is a hole.
const SIZE: u64 = 2 << 30;

/// The space that mmdebstrap and mke2fs need at most, in bytes: the unpacked root, its archive and the disk.
const NEEDED: u64 = 3 << 30;

const AGENT: &str = include_str!("agent.sh");
const AGENT_UNIT: &str = include_str!("stockade-lab.service");

/// A root file system that can be booted.
#[derive(Clone, Debug)]
pub struct Root {
    /// The Debian release.
    pub release: Release,
    /// The disk; each guest gets a copy.
    pub disk: PathBuf,
    /// The packaged kernel.
    pub kernel: PathBuf,
    /// The initrd that its initramfs-tools made.
    pub initrd: PathBuf,
    /// The release of its kernel, as `uname -r` prints it.
    pub kernel_release: String,
    /// The time that it took to make, in seconds; none if it was in the cache.
    pub made_in: Option<u64>,
}

/// Returns the root of a release: from the cache, or made when it is not there or `refresh` is asked for.
pub fn get(release: Release, refresh: bool) -> anyhow::Result<Root> {
    let systems = cache::folder()?.join("systems");
    fs::create_dir_all(&systems).with_context(|| format!("making the folder {}", systems.display()))?;
    let made_in = ensure_made(&systems, release, refresh, |fresh| make(release, fresh))?;
    let folder = folder(&systems, release);
    let kernel_release = fs::read_to_string(folder.join("kernel"))?.trim_end().to_owned();
    Ok(Root {
        release,
        disk: folder.join("disk.ext4"),
        kernel: folder.join("vmlinuz"),
        initrd: folder.join("initrd.img"),
        kernel_release,
        made_in,
    })
}

fn folder(systems: &Path, release: Release) -> PathBuf {
    systems.join(format!("{}-{VERSION}", release.id))
}

/// The files of a complete folder.
const FILES: [&str; 4] = ["disk.ext4", "vmlinuz", "initrd.img", "kernel"];

/// The file that is written last, with the sizes of the others: it reveals files that a full or failing disk has cut short.
const COMPLETE: &str = "complete";

fn sizes(folder: &Path) -> anyhow::Result<String> {
    let mut sizes = String::new();
    for file in FILES {
        let path = folder.join(file);
        let size = fs::metadata(&path).with_context(|| format!("looking at {}", path.display()))?.len();
        sizes.push_str(&format!("{size} {file}\n"));
    }
    Ok(sizes)
}

fn is_whole(folder: &Path) -> bool {
    let noted = fs::read_to_string(folder.join(COMPLETE));
    matches!((noted, sizes(folder)), (Ok(noted), Ok(are)) if noted == are)
}

/// Makes the root unless it is there. Returns the seconds that this took.
fn ensure_made(
    systems: &Path,
    release: Release,
    refresh: bool,
    make: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<Option<u64>> {
    let folder = folder(systems, release);
    if is_whole(&folder) && !refresh {
        return Ok(None);
    }
    // Two runs at once must neither make the same root twice nor remove each other's temporary folders.
    let lock = systems.join(format!(".{}.lock", release.id));
    let lock = File::create(&lock).with_context(|| format!("creating {}", lock.display()))?;
    lock.lock().context("waiting for another run that makes the same root")?;
    if is_whole(&folder) && !refresh {
        return Ok(None);
    }
    remove_leftovers(systems, release)?;
    let begin = Instant::now();
    eprintln!("making the root of {} by mmdebstrap, which takes some minutes …", release.id);
    cache::replace_folder(&folder, make).with_context(|| {
        format!("making the root of {} in {}; nothing half-made was kept", release.id, systems.display())
    })?;
    Ok(Some(begin.elapsed().as_secs()))
}

/// Removes temporary folders of runs that were killed, and roots with other version numbers.
fn remove_leftovers(systems: &Path, release: Release) -> anyhow::Result<()> {
    let ours = folder(systems, release);
    for entry in fs::read_dir(systems)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let of_release = name.trim_start_matches('.').starts_with(&format!("{}-", release.id));
        if of_release && entry.path() != ours && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let removed = fs::remove_dir_all(entry.path());
            removed
                .with_context(|| format!("removing {}, which a killed run left", entry.path().display()))?;
        }
    }
    Ok(())
}

fn make(release: Release, fresh: &Path) -> anyhow::Result<()> {
    let free = free(fresh)?;
    ensure!(
        free >= NEEDED,
        "{} has {} MiB free and a root takes up to {} MiB while it is made: free some space, or set XDG_CACHE_HOME to a larger file system",
        fresh.display(),
        free >> 20,
        NEEDED >> 20
    );
    let sources = fresh.join("archive.sources");
    fs::write(&sources, debian::stanza_of(release.suite)?).context("writing the package source")?;
    let archive = fresh.join("root.tar");
    // SAFETY: geteuid takes nothing and cannot fail.
    let is_root = unsafe { libc::geteuid() } == 0;
    bootstrap(mmdebstrap(is_root, fresh), release, &sources, &archive)?;
    let root = fresh.join("root");
    fs::create_dir(&root).context("making the folder for the root")?;
    // Without root, fakeroot records owners and device nodes, so both steps have to run in one of its sessions.
    let disk = fresh.join("disk.ext4");
    let script = format!(
        "set -e; tar -xf \"$1\" -C \"$2\" --exclude='./dev/*'; {}; \
         rm -f \"$3\"; truncate -s {SIZE} \"$3\"; mke2fs -q -t ext4 -F -d \"$2\" \"$3\"",
        additions("$2"),
    );
    let mut shell = tool::command(if is_root { "sh" } else { "fakeroot" });
    shell.args(if is_root { &[][..] } else { &["sh"] }).args(["-c", &script, "sh"]);
    told(tool::output(shell.arg(&archive).arg(&root).arg(&disk))).context("writing the root to a disk")?;
    let (kernel, initrd) = boot_files(&root, release)?;
    fs::copy(root.join("boot").join(format!("vmlinuz-{kernel}")), fresh.join("vmlinuz"))
        .context("copying the kernel")?;
    fs::copy(&initrd, fresh.join("initrd.img")).context("copying the initrd")?;
    fs::remove_dir_all(&root).context("removing the unpacked root")?;
    fs::remove_file(&archive).context("removing the root's archive")?;
    fs::write(fresh.join("kernel"), kernel).context("writing the kernel's release")?;
    fs::write(fresh.join(COMPLETE), sizes(fresh)?).context("writing that the root is complete")
}

/// Returns the command for mmdebstrap. As root it mounts the host's /proc, /sys and /dev/shm into the root that it makes: in namespaces of
/// its own, these mounts and all its processes end when this run is killed. Its unpacked files are in a folder that the next run removes.
fn mmdebstrap(is_root: bool, fresh: &Path) -> Command {
    let unshared = |program: &str| {
        let mut unshare = tool::command("unshare");
        unshare.args(["--mount", "--mount-proc", "--pid", "--fork", "--kill-child", program]);
        unshare
    };
    let works = |command: &mut Command| tool::output(command).is_ok();
    if !is_root || !works(&mut unshared("true")) || !works(tool::command("mmdebstrap").arg("--version")) {
        return tool::command("mmdebstrap");
    }
    let mut command = unshared("mmdebstrap");
    tool::end_with_this_thread(command.env("TMPDIR", fresh));
    command
}

fn bootstrap(
    mut mmdebstrap: Command,
    release: Release,
    sources: &Path,
    archive: &Path,
) -> anyhow::Result<()> {
    mmdebstrap.args(["--variant=minbase", "--format=tar"]);
    mmdebstrap.arg(format!("--include={}", PACKAGES.join(",")));
    mmdebstrap.arg(format!("--customize-hook={KEEP_SYSTEMD}"));
    told(tool::output(mmdebstrap.arg(release.suite).arg(archive).arg(sources))).map(drop)
}

/// Returns shell commands that write the lab's own files into a root.
fn additions(root: &str) -> String {
    let units = format!("{root}/etc/systemd/system");
    let file = |path: &str, mode: &str, text: &str| {
        format!(
            "mkdir -p \"$(dirname \"{path}\")\"; cat > \"{path}\" <<'END_OF_FILE'\n{text}END_OF_FILE\nchmod {mode} \"{path}\"\n"
        )
    };
    [
        file(&format!("{root}/usr/lib/stockade-lab/agent"), "755", AGENT),
        file(&format!("{units}/stockade-lab.service"), "644", AGENT_UNIT),
        format!("mkdir -p \"{units}/multi-user.target.wants\"\n"),
        format!("ln -sf ../stockade-lab.service \"{units}/multi-user.target.wants/stockade-lab.service\"\n"),
        file(&format!("{root}/etc/fstab"), "644", "/dev/vda / ext4 defaults 0 1\n"),
        file(&format!("{root}/etc/machine-id"), "444", "uninitialized\n"),
        format!("mkdir -p \"{root}/srv/packages\"; rm -rf \"{root}/var/lib/apt/lists\""),
    ]
    .concat()
}

/// Finds the kernel's release and its initrd in the root's /boot.
fn boot_files(root: &Path, release: Release) -> anyhow::Result<(String, PathBuf)> {
    let boot = root.join("boot");
    let entries = fs::read_dir(&boot).with_context(|| format!("reading {}", boot.display()))?;
    let kernel = entries
        .flatten()
        .find_map(|entry| entry.file_name().to_str()?.strip_prefix("vmlinuz-").map(str::to_owned))
        .with_context(|| {
            format!(
                "{} of {} installed no kernel: /boot has no vmlinuz-*; see whether the archive still has the package",
                PACKAGES[0], release.suite
            )
        })?;
    let initrd = boot.join(format!("initrd.img-{kernel}"));
    ensure!(
        initrd.is_file(),
        "initramfs-tools made no initrd for the kernel {kernel} of {}: {} is missing",
        release.suite,
        initrd.display()
    );
    Ok((kernel, initrd))
}

/// Returns the free bytes of the folder's file system.
fn free(folder: &Path) -> anyhow::Result<u64> {
    let text = tool::text(tool::command("df").args(["--output=avail", "-B1"]).arg(folder))?;
    let last = text.lines().last().unwrap_or_default();
    last.trim().parse().with_context(|| format!("df printed {last:?} instead of a number"))
}

/// Adds the remedy to a tool's error, if its cause is known.
fn told<T>(result: anyhow::Result<T>) -> anyhow::Result<T> {
    let Err(error) = result else { return result };
    let text = format!("{error:#}");
    // The error is at the end of the output, after megabytes of progress.
    let lines: Vec<&str> = text.lines().collect();
    let end = lines[lines.len().saturating_sub(12)..].join("\n");
    let advice = debian::advice(&text).map(|advice| format!("\n{advice}")).unwrap_or_default();
    bail!("{end}{advice}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::systems::RELEASES;

    const RELEASE: Release = RELEASES[0];

    fn scratch(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("stockade-systems-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn fill(fresh: &Path) -> anyhow::Result<()> {
        for file in FILES {
            fs::write(fresh.join(file), file)?;
        }
        Ok(fs::write(fresh.join(COMPLETE), sizes(fresh)?)?)
    }

    #[test]
    fn what_a_killed_run_left_is_replaced_and_what_is_whole_is_used() {
        let systems = scratch("killed");
        let half = folder(&systems, RELEASE);
        fs::create_dir_all(&half).unwrap();
        fs::write(half.join("disk.ext4"), "half").unwrap();
        let temporary = systems.join(format!(".{}-{VERSION}.new-1", RELEASE.id));
        fs::create_dir_all(&temporary).unwrap();
        let older = systems.join(format!("{}-0", RELEASE.id));
        fs::create_dir_all(&older).unwrap();
        let other = systems.join(format!("{}-{VERSION}", RELEASES[1].id));
        fs::create_dir_all(&other).unwrap();

        assert!(ensure_made(&systems, RELEASE, false, fill).unwrap().is_some());
        assert!(!temporary.exists() && !older.exists() && other.exists());
        assert_eq!(fs::read_to_string(half.join("disk.ext4")).unwrap(), "disk.ext4");
        let never = |_: &Path| -> anyhow::Result<()> { bail!("made again") };
        assert_eq!(ensure_made(&systems, RELEASE, false, never).unwrap(), None);
        assert!(ensure_made(&systems, RELEASE, true, never).is_err());
        // The previous root stays when a newer one cannot be made.
        assert_eq!(ensure_made(&systems, RELEASE, false, never).unwrap(), None);
        fs::write(half.join("initrd.img"), "cut").unwrap();
        assert!(ensure_made(&systems, RELEASE, false, fill).unwrap().is_some());
        fs::remove_dir_all(systems).unwrap();
    }

    #[test]
    fn a_failed_run_keeps_nothing() {
        let systems = scratch("failed");
        let fails = |fresh: &Path| -> anyhow::Result<()> {
            fs::write(fresh.join("disk.ext4"), "half")?;
            bail!("No space left on device")
        };
        let error = format!("{:#}", ensure_made(&systems, RELEASE, false, fails).unwrap_err());
        assert!(error.contains("nothing half-made was kept") && error.contains("No space left"), "{error}");
        let left: Vec<_> = fs::read_dir(&systems).unwrap().flatten().map(|e| e.file_name()).collect();
        assert_eq!(left, [".debian-12.lock"]);
        fs::remove_dir_all(systems).unwrap();
    }

    #[test]
    fn each_cause_is_told_with_what_to_do() {
        for (said, remedy) in [
            ("tar: x: Cannot write: No space left on device", "XDG_CACHE_HOME"),
            ("Temporary failure resolving 'archive.example'", "network"),
            ("E: Failed to fetch http://a/b.deb  404  Not Found [IP: 192.0.2.1 80]", "Try again later"),
            ("E: Unable to locate package linux-image-cloud-amd64", "gone from the archive"),
            ("The repository 'x trixie Release' does not have a Release file.", "does not serve this suite"),
            ("E: newuidmap failed", "uidmap"),
        ] {
            let result: anyhow::Result<()> =
                Err(anyhow::anyhow!("mmdebstrap failed: {}{said}", "I: progress\n".repeat(50)));
            let error = format!("{:#}", told(result).unwrap_err());
            assert!(error.contains(said) && error.contains(remedy) && error.lines().count() < 16, "{error}");
        }
    }

    #[test]
    fn a_mmdebstrap_that_fails_or_is_missing_is_told_with_what_to_do() {
        let folder = scratch("tool");
        let (sources, archive) = (folder.join("archive.sources"), folder.join("root.tar"));
        let said = |program: &str| {
            format!("{:#}", bootstrap(tool::command(program), RELEASE, &sources, &archive).unwrap_err())
        };
        let missing = said("mmdebstrap-that-nobody-has");
        assert!(missing.contains("was not found; `cargo xtask setup` installs"), "{missing}");

        let fake = folder.join("mmdebstrap");
        // Another process writes the script: execve fails with ETXTBSY while a thread has the file open for writing.
        let script = "printf '#!/bin/sh\\necho \"E: Unable to locate package $1\" >&2\\nexit 25\\n' >\"$0\"; chmod 755 \"$0\"";
        tool::output(tool::command("sh").args(["-c", script]).arg(&fake)).unwrap();
        let failed = said(&fake.to_string_lossy());
        assert!(failed.contains("--variant=minbase") && failed.contains("A package is gone"), "{failed}");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_missing_kernel_or_initrd_is_named() {
        let root = scratch("kernel");
        let error = format!("{:#}", boot_files(&root, RELEASE).unwrap_err());
        assert!(error.contains("boot"), "{error}");
        fs::create_dir(root.join("boot")).unwrap();
        let error = format!("{:#}", boot_files(&root, RELEASE).unwrap_err());
        assert!(error.contains("linux-image-cloud-amd64 of bookworm installed no kernel"), "{error}");
        fs::write(root.join("boot/vmlinuz-6.1.0-cloud-amd64"), "").unwrap();
        let error = format!("{:#}", boot_files(&root, RELEASE).unwrap_err());
        assert!(error.contains("no initrd for the kernel 6.1.0-cloud-amd64"), "{error}");
        fs::remove_dir_all(root).unwrap();
    }
}
