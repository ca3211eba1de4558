/*!
What was learned, as a file to review.

Names in a record were chosen by processes. In values they are quoted; in comments every one is made
harmless, so that none can end the comment and become a sentence of the policy.
*/
use std::{collections::BTreeSet, fmt::Write};

use super::{Learned, Suggestion, argue};
use stockade_text::harmless;

use crate::{model::Place, quote::quoted, recorded::count, requester::Tally, when};

/// More names than this at once nobody reads.
const SHOWN: usize = 5;

/// The width of comments.
const WIDTH: usize = 100;

impl Learned {
    /// Returns a policy file, which [`crate::read()`] accepts. It has no level and no mode, since it is added to another file.
    #[must_use]
    pub fn toml(&self) -> String {
        let mut out = String::new();
        self.head(&mut out);
        for everybody in &self.everybody {
            let reason = everybody.reason;
            out.push('\n');
            comment(&mut out, &self.seen(&everybody.tally));
            comment(
                &mut out,
                &format!(
                    "Who asks for {} cannot be told, so no exception can be made: {} It can only be allowed for everybody.",
                    reason.id, reason.subject_why
                ),
            );
            if let Some(argument) = argue::falls(reason) {
                comment(&mut out, &format!("Against that: {argument}"));
            }
        }
        if !self.everybody.is_empty() {
            out.push_str("# [reasons]\n");
            for everybody in &self.everybody {
                let _ = writeln!(out, "# {} = \"allow\"", everybody.reason.id);
            }
        }
        for suggestion in &self.exceptions {
            self.exception(&mut out, suggestion);
        }
        if !self.nobody.is_empty() {
            out.push_str("\n# No exception can be made for these:\n");
        }
        for unnamed in &self.nobody {
            let line = format!(
                "{}, {}: {}. {}",
                unnamed.reason,
                unnamed.program,
                unnamed.why,
                self.seen(&unnamed.tally)
            );
            item(&mut out, &line);
        }
        out
    }

    fn head(&self, out: &mut String) {
        let from = count(self.events, "event", "events");
        comment(
            out,
            &format!(
                "Made by stockade policy learn from {from} that were audited or refused. Nothing was applied. Review \
                 each exception: it lets its subject through whoever starts it and whatever it was made to do."
            ),
        );
        if self.passed_already > 0 {
            comment(
                out,
                &format!("{} of them pass already under the policy that was given.", self.passed_already),
            );
        }
        for caveat in &self.caveats {
            comment(out, &format!("Note: {caveat}."));
        }
        if self.exceptions.is_empty() {
            comment(out, "There is no exception to make.");
        }
    }

    fn exception(&self, out: &mut String, suggestion: &Suggestion) {
        out.push('\n');
        comment(out, &self.seen(&suggestion.tally));
        if suggestion.subject.exe.is_none() {
            comment(out, &format!("What asked called itself {}", few(&suggestion.tally.names)));
        }
        let by_reason: Vec<_> =
            suggestion.reasons.iter().map(|(reason, events)| format!("{} {events}", reason.id)).collect();
        comment(out, &format!("By reason: {}", by_reason.join(", ")));
        if !suggestion.arguments.is_empty() {
            out.push_str("# Against it:\n");
        }
        for argument in &suggestion.arguments {
            item(out, argument);
        }
        let ids: Vec<_> = suggestion.reasons.iter().map(|(reason, _)| format!("\"{}\"", reason.id)).collect();
        let _ = writeln!(out, "[[exception]]\nname = {}", quoted(&suggestion.name));
        let _ = writeln!(out, "reasons = [{}]", ids.join(", "));
        if let Some(exe) = &suggestion.subject.exe {
            let _ = writeln!(out, "exe = {}", quoted(exe));
        }
        if let Some(place) = &suggestion.place {
            let _ = writeln!(out, "{}", key(place));
        }
        if let Some(uid) = suggestion.subject.uid {
            let _ = writeln!(out, "uid = {uid}");
        }
        if let Some(place) = &suggestion.narrower {
            let _ = writeln!(
                out,
                "# All of it came from here, so this line would make it smaller:\n# {}",
                key(place)
            );
        }
    }

    fn seen(&self, tally: &Tally) -> String {
        let time = |ns| when::told(ns, self.booted);
        let users = few(&tally.users.iter().map(u32::to_string).collect());
        let cgroups = if tally.cgroups.is_empty() { "not known".into() } else { few(&tally.cgroups) };
        let times = match tally.events {
            1 => time(tally.first_ns),
            _ => format!("first {}, last {}", time(tally.first_ns), time(tally.last_ns)),
        };
        format!("{}: {times}. Users: {users}. Cgroups: {cgroups}", count(tally.events, "event", "events"))
    }
}

fn few(names: &BTreeSet<String>) -> String {
    let shown: Vec<_> = names.iter().take(SHOWN).map(String::as_str).collect();
    let more = names.len() - shown.len();
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}

fn key(place: &Place) -> String {
    match place {
        Place::Unit(unit) => format!("unit = {}", quoted(unit)),
        other => format!("cgroup = {}", quoted(&other.to_string())),
    }
}

fn comment(out: &mut String, text: &str) {
    wrapped(out, text, "# ", "# ");
}

fn item(out: &mut String, text: &str) {
    wrapped(out, text, "# - ", "#   ");
}

/// Each line begins as a comment, whatever is in the text.
fn wrapped(out: &mut String, text: &str, first: &str, rest: &str) {
    let mut line = first.to_owned();
    let mut empty = true;
    for word in harmless(text).split(' ') {
        if !empty && line.len() + 1 + word.len() > WIDTH {
            let _ = writeln!(out, "{line}");
            rest.clone_into(&mut line);
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    let _ = writeln!(out, "{}", line.trim_end());
}
