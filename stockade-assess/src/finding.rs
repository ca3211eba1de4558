/*!
What was found out: a verdict, what it rests on, and how that was established.
*/
use std::{borrow::Cow, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The longest text of one observation, in characters: evidence is a line, not a file.
const OBSERVED: usize = 400;

/// What it comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The defence is absent, off, or does not work.
    Fail,
    /// Weaker than it could be, or a trade-off somebody should have decided.
    Warn,
    /// It could not be found out. Never a failure, and never a success.
    Unknown,
    /// It is there and works.
    Pass,
    /// What it defends does not exist here.
    NotApplicable,
}

impl Verdict {
    /// Every verdict, the worst first.
    pub const ALL: [Verdict; 5] =
        [Verdict::Fail, Verdict::Warn, Verdict::Unknown, Verdict::Pass, Verdict::NotApplicable];

    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Fail => "fail",
            Verdict::Warn => "warn",
            Verdict::Unknown => "unknown",
            Verdict::Pass => "pass",
            Verdict::NotApplicable => "not applicable",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// How it was established.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// The kernel was asked to do it, harmlessly.
    Tried,
    /// The kernel, the firmware or a file says so.
    Read,
    /// It follows from other things that were read or tried.
    Derived,
}

impl How {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            How::Tried => "tried",
            How::Read => "read",
            How::Derived => "derived",
        }
    }
}

/// Something that was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// Where: a file, a system call, what a child tried
    pub source: String,
    /// What was there, in one line
    pub observed: String,
}

/// A figure, for charts and for comparing machines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Measure {
    /// Of what, such as `stack`
    pub name: String,
    /// How much
    pub value: f64,
    /// Of which unit, such as `bits` or `MB/s`
    pub unit: String,
    /// How much it should be, where that is known
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<f64>,
}

/// What was found out about one thing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// The id, `feature.thing`
    pub id: Cow<'static, str>,
    /// What it comes to
    pub verdict: Verdict,
    /// How that was established
    pub how: How,
    /// What is so, in one sentence without a full stop; where the verdict is unknown, what was missing
    pub found: String,
    /// What it rests on
    #[serde(default)]
    pub evidence: Vec<Evidence>,
    /// Figures
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub measures: Vec<Measure>,
}

impl Finding {
    /// With a verdict.
    pub fn new(id: &'static str, verdict: Verdict, how: How, found: impl Into<String>) -> Self {
        let found = one_line(&found.into());
        Self { id: Cow::Borrowed(id), verdict, how, found, evidence: Vec::new(), measures: Vec::new() }
    }

    /// It could not be found out, since this was missing.
    pub fn unknown(id: &'static str, how: How, missing: impl fmt::Display) -> Self {
        Self::new(id, Verdict::Unknown, how, missing.to_string())
    }

    /// There is nothing to defend here, for this reason.
    pub fn not_applicable(id: &'static str, how: How, why: impl Into<String>) -> Self {
        Self::new(id, Verdict::NotApplicable, how, why)
    }

    /// With something that was seen.
    #[must_use]
    pub fn seen(mut self, source: impl Into<String>, observed: impl AsRef<str>) -> Self {
        self.evidence.push(Evidence { source: source.into(), observed: one_line(observed.as_ref()) });
        self
    }

    /// With a figure.
    #[must_use]
    pub fn measured(mut self, name: &str, value: f64, unit: &str, expected: Option<f64>) -> Self {
        self.measures.push(Measure { name: name.into(), value, unit: unit.into(), expected });
        self
    }
}

/// Trimmed, in one line, fit to print and not too long: some of it was chosen by processes.
fn one_line(text: &str) -> String {
    stockade_text::harmless_within(text.trim().replace(['\n', '\t', '\r'], " "), OBSERVED)
}

/// The first few of many, and how many more there are.
#[must_use]
pub fn few<T: AsRef<str>>(items: &[T]) -> String {
    const SHOWN: usize = 6;
    let shown: Vec<&str> = items.iter().take(SHOWN).map(AsRef::as_ref).collect();
    let more = items.len().saturating_sub(SHOWN);
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_one_harmless_line() {
        let finding = Finding::new("ksm.running", Verdict::Pass, How::Read, "x")
            .seen("a file", " two\nlines\u{1b}[2J ")
            .seen("another", "x".repeat(1000));
        assert_eq!(finding.evidence[0].observed, "two lines?[2J");
        assert_eq!(finding.evidence[1].observed.chars().count(), OBSERVED + 1);
    }

    #[test]
    fn many_are_counted() {
        assert_eq!(few(&["a", "b"]), "a, b");
        assert_eq!(few(&["a"; 8]), "a, a, a, a, a, a and 2 more");
    }
}
