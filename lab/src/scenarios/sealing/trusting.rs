//! A seal beside programs of others that an administrator trusts.

use std::{fs::File, io};

use anyhow::{Context, Result, ensure};

use super::{
    enforced_unsealed,
    foreign::{Foreign, Kind},
    kcore_opens, lift_all, mem_opens, says_all, texts, verified,
};
use stockade_kernel::host;

use crate::{
    guest::Guest,
    program::stockade,
    scenario::{Boot, Depends, Scenario},
};

pub(super) const SCENARIOS: &[Scenario] = &[
    // From here on sealed.
    Scenario {
        name: "seal: trusted programs stay and no others come",
        boot: Boot::SealedTrusting,
        depends: Depends::Series,
        run: trusting,
    },
];

fn trusting(_: &Guest) -> Result<()> {
    lift_all()?;
    let root = File::open("/sys/fs/cgroup")?;
    let lsm = Foreign::load(Kind::Lsm, 11)?;
    let _link = lsm.attach()?;
    let sysctl = Foreign::load(Kind::CgroupSysctl, 12)?;
    let beside = Foreign::load(Kind::LsmCgroup, 13)?;
    stockade(&["enforce", "integrity"])?.exits(0)?;
    beside.attach_to(&root).context("attach to the root cgroup")?;
    says_all(stockade(&["seal"])?.exits(2)?, &["lab_sysctl", "asked for sysctls"])?;
    let bounded = host::is_at_least(6, 12);
    let names: &[&str] =
        if bounded { &["lab_lsm_cgroup (LSM)"] } else { &["lab_lsm (LSM)", "lab_lsm_cgroup (LSM)"] };
    says_all(stockade(&["seal", "--trust", &sysctl.tag])?.exits(2)?, names)?;
    enforced_unsealed()?;

    let (id, other) = (lsm.id.to_string(), beside.id.to_string());
    let trust = ["seal", "--json", "--trust", &id, "--trust", &sysctl.tag, "--trust", &other];
    let answer = stockade(&trust)?;
    let report = answer.exits(0)?.json()?;
    ensure!(
        texts(&report["trusted"])
            == [
                format!("{id} lab_lsm {}", lsm.tag),
                format!("{} lab_sysctl {}", sysctl.id, sysctl.tag),
                format!("{other} lab_lsm_cgroup {}", beside.tag)
            ],
        "{report:#}"
    );
    ensure!(!mem_opens() && kcore_opens(), "what is refused is not what integrity refuses");
    verified(1)?;
    stockade(&["lift"])?.exits(2)?.says("sealed until it is rebooted")?;

    // The same may come again, no other may: whatever it would be attached to.
    for (kind, number) in [(Kind::Lsm, 11), (Kind::CgroupSysctl, 12), (Kind::LsmCgroup, 13)] {
        Foreign::load(kind, number)?;
        if bounded && kind == Kind::Lsm {
            // It can only refuse more.
            continue;
        }
        let answer = Foreign::try_load(kind, number + 100)?;
        ensure!(
            answer.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied),
            "{kind:?}: {answer:?}"
        );
    }
    // What is attached to the root stays there.
    let gone = beside.detach_from(&root);
    ensure!(gone.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied), "{gone:?}");
    ensure!(!mem_opens(), "/dev/mem opens");
    Ok(())
}
