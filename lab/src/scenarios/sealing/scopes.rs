//! A policy with scopes is sealed only with `--best-effort`, and `status` reports the weakness until reboot.

use std::{cmp::Ordering, fs, os::unix::fs::MetadataExt, process::Command, thread::sleep, time::Duration};

use anyhow::{Result, bail, ensure};

use super::{
    BUSYBOX, PINS, enforced_unsealed, kcore_opens, lift_all, mem_opens,
    policy::{Cgroup, TREE, apply, opens},
    texts, verified,
};
use crate::{
    guest::Guest,
    program::{run, stockade},
    scenario::{Boot, Depends, Scenario},
    scenarios::cgroups::mount,
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "seal: a policy with scopes needs best effort",
        boot: Boot::SealedScopes,
        depends: Depends::NewestSeries,
        run: refused,
    },
    // From here on the guest is sealed.
    Scenario {
        name: "seal: scopes hold, and new cgroups get theirs",
        boot: Boot::SealedScopes,
        depends: Depends::Series,
        run: holds,
    },
    Scenario {
        name: "seal: scopes hold beside a cgroup v1 with the same id",
        boot: Boot::SealedScopes,
        depends: Depends::Series,
        run: same_id,
    },
    Scenario {
        name: "seal: without the pins only new cgroups are left out",
        boot: Boot::SealedScopes,
        depends: Depends::NewestSeries,
        run: unpinned,
    },
];

const POLICY: &str = "level = \"integrity\"\n[[scope]]\nname = \"pods\"\ncgroup = \"/pods\"\nlevel = \"confidentiality\"\n\
     [[scope]]\nname = \"late\"\ncgroup = \"/late\"\nlevel = \"confidentiality\"\n";

fn kcore() -> Command {
    opens(BUSYBOX, "/proc/kcore")
}

fn refused(_: &Guest) -> Result<()> {
    lift_all()?;
    let pods = Cgroup::new("/pods")?;
    apply(POLICY)?;
    stockade(&["seal"])?
        .exits(2)?
        .says("would leave something open")?
        .says("new cgroups get their scopes from programs that root can end")?
        .says("--best-effort")?;
    enforced_unsealed()?;
    // Two seals that are killed before the commit: entries that the first left in the tables do not matter.
    super::would_seal(&["--best-effort"])?;
    super::killed_at("sealed-pinned", &["seal", "--best-effort"])?;
    // The scopes still apply, to existing cgroups and to new ones.
    pods.expect(kcore(), false)?;
    Cgroup::new("/late")?.expect(kcore(), false)?;
    super::killed_at("sealed-pinned", &["seal", "--best-effort"])?;
    stockade(&["enforce"])?.exits(0)?.says("Already in force")?;
    Cgroup::new("/late")?.expect(kcore(), false)?;
    super::as_before()
}

fn holds(_: &Guest) -> Result<()> {
    lift_all()?;
    let pods = Cgroup::new("/pods")?;
    apply(POLICY)?;
    let report = stockade(&["seal", "--best-effort", "--json"])?.exits(0)?.json()?;
    ensure!(texts(&report["left_open"]).len() == 1, "{report:#}");
    let status = verified(1)?;
    let open = texts(&status["stockade"]["sealed"]["left_open"]);
    ensure!(open.len() == 1 && open[0].contains("new cgroups"), "{status:#}");
    stockade(&["status"])?
        .exits(0)?
        .says("left open      new cgroups get their scopes")?
        .says("pods (/pods)")?;
    ensure!(!mem_opens() && kcore_opens(), "the host is not at integrity");
    pods.expect(kcore(), false)?;
    let below = Cgroup::new("/pods/below")?;
    below.expect(kcore(), false)?;
    let late = Cgroup::new("/late")?;
    late.expect(kcore(), false)?;
    drop(late);
    let late = Cgroup::new("/late")?;
    late.expect(kcore(), false)?;
    let other = Cgroup::new("/other")?;
    other.expect(kcore(), true)?;
    other.expect(opens(BUSYBOX, "/dev/mem"), false)?;
    drop(below);
    // The cgroup stays for the next scenario, since its scope is sealed.
    std::mem::forget(pods);
    stockade(&["lift", "--force"])?.exits(2)?.says("sealed until it is rebooted")?;
    stockade(&["enforce"])?.exits(0)?.says("Already in force")?;
    stockade(&["enforce", "integrity"])?.exits(2)?.says("the scope pods is gone")?;
    verified(1).map(drop)
}

/// A v1 cgroup with the id of a v2 cgroup changes no scope: ids are unique only within a hierarchy, and root can create any number of v1 cgroups.
fn same_id(_: &Guest) -> Result<()> {
    ensure!(!super::in_force()?["sealed"].is_null(), "play these scenarios together");
    mount("cgroup", V1, "none,name=lab")?;
    let released = || -> Result<()> {
        let _scoped = collide("/any", "/late")?;
        fs::remove_dir(format!("{V1}/any"))?;
        sleep(RELEASE);
        Cgroup::there("/late").expect(kcore(), false)
    };
    let made = || -> Result<()> {
        let other = collide("/late", "/other")?;
        other.expect(kcore(), true)?;
        fs::remove_dir(format!("{V1}/late"))?;
        Ok(())
    };
    let went = released().and_then(|()| made());
    run(Command::new(BUSYBOX).args(["umount", V1]))?.exits(0)?;
    went
}

const V1: &str = "/tmp/v1";

/// The time after which the kernel has released a removed cgroup.
const RELEASE: Duration = Duration::from_secs(1);

/// Creates a v1 cgroup and a v2 cgroup with these paths and the same id.
fn collide(v1: &str, v2: &str) -> Result<Cgroup> {
    let v1 = format!("{V1}{v1}");
    fs::create_dir(&v1)?;
    let mut v2s = Cgroup::new(v2)?;
    for _ in 0..5000 {
        let ids = (fs::metadata(&v1)?.ino(), fs::metadata(format!("{TREE}{v2}"))?.ino());
        match ids.0.cmp(&ids.1) {
            Ordering::Equal => return Ok(v2s),
            Ordering::Less => {
                fs::remove_dir(&v1)?;
                fs::create_dir(&v1)?;
            }
            Ordering::Greater => {
                drop(v2s);
                v2s = Cgroup::new(v2)?;
            }
        }
    }
    bail!("no two cgroups got the same id")
}

fn unpinned(_: &Guest) -> Result<()> {
    let pods = Cgroup::there("/pods");
    ensure!(!super::in_force()?["sealed"].is_null(), "play these scenarios together");
    fs::remove_dir_all(PINS)?;
    ensure!(!mem_opens() && kcore_opens(), "the host is not at integrity");
    pods.expect(kcore(), false)?;
    pods.expect(opens(BUSYBOX, "/dev/mem"), false)?;
    let status = verified(1)?;
    ensure!(texts(&status["stockade"]["sealed"]["left_open"]).len() == 1, "{status:#}");
    let late = Cgroup::new("/late")?;
    // The policy of the parent decides for a new cgroup: the weakness that `status` reports.
    late.expect(opens(BUSYBOX, "/dev/mem"), false)?;
    stockade(&["lift"])?.exits(2)?.says("sealed until it is rebooted")?;
    Ok(())
}
