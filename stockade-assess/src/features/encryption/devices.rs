/*!
What is behind a mount, down to the disks: partitions, logical volumes, RAID, files as disks, and encrypted devices among them.
*/
use std::{cell::Cell, collections::HashMap};

use procfs_core::process::MountInfo;

use crate::System;

/// Nobody stacks more than a few devices; what goes on is a circle.
const DEPTH: u32 = 16;

/// As many devices are looked at as this, for all mounts together.
const DEVICES: u32 = 4096;

/// As many mounts are looked at as this.
const MOUNTS: usize = 4096;

const BLOCK: &str = "/sys/class/block";

/// File systems that keep everything in memory.
const MEMORY: [&str; 4] = ["tmpfs", "ramfs", "rootfs", "devtmpfs"];

/// File systems that may encrypt everything by themselves. Not all of them name a device in /dev.
const BY_THEMSELVES: [&str; 3] = ["bcachefs", "ubifs", "zfs"];

/// How content gets to where it stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cover {
    /// Through these encrypted devices.
    Encrypted(Vec<String>),
    /// Not encrypted on these devices.
    Plain(Vec<String>),
    /// It stays in memory.
    Memory,
    /// It is on another machine, or made by a program.
    Elsewhere(String),
    /// This is why nobody knows.
    Unknown(String),
}

impl Cover {
    /// Of something on several devices: what one of them shows in plain counts.
    fn join(self, other: Self) -> Self {
        match (self, other) {
            (Cover::Plain(mut names), Cover::Plain(more)) => {
                names.extend(more);
                Cover::Plain(names)
            }
            (Cover::Encrypted(mut names), Cover::Encrypted(more)) => {
                names.extend(more);
                names.sort();
                names.dedup();
                Cover::Encrypted(names)
            }
            (plain @ Cover::Plain(_), _) | (_, plain @ Cover::Plain(_)) => plain,
            (unknown @ Cover::Unknown(_), _) | (_, unknown @ Cover::Unknown(_)) => unknown,
            (encrypted @ Cover::Encrypted(_), _) | (_, encrypted @ Cover::Encrypted(_)) => encrypted,
            (cover, _) => cover,
        }
    }
}

/// What its table says of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Encrypts,
    /// What is on it is being encrypted, decrypted or encrypted anew.
    Partly,
    EncryptsNothing,
}

/// The machine's mounts and devices.
pub(super) struct Devices<'a> {
    system: &'a System,
    mounts: Vec<MountInfo>,
    /// What the tables of the device mapper say of devices. It counts for more than their identifiers.
    pub(super) told: HashMap<String, Told>,
    left: Cell<u32>,
}

impl<'a> Devices<'a> {
    pub(super) fn new(system: &'a System, mountinfo: &str) -> Self {
        let mounts =
            mountinfo.lines().take(MOUNTS).filter_map(|line| MountInfo::from_line(line).ok()).collect();
        Self { system, mounts, told: HashMap::new(), left: Cell::new(DEVICES) }
    }

    /// The names of all devices of the device mapper.
    pub(super) fn mapped(&self) -> Vec<String> {
        let names = self.system.names(BLOCK).unwrap_or_default();
        names.into_iter().filter(|name| name.starts_with("dm-")).collect()
    }

    /// A device's numbers.
    pub(super) fn numbers(&self, name: &str) -> Option<(u32, u32)> {
        let text = self.system.text(&format!("{BLOCK}/{name}/dev")).ok()?;
        let (major, minor) = text.split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    }

    /// A device as people know it: with the name that it was given.
    pub(super) fn title(&self, name: &str) -> String {
        match self.system.text(&format!("{BLOCK}/{name}/dm/name")) {
            Ok(given) if !given.is_empty() => format!("{name} ({given})"),
            _ => name.to_owned(),
        }
    }

    /// Whether a device's identifier says that the device mapper encrypts what goes through it. What cryptsetup makes says so; integrity and
    /// verity alone do not encrypt.
    pub(super) fn says_that_it_encrypts(&self, name: &str) -> bool {
        const KINDS: [&str; 7] = ["LUKS1", "LUKS2", "PLAIN", "LOOPAES", "TCRYPT", "BITLK", "FVAULT2"];
        let uuid = self.system.text(&format!("{BLOCK}/{name}/dm/uuid")).unwrap_or_default();
        let kind = uuid.strip_prefix("CRYPT-").and_then(|rest| rest.split('-').next());
        kind.is_some_and(|kind| KINDS.contains(&kind))
    }

    /// Whether a device has no identifier: made by hand, such as by dmsetup, of which only its table says what it does.
    pub(super) fn says_nothing(&self, name: &str) -> bool {
        self.system.text(&format!("{BLOCK}/{name}/dm/uuid")).is_ok_and(|uuid| uuid.is_empty())
    }

    /// The mount at exactly this point that is seen: the last one.
    pub(super) fn mount_at(&self, point: &str) -> Option<&MountInfo> {
        self.mounts.iter().rev().find(|mount| mount.mount_point.as_os_str() == point)
    }

    /// The mount that a path is on.
    pub(super) fn mount_of(&self, path: &str) -> Option<&MountInfo> {
        let path = std::path::Path::new(path);
        let on = |mount: &&MountInfo| path.starts_with(&mount.mount_point);
        self.mounts.iter().filter(on).max_by_key(|mount| mount.mount_point.components().count())
    }

    /// Mounts whose file systems are on disks, each file system once, `/` left out.
    pub(super) fn others(&self) -> Vec<&MountInfo> {
        let root = self.mount_at("/").map(|mount| mount.majmin.as_str());
        let mut seen: Vec<&str> = root.into_iter().collect();
        let mut others = Vec::new();
        for mount in &self.mounts {
            let on_disk = !mount.majmin.starts_with("0:")
                || of_source(mount).is_some()
                || BY_THEMSELVES.contains(&mount.fs_type.as_str());
            // Images that are mounted read only, such as those of packages.
            let image = matches!(mount.fs_type.as_str(), "squashfs" | "erofs" | "iso9660" | "cramfs");
            if on_disk && !image && !seen.contains(&mount.majmin.as_str()) {
                seen.push(&mount.majmin);
                others.push(mount);
            }
        }
        others
    }

    /// What is behind a mount.
    pub(super) fn behind(&self, mount: &MountInfo) -> Cover {
        self.behind_at(mount, 0)
    }

    fn behind_at(&self, mount: &MountInfo, depth: u32) -> Cover {
        let kind = mount.fs_type.as_str();
        if MEMORY.contains(&kind) {
            return Cover::Memory;
        }
        match kind {
            "ecryptfs" => return Cover::Encrypted(vec![kind.to_owned()]),
            _ if BY_THEMSELVES.contains(&kind) => {
                return Cover::Unknown(format!("{kind} may encrypt by itself, and the kernel does not tell"));
            }
            "overlay" => return Cover::Unknown("an overlay's layers cannot be seen from here".into()),
            _ => {}
        }
        if !mount.majmin.starts_with("0:") {
            return match self.by_numbers(&mount.majmin) {
                Some(name) => self.through(&name, depth),
                None => Cover::Unknown(format!("/sys/dev/block/{} is not there", mount.majmin)),
            };
        }
        // File systems over several devices have no device of their own; one of theirs is named.
        match of_source(mount).map(|path| self.by_path(path)) {
            Some(name) => {
                let all = self.together_with(&name);
                all.iter().map(|name| self.through(name, depth)).reduce(Cover::join).unwrap_or(Cover::Memory)
            }
            None => Cover::Elsewhere(kind.to_owned()),
        }
    }

    /// What is behind a device or a file that memory is swapped to.
    pub(super) fn behind_path(&self, path: &str, is_file: bool) -> Cover {
        if !is_file {
            return self.through(&self.by_path(path), 0);
        }
        match self.mount_of(path) {
            Some(mount) => self.behind(mount),
            None => Cover::Unknown(format!("{path} is on no mount that can be seen")),
        }
    }

    /// The name of a device by its numbers, as `8:1`.
    pub(super) fn by_numbers(&self, numbers: &str) -> Option<String> {
        let target = self.system.link(&format!("/sys/dev/block/{numbers}")).ok()?;
        last(&target).map(str::to_owned)
    }

    /// The name of a device by a path in /dev, which may be a link.
    fn by_path(&self, path: &str) -> String {
        let target = self.system.link(path).unwrap_or_default();
        let name = last(&target).or(last(path)).unwrap_or(path);
        // Without udev, what is in /dev/mapper are no links.
        let given = |mapped: &String| {
            self.system.text(&format!("{BLOCK}/{mapped}/dm/name")).is_ok_and(|given| given == name)
        };
        let mapped = if path.starts_with("/dev/mapper/") { self.mapped() } else { Vec::new() };
        mapped.into_iter().find(given).unwrap_or_else(|| name.to_owned())
    }

    /// All devices of the btrfs that this one belongs to.
    fn together_with(&self, name: &str) -> Vec<String> {
        const BTRFS: &str = "/sys/fs/btrfs";
        for id in self.system.names(BTRFS).unwrap_or_default() {
            let devices = self.system.names(&format!("{BTRFS}/{id}/devices")).unwrap_or_default();
            if devices.iter().any(|device| device == name) {
                return devices;
            }
        }
        vec![name.to_owned()]
    }

    /// What is behind a device.
    fn through(&self, name: &str, depth: u32) -> Cover {
        if depth > DEPTH || self.left.get() == 0 {
            return Cover::Unknown(format!("too many devices below {name}"));
        }
        self.left.set(self.left.get() - 1);
        if name.starts_with("zram") {
            // What is not used may be written to a disk.
            return match self.system.text(&format!("{BLOCK}/{name}/backing_dev")) {
                Ok(path) if path.starts_with('/') => self.through(&self.by_path(&path), depth + 1),
                _ => Cover::Memory,
            };
        }
        if name.starts_with("ram") {
            return Cover::Memory;
        }
        match self.told.get(name) {
            Some(Told::Encrypts) => return Cover::Encrypted(vec![name.to_owned()]),
            Some(Told::Partly) => {
                return Cover::Unknown(format!("{name} encrypts only parts of what it holds"));
            }
            None if self.says_that_it_encrypts(name) => return Cover::Encrypted(vec![name.to_owned()]),
            None if self.says_nothing(name) => {
                return Cover::Unknown(format!(
                    "whether {name} encrypts is told by its table, which root may read"
                ));
            }
            Some(Told::EncryptsNothing) | None => {}
        }
        let below = self.system.names(&format!("{BLOCK}/{name}/slaves")).unwrap_or_default();
        if !below.is_empty() {
            return below
                .iter()
                .map(|name| self.through(name, depth + 1))
                .reduce(Cover::join)
                .unwrap_or(Cover::Memory);
        }
        if let Ok(file) = self.system.text(&format!("{BLOCK}/{name}/loop/backing_file")) {
            let device = self.by_path(&file);
            if file.starts_with("/dev/") && self.system.exists(&format!("{BLOCK}/{device}")) {
                return self.through(&device, depth + 1);
            }
            return match self.mount_of(&file) {
                Some(mount) => self.behind_at(mount, depth + 1),
                None => {
                    Cover::Unknown(format!("{file}, which is behind {name}, is on no mount that can be seen"))
                }
            };
        }
        if let Some(whole) = self.whole(name) {
            // Only what is below the whole device is of interest: the partition is named.
            return match self.through(&whole, depth + 1) {
                Cover::Plain(names) if names == [whole] => Cover::Plain(vec![name.to_owned()]),
                cover => cover,
            };
        }
        if self.system.exists(&format!("{BLOCK}/{name}")) {
            Cover::Plain(vec![name.to_owned()])
        } else {
            Cover::Unknown(format!("{BLOCK}/{name} is not there"))
        }
    }

    /// The device that a partition is part of.
    fn whole(&self, name: &str) -> Option<String> {
        if !self.system.exists(&format!("{BLOCK}/{name}/partition")) {
            return None;
        }
        let target = self.system.link(&format!("{BLOCK}/{name}")).ok()?;
        let whole = last(target.rsplit_once('/')?.0)?;
        (whole != name).then(|| whole.to_owned())
    }
}

/// The device that a file system without one of its own names, such as btrfs.
fn of_source(mount: &MountInfo) -> Option<&str> {
    mount
        .mount_source
        .as_deref()
        .filter(|source| source.starts_with("/dev/") && !mount.fs_type.starts_with("fuse"))
}

fn last(path: &str) -> Option<&str> {
    path.rsplit('/').next().filter(|name| !name.is_empty() && *name != "." && *name != "..")
}
