/*!
The codes of the check: one for each argument, with the texts of `codes.toml`.
*/
use std::fmt;

use serde::Serialize;

/// How bad a finding is. The order is that of badness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// To know, not to act on.
    Note,
    /// Probably not what was meant.
    Warning,
    /// The policy does not do what it says.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// One argument the check can raise.
#[derive(Debug, PartialEq, Eq)]
pub struct Code {
    /// `SP001`: stable, never given a second meaning.
    pub id: &'static str,
    /// The name of the code, such as `level-void`.
    pub name: &'static str,
    /// The worst it can be; a finding may be milder.
    pub severity: Severity,
    /// The fault, in one line without a full stop.
    pub title: &'static str,
    /// Why that matters.
    pub explanation: &'static str,
    /// The remedy.
    pub remedy: &'static str,
    /// A policy that provokes it.
    pub wrong: &'static str,
    /// A policy close to it that does not.
    pub right: &'static str,
}

impl Code {
    /// Its page, from the root of the project.
    #[must_use]
    pub fn page(&self) -> String {
        format!("docs/checks/{}.md", self.id)
    }
}

/// Every code, in order of its number.
#[must_use]
pub fn codes() -> &'static [&'static Code] {
    &CODES
}

/// Finds a code by its id, in any case, or by its name.
#[must_use]
pub fn code(name: &str) -> Option<&'static Code> {
    let name = name.trim();
    CODES.iter().find(|code| code.id.eq_ignore_ascii_case(name) || code.name == name).copied()
}

include!(concat!(env!("OUT_DIR"), "/codes.rs"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_found_by_both_its_names() {
        for known in codes() {
            assert_eq!(code(known.id), Some(*known));
            assert_eq!(code(known.name), Some(*known));
            assert_eq!(code(&known.id.to_lowercase()), Some(*known));
        }
        assert_eq!(code("SP000"), None);
    }

    #[test]
    fn no_code_is_a_reason() {
        assert!(codes().iter().all(|code| stockade_reasons::by_id(code.name).is_none()));
    }
}
