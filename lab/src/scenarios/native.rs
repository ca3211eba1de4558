//! Beside the kernel's own lockdown.

use anyhow::{Result, ensure};

use super::lift_all;
use crate::{
    guest::Guest,
    program::stockade,
    scenario::{Boot, Scenario},
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "under native integrity both refuse their own",
        boot: Boot::NativeIntegrity,
        run: integrity,
    },
    Scenario {
        name: "it loads under native confidentiality and says it has nothing to add",
        boot: Boot::NativeConfidentiality,
        run: confidentiality,
    },
];

fn answers(of: &str) -> Result<Vec<(String, String)>> {
    let report = stockade(&["probe", "--json"])?.json()?;
    Ok(report["doors"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|door| door["answer"] == of)
        .map(|door| (door["reason"].as_str().unwrap_or_default().into(), door["door"].to_string()))
        .collect())
}

fn integrity(_: &Guest) -> Result<()> {
    lift_all()?;
    ensure!(
        answers("free")?.iter().all(|(reason, _)| level(reason) == "confidentiality"),
        "{:?}",
        answers("free")?
    );
    stockade(&["enforce", "confidentiality", "--allow", "ioport"])?
        .exits(0)?
        .says("the kernel's own lockdown is at integrity")?
        .says("proven: a real request (kcore)")?;
    let (native, ours) = (answers("refused-by-native")?, answers("refused-by-stockade")?);
    ensure!(
        native.iter().any(|(reason, _)| reason == "ioport"),
        "allowing here must not open what native refuses"
    );
    ensure!(native.iter().all(|(reason, _)| level(reason) == "integrity"), "{native:?}");
    ensure!(ours.len() >= 4 && ours.iter().all(|(reason, _)| level(reason) == "confidentiality"), "{ours:?}");
    ensure!(answers("free")?.is_empty(), "{:?}", answers("free")?);
    stockade(&["status"])?.exits(0)?.says("refuses first")?;
    stockade(&["lift"])?.exits(0)?.says("stays at integrity")?;
    Ok(())
}

fn level(reason: &str) -> String {
    stockade_reasons::by_id(reason).map(|r| r.level.to_string()).unwrap_or_default()
}

fn confidentiality(_: &Guest) -> Result<()> {
    lift_all()?;
    stockade(&["enforce", "integrity"])?
        .exits(0)?
        .says("the kernel's own lockdown is at confidentiality")?
        .says("self-test not possible")?;
    stockade(&["status"])?.exits(0)?;
    ensure!(
        answers("free")?.is_empty() && answers("refused-by-stockade")?.is_empty(),
        "native refuses everything first"
    );
    stockade(&["lift"])?.exits(0)?.says("stays at confidentiality")?;
    Ok(())
}
