/*!
`[[scope]]`: a part of the cgroup tree with verdicts of its own.
*/
use super::{
    Reader,
    fields::{Once, Table},
};
use crate::model::{Said, Scope};

/// The keys of a scope.
pub const KEYS: &[&str] = &["name", "cgroup", "unit", "level", "mode", "reasons", "loosen"];

impl Reader<'_> {
    pub(super) fn scopes(&mut self, top: &Table) -> Vec<Scope> {
        let tables = self.tables(top, "scope", "a scope");
        self.unique_names(&tables, "scope");
        let scopes: Vec<_> = tables.iter().filter_map(|table| self.scope(table)).collect();
        let mut once = Once::new();
        for scope in &scopes {
            once.check(self, &scope.place.value, &scope.place.origin, || {
                (
                    format!("there are two scopes at {}", scope.place.value),
                    "make one of the two; which one holds could not be told",
                )
            });
        }
        scopes
    }

    fn scope(&mut self, table: &Table) -> Option<Scope> {
        self.only_known_keys(table, KEYS);
        let name = self.name(table, "name = \"pods\"");
        let place = self.place(table);
        if !table.has("cgroup") && !table.has("unit") {
            let problem = self.wrong("a scope needs a place: `cgroup` or `unit`", &table.at).absent();
            self.report(problem.help("add for instance: cgroup = \"/kubepods.slice\""));
        }
        let loosen = match table.get("loosen") {
            Some(value) => self.boolean("loosen", value),
            None => Some(Said::at(false, "default")),
        };
        let (level, mode) = (self.word(table, "level"), self.word(table, "mode"));
        let reasons = self.reasons(table);
        Some(Scope { name: name?, place: place?, level, mode, reasons, loosen: loosen? })
    }
}
