//! Compares the answers under Stockade with those under native lockdown raised at run time: to root, to a 32-bit program of root and to root of a
//! user namespace. It has a boot of its own, since native lockdown cannot be lowered.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use super::{enforcement::doors, lift_all};
use crate::raw::{self, Caller, Entry};
use crate::{
    guest::Guest,
    program::stockade,
    scenario::{Boot, Depends, Scenario},
};

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "the same answers as native lockdown at both levels",
    boot: Boot::Raised,
    depends: Depends::Flavour,
    run: same,
}];

const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

/// The answers that one caller gets, by door.
type View = BTreeMap<String, String>;

/// A caller, and the function that tries the doors as this caller.
type Look = (&'static str, fn() -> Result<View>);

const CALLERS: [Look; 4] = [
    ("probe", probe),
    ("a 32-bit program", || bare(Entry::Compat, Caller::Root)),
    ("root of a user namespace", || bare(Entry::Native, Caller::Container(0))),
    ("a 32-bit program in a user namespace", || bare(Entry::Compat, Caller::Container(0))),
];

fn same(_: &Guest) -> Result<()> {
    let mut ours = Vec::new();
    for level in ["integrity", "confidentiality"] {
        lift_all()?;
        stockade(&["enforce", level])?.exits(0)?;
        ours.push((level, views()?));
    }
    for (level, ours) in ours {
        // Native lockdown is raised while Stockade's level is none, so Stockade must not change an answer.
        stockade(&["enforce", "none"])?.exits(0)?;
        std::fs::write(LOCKDOWN, level)?;
        compare(&format!("{level}, native above Stockade's none"), &views()?, &ours)?;
        lift_all()?;
        compare(&format!("{level}, native alone"), &views()?, &ours)?;
    }
    Ok(())
}

fn compare(situation: &str, native: &[View], ours: &[View]) -> Result<()> {
    let mut different = Vec::new();
    for (((caller, _), native), ours) in CALLERS.iter().zip(native).zip(ours) {
        ensure!(
            native.len() == ours.len(),
            "{situation}: {caller} sees {} doors under native, {} under Stockade",
            native.len(),
            ours.len()
        );
        for (door, native) in native {
            let ours = ours.get(door).map_or("nothing", String::as_str);
            if native != ours {
                different.push(format!("{situation}, {caller}, {door}: native {native}, Stockade {ours}"));
            }
        }
    }
    ensure!(different.is_empty(), "{}", different.join("\n"));
    Ok(())
}

fn views() -> Result<Vec<View>> {
    CALLERS.iter().map(|(_, look)| look()).collect()
}

/// Returns the answers of `probe`, without the component that refuses.
fn probe() -> Result<View> {
    let view = doors()?.into_iter().map(|((reason, door), (answer, errno))| {
        let refused = if answer.starts_with("refused") { "refused" } else { "free" };
        (format!("{reason} ({door})"), format!("{refused}, errno {errno:?}"))
    });
    Ok(view.collect())
}

fn bare(entry: Entry, caller: Caller) -> Result<View> {
    let answers = raw::answers(entry, caller)?;
    Ok(answers.into_iter().map(|(door, errno)| (door.to_owned(), format!("errno {errno}"))).collect())
}
