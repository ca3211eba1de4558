/*!
Which files lockdown guards. They are told by number, which a bind mount, a node of one's own making or a
rename does not change: a character device by its own number, a file of debugfs or tracefs by the device of
that tree, /proc/kcore and PCI registers by inode number in their kind of file system.
*/
use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use rustix::fs::{AtFlags, FileType, StatxFlags};

use crate::{
    Access, Kind, Unseen,
    filesystems::{Device, Kinds, Trees},
};

/// Numbers of a file from statx(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    pub kind: FileType,
    pub mode: u16,
    pub device: Device,
    pub inode: u64,
    /// The device of a device node.
    pub special: Device,
}

impl Numbers {
    /// Asks without asking a file server: one that does not answer must not hold up the look.
    pub fn of(folder: impl std::os::fd::AsFd, path: impl rustix::path::Arg) -> rustix::io::Result<Self> {
        let wanted = StatxFlags::TYPE | StatxFlags::MODE | StatxFlags::INO;
        let answer = rustix::fs::statx(folder, path, AtFlags::STATX_DONT_SYNC, wanted)?;
        Ok(Self {
            kind: FileType::from_raw_mode(answer.stx_mode.into()),
            mode: answer.stx_mode & 0o7777,
            device: (answer.stx_dev_major, answer.stx_dev_minor),
            inode: answer.stx_ino,
            special: (answer.stx_rdev_major, answer.stx_rdev_minor),
        })
    }
}

/// A guarded file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guarded {
    pub reason: &'static str,
    pub kind: Kind,
    /// Its usual name; none for a file of a tree, which goes by the name it was opened under.
    pub name: Option<String>,
    rule: Rule,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// Refused at every open.
    Always,
    /// `debugfs_locked_down()`: a file nobody may write, opened for reading, is let through. That it also
    /// refuses such a file when it has an ioctl or mmap cannot be seen from here.
    Debugfs { read_only: bool },
}

impl Guarded {
    /// Whether lockdown would refuse to open it so.
    pub fn refuses(&self, access: Access) -> bool {
        match self.rule {
            Rule::Always => true,
            Rule::Debugfs { read_only } => !read_only || access != Access::Read,
        }
    }
}

/// The numbers of what is guarded on this kernel.
pub struct Guard {
    /// Character devices.
    pub devices: Vec<(Device, &'static str, &'static str)>,
    pub debugfs: Option<Device>,
    pub tracefs: Option<Device>,
    /// Inode number of /proc/kcore, which is the same in every instance of the proc file system.
    pub kcore: Option<u64>,
    pub kinds: Kinds,
    /// Inode numbers of what maps PCI registers, in sysfs and in proc; read when first asked for.
    bars: OnceLock<Vec<(&'static str, u64, PathBuf)>>,
}

/// From Documentation/admin-guide/devices.txt. The reasons are those of `open_port()` in
/// drivers/char/mem.c and `snapshot_open()` in kernel/power/user.c.
const DEVICES: [(Device, &str, &str); 4] = [
    ((1, 1), "/dev/mem", "dev-mem"),
    ((1, 2), "/dev/kmem", "dev-mem"),
    ((1, 4), "/dev/port", "dev-mem"),
    ((10, 231), "/dev/snapshot", "hibernation"),
];

impl Guard {
    pub fn of_running_kernel(trees: &Trees, unseen: &mut Vec<Unseen>) -> Self {
        let mut devices = DEVICES.to_vec();
        // Its number is given out when the module is loaded.
        if let Some(device) =
            fs::read_to_string("/sys/class/misc/efi_test/dev").ok().as_deref().and_then(device)
        {
            devices.push((device, "/dev/efi_test", "efi-test"));
        }
        let kcore = match Numbers::of(rustix::fs::CWD, "/proc/kcore") {
            Ok(numbers) => Some(numbers.inode),
            // Not every kernel has it.
            Err(rustix::io::Errno::NOENT) => None,
            Err(e) => {
                let why = format!("/proc/kcore: {e}");
                unseen.push(Unseen { what: "descriptors of /proc/kcore", why, hidden_by: None });
                None
            }
        };
        Self {
            devices,
            debugfs: trees.debugfs.as_ref().map(|t| t.device),
            tracefs: trees.tracefs.as_ref().map(|t| t.device),
            kcore,
            kinds: Kinds::of(&trees.mounts),
            bars: OnceLock::new(),
        }
    }

    /// Returns the kind of an open file, if it is guarded. `process` is its owner's folder in /proc, `file` a path to it,
    /// both for asking further where the numbers leave a doubt.
    pub fn open_file(
        &self,
        file: &Numbers,
        kinds: &mut Kinds,
        process: &Path,
        path: &Path,
    ) -> Option<Guarded> {
        let always = |reason, name: &str| {
            Some(Guarded { reason, kind: Kind::File, name: Some(name.to_owned()), rule: Rule::Always })
        };
        match file.kind {
            FileType::CharacterDevice => {
                let (_, name, reason) = self.devices.iter().find(|(device, ..)| *device == file.special)?;
                always(reason, name)
            }
            FileType::RegularFile if Some(file.device) == self.debugfs => Some(Guarded {
                reason: "debugfs",
                kind: Kind::File,
                name: None,
                rule: Rule::Debugfs { read_only: file.mode & !0o444 == 0 },
            }),
            FileType::RegularFile if Some(file.device) == self.tracefs => {
                Some(Guarded { reason: "tracefs", kind: Kind::File, name: None, rule: Rule::Always })
            }
            FileType::RegularFile if Some(file.inode) == self.kcore => {
                if kinds.kind(file.device, process, path) == "proc" {
                    always("kcore", "/proc/kcore")
                } else {
                    None
                }
            }
            _ => None,
        }
    }

    /// Returns the kind of a mapped file, which can also be the registers of a PCI device: there the mapping is
    /// checked, not the open.
    pub fn mapped_file(
        &self,
        file: &Numbers,
        kinds: &mut Kinds,
        process: &Path,
        path: &Path,
    ) -> Option<Guarded> {
        if let Some(guarded) = self.open_file(file, kinds, process, path) {
            return Some(guarded);
        }
        if file.kind != FileType::RegularFile {
            return None;
        }
        let kind = kinds.kind(file.device, process, path);
        if kind != "sysfs" && kind != "proc" {
            return None;
        }
        let (.., bar) =
            self.bars.get_or_init(bars).iter().find(|(k, inode, _)| (*k, *inode) == (kind, file.inode))?;
        Some(Guarded {
            reason: "pci-access",
            kind: Kind::PciBar,
            name: Some(bar.display().to_string()),
            rule: Rule::Always,
        })
    }
}

/// Every file that maps registers: resourceN and resourceN_wc of each device in sysfs, and the devices' own files
/// in /proc/bus/pci.
fn bars() -> Vec<(&'static str, u64, PathBuf)> {
    let mut found = Vec::new();
    let mut look_in = |kind, folder: &Path, wanted: fn(&str) -> bool| {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if !wanted(&entry.file_name().to_string_lossy()) {
                continue;
            }
            if let Ok(numbers) = Numbers::of(rustix::fs::CWD, entry.path()) {
                found.push((kind, numbers.inode, entry.path()));
            }
        }
    };
    let below = |folder: &str| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    for device in below("/sys/bus/pci/devices") {
        look_in("sysfs", &device, |name| {
            name.strip_prefix("resource").is_some_and(|n| n.starts_with(|c: char| c.is_ascii_digit()))
        });
    }
    for bus in below("/proc/bus/pci").filter(|path| path.is_dir()) {
        look_in("proc", &bus, |_| true);
    }
    found
}

/// `10:126`
fn device(text: &str) -> Option<Device> {
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A guard that takes /dev/null for /dev/mem, for tests that cannot open the real one.
    pub fn over_null() -> Guard {
        Guard {
            devices: vec![((1, 3), "/dev/null", "dev-mem")],
            debugfs: Some((0, 100)),
            tracefs: Some((0, 101)),
            kcore: None,
            kinds: Kinds::default(),
            bars: OnceLock::new(),
        }
    }

    fn seen(kind: FileType, mode: u16, device: Device, special: Device) -> Numbers {
        Numbers { kind, mode, device, inode: 1, special }
    }

    fn reason(numbers: Numbers) -> Option<Guarded> {
        let nowhere = Path::new("/nowhere");
        over_null().open_file(&numbers, &mut Kinds::default(), nowhere, nowhere)
    }

    #[test]
    fn devices_go_by_their_own_number_whatever_their_path() {
        let numbers = Numbers::of(rustix::fs::CWD, "/dev/null").unwrap();
        assert_eq!(reason(numbers).unwrap().reason, "dev-mem");
        assert_eq!(reason(seen(FileType::CharacterDevice, 0o600, (0, 5), (1, 5))), None);
        assert_eq!(reason(seen(FileType::BlockDevice, 0o600, (0, 5), (1, 3))), None);
    }

    #[test]
    fn debugfs_lets_read_only_files_be_read() {
        let file = |mode| reason(seen(FileType::RegularFile, mode, (0, 100), (0, 0))).unwrap();
        assert!(!file(0o444).refuses(Access::Read));
        assert!(!file(0o400).refuses(Access::Read));
        assert!(file(0o444).refuses(Access::Both));
        assert!(file(0o644).refuses(Access::Read));
        assert_eq!(reason(seen(FileType::Directory, 0o755, (0, 100), (0, 0))), None);
    }

    #[test]
    fn every_file_of_tracefs_counts() {
        let file = reason(seen(FileType::RegularFile, 0o440, (0, 101), (0, 0))).unwrap();
        assert!(file.refuses(Access::Read) && file.reason == "tracefs");
    }

    #[test]
    fn guarded_devices_belong_to_reasons_of_the_table() {
        assert!(DEVICES.iter().all(|(.., reason)| stockade_reasons::by_id(reason).is_some()));
        assert_eq!(device("10:126\n"), Some((10, 126)));
    }
}
