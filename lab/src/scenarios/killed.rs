//! SIGKILL between any two steps of `enforce` leaves either the old state or the new one.

use anyhow::{Result, ensure};

use super::lift_all;
use crate::{
    guest::Guest,
    program::{stockade, with_env},
    scenario::{Boot, Depends, Scenario},
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "killed while starting: nothing or everything",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: starting,
    },
    Scenario {
        name: "killed while replacing: the old policy or the new",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: replacing,
    },
];

fn killed_at(step: &str, level: &str) -> Result<()> {
    with_env(&["enforce", level], &[("STOCKADE_STOP_AT", step)])?.exits(-1)?;
    Ok(())
}

fn level() -> Result<Option<String>> {
    Ok(stockade(&["status", "--json"])?.json()?["stockade"]["level"].as_str().map(str::to_owned))
}

fn kcore_opens() -> bool {
    std::fs::File::open("/proc/kcore").is_ok()
}

fn starting(_: &Guest) -> Result<()> {
    // Two of the steps; the tests of stockade-kernel kill at every call.
    for step in ["attached", "counters"] {
        lift_all()?;
        killed_at(step, "confidentiality")?;
        ensure!(level()?.is_none() && kcore_opens(), "killed at {step}: something is enforced");
        stockade(&["enforce", "confidentiality"])?.exits(0)?;
        ensure!(!kcore_opens(), "killed at {step}: the next enforce did not take");
    }
    lift_all()?;
    killed_at("link-pinned", "confidentiality")?;
    ensure!(level()?.as_deref() == Some("confidentiality") && !kcore_opens(), "killed after the commit");
    // `lift` removes the leftovers of an interrupted start.
    lift_all()?;
    killed_at("counters", "integrity")?;
    stockade(&["lift"])?.exits(0)?.says("Nothing to lift")?;
    ensure!(!std::path::Path::new("/sys/fs/bpf/stockade").exists(), "lift left the leftovers");
    Ok(())
}

fn replacing(_: &Guest) -> Result<()> {
    lift_all()?;
    stockade(&["enforce", "confidentiality"])?.exits(0)?;
    killed_at("slot-written", "integrity")?;
    ensure!(level()?.as_deref() == Some("confidentiality") && !kcore_opens(), "killed before the flip");
    killed_at("flipped", "integrity")?;
    ensure!(level()?.as_deref() == Some("integrity") && kcore_opens(), "killed after the flip");
    stockade(&["enforce", "confidentiality"])?.exits(0)?;
    ensure!(!kcore_opens(), "the policy after a kill did not take");
    Ok(())
}
