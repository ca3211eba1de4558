/*!
The top of a file.
*/
use toml::de::{DeTable, DeValue};

use super::{
    Reader,
    fields::{Once, Table, printable},
};
use crate::document::Document;

/// The version of the language that this program reads.
pub const VERSION: u32 = 1;

/// The keys at the top of a file.
pub const KEYS: &[&str] = &[
    "version",
    "level",
    "mode",
    "unknown-reasons",
    "reasons",
    "settings",
    "scope",
    "exception",
    "accept",
    "seal",
];

pub(super) fn read(reader: &mut Reader, fields: &DeTable) -> Document {
    let top = Table { fields, at: 0..0, called: "a policy" };
    if !version(reader, &top) {
        // A later language may mean something else by everything else.
        return Document::default();
    }
    reader.only_known_keys(&top, KEYS);
    let seal = reader.seal(&top);
    Document {
        level: reader.word(&top, "level"),
        mode: reader.word(&top, "mode"),
        unknown_reasons: reader.word(&top, "unknown-reasons"),
        reasons: reader.reasons(&top),
        settings: reader.settings(&top),
        scopes: reader.scopes(&top),
        exceptions: reader.exceptions(&top),
        accepted: reader.accepted(&top),
        seal,
    }
}

/// Whether the rest can be read.
fn version(reader: &mut Reader, top: &Table) -> bool {
    let Some(value) = top.get("version") else { return true };
    let DeValue::Integer(number) = value.get_ref() else {
        reader.wrong_type("version", "a number", value, &format!("version = {VERSION}"));
        return true;
    };
    if u32::from_str_radix(number.as_str(), number.radix()).ok() == Some(VERSION) {
        return true;
    }
    let what = format!(
        "this is a policy of version {}, and this program (stockade {}) reads version {VERSION}",
        printable(number.as_str()),
        env!("CARGO_PKG_VERSION")
    );
    let problem = reader.wrong(what, &value.span());
    reader.report(problem.help(format!(
        "install the program that goes with the policy, or write the policy for version {VERSION}"
    )));
    false
}

impl Reader<'_> {
    /// Names are unique among tables of one kind.
    pub(super) fn unique_names(&mut self, tables: &[Table], kind: &str) {
        let mut once = Once::new();
        for table in tables {
            if let Some(value) = table.get("name")
                && let DeValue::String(name) = value.get_ref()
            {
                let origin = self.source.origin(&value.span());
                once.check(self, name.to_string(), &origin, || {
                    (
                        format!("there are two {kind}s named \"{}\" in this file", printable(name)),
                        "give each its own name; to replace one of an earlier file, name it once",
                    )
                });
            }
        }
    }
}
