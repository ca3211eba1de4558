//! The two moves most doors share: opening a file, and writing back what was read from it.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;

use crate::answer::Outcome;

/// Opens a file read-only and closes it again. For files whose open is the guarded operation.
pub(crate) fn open(path: &Path) -> Outcome {
    Outcome::from_result(&format!("open {}", path.display()), File::open(path))
}

/// Writes a value to an attribute in one write. The caller has just read that value from it.
pub(crate) fn write_back(path: &Path, value: &str) -> Outcome {
    let written =
        OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(value.as_bytes()));
    Outcome::from_result(&format!("write {}", path.display()), written)
}

/// The trimmed text of a file; none if it cannot be read.
pub(crate) fn text(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}
