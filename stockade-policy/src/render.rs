/*!
Messages with the lines in question and carets below them.

By annotate-snippets, the renderer of rustc and cargo: administrators know its look, it draws in plain ASCII, which a
serial console shows, and one message can point into several files, which two scopes at one place need. With miette the
labels of a message are in one file, its trait would go through all layers, and its drawing brings a dozen crates where
this one brings one. Whether there is colour is for the caller to say, who knows where it goes.
*/
use std::{borrow::Cow, ops::Range};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet, renderer::DecorStyle};

use crate::{problem::Problem, said::Origin, source::Source};

/// More than this at once nobody reads; the first ones are what has to be mended first.
const SHOWN: usize = 50;

/// How grave a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gravity {
    /// It cannot go on.
    Error,
    /// It can, and should perhaps not.
    Warning,
    /// Worth knowing.
    Note,
}

/// One message as text, without a line break at its end. Its places may be in any of the sources; places without lines, or in
/// a file that is not among them, are told by name.
#[must_use]
pub fn message(
    gravity: Gravity,
    code: Option<&str>,
    problem: &Problem,
    sources: &[Source],
    colour: bool,
) -> String {
    let level = match gravity {
        Gravity::Error => Level::ERROR,
        Gravity::Warning => Level::WARNING,
        Gravity::Note => Level::NOTE,
    };
    let mut title = level.primary_title(&problem.what);
    if let Some(code) = code {
        title = title.id(code);
    }
    let mut group = Group::with_title(title);
    let mut places = vec![(&problem.at, problem.label.as_str(), AnnotationKind::Primary)];
    places.extend(problem.also.iter().map(|(at, label)| (at, label.as_str(), AnnotationKind::Context)));
    let mut told = Vec::new();
    while let Some((first, ..)) = places.first() {
        let file = first.file.clone();
        let (here, elsewhere): (Vec<_>, Vec<_>) = places.into_iter().partition(|(at, ..)| at.file == file);
        places = elsewhere;
        match source_of(here[0].0, sources) {
            Some(source) => group = group.element(snippet(source, &here)),
            None => told.extend(here.iter().map(|(at, label, _)| match *label {
                "" => at.to_string(),
                label => format!("{at}: {label}"),
            })),
        }
    }
    for line in told {
        group = group.element(Level::NOTE.message(line));
    }
    if let Some(help) = &problem.help {
        group = group.element(Level::HELP.message(help));
    }
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    renderer.decor_style(DecorStyle::Ascii).render(&[group])
}

/// Only the lines from the first to the last place are handed over: a policy may have megabytes.
fn snippet<'s>(
    source: &'s Source,
    places: &[(&Origin, &'s str, AnnotationKind)],
) -> Snippet<'s, annotate_snippets::Annotation<'s>> {
    let spans: Vec<Range<usize>> = places.iter().map(|(at, ..)| span(source, at)).collect();
    let first = spans.iter().map(|span| source.line(span.start)).min().unwrap_or(1);
    let last = spans.iter().map(|span| source.line(span.end)).max().unwrap_or(1);
    let (start, end) = (source.line_start(first), source.line_start(last + 1));
    let mut snippet =
        Snippet::source(without_c1(&source.text()[start..end])).line_start(first).path(source.name());
    for ((_, label, kind), span) in places.iter().zip(&spans) {
        let mut annotation = kind.span(span.start - start..span.end - start);
        if !label.is_empty() {
            annotation = annotation.label(*label);
        }
        snippet = snippet.annotation(annotation);
    }
    snippet
}

/// The renderer replaces control characters of ASCII, but some terminals obey those of Latin-1 as well. What stands for
/// them has as many bytes, so that places stay where they are.
fn without_c1(text: &str) -> Cow<'_, str> {
    let is_c1 = |c| matches!(c, '\u{80}'..='\u{9f}');
    if text.contains(is_c1) { text.replace(is_c1, "\u{bf}").into() } else { text.into() }
}

/// The bytes of a place, within the text.
fn span(source: &Source, at: &Origin) -> Range<usize> {
    let start = source.boundary(at.span.0 as usize);
    start..source.boundary(at.span.1 as usize).max(start)
}

pub(crate) fn source_of<'s>(at: &Origin, sources: &'s [Source]) -> Option<&'s Source> {
    if at.line == 0 { None } else { sources.iter().find(|source| *source.name() == *at.file) }
}

pub(crate) fn problems(list: &[Problem], sources: &[Source], colour: bool) -> String {
    let shown = list.iter().take(SHOWN).map(|p| message(Gravity::Error, None, p, sources, colour));
    let mut out = shown.collect::<Vec<_>>().join("\n\n");
    if list.len() > SHOWN {
        out.push_str(&format!("\n\nand {} more", list.len() - SHOWN));
    }
    out.push('\n');
    out
}
