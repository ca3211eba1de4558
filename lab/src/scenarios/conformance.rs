//! The same doors, the same answers: Stockade against the kernel's own lockdown raised at run time.
//! Plays in a boot of its own, since native lockdown only goes up.

use anyhow::{Result, ensure};

use super::{enforcement::doors, lift_all};
use crate::{
    guest::Guest,
    program::stockade,
    scenario::{Boot, Scenario},
};

pub(super) const SCENARIOS: &[Scenario] =
    &[Scenario { name: "the same answers as native lockdown at both levels", boot: Boot::Raised, run: same }];

const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

fn same(_: &Guest) -> Result<()> {
    let mut ours = Vec::new();
    for level in ["integrity", "confidentiality"] {
        lift_all()?;
        stockade(&["enforce", level])?.exits(0)?;
        ours.push((level, doors()?));
    }
    lift_all()?;
    for (level, ours) in ours {
        std::fs::write(LOCKDOWN, level)?;
        let native = doors()?;
        let mut different = Vec::new();
        for (door, (answer, errno)) in &native {
            let (wanted, wanted_errno) = ours.get(door).cloned().unwrap_or_default();
            let alike =
                wanted.starts_with("refused") == answer.starts_with("refused") && wanted_errno == *errno;
            if !alike {
                different.push(format!(
                    "{level} {door:?}: native {answer} {errno:?}, Stockade {wanted} {wanted_errno:?}"
                ));
            }
        }
        ensure!(
            native.len() == ours.len(),
            "{} doors under native, {} under Stockade",
            native.len(),
            ours.len()
        );
        ensure!(different.is_empty(), "{}", different.join("\n"));
    }
    Ok(())
}
