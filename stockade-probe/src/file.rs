//! The two moves most doors share: opening a file, and writing back what was read from it.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;

use crate::answer::Outcome;

/// Opens a file read-only and closes it again. For files whose open is the guarded operation.
pub(crate) fn open(path: &Path) -> Outcome {
    Outcome::from_result(&format!("open {}", path.display()), File::open(path))
}

/// Writes a word to an attribute that takes no such value. For attributes where lockdown is asked before the value is looked at: EPERM
/// is a refusal, EINVAL comes after the check, and the attribute keeps its value.
pub(crate) fn write_nonsense(path: &Path) -> Outcome {
    let tried = format!("write {}", path.display());
    match OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(b"stockade-probe")) {
        Ok(()) => Outcome::failed(format!("{tried}: the kernel takes any word")),
        Err(error) => Outcome::from_error_past(&tried, &error, libc::EINVAL),
    }
}

/// The trimmed text of a file; none if it cannot be read.
pub(crate) fn text(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}
