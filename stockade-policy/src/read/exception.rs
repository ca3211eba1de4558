/*!
`[[exception]]`: who is let through where others are not.
*/
use toml::de::DeValue;

use super::{Reader, fields::Table};
use crate::model::{Exception, Said};

/// The keys of an exception.
pub const KEYS: &[&str] =
    &["name", "reasons", "exe", "digest", "cgroup", "unit", "uid", "inherit", "expires", "why"];

impl Reader<'_> {
    pub(super) fn exceptions(&mut self, top: &Table) -> Vec<Exception> {
        let tables = self.tables(top, "exception", "an exception");
        self.unique_names(&tables, "exception");
        tables.iter().filter_map(|table| self.exception(table)).collect()
    }

    fn exception(&mut self, table: &Table) -> Option<Exception> {
        self.only_known_keys(table, KEYS);
        let before = self.problems.len();
        let name = self.name(table, "name = \"firmware updates\"");
        let reasons = self.excepted(table);
        self.subject(table);
        let exe = table.get("exe").and_then(|value| self.exe(value));
        let digest = table.get("digest").and_then(|value| self.digest(value));
        let place = self.place(table);
        let uid = self.uid(table);
        let inherit = match table.get("inherit") {
            Some(value) => self.boolean("inherit", value),
            None => Some(Said::at(false, "default")),
        };
        let expires = table.get("expires").and_then(|value| self.expiry(value));
        let why = table
            .get("why")
            .and_then(|value| self.sentence("why", value, "why = \"fwupd writes SPI flash, ticket 4711\""));
        // What could not be read must not be left out: an exception without its digest is a wider one.
        if self.problems.len() > before {
            return None;
        }
        let granted = false;
        Some(Exception {
            name: name?,
            reasons: reasons?,
            exe,
            digest,
            place,
            uid,
            inherit: inherit?,
            expires,
            why,
            granted,
            ends_boot_ns: None,
        })
    }

    /// Reports keys that are missing beside others.
    fn subject(&mut self, table: &Table) {
        let place = table.has("cgroup") || table.has("unit");
        if !table.has("exe") && !place {
            let problem = if table.has("uid") {
                self.wrong(
                    "`uid` alone is no subject: any program of that user could use it",
                    &table.key("uid"),
                )
                .help("add `exe`, `cgroup` or `unit`")
            } else {
                self.wrong("an exception needs a subject: `exe`, `cgroup` or `unit`", &table.at).help(
                    "add for instance: exe = \"/usr/libexec/fwupd/fwupd\"; for everybody, allow the reason under [reasons]",
                )
            };
            self.report(problem.absent());
        }
        for key in ["digest", "inherit"] {
            if table.has(key) && !table.has("exe") {
                let problem = self
                    .wrong(format!("`{key}` is about a program, and `exe` is not there"), &table.key(key));
                self.report(problem.help("add `exe` with the program's absolute path").absent());
            }
        }
    }

    fn uid(&mut self, table: &Table) -> Option<Said<u32>> {
        const EXAMPLE: &str = "uid = 1000";
        let value = table.get("uid")?;
        let DeValue::Integer(number) = value.get_ref() else {
            let wanted = "a number (names are not looked up: `id -u NAME` tells it)";
            self.wrong_type("uid", wanted, value, EXAMPLE);
            return None;
        };
        // The last number is the kernel's word for nobody in particular.
        match u32::from_str_radix(number.as_str(), number.radix()) {
            Ok(uid) if uid != u32::MAX => Some(self.said(uid, &value.span())),
            _ => {
                let what = format!("a user id is a number from 0 to {}", u32::MAX - 1);
                let problem = self.wrong(what, &value.span());
                self.report(problem.help(format!("write for instance: {EXAMPLE}")));
                None
            }
        }
    }
}
