/*!
File systems by device number, and the two trees that lockdown guards as a whole.

debugfs and tracefs each have one superblock in the whole kernel, so its device number is theirs wherever they are
mounted, also in other mount namespaces and after a lazy unmount. Where neither is mounted in ours, a detached
mount, which nobody else sees and which goes with its descriptor, tells the number and gives access.
*/
use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, StatxFlags},
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen},
};

use crate::Unseen;

/// Major and minor number of a file system's device.
pub type Device = (u32, u32);

/// A line of a mountinfo file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub device: Device,
    /// The mounted folder of the file system; `/` for all of it.
    pub root: PathBuf,
    pub folder: PathBuf,
    pub kind: String,
}

/// Reads a mountinfo file: proc(5).
pub fn mounts(path: &Path) -> io::Result<Vec<Mount>> {
    Ok(fs::read(path)?.split(|&b| b == b'\n').filter_map(mount).collect())
}

fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&b| b == b' ');
    let (major, minor) = std::str::from_utf8(fields.nth(2)?).ok()?.split_once(':')?;
    let device = (major.parse().ok()?, minor.parse().ok()?);
    let (root, folder) = (unescape(fields.next()?), unescape(fields.next()?));
    // Optional fields end with a lone hyphen.
    fields.find(|field| *field == b"-")?;
    Some(Mount { device, root, folder, kind: String::from_utf8_lossy(fields.next()?).into_owned() })
}

/// Undoes the octal escapes of space, tab, newline and backslash.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let code = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if first == b'\\' => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsStr::from_bytes(&bytes))
}

/// The types of file systems by device number.
#[derive(Clone, Debug, Default)]
pub struct Kinds(HashMap<Device, String>);

impl Kinds {
    /// Those of one's own mount namespace.
    pub fn of(mounts: &[Mount]) -> Self {
        Self(mounts.iter().map(|m| (m.device, m.kind.clone())).collect())
    }

    /// The kind behind a device of which a process (its folder in /proc) has a file (a path to it) at hand.
    pub fn kind(&mut self, device: Device, process: &Path, file: &Path) -> &str {
        // A number with a major part is a block device's: no file system of the kernel's own.
        if device.0 != 0 {
            return "";
        }
        if !self.0.contains_key(&device) {
            let theirs = mounts(&process.join("mountinfo")).unwrap_or_default();
            for mount in theirs {
                self.0.entry(mount.device).or_insert(mount.kind);
            }
            // Mounted nowhere the process sees: ask the file system itself.
            self.0.entry(device).or_insert_with(|| by_magic(file).to_owned());
        }
        &self.0[&device]
    }
}

fn by_magic(file: &Path) -> &'static str {
    match rustix::fs::statfs(file).map(|answer| answer.f_type) {
        Ok(0x9fa0) => "proc",
        Ok(0x6265_6572) => "sysfs",
        _ => "",
    }
}

/// The root of a tree and its device number.
pub struct Tree {
    pub device: Device,
    root: OwnedFd,
}

impl Tree {
    /// Opens a file of it for reading.
    pub fn open(&self, path: &str) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&self.root, path, flags, Mode::empty())?))
    }

    /// Whether it has such a file; lockdown does not ask.
    pub fn has(&self, path: &str) -> bool {
        rustix::fs::statx(&self.root, path, AtFlags::empty(), StatxFlags::TYPE).is_ok()
    }
}

/// The two trees, and what is mounted here.
pub struct Trees {
    pub debugfs: Option<Tree>,
    pub tracefs: Option<Tree>,
    pub mounts: Vec<Mount>,
}

impl Trees {
    pub fn of_running_kernel(unseen: &mut Vec<Unseen>) -> Self {
        let mounts = mounts(Path::new("/proc/self/mountinfo")).unwrap_or_else(|e| {
            unseen.push(Unseen {
                what: "mapped PCI registers and /proc/kcore",
                why: format!("/proc/self/mountinfo: {e}"),
                hidden_by: None,
            });
            Vec::new()
        });
        let mut find = |kind: &str, what: &'static str| match tree(kind, &mounts) {
            Ok(tree) => Some(tree),
            // A kernel without it has none of its files open.
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => None,
            Err(e) => {
                unseen.push(Unseen {
                    what,
                    why: format!("{kind} is not mounted, and cannot be: {e}"),
                    hidden_by: None,
                });
                None
            }
        };
        let debugfs = find("debugfs", "open files of debugfs, and kprobes");
        let tracefs = find("tracefs", "open files of tracefs, and uprobes");
        Self { debugfs, tracefs, mounts }
    }

    /// Where BPF file systems are mounted.
    pub fn bpf_folders(&self) -> Vec<PathBuf> {
        self.mounts.iter().filter(|m| m.kind == "bpf").map(|m| m.folder.clone()).collect()
    }
}

/// The tree where it is mounted, or detached. A second mount could, on kernels before 5.18, reset the options
/// of the first: it is made only where there is none.
fn tree(kind: &str, mounts: &[Mount]) -> io::Result<Tree> {
    for mount in mounts.iter().filter(|m| m.kind == kind && m.root == Path::new("/")) {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        if let Ok(root) = rustix::fs::openat(CWD, &mount.folder, flags, Mode::empty())
            // Something else may be mounted over it.
            && device_of(root.as_fd()).is_ok_and(|device| device == mount.device)
        {
            return Ok(Tree { device: mount.device, root });
        }
    }
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(context.as_fd())?;
    let root = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    Ok(Tree { device: device_of(root.as_fd())?, root })
}

fn device_of(folder: impl AsFd) -> io::Result<Device> {
    let answer = rustix::fs::statx(folder, "", AtFlags::EMPTY_PATH, StatxFlags::INO)?;
    Ok((answer.stx_dev_major, answer.stx_dev_minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_taken_apart() {
        let line = b"36 35 0:7 / /a\\040b\\134c rw,noatime master:1 shared:2 - debugfs none rw";
        let expected =
            Mount { device: (0, 7), root: "/".into(), folder: "/a b\\c".into(), kind: "debugfs".into() };
        assert_eq!(mount(line), Some(expected));
        assert_eq!(mount(b""), None);
        assert_eq!(mount(b"36 35 0:7 / /x rw"), None);
    }

    #[test]
    fn proc_is_known_by_its_device_and_by_its_magic() {
        let here = Path::new("/proc/self");
        let mounts = mounts(&here.join("mountinfo")).unwrap();
        let proc = mounts.iter().find(|m| m.folder == Path::new("/proc")).unwrap().device;
        assert_eq!(Kinds::of(&mounts).kind(proc, here, Path::new("/nowhere")), "proc");
        assert_eq!(Kinds::default().kind(proc, Path::new("/nowhere"), Path::new("/proc/version")), "proc");
        assert_eq!(Kinds::default().kind((8, 1), here, here), "");
    }
}
