/*!
Steps that have passed are skipped until one of their inputs changes: the programs that are put into guests, the kernels, and this
program, which plays them. Their digests are in the target folder, so that a clean clone plays everything.
*/
use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use stockade_lab::{cache, kernels, report::Counts};

use crate::{bpf::hex, lab, programs, workspace};

/// The last run in which a step passed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Passed {
    /// A digest of the inputs of the step.
    saw: String,
    /// The time of the run, for people.
    pub when: String,
    /// The number of tests of the step.
    pub tests: usize,
}

/// The steps that have passed, by name.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Steps(BTreeMap<String, Passed>);

fn file() -> anyhow::Result<PathBuf> {
    Ok(workspace::lab_folder()?.join("passed.json"))
}

impl Steps {
    /// Loads the noted steps; none where the file is missing or damaged.
    pub fn load() -> Self {
        let text = file().ok().and_then(|file| fs::read(file).ok());
        text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    /// Returns the last run in which a step passed, if its inputs are the same now.
    pub fn passed(&self, step: &str, saw: &str) -> Option<&Passed> {
        self.0.get(step).filter(|passed| passed.saw == saw)
    }

    /// Notes the outcome of a step. The entry of a failed step is removed.
    pub fn note(&mut self, step: &str, saw: &str, counts: Counts) -> anyhow::Result<()> {
        if counts.failed == 0 {
            let when = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string();
            let tests = counts.passed + counts.skipped;
            self.0.insert(step.to_owned(), Passed { saw: saw.to_owned(), when, tests });
        } else {
            self.0.remove(step);
        }
        cache::write(&file()?, &serde_json::to_vec(self).context("writing as JSON what has passed")?)
    }
}

/// Returns a digest of the inputs of all guests, of this program, and of these files.
pub fn seen(more: &[&Path]) -> anyhow::Result<String> {
    let mut digest = Sha256::new();
    digest.update(guests()?);
    for path in more {
        digest.update(of_file(path)?);
    }
    Ok(hex(&digest.finalize()))
}

fn of_file(path: &Path) -> anyhow::Result<Vec<u8>> {
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(Sha256::digest(bytes).to_vec())
}

/// Returns the digest of the inputs that every step shares. Builds the programs, once.
fn guests() -> anyhow::Result<&'static [u8]> {
    static GUESTS: OnceLock<Vec<u8>> = OnceLock::new();
    if let Some(guests) = GUESTS.get() {
        return Ok(guests);
    }
    let mut digest = Sha256::new();
    for program in programs::build()? {
        digest.update(of_file(&program.source)?);
    }
    digest.update(of_file(&env::current_exe().context("looking for this program")?)?);
    for id in lab::IN_TESTS {
        let release = kernels::get(id, false).map_or_else(|_| "none".to_owned(), |kernel| kernel.release);
        digest.update(format!("{id} {release}\n"));
    }
    Ok(GUESTS.get_or_init(|| digest.finalize().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_has_passed_only_for_what_it_saw() {
        let passed = Passed { saw: "these programs".into(), when: "then".into(), tests: 3 };
        let steps = Steps(BTreeMap::from([("lab".to_owned(), passed)]));
        assert_eq!(steps.passed("lab", "these programs").map(|passed| passed.tests), Some(3));
        assert!(steps.passed("lab", "others").is_none());
        assert!(steps.passed("bench", "these programs").is_none());
    }
}
