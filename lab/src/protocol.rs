/*!
The events that a guest sends to the host over ttyS1: one JSON document per line.
*/
use serde::{Deserialize, Serialize};

use crate::{
    flips::Assessed,
    scenario::{Boot, Depends},
};

/// A line from the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The guest has booted and waits for its [`Order`].
    Ready,
    /// A fact for the host that is not a result, such as a module that did not load.
    Note {
        /// The text.
        detail: String,
    },
    /// A scenario begins.
    Start {
        /// Its name.
        name: String,
    },
    /// A scenario ended.
    End {
        /// Its name.
        name: String,
        /// The outcome.
        result: Outcome,
        /// The cause of a failure or skip, with the scenario's output.
        detail: String,
        /// The duration on the guest's clock.
        ms: u64,
    },
    /// The findings of `stockade assess` in this guest, for flips.
    Assessed(Assessed),
    /// All scenarios of this boot were played.
    Done,
}

/// The one line that the host sends to a guest, after [`Event::Ready`]: the scenarios to play.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The boot of the scenarios.
    pub boot: Boot,
    /// Their names. The guest plays them in the order of [`crate::scenarios::all`].
    pub play: Vec<String>,
}

/// The outcome of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The scenario passed.
    Passed,
    /// The scenario failed.
    Failed,
    /// The scenario cannot be played on this kernel, or this run leaves it out.
    Skipped,
}

/// A scenario as listed by `stockade-guest --list`, one JSON document a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// The boot of its guest.
    pub boot: Boot,
    /// The part of a kernel that its outcome depends on.
    pub depends: Depends,
}

/// A scenario that is about to have every process but PID 1 killed writes its name to this file: PID 1 then plays it again, for the proof.
pub const AGAIN: &str = "/run/again";

/// A scenario that sends the host more than its outcome writes an [`Event`] to this file.
pub const TOLD: &str = "/run/told";

/// Words in the kernel log that report a fault of the kernel itself.
const TROUBLE: [&str; 6] =
    ["Oops", "BUG:", "Kernel panic", "WARNING:", "general protection fault", "hung_task"];

/// Reports whether a line of the kernel log reports a fault of the kernel itself.
#[must_use]
pub fn is_trouble(line: &str) -> bool {
    TROUBLE.iter().any(|word| line.contains(word))
}

#[cfg(test)]
mod tests {
    use super::{Event, Outcome};

    #[test]
    fn a_result_reads_as_documented() {
        let line = r#"{"event":"end","name":"x","result":"passed","detail":"","ms":12}"#;
        let event = Event::End { name: "x".into(), result: Outcome::Passed, detail: String::new(), ms: 12 };
        assert_eq!(serde_json::from_str::<Event>(line).unwrap(), event);
        assert_eq!(serde_json::to_string(&event).unwrap(), line);
    }
}
