/*!
`[[accept]]`: findings of the check that somebody looked at and accepted.
*/
use super::{
    Reader,
    fields::{Once, Table, printable},
};
use crate::model::Accepted;

/// The keys of an accepted finding.
pub const KEYS: &[&str] = &["code", "about", "why"];

const CODE: &str = "code = \"SP001\"";

impl Reader<'_> {
    pub(super) fn accepted(&mut self, top: &Table) -> Vec<Accepted> {
        let tables = self.tables(top, "accept", "an accepted finding");
        let accepted: Vec<_> = tables.iter().filter_map(|table| self.one_accepted(table)).collect();
        let mut once = Once::new();
        for one in &accepted {
            let about = one.about.as_ref().map(|about| &about.value);
            once.check(self, (&one.code.value, about), &one.code.origin, || {
                (format!("{} is accepted twice for the same", one.code.value), "keep one of the two")
            });
        }
        accepted
    }

    fn one_accepted(&mut self, table: &Table) -> Option<Accepted> {
        self.only_known_keys(table, KEYS);
        let before = self.problems.len();
        let code = self.demand(table, "code", CODE).and_then(|value| {
            let code = self.string("code", value, CODE)?;
            if is_code(&code.value) {
                return Some(code);
            }
            let what = format!("\"{}\" is no code of a finding: SP and three digits", printable(&code.value));
            let problem = self.wrong(what, &value.span());
            self.report(problem.help(format!("write for instance: {CODE}")));
            None
        });
        let about = table.get("about").and_then(|value| {
            self.sentence("about", value, "about = \"firmware updates\", the name of an exception or scope")
        });
        let why = "why = \"the flash tool is needed until the new boards arrive\"";
        let why = self.demand(table, "why", why).and_then(|value| self.sentence("why", value, why));
        (self.problems.len() == before).then_some(Accepted { code: code?, about, why: why? })
    }
}

fn is_code(code: &str) -> bool {
    code.strip_prefix("SP")
        .is_some_and(|digits| digits.len() == 3 && digits.bytes().all(|b| b.is_ascii_digit()))
}
