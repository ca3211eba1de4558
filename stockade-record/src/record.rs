/*!
The line that says what was sealed.

Its bytes are what is measured, so that nobody has to agree on how JSON is written: a verifier hashes the line as it
is, without the line break.
*/
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Digest;

/// The format of the line; another number when a key changes its meaning.
pub const FORMAT: u32 = 1;

/// What was sealed, when, by which program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// [`FORMAT`].
    pub format: u32,
    /// Version of the program.
    pub stockade: String,
    /// `uname -r`.
    pub kernel: String,
    /// The kernel's id of this boot.
    pub boot_id: String,
    /// Nanoseconds since boot, suspend included.
    pub boot_ns: u64,
    /// By the wall clock, which root can set.
    pub time: Timestamp,
    /// Of the policy in its canonical form: `stockade policy show --canonical | sha256sum`.
    pub policy: Digest,
    /// Its level: none, integrity or confidentiality; what `auto` was found to be.
    pub level: String,
    /// enforce, or audit: then nothing is refused by the level.
    pub mode: String,
    /// Of the compiled kernel side.
    pub object: Digest,
    /// Of the program that sealed.
    pub program: Digest,
    /// What was left open on demand, by name.
    pub left_open: Vec<String>,
    /// The register that this record is measured into; null: none.
    pub pcr: Option<u8>,
    /// What that register held before, in the SHA-256 bank.
    pub pcr_before: Option<Digest>,
    /// Of the record before this one, since a sealed policy can be made stricter; null for the first.
    pub previous: Option<Digest>,
}

impl Record {
    /// The line, without a line break.
    ///
    /// # Errors
    /// Never for records that this program makes.
    pub fn line(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }
}
