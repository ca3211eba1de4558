/*!
Flips: the findings of `stockade assess` in guests that differ in one thing, and before and after one change.
*/
use std::fs;

use anyhow::{Context, Result, ensure};

use crate::{
    boots::Boot,
    flips::{self, Answers, Assessed, BASES, BOOTED},
    guest::Guest,
    program::stockade,
    protocol::{Event, TOLD},
    scenario::{Depends, Scenario},
};

mod changes;
mod programs;
pub(super) mod traces;

/// The file of a guest for the findings before the next change.
const BEFORE: &str = "/run/assessed";

/// Boots that every run of the tests plays: the bases of the comparisons, and one boot for each source that stockade-assess reads. The other boots
/// differ in another word of the kernel command line, which the same code reads.
const IN_TESTS: &[Boot] = &[
    Boot::Assessed,
    Boot::AssessedNoKaslr,
    Boot::AssessedNoMitigations,
    Boot::AssessedConfidentiality,
    Boot::AssessedSelinux,
    Boot::AssessedTpm,
    Boot::AssessedIommu,
    Boot::AssessedIommuOff,
    Boot::Efi,
    Boot::SecureBoot,
];

/// Returns every change.
fn all_changes() -> impl Iterator<Item = &'static changes::Change> {
    changes::ALL.iter().chain(programs::ALL)
}

/// Returns every scenario: first those that send the findings of a guest to the host, then the changes in a running guest.
pub(super) fn all() -> Vec<Scenario> {
    let booted = BOOTED.iter().map(|booted| booted.boot);
    let mut boots: Vec<Boot> = booted.chain(BASES.iter().copied()).collect();
    boots.sort();
    boots.dedup();
    let tell = |boot: Boot| -> Scenario {
        // The leak is small: a process calls this a few times.
        let name: &'static str =
            Box::leak(format!("flips: what is assessed in the guest {boot}").into_boxed_str());
        let depends = if IN_TESTS.contains(&boot) { Depends::NewestSeries } else { Depends::FullTest };
        Scenario { name, boot, depends, run: tell }
    };
    let changed = all_changes().map(|change| Scenario {
        name: change.name,
        boot: change.boot,
        depends: Depends::NewestSeries,
        run: changes::play,
    });
    boots.into_iter().map(tell).chain(changed).collect()
}

/// Returns the current findings of `stockade assess --quick` as root, without slow measurements.
fn assess() -> Result<Answers> {
    let answer = stockade(&["assess", "--json", "--quick"])?;
    ensure!(matches!(answer.code, 0 | 1), "{} ended with {}\n{}", answer.line, answer.code, answer.err);
    flips::read(&answer.json()?)
}

/// Sends the findings to the host.
fn tell(_: &Guest) -> Result<()> {
    let event = Event::Assessed(Assessed { measured: false, answers: assess()? });
    fs::write(TOLD, serde_json::to_vec(&event)?).with_context(|| format!("writing {TOLD}"))
}
