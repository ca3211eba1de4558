/*!
`std::fs` on the machine that a test plays on: the functions that commands use, each of which is a call that can be the last
one or fail. Without a machine they are the standard library's.
*/
use std::{
    ffi::OsString,
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::{Kind, machine, passes};

/// The call passes, and the path is this.
fn called(kind: Kind, path: &Path) -> io::Result<PathBuf> {
    let Some(machine) = machine() else { return Ok(path.to_owned()) };
    passes(kind, &path.display().to_string())?;
    let changes = matches!(kind, Kind::Write | Kind::Remove | Kind::Rename | Kind::MakeFolder);
    let mut kernel = machine.kernel();
    if changes {
        kernel.files_change();
    }
    drop(kernel);
    Ok(machine.at(path))
}

pub(crate) fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    std::fs::read(called(Kind::Read, path.as_ref())?)
}

pub(crate) fn read_to_string(path: impl AsRef<Path>) -> io::Result<String> {
    std::fs::read_to_string(called(Kind::Read, path.as_ref())?)
}

pub(crate) fn read_link(path: impl AsRef<Path>) -> io::Result<PathBuf> {
    std::fs::read_link(called(Kind::Stat, path.as_ref())?)
}

pub(crate) fn metadata(path: impl AsRef<Path>) -> io::Result<std::fs::Metadata> {
    std::fs::metadata(called(Kind::Stat, path.as_ref())?)
}

pub(crate) fn symlink_metadata(path: impl AsRef<Path>) -> io::Result<std::fs::Metadata> {
    std::fs::symlink_metadata(called(Kind::Stat, path.as_ref())?)
}

pub(crate) fn exists(path: impl AsRef<Path>) -> io::Result<bool> {
    std::fs::exists(called(Kind::Stat, path.as_ref())?)
}

/// The entries of a folder, by the paths that they have on the machine.
pub(crate) fn read_dir(path: impl AsRef<Path>) -> io::Result<impl Iterator<Item = io::Result<DirEntry>>> {
    let folder = path.as_ref().to_owned();
    let entries = std::fs::read_dir(called(Kind::List, &folder)?)?;
    Ok(entries.map(move |entry| entry.map(|entry| DirEntry { path: folder.join(entry.file_name()), entry })))
}

/// An entry of a folder.
pub(crate) struct DirEntry {
    path: PathBuf,
    entry: std::fs::DirEntry,
}

impl DirEntry {
    pub fn path(&self) -> PathBuf {
        self.path.clone()
    }

    pub fn file_name(&self) -> OsString {
        self.entry.file_name()
    }

    pub fn file_type(&self) -> io::Result<std::fs::FileType> {
        self.entry.file_type()
    }
}

/// Settings are asked of the kernel.
pub(crate) fn write(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> io::Result<()> {
    let path = path.as_ref();
    let there = called(Kind::Write, path)?;
    if let (Some(machine), Ok(setting)) = (machine(), path.strip_prefix("/proc/sys"))
        && machine.kernel().table().settings.contains(&*setting.to_string_lossy())
    {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    std::fs::write(there, bytes)
}

pub(crate) fn remove_file(path: impl AsRef<Path>) -> io::Result<()> {
    std::fs::remove_file(called(Kind::Remove, path.as_ref())?)
}

pub(crate) fn remove_dir(path: impl AsRef<Path>) -> io::Result<()> {
    std::fs::remove_dir(called(Kind::Remove, path.as_ref())?)
}

pub(crate) fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
    let from = called(Kind::Rename, from.as_ref())?;
    std::fs::rename(from, machine().map_or(to.as_ref().to_owned(), |machine| machine.at(to.as_ref())))
}

/// Opens files.
pub(crate) struct File;

impl File {
    pub fn open(path: impl AsRef<Path>) -> io::Result<std::fs::File> {
        std::fs::File::open(called(Kind::OpenFile, path.as_ref())?)
    }
}

/// Makes folders.
pub(crate) struct DirBuilder(std::fs::DirBuilder);

impl DirBuilder {
    pub fn new() -> Self {
        Self(std::fs::DirBuilder::new())
    }

    pub fn recursive(&mut self, recursive: bool) -> &mut Self {
        self.0.recursive(recursive);
        self
    }

    pub fn create(&self, path: impl AsRef<Path>) -> io::Result<()> {
        self.0.create(called(Kind::MakeFolder, path.as_ref())?)
    }
}

impl DirBuilderExt for DirBuilder {
    fn mode(&mut self, mode: u32) -> &mut Self {
        self.0.mode(mode);
        self
    }
}

/// Opens files to write them.
pub(crate) struct OpenOptions(std::fs::OpenOptions);

impl OpenOptions {
    pub fn new() -> Self {
        Self(std::fs::OpenOptions::new())
    }

    pub fn write(&mut self, write: bool) -> &mut Self {
        self.0.write(write);
        self
    }

    pub fn create(&mut self, create: bool) -> &mut Self {
        self.0.create(create);
        self
    }

    pub fn truncate(&mut self, truncate: bool) -> &mut Self {
        self.0.truncate(truncate);
        self
    }

    pub fn open(&self, path: impl AsRef<Path>) -> io::Result<Written> {
        self.0.open(called(Kind::OpenFile, path.as_ref())?).map(Written)
    }
}

impl OpenOptionsExt for OpenOptions {
    fn mode(&mut self, mode: u32) -> &mut Self {
        self.0.mode(mode);
        self
    }

    fn custom_flags(&mut self, flags: i32) -> &mut Self {
        self.0.custom_flags(flags);
        self
    }
}

/// A file that is written.
pub(crate) struct Written(std::fs::File);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        passes(Kind::Write, "the open file")?;
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
