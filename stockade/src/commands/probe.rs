/*!
`stockade probe`: evidence instead of configuration. Every door is tried; who refused is told from both
sides' state and, for Stockade, from its own counter of that reason having moved.
*/
use std::{collections::BTreeMap, fmt::Write};

use anyhow::Result;
use schemars::JsonSchema;
use serde::Serialize;
use stockade_kernel::{
    btf::KernelTypes,
    host,
    read_back::{InForce, read_back},
};
use stockade_probe::{Answer, Door};
use stockade_reasons::Level;

use crate::{Exit, flags, output};

/// The output of `probe --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Report {
    /// `uname -r`
    pub kernel: String,
    /// Level of the kernel's own lockdown
    pub native_lockdown: String,
    /// Every door that was looked at
    pub doors: Vec<Tried>,
}

/// A door and its answer.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Tried {
    /// The reason's id
    pub reason: String,
    /// What was tried
    pub door: String,
    /// The answer
    pub answer: Verdict,
    /// More about it, in words
    pub detail: Option<String>,
    /// The errno behind it
    pub errno: Option<i32>,
}

/// The answer of a door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The kernel's own lockdown refuses
    RefusedByNative,
    /// Stockade refuses
    RefusedByStockade,
    /// Refused by neither: with lockdown's errno, or before lockdown is asked
    RefusedByOther,
    /// Root gets through
    Free,
    /// This kernel does not have the door, or something in front of it decides
    NotPresent,
    /// Cannot be tried without root
    NeedsRoot,
    /// Never tried, since trying could do harm
    NeverTried,
    /// The attempt went wrong
    Failed,
}

impl Verdict {
    fn words(self) -> &'static str {
        match self {
            Self::RefusedByNative => "refused by native lockdown",
            Self::RefusedByStockade => "refused by Stockade",
            Self::RefusedByOther => "refused by something else",
            Self::Free => "FREE",
            Self::NotPresent => "not present on this kernel",
            Self::NeedsRoot => "needs root",
            Self::NeverTried => "never tried",
            Self::Failed => "could not be tried",
        }
    }
}

pub fn run(flags: &flags::Probe, json: bool) -> Result<Exit> {
    let wanted = super::reasons(&flags.reasons)?;
    let types = KernelTypes::of_running_kernel()?;
    let native = host::native_lockdown()?;
    let state = || if host::is_root() { read_back(&types).ok().flatten() } else { None };
    let before = refusals(state().as_ref());
    let findings: Vec<_> = stockade_probe::doors()
        .iter()
        .filter(|door| wanted.is_empty() || wanted.iter().any(|r| r.id == door.reason))
        .map(Door::knock)
        .collect();
    let after = refusals(state().as_ref());
    let moved = |reason: &str| after.get(reason) > before.get(reason);

    let doors = findings
        .into_iter()
        .map(|finding| {
            let (answer, detail) = match finding.answer {
                Answer::Refused => (who(finding.reason, native, &types, moved(finding.reason)), None),
                Answer::RefusedElsewhere(why) => (Verdict::RefusedByOther, Some(why)),
                Answer::Free => (Verdict::Free, None),
                Answer::Absent(why) => (Verdict::NotPresent, Some(why)),
                Answer::NeedsRoot(why) => (Verdict::NeedsRoot, Some(why)),
                Answer::Failed(why) => (Verdict::Failed, Some(why)),
                Answer::Never(why) => (Verdict::NeverTried, Some(why.to_owned())),
            };
            Tried {
                reason: finding.reason.into(),
                door: finding.door.into(),
                answer,
                detail,
                errno: finding.errno,
            }
        })
        .collect();
    let report = Report { kernel: host::kernel_release(), native_lockdown: native.to_string(), doors };
    if json {
        output::json(&report)?;
    } else {
        output::text(&text(&report, native))?;
    }
    if report.doors.iter().any(|door| door.answer == Verdict::NeedsRoot) && !json {
        let remedy = super::how_to_be_root();
        eprintln!("stockade: some doors can only be tried by root of the machine: {remedy}");
    }
    Ok(exit(report.doors.iter().map(|door| door.answer)))
}

/// A free door settles the question; that all are shut takes an answer of each.
fn exit(mut answers: impl Iterator<Item = Verdict> + Clone) -> Exit {
    if answers.clone().any(|answer| answer == Verdict::Free) {
        Exit::No
    } else if answers.any(|answer| matches!(answer, Verdict::NeedsRoot | Verdict::Failed)) {
        Exit::Unknown
    } else {
        Exit::Done
    }
}

fn refusals(state: Option<&InForce>) -> BTreeMap<String, u64> {
    state.map(|s| s.counts.iter().map(|c| (c.reason.clone(), c.refused)).collect()).unwrap_or_default()
}

/// What Stockade counted is its refusal. Where native lockdown is asked first, which is nearly
/// everywhere, Stockade never hears of what native covers.
fn who(reason: &str, native: Level, types: &KernelTypes, stockade_counted: bool) -> Verdict {
    let number = stockade_reasons::by_id(reason).and_then(|r| types.number(r.enum_name));
    let native_covers = number.is_some_and(|n| match native {
        Level::None => false,
        Level::Integrity => types.is_integrity(n),
        Level::Confidentiality => true,
    });
    if stockade_counted {
        Verdict::RefusedByStockade
    } else if native_covers {
        Verdict::RefusedByNative
    } else {
        Verdict::RefusedByOther
    }
}

fn text(report: &Report, native: Level) -> String {
    let mut out = String::new();
    let widest = report.doors.iter().map(|d| d.door.len()).max().unwrap_or(0);
    for door in &report.doors {
        let _ = write!(out, "{:<22} {:<widest$}  {}", door.reason, door.door, door.answer.words());
        let _ = match &door.detail {
            Some(detail) => writeln!(out, ": {detail}"),
            None => writeln!(out),
        };
    }
    let count = |wanted: &[Verdict]| report.doors.iter().filter(|d| wanted.contains(&d.answer)).count();
    let _ = writeln!(
        out,
        "{} doors refused, {} free, {} not tried or not there",
        count(&[Verdict::RefusedByNative, Verdict::RefusedByStockade, Verdict::RefusedByOther]),
        count(&[Verdict::Free]),
        count(&[Verdict::NotPresent, Verdict::NeedsRoot, Verdict::NeverTried, Verdict::Failed]),
    );
    if let Some(overruled) = super::overruled(native) {
        let _ = writeln!(out, "note: {overruled}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doors_that_nobody_tried_are_not_shut() {
        let exit = |answers: &[Verdict]| exit(answers.iter().copied());
        assert_eq!(exit(&[Verdict::RefusedByStockade, Verdict::NotPresent, Verdict::NeverTried]), Exit::Done);
        assert_eq!(exit(&[Verdict::NeedsRoot]), Exit::Unknown);
        assert_eq!(exit(&[Verdict::RefusedByNative, Verdict::Failed]), Exit::Unknown);
        assert_eq!(exit(&[Verdict::NeedsRoot, Verdict::Free]), Exit::No);
    }
}
