/*!
The mistakes in a policy: one [`Problem`] for each mistake.
*/
use crate::said::Origin;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The mistake, in one line.
    pub what: String,
    /// Its place in the file.
    pub at: Origin,
    /// A few words for that place; may be empty.
    pub label: String,
    /// Other places that have to do with it, each with a few words.
    pub also: Vec<(Origin, String)>,
    /// The right value.
    pub help: Option<String>,
    /// Whether it is about something that is not there.
    pub(crate) absence: bool,
}

impl Problem {
    /// A mistake at a place.
    #[must_use]
    pub fn new(what: impl Into<String>, at: Origin) -> Self {
        Self { what: harmless(what), at, label: String::new(), also: Vec::new(), help: None, absence: false }
    }

    /// With a few words for the place.
    #[must_use]
    pub fn label(self, label: impl Into<String>) -> Self {
        Self { label: harmless(label), ..self }
    }

    /// With the right value.
    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(harmless(help)), ..self }
    }

    /// With another place.
    #[must_use]
    pub fn also(mut self, at: Origin, label: impl Into<String>) -> Self {
        self.also.push((at, harmless(label)));
        self
    }

    /// About something that is not there.
    pub(crate) fn absent(self) -> Self {
        Self { absence: true, ..self }
    }
}

/// Messages quote what somebody typed, and that must not drive the terminal they are shown on.
fn harmless(text: impl Into<String>) -> String {
    stockade_text::harmless(text.into())
}
