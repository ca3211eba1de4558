/*!
TOML itself. After a broken line its parser guesses how to go on, so that what it read from there on is not judged.
*/
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::Reader;
use crate::{problem::Problem, source::Source};

const DUPLICATE: &str = "duplicate key";

/// Hands the top of the file to whoever knows what it should say.
pub(super) fn read<T>(reader: &mut Reader, top: impl FnOnce(&mut Reader, &DeTable) -> T) -> T {
    let text = reader.source.text();
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut broken: Option<usize> = None;
    let mut said = Vec::new();
    let mut last_line = 0;
    for error in &errors {
        let span = error.span().unwrap_or_default();
        if error.message() == DUPLICATE {
            said.push(duplicate(reader, table.get_ref(), &span));
            continue;
        }
        broken = Some(broken.map_or(span.start, |first| first.min(span.start)));
        // One slip is often several errors to the parser; the first one of a line is the one to mend.
        let line = reader.source.line(span.start);
        if line != last_line {
            said.push(broken_line(reader, error.message(), &span));
            last_line = line;
        }
    }
    let said_there = top(reader, table.get_ref());
    if let Some(broken) = broken {
        let line = u32::try_from(reader.source.line(broken)).unwrap_or(u32::MAX);
        reader.problems.retain(|problem| problem.at.line < line && !problem.absence);
    }
    reader.problems.append(&mut said);
    said_there
}

fn broken_line(reader: &Reader, message: &str, span: &Range<usize>) -> Problem {
    let (what, expected) = message.split_once(", expected ").unwrap_or((message, ""));
    let mut problem = Problem::new(format!("this is not TOML: {what}"), reader.source.origin(span));
    if !expected.is_empty() {
        problem = problem.label(format!("expected {expected}"));
    }
    if what.contains("string values must be quoted") {
        let word = reader.source.text().get(span.clone()).unwrap_or_default();
        problem = problem.label("").help(format!("put it in quotes: \"{}\"", word.trim()));
    }
    problem
}

/// TOML's parser tells the second place only; the first one is looked for.
fn duplicate(reader: &Reader, table: &DeTable, span: &Range<usize>) -> Problem {
    let text = reader.source.text();
    let key = text.get(span.clone()).unwrap_or_default();
    let name = key.trim_matches(['"', '\'']);
    let origin = reader.source.origin(span);
    let line = reader.source.line(span.start);
    let heading = text[reader.source.line_start(line)..].lines().next().unwrap_or_default().trim();
    let is_heading = heading.starts_with('[');
    let problem = Problem::new(format!("`{name}` is said twice"), origin)
        .label("said again here")
        .help(if is_heading { "put what belongs together under one heading" } else { "keep one of the two" });
    let first = if is_heading {
        same_line_before(reader.source, heading, line)
    } else {
        let mut found = None;
        nearest_before(table, name, span.start, &mut found);
        found
    };
    match first {
        Some(first) => problem.also(reader.source.origin(&first), "first said here"),
        None => problem,
    }
}

/// A heading that is repeated: the parser has forgotten the first one.
fn same_line_before(source: &Source, heading: &str, line: usize) -> Option<Range<usize>> {
    let (before, first) = source.text().lines().zip(1..line).find(|(text, _)| text.trim() == heading)?;
    let start = source.line_start(first) + (before.len() - before.trim_start().len());
    Some(start..start + heading.len())
}

/// The last key of this name before the place, in whatever table.
fn nearest_before(table: &DeTable, name: &str, before: usize, found: &mut Option<Range<usize>>) {
    for (key, value) in table {
        let span = key.span();
        let nearer = found.as_ref().is_none_or(|f| span.start > f.start);
        if key.get_ref() == name && span.start < before && nearer {
            *found = Some(span);
        }
        match value.get_ref() {
            DeValue::Table(inner) => nearest_before(inner, name, before, found),
            DeValue::Array(list) => {
                for inner in list.iter().filter_map(|v| v.get_ref().as_table()) {
                    nearest_before(inner, name, before, found);
                }
            }
            _ => {}
        }
    }
}
