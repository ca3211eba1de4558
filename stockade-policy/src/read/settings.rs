/*!
`[settings]`: kernel security settings that are held.
*/
use toml::de::DeValue;

use super::{
    Reader,
    fields::{Once, Table, printable},
};
use crate::{
    model::{Hold, Said, Settings},
    problem::Problem,
    settings::{self, DEFAULT},
    words::Word,
};

/// The keys of `[settings]`.
pub const KEYS: &[&str] = &["freeze", "ratchet"];

impl Reader<'_> {
    pub(super) fn settings(&mut self, top: &Table) -> Settings {
        let mut held = Settings::new();
        let Some(value) = top.get("settings") else { return held };
        let DeValue::Table(fields) = value.get_ref() else {
            let example = "[settings] and below it: ratchet = [\"default\"]";
            self.wrong_type("settings", "a table", value, example);
            return held;
        };
        let table = Table { fields, at: value.span(), called: "[settings]" };
        self.only_known_keys(&table, KEYS);
        let mut once = Once::new();
        for (key, hold) in Hold::WORDS {
            let Some(value) = table.get(key) else { continue };
            let listed = self.strings(key, value, &format!("{key} = [\"kernel.kptr_restrict\"]"));
            for said in listed.into_iter().flatten() {
                let name = settings::canonical(&said.value);
                let before = self.problems.len();
                self.setting(&name, &said, *hold);
                once.check(self, name.clone(), &said.origin, || {
                    (
                        format!("{} is named twice under [settings]", printable(&name)),
                        "freeze it or let it ratchet; a frozen setting keeps its value, so that is the stricter one",
                    )
                });
                if self.problems.len() == before {
                    held.insert(name, Said { value: *hold, origin: said.origin });
                }
            }
        }
        held
    }

    /// Whether it can be held so.
    fn setting(&mut self, name: &str, said: &Said<String>, hold: Hold) {
        if name == DEFAULT {
            return;
        }
        let typed = printable(&said.value);
        let wrong = |what: String| Problem::new(what, said.origin.clone());
        if let Some(why) = settings::wrong_name(name) {
            self.report(
                wrong(format!("\"{typed}\" is no setting: {why}")).help(
                    "name it as sysctl(8) does, for instance kernel.kptr_restrict; or write \"default\"",
                ),
            );
            return;
        }
        if hold == Hold::Freeze {
            return;
        }
        match settings::by_name(name) {
            None => {
                let problem = wrong(format!("it is not known which values of {typed} are stricter"));
                self.report(match settings::near(name) {
                    Some(near) => {
                        problem.help(format!("did you mean {near}? Any setting can be frozen instead"))
                    }
                    None => problem.help("freeze it instead: it then keeps the value that it has"),
                });
            }
            Some(known) if !known.values.have_an_order() => {
                let problem = wrong(format!("no value of {typed} is stricter than another"));
                self.report(problem.help("freeze it instead: it then keeps the value that it has"));
            }
            Some(_) => {}
        }
    }
}
