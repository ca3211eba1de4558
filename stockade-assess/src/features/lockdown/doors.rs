/*!
A probe of every door that lockdown guards.
*/
use std::{collections::BTreeMap, fmt::Write as _};

use stockade_probe::{Answer, Door};
use stockade_reasons::Level;

use super::{
    NOT_LIVE,
    in_force::{InForce, read_stockade},
};
use crate::{Finding, How, Report, System, Verdict, few};

const INTEGRITY: &str = "lockdown.doors";
const CONFIDENTIALITY: &str = "lockdown.confidentiality-doors";

/// A door and the result of its probe.
struct ProbedDoor {
    reason: &'static str,
    door: &'static str,
    answer: Answer,
    by: By,
}

/// The mechanism that refused.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Native,
    Stockade,
    Else,
    /// Not known, since the kernel's own level could not be read.
    Unknown,
}

impl By {
    fn name(self) -> &'static str {
        match self {
            By::Native => "the kernel's own lockdown",
            By::Stockade => "Stockade",
            By::Else => "something else",
            By::Unknown => "the kernel's own lockdown or something else (its level could not be read)",
        }
    }
}

/// Probes every door and reports a finding for each level.
pub(super) fn probe_all(system: &System, in_force: &InForce, report: &mut Report) {
    let why_not = if system.is_live() { system.lacks_root() } else { Some(NOT_LIVE) };
    if let Some(why_not) = why_not {
        report.add(Finding::unknown(INTEGRITY, How::Tried, why_not));
        report.add(Finding::unknown(CONFIDENTIALITY, How::Tried, why_not));
        return;
    }
    let found: Vec<_> = stockade_probe::doors().iter().map(Door::knock).collect();
    let counted = |stockade: Option<&super::Stockade>| {
        stockade.map_or_else(BTreeMap::new, |stockade| stockade.counts.clone())
    };
    // Stockade's counters show what it refused. Without a policy in force there are no counters.
    let before = in_force.stockade.as_ref().ok().and_then(Option::as_ref);
    let after = match (before, &in_force.types) {
        (Some(_), Some(types)) => counted(read_stockade(types).ok().flatten().as_ref()),
        _ => BTreeMap::new(),
    };
    let before = counted(before);
    let (mut integrity, mut confidentiality) = (Vec::new(), Vec::new());
    for finding in found {
        let by = if after.get(finding.reason) > before.get(finding.reason) {
            By::Stockade
        } else if in_force.native_covers(finding.reason) {
            By::Native
        } else if in_force.native.is_err() {
            By::Unknown
        } else {
            By::Else
        };
        let tried = ProbedDoor { reason: finding.reason, door: finding.door, answer: finding.answer, by };
        match in_force.level_of(finding.reason) {
            Level::Confidentiality => confidentiality.push(tried),
            _ => integrity.push(tried),
        }
    }
    report.add(judge(INTEGRITY, &integrity));
    report.add(judge(CONFIDENTIALITY, &confidentiality));
}

/// Judges the doors of a level.
fn judge(id: &'static str, doors: &[ProbedDoor]) -> Finding {
    let these =
        |wanted: &dyn Fn(&ProbedDoor) -> bool| doors.iter().filter(|door| wanted(door)).collect::<Vec<_>>();
    let free = these(&|door| door.answer == Answer::Free);
    let refused = these(&|door| matches!(door.answer, Answer::Refused | Answer::RefusedElsewhere(_)));
    let untried = these(&|door| matches!(door.answer, Answer::NeedsRoot(_) | Answer::Failed(_)));
    let of = free.len() + refused.len();
    let open = if id == INTEGRITY { Verdict::Fail } else { Verdict::Warn };
    let mut finding = if !free.is_empty() {
        let reasons: Vec<&str> = unique(&free);
        Finding::new(
            id,
            open,
            How::Tried,
            format!("{} of {of} doors open to root: {}", free.len(), reasons.join(", ")),
        )
    } else if let Some(first) = untried.first() {
        let (Answer::NeedsRoot(why) | Answer::Failed(why)) = &first.answer else { unreachable!("see above") };
        Finding::unknown(
            id,
            How::Tried,
            format!("{} doors could not be probed: {}: {why}", untried.len(), first.door),
        )
    } else if refused.is_empty() {
        Finding::not_applicable(id, How::Tried, "this kernel has none of these doors")
    } else {
        Finding::new(
            id,
            Verdict::Pass,
            How::Tried,
            format!("all {of} doors that could be probed are closed to root"),
        )
    };
    for door in &free {
        finding = finding.seen(door.door, format!("open ({})", door.reason));
    }
    for by in [By::Native, By::Stockade, By::Else, By::Unknown] {
        let here: Vec<&str> = refused.iter().filter(|door| door.by == by).map(|door| door.door).collect();
        if !here.is_empty() {
            finding = finding.seen(format!("{} doors, refused by {}", here.len(), by.name()), few(&here));
        }
    }
    for door in &untried {
        if let Answer::NeedsRoot(why) | Answer::Failed(why) = &door.answer {
            finding = finding.seen(door.door, format!("not probed: {why}"));
        }
    }
    let mut rest = String::new();
    for (what, never) in [("absent", false), ("never probed, since a probe would do harm", true)] {
        let count = doors.iter().filter(|door| match door.answer {
            Answer::Absent(_) => !never,
            Answer::Never(_) => never,
            _ => false,
        });
        match count.count() {
            0 => {}
            n => {
                let comma = if rest.is_empty() { "" } else { ", " };
                let _ = write!(rest, "{comma}{n} {what}");
            }
        }
    }
    if !rest.is_empty() {
        finding = finding.seen("the other doors", rest);
    }
    if of == 0 {
        return finding;
    }
    #[expect(clippy::cast_precision_loss, reason = "there are some forty doors")]
    let finding = finding.measured("shut", refused.len() as f64, "doors", Some(of as f64));
    finding
}

/// Returns the reasons of doors, each once.
fn unique(doors: &[&ProbedDoor]) -> Vec<&'static str> {
    let mut reasons: Vec<&str> = doors.iter().map(|door| door.reason).collect();
    reasons.dedup();
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(reason: &'static str, answer: Answer) -> ProbedDoor {
        ProbedDoor { reason, door: reason, answer, by: By::Native }
    }

    #[test]
    fn one_open_door_is_enough_to_fail() {
        let refused = || door("msr", Answer::Refused);
        let free = || door("dev-mem", Answer::Free);
        assert_eq!(judge(INTEGRITY, &[refused()]).verdict, Verdict::Pass);
        let failed = judge(INTEGRITY, &[refused(), free(), free()]);
        assert_eq!(failed.verdict, Verdict::Fail);
        assert_eq!(failed.found, "2 of 3 doors open to root: dev-mem");
        assert_eq!(judge(CONFIDENTIALITY, &[refused(), free()]).verdict, Verdict::Warn);
    }

    #[test]
    fn what_was_not_tried_is_not_shut() {
        let refused = || door("msr", Answer::Refused);
        let failed = door("kexec", Answer::Failed("no answer".into()));
        let unknown = judge(INTEGRITY, &[refused(), failed]);
        assert_eq!(unknown.verdict, Verdict::Unknown);
        assert!(unknown.found.contains("kexec: no answer"), "{}", unknown.found);
        let absent = door("xmon-wr", Answer::Absent("only on powerpc".into()));
        assert_eq!(judge(INTEGRITY, &[absent]).verdict, Verdict::NotApplicable);
    }
}
