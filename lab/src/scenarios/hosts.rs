/*!
Machines: `check-host` tries before it says yes, and machines on which Stockade cannot enforce are told why, by every command alike.
*/
use std::{fs, path::Path};

use anyhow::{Result, bail, ensure};
use stockade_kernel::{host, programs};

use super::lift_all;
use crate::{
    guest::Guest,
    program::{Answer, stockade, with_env},
    scenario::{Boot, Scenario, Skip},
};

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "on a kernel older than 5.15 every command that would enforce says so",
    boot: Boot::TooOld,
    run: too_old,
}];

/// The commands that change what is in force, and the one that says whether they can.
fn too_old(_: &Guest) -> Result<()> {
    let release = host::kernel_release();
    if host::is_at_least(5, 15) {
        bail!("{release} is not older than 5.15: this guest is for kernels that are");
    }
    let sentence =
        format!("kernel {release} is older than 5.15, the oldest kernel on which Stockade can enforce");
    for command in
        [&["enforce", "integrity"][..], &["seal"], &["grant", "kcore", "--uid", "0", "--for", "1m"]]
    {
        stockade(command)?.exits(2)?.says(&sentence)?;
    }
    stockade(&["check-host"])?.exits(1)?.says(&sentence)?.says("This host cannot enforce")?;
    Ok(())
}
