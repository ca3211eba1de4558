//! The seal does not depend on the mounts of the cgroup hierarchy.

use std::{fs, process::Command};

use anyhow::{Result, ensure};

use super::{BUSYBOX, kcore_opens, lift_all, mem_opens, policy::Cgroup, policy::opens, verified, would_seal};
use crate::{
    guest::Guest,
    program::{run, stockade},
    scenario::{Boot, Depends, Scenario},
    scenarios::{
        Mounted,
        cgroups::{CONTROLLERS, mount, mount_v1},
    },
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "seal: with both cgroup versions it succeeds",
        boot: Boot::Sealed,
        depends: Depends::NewestSeries,
        run: hybrid,
    },
    Scenario {
        name: "seal: with cgroup v2 mounted over it succeeds",
        boot: Boot::Sealed,
        depends: Depends::NewestSeries,
        run: covered,
    },
    Scenario {
        name: "seal: with cgroup v2 mounted elsewhere alone it succeeds",
        boot: Boot::Sealed,
        depends: Depends::NewestSeries,
        run: elsewhere,
    },
    // From here on the guest is sealed.
    Scenario {
        name: "seal: with cgroup v1 alone it holds",
        boot: Boot::SealedLegacy,
        depends: Depends::Series,
        run: legacy,
    },
];

const ROOT: &str = "/sys/fs/cgroup";

fn enforce_and_seal() -> Result<()> {
    lift_all()?;
    stockade(&["enforce", "integrity"])?.exits(0)?;
    would_seal(&[])?;
    // The next command finds the unfinished seal and removes it.
    super::as_before()
}

fn hybrid(_: &Guest) -> Result<()> {
    mount_v1()?;
    mount("cgroup2", &format!("{ROOT}/unified"), "")?;
    enforce_and_seal()
}

fn covered(_: &Guest) -> Result<()> {
    let _cover = Mounted::tmpfs(ROOT)?;
    enforce_and_seal()
}

/// Seals while another mount shows only a part of the hierarchy.
fn elsewhere(_: &Guest) -> Result<()> {
    mount_v1()?;
    let whole = "/tmp/a place with spaces";
    mount("cgroup2", whole, "")?;
    let child = format!("{whole}/lab-child");
    fs::create_dir(&child)?;
    let part = format!("{ROOT}/part");
    fs::create_dir_all(&part)?;
    run(Command::new(BUSYBOX).args(["mount", "-o", "bind", &child, &part]))?.exits(0)?;
    let sealed = enforce_and_seal();
    run(Command::new(BUSYBOX).args(["umount", &part]))?.exits(0)?;
    fs::remove_dir(&child)?;
    sealed
}

fn mem() -> Command {
    opens(BUSYBOX, "/dev/mem")
}

/// The v2 hierarchy is not mounted in any namespace while the guest is sealed, and is mounted later.
fn legacy(_: &Guest) -> Result<()> {
    run(Command::new(BUSYBOX).args(["umount", ROOT]))?.exits(0)?;
    mount("tmpfs", ROOT, "")?;
    for controller in CONTROLLERS {
        mount("cgroup", &format!("{ROOT}/{controller}"), controller)?;
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(!mounts.contains(" - cgroup2 "), "cgroup2 is mounted still:\n{mounts}");
    stockade(&["enforce", "integrity"])?.exits(0)?;
    stockade(&["seal"])?.exits(0)?;
    verified(1)?;
    let refused = || -> Result<()> {
        ensure!(!mem_opens() && kcore_opens(), "the root is not refused what integrity refuses");
        for controller in CONTROLLERS {
            Cgroup::new(&format!("/{controller}/lab"))?.expect(mem(), false)?;
        }
        Ok(())
    };
    refused()?;
    stockade(&["lift"])?.exits(2)?.says("sealed until it is rebooted")?;
    let v2 = format!("{ROOT}/unified");
    mount("cgroup2", &v2, "")?;
    let parent = Cgroup::new("/unified/parent")?;
    let child = Cgroup::new("/unified/parent/child")?;
    parent.expect(mem(), false)?;
    child.expect(mem(), false)?;
    verified(1)?;
    drop(child);
    drop(parent);
    run(Command::new(BUSYBOX).args(["umount", &v2]))?.exits(0)?;
    stockade(&["enforce", "integrity", "--deny", "kcore"])?.exits(0)?.says("added to what is sealed")?;
    ensure!(!kcore_opens(), "added where no cgroup2 is mounted, and not refused");
    verified(2).map(drop)
}
