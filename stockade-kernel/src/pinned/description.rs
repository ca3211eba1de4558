/*!
Descriptions: the policy in force as it was configured, in /run/stockade, for `status`, `watch` and `grant`.

Decisions never read it. The slot in the kernel has its digest, so that a description of another policy is detected. Without a valid description
`status` shows only the maps.
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

/// The folder of the descriptions. Like the policies themselves, it does not survive a reboot.
pub const FOLDER: &str = "/run/stockade";

/// Maximum size of a description: one with ten thousand exceptions has a few megabytes.
const MOST_BYTES: u64 = 64 << 20;

/// The description of an applied policy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Description {
    /// The policy, with the cgroups of its units.
    pub policy: Policy,
    /// The level that `auto` stands for.
    pub auto: AutoLevel,
    /// Places in the order of their numbers, which start at 1.
    pub places: Vec<Place>,
    /// Programs of the exceptions.
    pub programs: Vec<Program>,
}

/// A program of an exception, with its identity in the kernel.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Program {
    /// Its path.
    pub path: PathBuf,
    /// Inode number.
    pub inode: u64,
    /// Device of that inode, as the kernel encodes it.
    pub device: u32,
    /// Ctime of the inode when it was recorded: seconds, nanoseconds.
    pub changed: (i64, u32),
}

/// A level in the stored form.
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
    /// Serialises the description.
    pub(crate) fn bytes(&self) -> Result<Bytes, Error> {
        let bytes =
            postcard::to_stdvec(self).map_err(|e| Error::io("describe the policy", io::Error::other(e)))?;
        Ok(Bytes { digest: beginning(&bytes), bytes })
    }

    /// Reads the description of a policy in force; `None` if it is missing or has another digest.
    pub(crate) fn read(generation: u64, digest: u64) -> Option<Self> {
        let path = file(generation);
        // Root may have put another file there: one without an end, or one that blocks.
        let is_one = |metadata: std::fs::Metadata| metadata.is_file() && metadata.len() <= MOST_BYTES;
        let bytes = fs::symlink_metadata(&path).is_ok_and(is_one).then(|| fs::read(&path))?.ok()?;
        if beginning(&bytes) != digest {
            return None;
        }
        postcard::from_bytes(&bytes).ok()
    }

    /// Returns the exception that allowed a request: by the reason's id, place and shape of the event, and the program's identity.
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

/// A serialised description. The format is binary, since a policy may have ten thousand exceptions.
pub(crate) struct Bytes {
    bytes: Vec<u8>,
    /// First bytes of its SHA-256 digest.
    pub digest: u64,
}

impl Bytes {
    /// Writes the description to its file.
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

/// Removes the descriptions of all other policies.
pub(crate) fn keep_only(generations: &[u64]) {
    let keep: Vec<PathBuf> = generations.iter().copied().map(file).collect();
    for entry in fs::read_dir(FOLDER).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let ours = name.to_string_lossy().starts_with("policy-");
        if ours && !keep.contains(&entry.path()) {
            // A file that cannot be removed does no harm: descriptions are looked up by generation and digest.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Returns the error for a policy in force without a description.
pub(crate) fn lost() -> Error {
    Error::Request(format!(
        "the description of the policy in force, in {FOLDER}, is lost or is of something else: apply the policy again with stockade enforce"
    ))
}

/// Returns the error for a sealed policy without a description.
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
