//! Stockade beside native lockdown.

use anyhow::{Result, ensure};
use stockade_kernel::btf::KernelTypes;
use stockade_reasons::Level;

use super::{enforcement::doors, lift_all};
use crate::{
    guest::Guest,
    program::stockade,
    scenario::{Boot, Depends, Scenario},
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "under native integrity both refuse their own",
        boot: Boot::NativeIntegrity,
        depends: Depends::Flavour,
        run: integrity,
    },
    Scenario {
        name: "it loads under native confidentiality and says it has nothing to add",
        boot: Boot::NativeConfidentiality,
        depends: Depends::Series,
        run: confidentiality,
    },
    Scenario {
        name: "native raised over Stockade's integrity: the stricter refuses, and each is named",
        boot: Boot::RaisedOverIntegrity,
        depends: Depends::NewestSeries,
        run: over_integrity,
    },
    Scenario {
        name: "native raised over Stockade's confidentiality: the stricter refuses, and each is named",
        boot: Boot::RaisedOverConfidentiality,
        depends: Depends::NewestSeries,
        run: over_confidentiality,
    },
];

const LEVELS: [Level; 3] = [Level::None, Level::Integrity, Level::Confidentiality];

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

/// Raises native lockdown from none and from integrity while Stockade enforces integrity, then starts every level of Stockade on top of it.
/// [`super::conformance`] plays native lockdown above Stockade's none.
fn over_integrity(_: &Guest) -> Result<()> {
    for native in [Level::Integrity, Level::Confidentiality] {
        raise_over(Level::Integrity, native)?;
        for on_top in LEVELS {
            stockade(&["lift"])?.exits(0)?.says(&format!("stays at {native}"))?;
            enforce(on_top)?;
            both(native, on_top)?;
        }
        stockade(&["lift"])?.exits(0)?;
        both(native, Level::None)?;
    }
    Ok(())
}

/// Raises native lockdown while Stockade enforces confidentiality, then replaces the policy by every level.
fn over_confidentiality(_: &Guest) -> Result<()> {
    for native in [Level::Integrity, Level::Confidentiality] {
        raise_over(Level::Confidentiality, native)?;
        for on_top in LEVELS {
            enforce(on_top)?;
            both(native, on_top)?;
        }
        stockade(&["lift"])?.exits(0)?;
        both(native, Level::None)?;
    }
    Ok(())
}

fn raise_over(ours: Level, native: Level) -> Result<()> {
    lift_all()?;
    enforce(ours)?;
    std::fs::write("/sys/kernel/security/lockdown", native.to_string())?;
    both(native, ours)
}

fn enforce(level: Level) -> Result<()> {
    stockade(&["enforce", &level.to_string()])?.exits(0)?.says(&format!("In force: {level}"))?;
    Ok(())
}

/// Requires that the stricter of both refuses each door. Where both would, native lockdown refuses, since the kernel calls it first.
fn both(native: Level, ours: Level) -> Result<()> {
    let types = KernelTypes::of_running_kernel()?;
    for ((reason, door), (answer, errno)) in doors()? {
        let integrity = stockade_reasons::by_id(&reason)
            .and_then(|known| types.number(known.enum_name))
            .is_some_and(|number| types.is_integrity(number));
        let needed = if integrity { Level::Integrity } else { Level::Confidentiality };
        let wanted = if native >= needed {
            "refused-by-native"
        } else if ours >= needed {
            "refused-by-stockade"
        } else {
            "free"
        };
        ensure!(
            answer == wanted,
            "native at {native}, Stockade at {ours}: {reason} ({door}) is {answer} (errno {errno:?}), not {wanted}"
        );
    }
    Ok(())
}
