/*!
The answer, for a person.
*/
use std::{collections::BTreeMap, fmt::Write};

use jiff::Timestamp;

use super::{Answer, Decision, Group, Replay};
use crate::{
    recorded::{Outcome, count},
    when,
};

impl Replay {
    /// Returns the text. With the time of boot, times are by the wall clock.
    #[must_use]
    pub fn text(&self, booted: Option<Timestamp>) -> String {
        let mut out = String::new();
        let mut last = "";
        for group in &self.groups {
            let heading = heading(&group.decision);
            if heading != last {
                let _ = writeln!(out, "{heading}:");
                last = heading;
            }
            line(&mut out, group, booted);
        }
        if !out.is_empty() {
            out.push('\n');
        }
        for caveat in &self.caveats {
            let _ = writeln!(out, "Note: {caveat}.");
        }
        out.push_str(&self.sum());
        out
    }

    fn sum(&self) -> String {
        let total = self.events(|_| true);
        let refused = self.events(|d| matches!(d, Decision::Refused(_)));
        let unknown = self.events(|d| matches!(d, Decision::CannotTell(_)));
        let also = if unknown > 0 { format!("; {unknown} cannot be told") } else { String::new() };
        match self.answer() {
            _ if total == 0 => "The record has no events that a policy decides.\n".into(),
            Answer::Refused => format!(
                "{refused} of {total} events would be refused{also}. To let some through: stockade policy learn\n"
            ),
            Answer::CannotTell => format!(
                "None of {total} events would be refused for certain; {unknown} cannot be told. \
                 Record again with `stockade watch --json` running while it happens\n"
            ),
            Answer::NothingRefused => format!("None of {total} events would be refused.\n"),
        }
    }
}

fn heading(decision: &Decision) -> &'static str {
    match decision {
        Decision::Refused(_) => "Would be refused",
        Decision::CannotTell(_) => "Cannot be told",
        Decision::Audited(_) => "Let through and reported",
        Decision::Excepted(_) => "Let through by an exception",
        Decision::Allowed(_) => "Let through",
    }
}

fn line(out: &mut String, group: &Group, booted: Option<Timestamp>) {
    let tally = &group.tally;
    let by = match &group.decision {
        Decision::CannotTell(why) => format!("cannot be told {why}"),
        Decision::Excepted(name) => format!("by \"{}\"", stockade_text::harmless(name)),
        Decision::Refused(by) | Decision::Audited(by) | Decision::Allowed(by) => {
            format!("by {}", stockade_text::harmless(by))
        }
    };
    let _ = writeln!(
        out,
        "  {} {}: {} {by}; {}, last {}",
        group.reason,
        group.program,
        count(tally.events, "event", "events"),
        then(&tally.recorded),
        when::told(tally.last_ns, booted)
    );
}

/// Describes the outcomes when it was recorded.
fn then(recorded: &BTreeMap<Outcome, u64>) -> String {
    let word = |outcome: &Outcome| match outcome {
        Outcome::Audited => "audited",
        Outcome::Refused => "refused",
        Outcome::Excepted => "excepted",
        Outcome::Unknown => "told in words that this version does not know",
    };
    let parts: Vec<_> = match recorded.iter().next() {
        Some((outcome, _)) if recorded.len() == 1 => vec![word(outcome).to_owned()],
        _ => recorded.iter().map(|(outcome, events)| format!("{events} {}", word(outcome))).collect(),
    };
    format!("when recorded {}", parts.join(", "))
}
