/*!
What the check has to know of the machine: facts only, so that tests can make up a machine and a policy can
be checked far from the machine it is for. What is not known is `None`, and the report names it.
*/
use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use stockade_reasons::Level;

use crate::{model::Place, unit_files::Placed};

/// A machine, as far as it is known.
pub struct Machine<'a> {
    /// Level of the kernel's own lockdown.
    pub native: Option<Level>,
    /// What `auto` comes to.
    pub auto: Option<Level>,
    /// Ids of the reasons of its kernel.
    pub reasons: Option<BTreeSet<String>>,
    /// The time to compare with.
    pub now: Timestamp,
    /// Its file systems.
    pub files: &'a dyn Files,
    /// Paths of the cgroups that a place names right now.
    pub cgroups: &'a dyn Fn(&Place) -> Option<Vec<String>>,
    /// Whether its kernel has a function of this name that BPF programs can be attached to.
    pub function: &'a dyn Fn(&str) -> Option<bool>,
    /// The value of a setting, by the kernel's name.
    pub setting: &'a dyn Fn(&str) -> Now,
}

/// The value of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Now {
    /// It could not be looked at.
    Unknown,
    /// There is no such setting.
    Absent,
    /// This, without the line break.
    Is(String),
}

/// What can be asked of the file systems of a machine.
pub trait Files {
    /// What there is at a path, and on the way to it.
    ///
    /// # Errors
    /// [`Unseen`] where nothing is there or it could not be looked at.
    fn program(&self, exe: &Path) -> Result<Program, Unseen>;

    /// SHA-256 over the bytes of the file at a path.
    ///
    /// # Errors
    /// What the kernel answered.
    fn sha256(&self, exe: &Path) -> io::Result<[u8; 32]>;

    /// What fs-verity measured when the file at a path was put under it; `None` where it was not.
    ///
    /// # Errors
    /// What the kernel answered.
    fn verity(&self, exe: &Path) -> io::Result<Option<[u8; 32]>>;

    /// What systemd calls a unit, and where it would start it.
    fn unit(&self, unit: &str) -> Placed;
}

/// Why there is nothing to say about a program.
#[derive(Debug)]
pub enum Unseen {
    /// There is nothing at this path, which is the program's or on the way to it.
    Missing(PathBuf),
    /// Looking at this path failed.
    Failed(PathBuf, io::Error),
}

/// A program's file, and the way to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Where it is once links are followed.
    pub real: PathBuf,
    /// Every folder and link on the way from the root, and the file itself last.
    pub way: Vec<Step>,
    /// Whether it is a regular file.
    pub regular: bool,
    /// Whether it begins with `#!`; then the interpreter named there.
    pub script: Option<String>,
    /// The file system it is on.
    pub file_system: FileSystem,
}

/// One folder, link or file on the way to a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Where it is.
    pub path: PathBuf,
    /// Whether it is a link, whose mode says nothing.
    pub link: bool,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Mode bits, without the type.
    pub mode: u32,
    /// Whether an access control list adds to the mode bits.
    pub acl: bool,
}

/// A file system, as far as it matters for a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// Who keeps the content.
    pub keeper: Keeper,
    /// Mounted noexec.
    pub no_exec: bool,
    /// Mounted read-only.
    pub read_only: bool,
}

/// Who keeps the content of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// This kernel, on a disk.
    Kernel,
    /// This kernel, in memory.
    Memory,
    /// An overlay over other file systems.
    Overlay,
    /// A process, by FUSE.
    Process,
    /// Another machine: the name of the protocol.
    Network(&'static str),
}

impl Program {
    /// The file itself.
    #[must_use]
    pub fn file(&self) -> Option<&Step> {
        self.way.last()
    }
}
