/*!
Taking values of one type out of a table, and telling what is there instead.
*/
use std::{collections::HashMap, hash::Hash, ops::Range};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::Reader;
use crate::{
    model::{Origin, Said},
    problem::Problem,
    words::{Word, nearest, one_of},
};

pub(super) type Value<'d> = Spanned<DeValue<'d>>;

/// A table, with what to call it in messages.
pub(super) struct Table<'t, 'd> {
    pub(super) fields: &'t DeTable<'d>,
    /// Where it begins: its heading.
    pub(super) at: Range<usize>,
    /// For instance `an exception`.
    pub(super) called: &'static str,
}

impl<'d> Table<'_, 'd> {
    pub(super) fn get(&self, key: &str) -> Option<&Value<'d>> {
        self.fields.get(key)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.fields.contains_key(key)
    }

    /// Where a key of it is, for a message about the key.
    pub(super) fn key(&self, key: &str) -> Range<usize> {
        self.fields.get_key_value(key).map_or_else(|| self.at.clone(), |(key, _)| key.span())
    }
}

impl Reader<'_> {
    pub(super) fn said<T>(&self, value: T, span: &Range<usize>) -> Said<T> {
        Said { value, origin: self.source.origin(span) }
    }

    /// A mistake at a place of this file.
    pub(super) fn wrong(&self, what: impl Into<String>, span: &Range<usize>) -> Problem {
        Problem::new(what, self.source.origin(span))
    }

    pub(super) fn report(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Every key has to be one of these.
    pub(super) fn only_known_keys(&mut self, table: &Table, known: &[&str]) {
        for key in table.fields.keys().filter(|key| !known.contains(&key.get_ref().as_ref())) {
            let problem = self
                .wrong(format!("{} has no key `{}`", table.called, printable(key.get_ref())), &key.span());
            self.report(match nearest(key.get_ref(), known.iter().copied()) {
                Some(near) => problem.help(format!("did you mean `{near}`?")),
                None => problem.help(format!("its keys are {}", known.join(", "))),
            });
        }
    }

    /// A key that has to be there.
    pub(super) fn demand<'t, 'd>(
        &mut self,
        table: &'t Table<'_, 'd>,
        key: &str,
        example: &str,
    ) -> Option<&'t Value<'d>> {
        let found = table.get(key);
        if found.is_none() {
            let problem = self.wrong(format!("{} needs `{key}`", table.called), &table.at);
            self.report(problem.help(format!("add for instance: {example}")).absent());
        }
        found
    }

    pub(super) fn wrong_type(&mut self, key: &str, wanted: &str, value: &Value, example: &str) {
        let is = described(value.get_ref());
        let problem = self.wrong(format!("`{key}` is {wanted}, and this is {is}"), &value.span());
        self.report(problem.help(format!("write for instance: {example}")));
    }

    pub(super) fn string(&mut self, key: &str, value: &Value, example: &str) -> Option<Said<String>> {
        if let DeValue::String(text) = value.get_ref() {
            return Some(self.said(text.clone().into_owned(), &value.span()));
        }
        self.wrong_type(key, "a string", value, example);
        None
    }

    pub(super) fn boolean(&mut self, key: &str, value: &Value) -> Option<Said<bool>> {
        if let DeValue::Boolean(yes) = value.get_ref() {
            return Some(self.said(*yes, &value.span()));
        }
        self.wrong_type(key, "true or false", value, &format!("{key} = true"));
        None
    }

    /// A list of strings.
    pub(super) fn strings(&mut self, key: &str, value: &Value, example: &str) -> Option<Vec<Said<String>>> {
        let DeValue::Array(list) = value.get_ref() else {
            self.wrong_type(key, "a list of strings", value, example);
            return None;
        };
        let mut all = true;
        let mut strings = Vec::new();
        for value in list {
            match value.get_ref() {
                DeValue::String(text) => strings.push(self.said(text.clone().into_owned(), &value.span())),
                other => {
                    let is = described(other);
                    let problem =
                        self.wrong(format!("`{key}` is a list of strings, and this is {is}"), &value.span());
                    self.report(problem.help(format!("write for instance: {example}")));
                    all = false;
                }
            }
        }
        all.then_some(strings)
    }

    /// One of a few words, where the key is there at all.
    pub(super) fn word<W: Word>(&mut self, table: &Table, key: &str) -> Option<Said<W>> {
        let value = table.get(key)?;
        self.one_word(key, value)
    }

    pub(super) fn one_word<W: Word>(&mut self, key: &str, value: &Value) -> Option<Said<W>> {
        let words = || W::WORDS.iter().map(|(word, _)| *word);
        let typed = self.string(key, value, &format!("{key} = \"{}\"", W::WORDS[0].0))?;
        if let Some(choice) = W::of(&typed.value) {
            return Some(Said { value: choice, origin: typed.origin });
        }
        let problem = Problem::new(
            format!("`{key}` cannot be \"{}\": it is {}", printable(&typed.value), one_of(words())),
            typed.origin,
        );
        self.report(match nearest(&typed.value, words()) {
            Some(near) => problem.help(format!("did you mean \"{near}\"?")),
            None => problem,
        });
        None
    }

    /// The tables of `[[key]]`.
    pub(super) fn tables<'t, 'd>(
        &mut self,
        top: &Table<'t, 'd>,
        key: &str,
        called: &'static str,
    ) -> Vec<Table<'t, 'd>> {
        self.headed_tables(top, key, &format!("[[{key}]]"), called)
    }

    /// The tables of a key, which stand under this heading.
    pub(super) fn headed_tables<'t, 'd>(
        &mut self,
        above: &Table<'t, 'd>,
        key: &str,
        heading: &str,
        called: &'static str,
    ) -> Vec<Table<'t, 'd>> {
        let Some(value) = above.fields.get(key) else { return Vec::new() };
        let mut tables = Vec::new();
        match value.get_ref() {
            DeValue::Array(list) => {
                for entry in list {
                    match entry.get_ref() {
                        DeValue::Table(fields) => tables.push(Table { fields, at: entry.span(), called }),
                        _ => self.wrong_type(key, "a table", entry, heading),
                    }
                }
            }
            DeValue::Table(_) => {
                let problem = self.wrong(
                    format!("there can be several tables `{key}`, each with double brackets"),
                    &value.span(),
                );
                self.report(problem.help(format!("write {heading}")));
            }
            _ => self.wrong_type(key, "a table", value, heading),
        }
        tables
    }
}

/// Describes the type of a value, for `and this is …`.
fn described(value: &DeValue) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// Returns the user's text, cut and without control characters.
pub(super) fn printable(typed: &str) -> String {
    const LONGEST: usize = 80;
    stockade_text::harmless_within(typed, LONGEST)
}

/// Tells of each thing that comes again, with the place where it came first.
pub(super) struct Once<K> {
    seen: HashMap<K, Origin>,
}

impl<K: Hash + Eq> Once<K> {
    pub(super) fn new() -> Self {
        Self { seen: HashMap::new() }
    }

    /// Reports a problem when this was there before.
    pub(super) fn check(
        &mut self,
        reader: &mut Reader,
        key: K,
        origin: &Origin,
        what: impl FnOnce() -> (String, &'static str),
    ) {
        match self.seen.get(&key) {
            Some(first) => {
                let (what, help) = what();
                let problem =
                    Problem::new(what, origin.clone()).label("again here").also(first.clone(), "first here");
                reader.report(problem.help(help));
            }
            None => {
                self.seen.insert(key, origin.clone());
            }
        }
    }
}
