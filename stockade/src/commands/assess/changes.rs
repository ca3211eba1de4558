/*!
Changes since an earlier assessment, as they are reported.
*/
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stockade_assess::Verdict;

/// Changes since the baseline.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Changes {
    /// When the baseline was made, by UTC
    pub since: String,
    /// The machine it is of
    pub host: String,
    /// The kernel it is of
    pub kernel: String,
    /// Each finding that changed, came or went, the worse first
    pub list: Vec<Change>,
}

/// One finding that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// The finding
    pub id: String,
    /// In which direction
    pub direction: Direction,
    /// What it was; missing when it is new
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<Verdict>,
    /// Whether it was waived
    #[serde(default)]
    pub was_waived: bool,
    /// What it is; missing when it is gone
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is: Option<Verdict>,
    /// Whether it is waived
    #[serde(default)]
    pub is_waived: bool,
}

/// In which direction something changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// It counts for more than before.
    Worse,
    /// It cannot be found out any more.
    Unclear,
    /// It counts for less than before.
    Better,
    /// Neither: pass and not applicable, new and passing, gone.
    Other,
}

impl Direction {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Direction::Worse => "worse",
            Direction::Unclear => "unclear",
            Direction::Better => "better",
            Direction::Other => "other",
        }
    }
}

impl Change {
    /// Both sides in words.
    pub fn words(&self) -> String {
        let side = |verdict: Option<Verdict>, waived: bool, none: &str| match verdict {
            Some(verdict) if waived => format!("{verdict} (waived)"),
            Some(verdict) => verdict.to_string(),
            None => none.to_owned(),
        };
        format!("{} → {}", side(self.was, self.was_waived, "new"), side(self.is, self.is_waived, "gone"))
    }
}

impl Changes {
    /// Returns the summary, in one sentence.
    pub fn headline(&self) -> String {
        let count = |direction| self.count(direction);
        let since = format!("since {}", self.since);
        if self.list.is_empty() {
            return format!("Nothing changed {since}");
        }
        let words: Vec<String> = [
            (count(Direction::Worse), "worse"),
            (count(Direction::Unclear), "not known any more"),
            (count(Direction::Better), "better"),
            (count(Direction::Other), "otherwise changed"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
        format!("{} {since}", words.join(", "))
    }

    /// How many went in a direction.
    pub fn count(&self, direction: Direction) -> usize {
        self.list.iter().filter(|change| change.direction == direction).count()
    }

    /// Returns the change of a finding.
    pub fn of(&self, id: &str) -> Option<&Change> {
        self.list.iter().find(|change| change.id == id)
    }
}
