/*!
What is wrong with a policy, and where: one [`Problem`] for each mistake, all of a policy's together in [`Problems`].
*/
use std::{fmt, sync::Arc};

use crate::{model::Origin, render, source::Source};

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong, in one line.
    pub what: String,
    /// Where.
    pub at: Origin,
    /// A few words for that place; may be empty.
    pub label: String,
    /// Other places that have to do with it, each with a few words.
    pub also: Vec<(Origin, String)>,
    /// What would be right.
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

    /// With what would be right.
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

/// Everything that is wrong with a policy, with the text it is wrong in.
#[derive(Clone, Debug, thiserror::Error)]
pub struct Problems {
    /// In the order of files and of lines in them; never empty.
    pub list: Vec<Problem>,
    sources: Arc<[Source]>,
}

impl Problems {
    /// These mistakes in these files.
    #[must_use]
    pub fn new(list: Vec<Problem>, sources: impl Into<Arc<[Source]>>) -> Self {
        Self { list, sources: sources.into() }
    }

    /// The text they are about.
    #[must_use]
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// With the lines in question and carets below them, for a person. Colour is escape sequences: for a terminal only.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        render::problems(&self.list, &self.sources, colour)
    }

    /// The column of a mistake in characters, from 1; none where there are no lines.
    #[must_use]
    pub fn column(&self, problem: &Problem) -> Option<usize> {
        let source = render::source_of(&problem.at, &self.sources)?;
        Some(source.column(problem.at.span.0 as usize))
    }

    /// Where a mistake is, as `FILE:LINE:COLUMN`.
    #[must_use]
    pub fn position(&self, problem: &Problem) -> String {
        match self.column(problem) {
            Some(column) => format!("{}:{column}", problem.at),
            None => problem.at.to_string(),
        }
    }
}

/// One line for each, as compilers have it.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.list.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}: {}", self.position(problem), problem.what)?;
            if let Some(help) = &problem.help {
                write!(f, "; {help}")?;
            }
        }
        Ok(())
    }
}
