/*!
The path of a program.
*/
use std::path::PathBuf;

use super::{
    Reader,
    fields::{Value, printable},
};
use crate::model::Said;

/// The kernel's PATH_MAX without its final byte.
const LONGEST: usize = 4095;

const EXAMPLE: &str = "exe = \"/usr/libexec/fwupd/fwupd\"";

impl Reader<'_> {
    pub(super) fn exe(&mut self, value: &Value) -> Option<Said<PathBuf>> {
        let text = self.string("exe", value, EXAMPLE)?;
        let path = text.value.as_str();
        let wrong = if !path.starts_with('/') {
            "a program is named by its absolute path"
        } else if path.len() > LONGEST {
            "the path of a program has at most 4095 bytes"
        } else if path.ends_with('/') {
            "this is a folder, and an exception is for one program"
        } else if path.chars().any(char::is_control) {
            "the path of a program has no control characters"
        } else if path.contains(['*', '?']) {
            "an exception is for one program: patterns are not read here"
        } else if path.contains("//") || path.split('/').any(|part| part == "." || part == "..") {
            "the path of a program has no `.`, `..` or `//`"
        } else {
            return Some(Said { value: PathBuf::from(path), origin: text.origin });
        };
        let help = if path.starts_with('/') || path.is_empty() {
            format!("write for instance: {EXAMPLE}")
        } else {
            format!("`command -v {}` tells it", printable(path.rsplit('/').next().unwrap_or(path)))
        };
        let problem = self.wrong(wrong, &value.span());
        self.report(problem.help(help));
        None
    }
}
