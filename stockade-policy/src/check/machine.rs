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
    /// The level that `auto` stands for.
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

/// Questions about the file systems of a machine.
pub trait Files {
    /// Returns the file at a path, with every folder and link on the way to it.
    ///
    /// # Errors
    /// [`Unseen`] where nothing is there or it could not be looked at.
    fn program(&self, exe: &Path) -> Result<Program, Unseen>;

    /// SHA-256 over the bytes of the file at a path.
    ///
    /// # Errors
    /// The kernel's error.
    fn sha256(&self, exe: &Path) -> io::Result<[u8; 32]>;

    /// Returns the digest that fs-verity measured when it was enabled for the file at a path; `None` if it was not.
    ///
    /// # Errors
    /// The kernel's error.
    fn verity(&self, exe: &Path) -> io::Result<Option<[u8; 32]>>;

    /// Returns systemd's name of a unit, and the cgroup that systemd would start it in.
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
    /// Where the content is stored.
    pub keeper: Keeper,
    /// Mounted noexec.
    pub no_exec: bool,
    /// Mounted read-only.
    pub read_only: bool,
}

/// Where the content of a file system is stored.
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
