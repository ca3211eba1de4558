/*!
Names of scopes and exceptions, and sentences that say why.
*/
use super::{
    Reader,
    fields::{Table, Value},
};
use crate::model::Said;

/// The longest name, in bytes: it stands in listings and in events.
const LONGEST: usize = 100;

impl Reader<'_> {
    pub(super) fn name(&mut self, table: &Table, example: &str) -> Option<Said<String>> {
        let value = self.demand(table, "name", example)?;
        let name = self.string("name", value, example)?;
        let wrong = if name.value.trim().is_empty() {
            "a name cannot be empty".to_owned()
        } else if name.value.trim() != name.value {
            "a name does not begin or end with a space".to_owned()
        } else if name.value.len() > LONGEST {
            format!("a name has at most {LONGEST} bytes, and this one has {}", name.value.len())
        } else if name.value.chars().any(char::is_control) {
            "a name has no line breaks or other control characters".to_owned()
        } else {
            return Some(name);
        };
        let problem = self.wrong(wrong, &value.span());
        self.report(problem.help(format!("write for instance: {example}")));
        None
    }

    /// A sentence for whoever reads the policy.
    pub(super) fn sentence(&mut self, key: &str, value: &Value, example: &str) -> Option<Said<String>> {
        let text = self.string(key, value, example)?;
        let wrong = if text.value.trim().is_empty() {
            format!("`{key}` is empty")
        } else if text.value.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
            format!("`{key}` has control characters, which could drive a terminal")
        } else {
            return Some(text);
        };
        let problem = self.wrong(wrong, &value.span());
        self.report(problem.help(format!("write for instance: {example}")));
        None
    }
}
