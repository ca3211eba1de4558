/*!
What a guest tells the host over ttyS1: one JSON document a line.
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
    /// The guest is up and waits for its [`Order`].
    Ready,
    /// Something the host should know that is not a result, such as a module that did not load.
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
        /// How.
        result: Outcome,
        /// Why it failed or was skipped, with what it printed.
        detail: String,
        /// How long it took on the guest's clock.
        ms: u64,
    },
    /// What `stockade assess` found here, for flips.
    Assessed(Assessed),
    /// All scenarios of this boot were played.
    Done,
}

/// The host's one line to a guest, after [`Event::Ready`]: the scenarios to play.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The scenarios' boot.
    pub boot: Boot,
    /// Their names. They are played in the order of [`crate::scenarios::all`].
    pub play: Vec<String>,
}

/// How a scenario ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// As told.
    Passed,
    /// Otherwise.
    Failed,
    /// It cannot be played on this kernel.
    Skipped,
}

/// A scenario as listed by `stockade-guest --list`, one JSON document a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// How its guest is booted.
    pub boot: Boot,
    /// On which kernels it has to be played.
    pub depends: Depends,
}

/// A scenario that is about to have every process but PID 1 ended writes its name here: PID 1 then plays it once
/// more, for the proof.
pub const AGAIN: &str = "/run/again";

/// A scenario that has something to tell the host beside how it ended writes an [`Event`] here.
pub const TOLD: &str = "/run/told";

/// Begins the last line of a guest that runs one program; its exit status follows.
pub const ENDED: &str = "stockade-guest: the program ended with status ";

/// Words in a kernel's log that mean its own code went wrong.
const TROUBLE: [&str; 6] =
    ["Oops", "BUG:", "Kernel panic", "WARNING:", "general protection fault", "hung_task"];

/// Whether a line of the kernel's log reports that the kernel itself went wrong.
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
