/*!
The policy in force in words: what a person reads and what `grant` builds on, kept beside the kernel's tables.

Decisions never read it. The kernel's tables carry its digest, so that a description of something else is
noticed: what is in force is what the tables say, and without its description it is shown as such.
*/
use std::{
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use stockade_policy::model::{Exception, Place, Policy};
use stockade_reasons::Level;

use crate::{Error, sys::fs};

/// Where descriptions lie: gone with the next boot, as what they describe.
pub const FOLDER: &str = "/run/stockade";

/// No description is longer: one of ten thousand exceptions has some megabytes.
const MOST_BYTES: u64 = 64 << 20;

/// A policy as it was applied.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Description {
    /// The policy, its units found.
    pub policy: Policy,
    /// What `auto` was found to be.
    pub auto: AutoLevel,
    /// Places in the order of their numbers, the first of which is 1.
    pub places: Vec<Place>,
    /// Programs that exceptions speak of.
    pub programs: Vec<Program>,
}

/// A program that exceptions speak of, as the kernel knows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Program {
    /// Its path.
    pub path: PathBuf,
    /// Inode number.
    pub inode: u64,
    /// Device, as the kernel packs it.
    pub device: u32,
    /// Change time of the inode when it was looked at: seconds, nanoseconds.
    pub changed: (i64, u32),
}

/// A level as it is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AutoLevel {
    /// [`Level::None`]
    None,
    /// [`Level::Integrity`]
    Integrity,
    /// [`Level::Confidentiality`]
    Confidentiality,
}

impl From<Level> for AutoLevel {
    fn from(level: Level) -> Self {
        match level {
            Level::None => Self::None,
            Level::Integrity => Self::Integrity,
            Level::Confidentiality => Self::Confidentiality,
        }
    }
}

impl From<AutoLevel> for Level {
    fn from(level: AutoLevel) -> Self {
        match level {
            AutoLevel::None => Self::None,
            AutoLevel::Integrity => Self::Integrity,
            AutoLevel::Confidentiality => Self::Confidentiality,
        }
    }
}

fn file(generation: u64) -> PathBuf {
    Path::new(FOLDER).join(format!("policy-{generation}"))
}

impl Description {
    /// As it is written down.
    pub(crate) fn bytes(&self) -> Result<Bytes, Error> {
        let bytes =
            postcard::to_stdvec(self).map_err(|e| Error::io("describe the policy", io::Error::other(e)))?;
        Ok(Bytes { digest: beginning(&bytes), bytes })
    }

    /// Reads the description of a policy in force; `None` when there is none, or it describes something else.
    pub(crate) fn read(generation: u64, digest: u64) -> Option<Self> {
        let path = file(generation);
        // Root may have put something else there, which does not end or cannot be read at once.
        let is_one = |metadata: std::fs::Metadata| metadata.is_file() && metadata.len() <= MOST_BYTES;
        let bytes = fs::symlink_metadata(&path).is_ok_and(is_one).then(|| fs::read(&path))?.ok()?;
        if beginning(&bytes) != digest {
            return None;
        }
        postcard::from_bytes(&bytes).ok()
    }

    /// The exception that let a request through: its reason's id, the place and shape the event tells, and
    /// the program's identity.
    #[must_use]
    pub fn exception(
        &self,
        reason: &str,
        place: u32,
        shape: u32,
        exe: (u64, u32),
        uid: u32,
    ) -> Option<&Exception> {
        use stockade_common::decide::{BY_PLACE, BY_PROGRAM, BY_UID};
        let here = (place as usize).checked_sub(1).and_then(|at| self.places.get(at));
        self.policy.exceptions.iter().find(|exception| {
            let program = match &exception.exe {
                None => shape & BY_PROGRAM == 0,
                Some(path) => {
                    let same = |p: &&Program| p.path == path.value && (p.inode, p.device) == exe;
                    shape & BY_PROGRAM != 0 && self.programs.iter().any(|p| same(&p))
                }
            };
            let place = match (&exception.place, here) {
                (None, _) => shape & BY_PLACE == 0,
                (Some(said), Some(here)) => shape & BY_PLACE != 0 && said.value.covers_all(here),
                (Some(_), None) => false,
            };
            let user = match &exception.uid {
                None => shape & BY_UID == 0,
                Some(said) => shape & BY_UID != 0 && said.value == uid,
            };
            program && place && user && exception.reasons.iter().any(|said| said.value == reason)
        })
    }
}

/// A description as it is written down: a program's format, since a policy may have ten thousand exceptions.
pub(crate) struct Bytes {
    bytes: Vec<u8>,
    /// The beginning of its digest.
    pub digest: u64,
}

impl Bytes {
    /// Writes it to its file.
    pub(crate) fn write(&self, generation: u64) -> Result<(), Error> {
        use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
        let path = file(generation);
        let write = || -> io::Result<()> {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(FOLDER)?;
            let mut file =
                fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
            io::Write::write_all(&mut file, &self.bytes)
        };
        write().map_err(|e| Error::io(format!("write {}", path.display()), e))
    }
}

/// Removes the descriptions of every other policy.
pub(crate) fn keep_only(generations: &[u64]) {
    let keep: Vec<PathBuf> = generations.iter().copied().map(file).collect();
    for entry in fs::read_dir(FOLDER).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let ours = name.to_string_lossy().starts_with("policy-");
        if ours && !keep.contains(&entry.path()) {
            // What is left of it misleads nobody: it is found by number and digest only.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The error where there is none of what is in force.
pub(crate) fn lost() -> Error {
    Error::Request(format!(
        "the description of the policy in force, in {FOLDER}, is lost or is of something else: apply the policy again with stockade enforce"
    ))
}

/// The same where it is sealed.
pub(crate) fn lost_for_good() -> Error {
    Error::Request(format!(
        "the description of the sealed policy, in {FOLDER}, is lost or is of something else: what is sealed stays in force, and whether \
         another policy is stricter cannot be told any more, so that none can be added before the next boot"
    ))
}

fn beginning(bytes: &[u8]) -> u64 {
    let digest = Sha256::digest(bytes);
    u64::from_le_bytes(digest[..8].try_into().expect("a digest has 32 bytes"))
}
