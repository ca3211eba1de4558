/*!
Compares an assessment with an earlier one.
*/
use std::collections::{BTreeMap, BTreeSet};

use stockade_assess::Verdict;

use super::{
    changes::{Change, Changes, Direction},
    report::{Found, Report, State},
};

/// Compares with an earlier assessment and leaves only what changed. What was not looked at this time has not gone.
pub fn compare(report: &mut Report, before: &Report, looked_at: impl Fn(&str) -> bool) {
    let earlier: BTreeMap<&str, &Found> =
        before.findings().map(|found| (found.id(), found)).filter(|(id, _)| looked_at(id)).collect();
    let now: BTreeMap<&str, &Found> = report.findings().map(|found| (found.id(), found)).collect();
    let ids: BTreeSet<&str> = earlier.keys().chain(now.keys()).copied().collect();
    let mut list: Vec<Change> =
        ids.into_iter().filter_map(|id| change(id, earlier.get(id).copied(), now.get(id).copied())).collect();
    list.sort_by(|a, b| (a.direction, &a.id).cmp(&(b.direction, &b.id)));
    let changes = Changes {
        since: before.time.clone(),
        host: before.host.clone(),
        kernel: before.kernel.clone(),
        list,
    };
    report.retain(|found| changes.of(found.id()).is_some());
    report.changes = Some(changes);
}

fn change(id: &str, was: Option<&Found>, is: Option<&Found>) -> Option<Change> {
    let (before, after) = (was.map(Found::state), is.map(Found::state));
    let verdict = |found: Option<&Found>| found.map(|found| found.finding.verdict);
    let waived = |found: Option<&Found>| found.is_some_and(|found| found.waived.is_some());
    let direction = match (before, after) {
        _ if before == after && verdict(was) == verdict(is) => return None,
        (_, None) => Direction::Other,
        (_, Some(State::Is(Verdict::Unknown))) => Direction::Unclear,
        (before, Some(after)) => match weight(after).cmp(&before.map_or(0, weight)) {
            std::cmp::Ordering::Greater => Direction::Worse,
            std::cmp::Ordering::Less => Direction::Better,
            std::cmp::Ordering::Equal => Direction::Other,
        },
    };
    Some(Change {
        id: id.to_owned(),
        direction,
        was: verdict(was),
        was_waived: waived(was),
        is: verdict(is),
        is_waived: waived(is),
    })
}

/// How much it counts for. What is not known may be as bad as a warning at least, but is not known to be.
fn weight(state: State) -> u8 {
    match state {
        State::Is(Verdict::Fail) => 4,
        State::Is(Verdict::Warn) => 3,
        State::Is(Verdict::Unknown) => 2,
        State::Waived => 1,
        State::Is(Verdict::Pass | Verdict::NotApplicable) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::assess::{example, report::Waived};

    fn compared(edit: impl Fn(&mut Found)) -> Report {
        let before = example::report();
        let mut after = example::report();
        after.findings_mut().for_each(edit);
        compare(&mut after, &before, |_| true);
        after
    }

    fn verdict(id: &'static str, verdict: Verdict) -> impl Fn(&mut Found) {
        move |found| {
            if found.id() == id {
                found.finding.verdict = verdict;
            }
        }
    }

    #[test]
    fn only_what_changed_is_left_and_has_a_direction() {
        assert!(compared(|_| {}).changes.unwrap().list.is_empty());
        for (id, to, direction) in [
            ("nx.stack", Verdict::Fail, Direction::Worse),
            ("nx.stack", Verdict::Unknown, Direction::Unclear),
            ("nx.stack", Verdict::NotApplicable, Direction::Other),
            ("ksm.running", Verdict::Pass, Direction::Better),
            ("ksm.running", Verdict::Fail, Direction::Worse),
        ] {
            let report = compared(verdict(id, to));
            assert_eq!(report.findings().map(Found::id).collect::<Vec<_>>(), [id]);
            let changes = report.changes.unwrap();
            assert_eq!((changes.list.len(), changes.list[0].direction), (1, direction), "{id} {to}");
        }
    }

    #[test]
    fn a_waiver_makes_it_better_and_its_end_worse() {
        let waive = |found: &mut Found| {
            if found.id() == "ksm.running" {
                found.waived = Some(Waived { reason: "because".into(), expires: "2027-01-31".into() });
            }
        };
        let changes = compared(waive).changes.unwrap();
        assert_eq!(changes.list[0].direction, Direction::Better);
        assert_eq!(changes.list[0].words(), "warn → warn (waived)");
        let (mut before, mut after) = (example::report(), example::report());
        before.findings_mut().for_each(waive);
        compare(&mut after, &before, |_| true);
        assert_eq!(after.changes.unwrap().list[0].direction, Direction::Worse);
    }

    #[test]
    fn what_came_and_went_is_told_but_not_what_was_not_looked_at() {
        let (mut before, mut after) = (example::report(), example::report());
        before.retain(|found| found.id() != "ksm.running");
        after.retain(|found| found.id() != "nx.stack");
        let mut both = after.clone();
        compare(&mut both, &before, |_| true);
        let words: Vec<_> = both.changes.unwrap().list.iter().map(|c| (c.id.clone(), c.words())).collect();
        assert_eq!(
            words,
            [("ksm.running".into(), "new → warn".to_owned()), ("nx.stack".into(), "pass → gone".into())]
        );
        compare(&mut after, &before, |id| id != "nx.stack");
        assert_eq!(after.changes.unwrap().list.len(), 1);
    }
}
