/*!
Which files make a policy, in which order.

```text
/usr/lib/stockade/policy.toml        the distribution's
/usr/lib/stockade/policy.d/NAME.toml by name
/etc/stockade/policy.toml            this host's, over all of those
/etc/stockade/policy.d/NAME.toml     by name
```

A file in /etc/stockade/policy.d takes the place of one with the same name in /usr/lib/stockade/policy.d. A link to
/dev/null or an empty file there masks it: nothing is read in its place. So it is with policy.toml too, except that a
/etc/stockade/policy.toml which says something adds to the distribution's.
*/
use std::{
    ffi::{OsStr, OsString},
    io,
    path::{Path, PathBuf},
};

use crate::root::{Content, Root};

/// Where distributions put theirs.
pub const VENDOR: &str = "/usr/lib/stockade";
/// Where administrators put theirs.
pub const HOST: &str = "/etc/stockade";

const MAIN: &str = "policy.toml";
const DROP_INS: &str = "policy.d";
const EXTENSION: &str = "toml";

/// A file that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// How it is told, the root's path before it.
    pub path: PathBuf,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// A file that was passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedOver {
    /// Which.
    pub path: PathBuf,
    /// Why.
    pub why: String,
}

/// The files that were found.
#[derive(Debug, Default)]
pub struct Files {
    /// Files that are read, in order.
    pub found: Vec<Found>,
    /// Files that are not read.
    pub passed_over: Vec<PassedOver>,
    /// The folders that were looked through.
    pub folders: Vec<PathBuf>,
}

/// A file or folder that could not be read.
#[derive(Debug)]
pub struct Unreadable {
    /// Which.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// The system's files, below a root.
///
/// # Errors
/// When one is there and cannot be read: a policy without it would be another one.
pub fn system(root: &Path) -> Result<Files, Unreadable> {
    let root = Root::open(root).map_err(|source| Unreadable { path: root.to_owned(), source })?;
    let mut files = Files::default();
    let host = Layout::look(&root, Path::new(HOST), &mut files)?;
    let vendor = Layout::look(&root, Path::new(VENDOR), &mut files)?;
    let mask = |files: &mut Files, path: &Path, by: &Path| {
        let why = format!("masked by {}", root.told(by).display());
        files.passed_over.push(PassedOver { path: root.told(path), why });
    };
    for entry in vendor.main.into_iter().chain(vendor.drop_ins) {
        let main = entry.name == MAIN;
        let over =
            if main { host.main.as_ref() } else { host.drop_ins.iter().find(|e| e.name == entry.name) };
        match over {
            Some(over) if !main || over.content == Content::Nothing => {
                mask(&mut files, &entry.path, &over.path);
            }
            _ => take(&root, entry, &mut files),
        }
    }
    for entry in host.main.into_iter().chain(host.drop_ins) {
        take(&root, entry, &mut files);
    }
    Ok(files)
}

/// Files named by hand; a folder stands for what is in it, laid out as /etc/stockade.
///
/// # Errors
/// When one cannot be read, or a folder has nothing.
pub fn named(paths: &[PathBuf]) -> Result<Files, Unreadable> {
    let mut files = Files::default();
    let root = Root::system();
    for path in paths {
        if path.is_dir() {
            let before = files.found.len();
            let layout = Layout::look(&root, path, &mut files)?;
            for entry in layout.main.into_iter().chain(layout.drop_ins) {
                take(&root, entry, &mut files);
            }
            if files.found.len() == before {
                let what =
                    format!("this folder has no {MAIN} and no {DROP_INS}/*.{EXTENSION} that says something");
                let source = io::Error::new(io::ErrorKind::NotFound, what);
                return Err(Unreadable { path: path.clone(), source });
            }
        } else {
            let bytes = match root.read(path) {
                Ok(Content::Bytes(bytes)) => bytes,
                // Rather a copy that went wrong than a wish for the defaults.
                Ok(Content::Nothing) => {
                    let source = io::Error::new(
                        io::ErrorKind::InvalidData,
                        "this file is empty; write for instance `level = \"auto\"`",
                    );
                    return Err(Unreadable { path: path.clone(), source });
                }
                Err(source) => return Err(Unreadable { path: path.clone(), source }),
            };
            files.found.push(Found { path: path.clone(), bytes });
        }
    }
    Ok(files)
}

fn take(root: &Root, entry: Entry, files: &mut Files) {
    let path = root.told(&entry.path);
    match entry.content {
        Content::Bytes(bytes) => files.found.push(Found { path, bytes }),
        Content::Nothing => files.passed_over.push(PassedOver { path, why: "empty".into() }),
    }
}

struct Entry {
    name: OsString,
    path: PathBuf,
    content: Content,
}

/// A folder with policy.toml and policy.d.
struct Layout {
    main: Option<Entry>,
    drop_ins: Vec<Entry>,
}

impl Layout {
    fn look(root: &Root, folder: &Path, files: &mut Files) -> Result<Self, Unreadable> {
        let main = Self::entry(root, folder.join(MAIN), MAIN.into())?;
        if main.is_some() {
            files.folders.push(root.told(folder));
        }
        let folder = folder.join(DROP_INS);
        let mut names = match root.list(&folder) {
            Ok(names) => names,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self { main, drop_ins: Vec::new() }),
            Err(source) => return Err(Unreadable { path: root.told(&folder), source }),
        };
        files.folders.push(root.told(&folder));
        names.sort();
        let mut drop_ins = Vec::new();
        for name in names {
            let path = folder.join(&name);
            if is_drop_in(&name) {
                drop_ins.extend(Self::entry(root, path, name)?);
            } else {
                let why = format!("its name does not end in .{EXTENSION}, or begins with a dot");
                files.passed_over.push(PassedOver { path: root.told(&path), why });
            }
        }
        Ok(Self { main, drop_ins })
    }

    fn entry(root: &Root, path: PathBuf, name: OsString) -> Result<Option<Entry>, Unreadable> {
        match root.read(&path) {
            Ok(content) => Ok(Some(Entry { name, path, content })),
            // A dangling link is not "nothing there": whoever made it meant something.
            Err(e) if e.kind() == io::ErrorKind::NotFound && !root.is_link(&path) => Ok(None),
            Err(source) => Err(Unreadable { path: root.told(&path), source }),
        }
    }
}

fn is_drop_in(name: &OsStr) -> bool {
    Path::new(name).extension() == Some(OsStr::new(EXTENSION)) && !name.as_encoded_bytes().starts_with(b".")
}
