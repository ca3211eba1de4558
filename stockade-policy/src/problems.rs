/*!
All that is wrong with a policy, with the text it is wrong in.
*/
use std::{fmt, sync::Arc};

use crate::{problem::Problem, render, source::Source};

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
