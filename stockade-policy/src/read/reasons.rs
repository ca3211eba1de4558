/*!
Reasons: the verdicts of `[reasons]`, and the list of an exception.
*/
use stockade_reasons::{Reason, Subject};
use toml::de::DeValue;

use super::{
    Reader,
    fields::{Once, Table, Value, printable},
};
use crate::{
    model::{Origin, Reasons, Said},
    problem::Problem,
};

const EXAMPLE: &str = "reasons = [\"dev-mem\"]";

impl Reader<'_> {
    /// `[reasons]` and `[scope.reasons]`.
    pub(super) fn reasons(&mut self, table: &Table) -> Reasons {
        let mut reasons = Reasons::new();
        let Some(value) = table.get("reasons") else { return reasons };
        let DeValue::Table(fields) = value.get_ref() else {
            let heading = if table.called == "a scope" { "[scope.reasons]" } else { "[reasons]" };
            self.wrong_type(
                "reasons",
                "a table",
                value,
                &format!("{heading} and below it: perf = \"audit\""),
            );
            return reasons;
        };
        for (key, value) in fields {
            let origin = self.source.origin(&key.span());
            let reason = self.reason(key.get_ref(), &origin);
            let verdict = self.one_word(&printable(key.get_ref()), value);
            if let (Some(reason), Some(verdict)) = (reason, verdict) {
                reasons.insert(reason.id.to_owned(), verdict);
            }
        }
        reasons
    }

    /// `reasons` of an exception.
    pub(super) fn excepted(&mut self, table: &Table) -> Option<Vec<Said<String>>> {
        let value = self.demand(table, "reasons", EXAMPLE)?;
        let listed = self.strings("reasons", value, EXAMPLE)?;
        if listed.is_empty() {
            self.nothing_excepted(value);
            return None;
        }
        let mut right = true;
        let mut once = Once::new();
        for said in &listed {
            match self.reason(&said.value, &said.origin) {
                None => right = false,
                Some(reason) if reason.subject == Subject::Unreliable => {
                    self.unreliable(reason, &said.origin);
                    right = false;
                }
                Some(reason) => {
                    let before = self.problems.len();
                    once.check(self, reason.id, &said.origin, || {
                        (format!("`{}` is listed twice", reason.id), "keep one of the two")
                    });
                    right &= self.problems.len() == before;
                }
            }
        }
        right.then_some(listed)
    }

    fn nothing_excepted(&mut self, value: &Value) {
        let problem = self.wrong("an exception for no reason lets nothing through", &value.span());
        self.report(problem.help(format!("write for instance: {EXAMPLE}; or take the exception out")));
    }

    /// One spelling only, so that a search for it finds every place.
    fn reason(&mut self, id: &str, at: &Origin) -> Option<&'static Reason> {
        let found = stockade_reasons::by_id(id);
        if let Some(reason) = found.filter(|reason| reason.id == id) {
            return Some(reason);
        }
        let problem = Problem::new(format!("there is no reason `{}`", printable(id)), at.clone());
        let near = found.map(|reason| reason.id).or_else(|| stockade_reasons::nearest(id));
        let help = near.map_or_else(
            || {
                let all: Vec<_> = stockade_reasons::all().iter().map(|reason| reason.id).collect();
                format!("the reasons are {}", all.join(", "))
            },
            |near| format!("did you mean `{near}`?"),
        );
        self.report(problem.help(help));
        None
    }

    fn unreliable(&mut self, reason: &Reason, at: &Origin) {
        let what = format!("`{}` takes no exceptions: who asks for it cannot be told", reason.id);
        self.report(Problem::new(what, at.clone()).help(format!(
            "{} Allow it for everybody, `{} = \"allow\"` under [reasons], or leave it refused",
            reason.subject_why, reason.id
        )));
    }
}
