/*!
Reading files below a root: this system's, or an image's, where links lead no further than the image.
*/
use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{FileTypeExt, MetadataExt},
        },
    },
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, Dir, Mode, OFlags, ResolveFlags, openat, openat2, readlinkat};

use crate::read::LARGEST;

const NULL: &str = "/dev/null";
/// Not to wait for whoever writes a pipe, nor to take a terminal.
const FLAGS: OFlags = OFlags::CLOEXEC.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// The content of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Bytes(Vec<u8>),
    /// It is empty, or a link to /dev/null.
    Nothing,
}

pub(crate) struct Root {
    path: PathBuf,
    /// None for this system's own, where links are followed as always.
    image: Option<OwnedFd>,
}

impl Root {
    pub(crate) fn system() -> Self {
        Self { path: PathBuf::from("/"), image: None }
    }

    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        if path == Path::new("/") {
            return Ok(Self::system());
        }
        let image = openat(CWD, path, FLAGS | OFlags::DIRECTORY, Mode::empty())?;
        Ok(Self { path: path.to_owned(), image: Some(image) })
    }

    /// How a path of it is told: as one can open it.
    pub(crate) fn told(&self, path: &Path) -> PathBuf {
        match self.image {
            Some(_) => self.path.join(path.strip_prefix("/").unwrap_or(path)),
            None => path.to_owned(),
        }
    }

    fn fd(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let fd = match &self.image {
            Some(root) => openat2(root.as_fd(), path, flags | FLAGS, Mode::empty(), ResolveFlags::IN_ROOT)?,
            None => openat(CWD, path, flags | FLAGS, Mode::empty())?,
        };
        Ok(fd)
    }

    /// Names in a folder.
    pub(crate) fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in Dir::new(self.fd(folder, OFlags::DIRECTORY)?)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsStr::from_bytes(name).to_owned());
            }
        }
        Ok(names)
    }

    pub(crate) fn is_link(&self, path: &Path) -> bool {
        self.link(path).is_some()
    }

    fn link(&self, path: &Path) -> Option<OsString> {
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = self.fd(folder, OFlags::DIRECTORY).ok()?;
        let target = readlinkat(&folder, path.file_name()?, Vec::new()).ok()?;
        Some(OsStr::from_bytes(target.to_bytes()).to_owned())
    }

    /// A whole file, but not more than is read anyway.
    pub(crate) fn read(&self, path: &Path) -> io::Result<Content> {
        // An image need not have that device.
        if self.link(path).is_some_and(|target| target == NULL) {
            return Ok(Content::Nothing);
        }
        let file = File::from(self.fd(path, OFlags::empty())?);
        let meta = file.metadata()?;
        if meta.file_type().is_char_device() && is_null(&meta) {
            return Ok(Content::Nothing);
        }
        if !meta.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is not a regular file"));
        }
        let mut bytes = Vec::new();
        file.take(LARGEST as u64 + 1).read_to_end(&mut bytes)?;
        Ok(if bytes.is_empty() { Content::Nothing } else { Content::Bytes(bytes) })
    }
}

fn is_null(meta: &fs::Metadata) -> bool {
    fs::metadata(NULL).is_ok_and(|null| null.rdev() == meta.rdev())
}
