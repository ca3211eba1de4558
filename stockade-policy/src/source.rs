/*!
The text of one file, and what line and column an offset is on.
*/
use std::{ops::Range, sync::Arc};

use crate::said::Origin;

/// A file's text under the name it is told by.
#[derive(Clone, Debug)]
pub struct Source {
    name: Arc<str>,
    text: Arc<str>,
    /// Where each line begins.
    lines: Vec<usize>,
}

impl Source {
    /// A text. Control characters in the name are replaced: it is printed, and must not drive a terminal.
    #[must_use]
    pub fn new(name: &str, text: impl Into<Arc<str>>) -> Self {
        let name = stockade_text::harmless(name);
        let text = text.into();
        let breaks = memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at + 1);
        let lines = std::iter::once(0).chain(breaks).collect();
        Self { name: name.into(), text, lines }
    }

    /// Returns the name of the file.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the whole text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the origin of a value at these bytes.
    #[must_use]
    pub fn origin(&self, span: &Range<usize>) -> Origin {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Origin {
            file: Arc::clone(&self.name),
            line: number(self.line(span.start)),
            span: (number(span.start), number(span.end)),
        }
    }

    /// The line of a byte, from 1.
    #[must_use]
    pub fn line(&self, offset: usize) -> usize {
        self.lines.partition_point(|start| *start <= offset)
    }

    /// The column of a byte in characters, from 1.
    #[must_use]
    pub fn column(&self, offset: usize) -> usize {
        let start = self.line_start(self.line(offset));
        let end = self.boundary(offset);
        self.text[start..end.max(start)].chars().count() + 1
    }

    /// Where a line begins; the end of the text for a line after the last one.
    pub(crate) fn line_start(&self, line: usize) -> usize {
        self.lines.get(line.saturating_sub(1)).copied().unwrap_or(self.text.len())
    }

    /// The offset, or the nearest one before it at which the text can be cut.
    pub(crate) fn boundary(&self, offset: usize) -> usize {
        self.text.floor_char_boundary(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_from_one_and_in_characters() {
        let source = Source::new("f", "a = 1\nö = \"ä\"\n");
        let place = |offset| (source.line(offset), source.column(offset));
        assert_eq!([place(0), place(4), place(6), place(8)], [(1, 1), (1, 5), (2, 1), (2, 2)]);
        assert_eq!(place(source.text().len()), (3, 1));
        assert_eq!(source.origin(&(4..5)).to_string(), "f:1");
        assert_eq!(place(9999).0, 3, "beyond the end is the end");
    }

    #[test]
    fn a_file_name_cannot_drive_a_terminal() {
        assert_eq!(Source::new("a\u{1b}[2Jb\n", "").name(), "a?[2Jb?");
    }
}
