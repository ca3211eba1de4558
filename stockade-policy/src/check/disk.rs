/*!
The file systems of this machine, or of one that is unpacked in a folder.

Links are followed here, one step at a time, and not by the kernel: every folder and link on the way matters, and under
another root an absolute link means that root.
*/
use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
};

use rustix::fs::{StatVfsMountFlags, getxattr};

use super::{
    content,
    machine::{FileSystem, Files, Keeper, Program, Step, Unseen},
};
use crate::unit_files::{self, Placed, UnitFiles};

/// The number of symbolic links that the kernel follows in one path.
const LINKS: usize = 40;

/// The kernel reads no more of a line with `#!`.
const SCRIPT_LINE: usize = 256;

// From linux/magic.h and the file systems themselves.
const TMPFS: i64 = 0x0102_1994;
const RAMFS: i64 = 0x8584_58f6;
const OVERLAYFS: i64 = 0x794c_7630;
const FUSE: i64 = 0x6573_5546;
const NETWORK: [(i64, &str); 7] = [
    (0x6969, "NFS"),
    (0xff53_4d42, "SMB"),
    (0xfe53_4d42, "SMB"),
    (0x00c3_6400, "Ceph"),
    (0x0102_1997, "9p"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
];

/// Files below a folder that stands for the root.
#[derive(Clone, Debug)]
pub struct Disk {
    root: PathBuf,
    /// Owner and group of that folder: the user who unpacked a machine there stands for its root.
    owner: (u32, u32),
}

impl Disk {
    /// `/` for this machine.
    ///
    /// # Errors
    /// The kernel's error about the folder.
    pub fn new(root: impl Into<PathBuf>) -> io::Result<Self> {
        let root = root.into();
        let found = fs::metadata(&root)?;
        if !found.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Self { root, owner: (found.uid(), found.gid()) })
    }

    /// A path of that machine as one of this.
    fn here(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The way to a path, links followed, and where it ends.
    fn walk(&self, path: &Path) -> Result<(PathBuf, Vec<Step>), Unseen> {
        let mut way = vec![self.step(Path::new("/"))?.0];
        let mut at = PathBuf::from("/");
        let mut left: VecDeque<OsString> = names(path).collect();
        let mut links = 0;
        while let Some(name) = left.pop_front() {
            if name == ".." {
                at.pop();
                continue;
            }
            let next = at.join(&name);
            let (step, target) = self.step(&next)?;
            way.push(step);
            let Some(target) = target else {
                at = next;
                continue;
            };
            links += 1;
            if links > LINKS {
                return Err(Unseen::Failed(next, io::Error::from(rustix::io::Errno::LOOP)));
            }
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            for name in names(&target).collect::<Vec<_>>().into_iter().rev() {
                left.push_front(name);
            }
        }
        Ok((at, way))
    }

    fn step(&self, path: &Path) -> Result<(Step, Option<PathBuf>), Unseen> {
        let here = self.here(path);
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Unseen::Missing(path.into()),
            _ => Unseen::Failed(path.into(), error),
        };
        let found = fs::symlink_metadata(&here).map_err(failed)?;
        let link = found.is_symlink();
        let target = if link { Some(fs::read_link(&here).map_err(failed)?) } else { None };
        let acl =
            !link && getxattr(&here, c"system.posix_acl_access", &mut [0_u8; 0]).is_ok_and(|len| len > 0);
        let step = Step {
            path: path.into(),
            link,
            uid: if found.uid() == self.owner.0 { 0 } else { found.uid() },
            gid: if found.gid() == self.owner.1 { 0 } else { found.gid() },
            mode: found.mode() & 0o7777,
            acl,
        };
        Ok((step, target))
    }

    fn real(&self, exe: &Path) -> io::Result<PathBuf> {
        self.walk(exe).map(|(real, _)| self.here(&real)).map_err(|unseen| match unseen {
            Unseen::Missing(_) => io::ErrorKind::NotFound.into(),
            Unseen::Failed(_, error) => error,
        })
    }
}

impl UnitFiles for Disk {
    fn text(&self, path: &Path) -> Option<(PathBuf, String)> {
        let (real, _) = self.walk(path).ok()?;
        let here = self.here(&real);
        if !fs::symlink_metadata(&here).ok()?.is_file() {
            return None;
        }
        Some((real, fs::read_to_string(here).ok()?))
    }

    fn list(&self, folder: &Path) -> Vec<String> {
        let entries = self.real(folder).and_then(fs::read_dir);
        let names = entries.into_iter().flatten().flatten();
        names.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }
}

impl Files for Disk {
    fn program(&self, exe: &Path) -> Result<Program, Unseen> {
        let (real, way) = self.walk(exe)?;
        let here = self.here(&real);
        let failed = |error| Unseen::Failed(real.clone(), error);
        let regular = fs::symlink_metadata(&here).map_err(failed)?.is_file();
        // Opening anything else may block or act.
        let script = if regular { script(&here).map_err(failed)? } else { None };
        let file_system = file_system(&here).map_err(failed)?;
        Ok(Program { real, way, regular, script, file_system })
    }

    fn sha256(&self, exe: &Path) -> io::Result<[u8; 32]> {
        content::sha256(&mut File::open(self.real(exe)?)?)
    }

    fn verity(&self, exe: &Path) -> io::Result<Option<[u8; 32]>> {
        content::verity(&File::open(self.real(exe)?)?)
    }

    fn unit(&self, unit: &str) -> Placed {
        unit_files::place(unit, self)
    }
}

fn names(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    })
}

/// The interpreter in the first line, if that is what the file begins with.
fn script(path: &Path) -> io::Result<Option<String>> {
    let mut head = Vec::with_capacity(SCRIPT_LINE);
    match File::open(path) {
        Ok(file) => file.take(SCRIPT_LINE as u64).read_to_end(&mut head)?,
        // A program may be executable and not readable; a script has to be readable for its interpreter.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(head.strip_prefix(b"#!").map(|rest| {
        let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
        String::from_utf8_lossy(line).split_whitespace().next().unwrap_or_default().to_owned()
    }))
}

fn file_system(path: &Path) -> io::Result<FileSystem> {
    // Signed on some machines, unsigned on others; the numbers are of 32 bits.
    #[allow(clippy::cast_lossless, clippy::useless_conversion)]
    let magic = i64::from(rustix::fs::statfs(path)?.f_type) & 0xffff_ffff;
    let flags = rustix::fs::statvfs(path)?.f_flag;
    let keeper = match magic {
        TMPFS | RAMFS => Keeper::Memory,
        OVERLAYFS => Keeper::Overlay,
        FUSE => Keeper::Process,
        other => match NETWORK.iter().find(|(magic, _)| *magic == other) {
            Some((_, name)) => Keeper::Network(name),
            None => Keeper::Kernel,
        },
    };
    Ok(FileSystem {
        keeper,
        no_exec: flags.contains(StatVfsMountFlags::NOEXEC),
        read_only: flags.contains(StatVfsMountFlags::RDONLY),
    })
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::{PermissionsExt, symlink},
        path::Path,
    };

    use super::*;

    /// A folder that stands for a root.
    struct Root(tempfile::TempDir);

    impl Root {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir_all(root.path().join("usr/bin")).unwrap();
            Self(root)
        }

        fn at(&self, path: &str) -> PathBuf {
            self.0.path().join(path)
        }

        fn file(&self, path: &str, content: &str, mode: u32) -> &Self {
            let here = self.at(path);
            fs::create_dir_all(here.parent().unwrap()).unwrap();
            fs::write(&here, content).unwrap();
            fs::set_permissions(&here, fs::Permissions::from_mode(mode)).unwrap();
            self
        }

        fn disk(&self) -> Disk {
            Disk::new(self.0.path()).unwrap()
        }
    }

    #[test]
    fn links_are_followed_under_the_other_root() {
        let root = Root::new();
        root.file("usr/bin/tool-1.2", "\x7fELF", 0o755);
        symlink("usr/bin", root.at("bin")).unwrap();
        symlink("/usr/bin/../bin/tool-1.2", root.at("usr/bin/tool")).unwrap();
        let program = root.disk().program(Path::new("/bin/tool")).unwrap();
        assert_eq!(program.real, Path::new("/usr/bin/tool-1.2"));
        assert!(program.regular && program.script.is_none());
        assert_eq!(program.file().unwrap().mode, 0o755);
        let links: Vec<_> = program.way.iter().filter(|s| s.link).map(|s| s.path.to_str().unwrap()).collect();
        assert_eq!(links, ["/bin", "/usr/bin/tool"]);
        assert!(program.way.iter().all(|step| step.uid == 0), "who unpacked it stands for root");
    }

    #[test]
    fn what_is_not_there_is_named_and_circles_end() {
        let root = Root::new();
        symlink("b", root.at("a")).unwrap();
        symlink("a", root.at("b")).unwrap();
        symlink("/gone/tool", root.at("usr/bin/tool")).unwrap();
        let disk = root.disk();
        assert!(
            matches!(disk.program(Path::new("/usr/bin/tool")), Err(Unseen::Missing(path)) if path == Path::new("/gone"))
        );
        assert!(matches!(disk.program(Path::new("/a")), Err(Unseen::Failed(..))));
        assert!(Disk::new(root.at("a/b")).is_err());
    }

    #[test]
    fn scripts_and_folders_are_told_from_programs() {
        let root = Root::new();
        root.file("usr/bin/s", "#! /usr/bin/env python3\n", 0o755).file("usr/bin/empty", "", 0o644);
        let disk = root.disk();
        let program = disk.program(Path::new("/usr/bin/s")).unwrap();
        assert_eq!(program.script.as_deref(), Some("/usr/bin/env"));
        assert_eq!(disk.program(Path::new("/usr/bin/empty")).unwrap().script, None);
        assert!(!disk.program(Path::new("/usr/bin")).unwrap().regular);
        let digest = disk.sha256(Path::new("/usr/bin/empty")).unwrap();
        assert_eq!(digest[..4], [0xe3, 0xb0, 0xc4, 0x42]);
    }
}
