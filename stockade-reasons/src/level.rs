/*!
The kernel's lockdown levels, in its own words and order.
*/

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// A lockdown level. Each refuses all the lower one refuses, and more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing is refused.
    None,
    /// Refuses operations that let user space change the running kernel.
    Integrity,
    /// Also refuses operations that let user space read secrets of the kernel.
    Confidentiality,
}

impl Level {
    /// The kernel's word, as in `/sys/kernel/security/lockdown`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Integrity => "integrity",
            Self::Confidentiality => "confidentiality",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// The text is not one of the three levels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownLevel(String);

impl fmt::Display for UnknownLevel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?} is no lockdown level: use none, integrity or confidentiality", self.0)
    }
}

impl std::error::Error for UnknownLevel {}

impl FromStr for Level {
    type Err = UnknownLevel;

    /// Accepts the kernel's words in any case.
    fn from_str(text: &str) -> Result<Self, UnknownLevel> {
        [Self::None, Self::Integrity, Self::Confidentiality]
            .into_iter()
            .find(|level| level.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| UnknownLevel(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_ordered_and_round_trip() {
        assert!(Level::None < Level::Integrity && Level::Integrity < Level::Confidentiality);
        for level in [Level::None, Level::Integrity, Level::Confidentiality] {
            assert_eq!(level.to_string().parse(), Ok(level));
            let json = serde_json::to_string(&level).expect("a level serialises");
            assert_eq!(json, format!("\"{level}\""));
        }
        assert_eq!(format!("{:>10}", Level::None), "      none");
    }

    #[test]
    fn an_unknown_level_names_the_choices() {
        let error = "paranoid".parse::<Level>().expect_err("not a level");
        assert!(error.to_string().contains("none, integrity or confidentiality"));
    }
}
