//! 32-bit system calls enter the kernel by another path and get the same answers.

use anyhow::{Result, ensure};

use super::lift_all;
use crate::raw::{Caller, Entry, answers, differences, shut};
use crate::{
    guest::Guest,
    program::stockade,
    scenario::{Boot, Depends, Scenario},
};

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "32-bit callers get the same answers",
    boot: Boot::Plain,
    depends: Depends::Flavour,
    run: same,
}];

/// Compares 32-bit with 64-bit callers. [`super::conformance`] compares 32-bit callers with native lockdown.
fn same(_: &Guest) -> Result<()> {
    lift_all()?;
    let free = answers(Entry::Compat, Caller::Root)?;
    for (level, doors_shut) in [("none", 0), ("integrity", 10), ("confidentiality", 13)] {
        stockade(&["enforce", level])?.exits(0)?;
        let here = answers(Entry::Compat, Caller::Root)?;
        let there = answers(Entry::Native, Caller::Root)?;
        let different = differences(&here, &there);
        ensure!(different.is_empty(), "{level}, 32-bit and 64-bit: {}", different.join("\n"));
        let count = shut(&free, &here);
        ensure!(
            (count >= doors_shut) && (doors_shut > 0 || count == 0),
            "{level} shut {count} doors: {here:?}"
        );
    }
    Ok(())
}
