//! SIGKILL between any two steps of `seal`, or of an addition to a seal, leaves either the old state or the new one.

use std::{fs, path::Path};

use anyhow::{Result, ensure};

use super::{
    PINS, as_before, enforced_unsealed, kcore_opens, killed_at, lift_all, mem_opens, verified, watching,
};
use crate::{
    guest::Guest,
    program::stockade,
    scenario::{Boot, Depends, Scenario},
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "seal: killed before the commit the old state is in force",
        boot: Boot::Sealed,
        depends: Depends::UserSide,
        run: before,
    },
    Scenario {
        name: "seal: leftovers of a kill go with the next command",
        boot: Boot::Sealed,
        depends: Depends::UserSide,
        run: cleaned_up,
    },
    // From here on the guest is sealed.
    Scenario {
        name: "seal: killed after the commit it holds",
        boot: Boot::SealedKilled,
        depends: Depends::Series,
        run: after,
    },
    Scenario {
        name: "seal: killed while a policy is added the old ones or the new one are in force",
        boot: Boot::SealedKilled,
        depends: Depends::UserSide,
        run: stacking,
    },
];

/// Three of the steps of `seal`, in order. The tests of stockade-kernel kill the command at every call.
const BEFORE: [&str; 3] = ["first-guard-attached", "sealed-attached", "alone"];

fn enforce_and_kill(step: &str) -> Result<()> {
    lift_all()?;
    stockade(&["enforce", "integrity"])?.exits(0)?;
    killed_at(step, &["seal"])?;
    enforced_unsealed()
}

fn before(_: &Guest) -> Result<()> {
    for step in BEFORE {
        enforce_and_kill(step)?;
        // Once a sealed program decides, its events go to a ring buffer that `watch` reads only after the commit.
        if step != "alone" {
            watching::dd("/dev/mem")?;
            let seen = watching::of_dd()?;
            ensure!(seen.iter().any(|e| e["reason"] == "dev-mem"), "killed at {step}: watch shows {seen:?}");
        }
        // No program decides after `lift`.
        as_before()?;
    }
    Ok(())
}

fn cleaned_up(_: &Guest) -> Result<()> {
    for step in ["guard-attached", "alone"] {
        enforce_and_kill(step)?;
        stockade(&["enforce", "none"])?.exits(0)?;
        ensure!(mem_opens(), "killed at {step}: leftovers refuse what the next policy allows");
        // The next seal starts anew, whatever step the killed one had reached.
        enforce_and_kill(step)?;
        killed_at("sealed-heard", &["seal"])?;
        as_before()?;
        // `lift` removes the leftovers also without the pins.
        enforce_and_kill(step)?;
        fs::remove_dir_all(PINS)?;
        stockade(&["lift"])?.exits(0)?.says("Nothing to lift")?;
        ensure!(mem_opens(), "killed at {step}: leftovers refuse, and lift has returned");
    }
    Ok(())
}

fn after(_: &Guest) -> Result<()> {
    lift_all()?;
    stockade(&["enforce", "integrity"])?.exits(0)?;
    killed_at("committed", &["seal"])?;
    let status = verified(1)?;
    ensure!(status["stockade"]["level"] == "integrity", "{status:#}");
    ensure!(Path::new(PINS).exists(), "the pins are gone: nothing is tried here");
    ensure!(!mem_opens() && kcore_opens(), "what is refused is not what integrity refuses");
    stockade(&["lift"])?.exits(2)?.says("sealed until it is rebooted")?;
    stockade(&["lift", "--force"])?.exits(2)?.says("sealed until it is rebooted")?;
    stockade(&["seal"])?.exits(2)?.says("sealed until it is rebooted")?;
    stockade(&["enforce", "integrity"])?.exits(0)?.says("Already in force")?;
    stockade(&["enforce", "none"])?.exits(2)?.says("allow instead of deny")?;
    while !watching::of_dd()?.is_empty() {}
    watching::dd("/dev/mem")?;
    let seen = watching::of_dd()?;
    ensure!(seen.len() == 1 && seen[0]["verdict"] == "refused", "{seen:?}");
    stockade(&["enforce", "integrity", "--deny", "kcore"])?.exits(0)?.says("added to what is sealed")?;
    ensure!(!kcore_opens() && !mem_opens(), "what was added is not refused");
    verified(2)?;
    // The pins of the policy before the seal are not needed any more.
    fs::remove_dir_all(PINS)?;
    ensure!(!kcore_opens() && !mem_opens(), "refused by pins alone");
    verified(2)?;
    Ok(())
}

fn tracing_opens() -> bool {
    fs::File::open("/sys/kernel/tracing/tracing_on").is_ok()
}

fn stacking(_: &Guest) -> Result<()> {
    super::seal_once(&["integrity", "--deny", "kcore"])?;
    let policies = super::in_force()?["sealed"]["policies"].as_u64().unwrap_or_default();
    killed_at("tables-written", &["enforce", "confidentiality"])?;
    verified(policies)?;
    ensure!(tracing_opens() && !mem_opens(), "killed before it was added, and something else is in force");
    killed_at("added", &["enforce", "confidentiality"])?;
    let status = verified(policies + 1)?;
    ensure!(status["stockade"]["level"] == "confidentiality", "{status:#}");
    ensure!(status["stockade"]["described"] == true, "{status:#}");
    ensure!(!tracing_opens() && !mem_opens(), "killed after it was added, and it does not refuse");
    stockade(&["enforce", "confidentiality"])?.exits(0)?.says("Already in force")?;
    verified(policies + 1)?;
    Ok(())
}
