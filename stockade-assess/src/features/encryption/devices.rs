/*!
The block devices behind a mount, down to the disks: partitions, logical volumes, RAID, loop devices, and encrypted devices.
*/
use std::{cell::Cell, collections::HashMap};

use procfs_core::process::MountInfo;

use crate::System;

/// The depth of stacked devices that is followed; a deeper stack is a cycle.
const DEPTH: u32 = 16;

/// The number of devices that are read, for all mounts together.
const DEVICES: u32 = 4096;

/// The number of mounts that are read.
const MOUNTS: usize = 4096;

const BLOCK: &str = "/sys/class/block";

/// File systems that keep everything in memory.
const MEMORY: [&str; 4] = ["tmpfs", "ramfs", "rootfs", "devtmpfs"];

/// File systems with encryption of their own. Not all of them name a device in /dev.
const BY_THEMSELVES: [&str; 3] = ["bcachefs", "ubifs", "zfs"];

/// The protection of data on its way to where it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cover {
    /// Stored through these encrypted devices.
    Encrypted(Vec<String>),
    /// Stored in plain text on these devices.
    Plain(Vec<String>),
    /// Kept in memory.
    Memory,
    /// Stored on another machine, or by a user space file system.
    Elsewhere(String),
    /// Not known, for this reason.
    Unknown(String),
}

impl Cover {
    /// Joins the covers of several devices: one plain device makes the whole plain.
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

/// The encryption of a device according to its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encryption {
    Full,
    /// A part is encrypted, as while cryptsetup encrypts, decrypts or re-encrypts the device.
    Partial,
    None,
}

/// The machine's mounts and devices.
pub(super) struct Devices<'a> {
    system: &'a System,
    mounts: Vec<MountInfo>,
    /// The encryption of devices according to their device mapper tables, which takes precedence over their UUIDs.
    pub(super) by_table: HashMap<String, Encryption>,
    /// The number of devices that may still be read.
    left: Cell<u32>,
}

impl<'a> Devices<'a> {
    pub(super) fn new(system: &'a System, mountinfo: &str) -> Self {
        let mounts =
            mountinfo.lines().take(MOUNTS).filter_map(|line| MountInfo::from_line(line).ok()).collect();
        Self { system, mounts, by_table: HashMap::new(), left: Cell::new(DEVICES) }
    }

    /// Returns the names of all device mapper devices.
    pub(super) fn mapped(&self) -> Vec<String> {
        let names = self.system.names(BLOCK).unwrap_or_default();
        names.into_iter().filter(|name| name.starts_with("dm-")).collect()
    }

    /// Returns a device's major and minor number.
    pub(super) fn numbers(&self, name: &str) -> Option<(u32, u32)> {
        let text = self.system.text(&format!("{BLOCK}/{name}/dev")).ok()?;
        let (major, minor) = text.split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    }

    /// Returns a device's name, with its device mapper name if it has one.
    pub(super) fn title(&self, name: &str) -> String {
        match self.system.text(&format!("{BLOCK}/{name}/dm/name")) {
            Ok(given) if !given.is_empty() => format!("{name} ({given})"),
            _ => name.to_owned(),
        }
    }

    /// Reports whether a device has a UUID as cryptsetup sets it for encrypted devices; integrity and verity alone do not encrypt.
    pub(super) fn has_crypt_uuid(&self, name: &str) -> bool {
        const KINDS: [&str; 7] = ["LUKS1", "LUKS2", "PLAIN", "LOOPAES", "TCRYPT", "BITLK", "FVAULT2"];
        let uuid = self.system.text(&format!("{BLOCK}/{name}/dm/uuid")).unwrap_or_default();
        let kind = uuid.strip_prefix("CRYPT-").and_then(|rest| rest.split('-').next());
        kind.is_some_and(|kind| KINDS.contains(&kind))
    }

    /// Reports whether a device mapper device has no UUID, as one made by dmsetup: only its table shows what it does.
    pub(super) fn has_empty_uuid(&self, name: &str) -> bool {
        self.system.text(&format!("{BLOCK}/{name}/dm/uuid")).is_ok_and(|uuid| uuid.is_empty())
    }

    /// Returns the visible mount at exactly this point: the last one.
    pub(super) fn mount_at(&self, point: &str) -> Option<&MountInfo> {
        self.mounts.iter().rev().find(|mount| mount.mount_point.as_os_str() == point)
    }

    /// Returns the mount that a path is on.
    pub(super) fn mount_of(&self, path: &str) -> Option<&MountInfo> {
        let path = std::path::Path::new(path);
        let on = |mount: &&MountInfo| path.starts_with(&mount.mount_point);
        self.mounts.iter().filter(on).max_by_key(|mount| mount.mount_point.components().count())
    }

    /// Returns the mounts of file systems on disks, each file system once, without `/`.
    pub(super) fn others(&self) -> Vec<&MountInfo> {
        let root = self.mount_at("/").map(|mount| mount.majmin.as_str());
        let mut seen: Vec<&str> = root.into_iter().collect();
        let mut others = Vec::new();
        for mount in &self.mounts {
            let on_disk = !mount.majmin.starts_with("0:")
                || source_device(mount).is_some()
                || BY_THEMSELVES.contains(&mount.fs_type.as_str());
            // Read-only images, such as those of packages.
            let image = matches!(mount.fs_type.as_str(), "squashfs" | "erofs" | "iso9660" | "cramfs");
            if on_disk && !image && !seen.contains(&mount.majmin.as_str()) {
                seen.push(&mount.majmin);
                others.push(mount);
            }
        }
        others
    }

    /// Returns the cover of a mount.
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
                return Cover::Unknown(format!(
                    "{kind} has encryption of its own, which the kernel does not show"
                ));
            }
            "overlay" => {
                return Cover::Unknown("the layers of an overlay file system cannot be followed".into());
            }
            _ => {}
        }
        if !mount.majmin.starts_with("0:") {
            return match self.by_numbers(&mount.majmin) {
                Some(name) => self.behind_device(&name, depth),
                None => Cover::Unknown(format!("/sys/dev/block/{} does not exist", mount.majmin)),
            };
        }
        // A file system over several devices has no device number; its mount names one of them.
        match source_device(mount).map(|path| self.by_path(path)) {
            Some(name) => {
                let all = self.together_with(&name);
                all.iter()
                    .map(|name| self.behind_device(name, depth))
                    .reduce(Cover::join)
                    .unwrap_or(Cover::Memory)
            }
            None => Cover::Elsewhere(kind.to_owned()),
        }
    }

    /// Returns the cover of a swap device or swap file.
    pub(super) fn behind_path(&self, path: &str, is_file: bool) -> Cover {
        if !is_file {
            return self.behind_device(&self.by_path(path), 0);
        }
        match self.mount_of(path) {
            Some(mount) => self.behind(mount),
            None => Cover::Unknown(format!("{path} is on no visible mount")),
        }
    }

    /// Returns the name of a device by its numbers, such as `8:1`.
    pub(super) fn by_numbers(&self, numbers: &str) -> Option<String> {
        let target = self.system.link(&format!("/sys/dev/block/{numbers}")).ok()?;
        last(&target).map(str::to_owned)
    }

    /// Returns the name of a device by a path in /dev, which may be a symlink.
    fn by_path(&self, path: &str) -> String {
        let target = self.system.link(path).unwrap_or_default();
        let name = last(&target).or(last(path)).unwrap_or(path);
        // Without udev, the entries of /dev/mapper are no symlinks.
        let given = |mapped: &String| {
            self.system.text(&format!("{BLOCK}/{mapped}/dm/name")).is_ok_and(|given| given == name)
        };
        let mapped = if path.starts_with("/dev/mapper/") { self.mapped() } else { Vec::new() };
        mapped.into_iter().find(given).unwrap_or_else(|| name.to_owned())
    }

    /// Returns all devices of the btrfs that this device belongs to.
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

    /// Returns the cover of a device.
    fn behind_device(&self, name: &str, depth: u32) -> Cover {
        if depth > DEPTH || self.left.get() == 0 {
            return Cover::Unknown(format!("too many devices below {name}"));
        }
        self.left.set(self.left.get() - 1);
        if name.starts_with("zram") {
            // zram may write idle pages to its backing device.
            return match self.system.text(&format!("{BLOCK}/{name}/backing_dev")) {
                Ok(path) if path.starts_with('/') => self.behind_device(&self.by_path(&path), depth + 1),
                _ => Cover::Memory,
            };
        }
        if name.starts_with("ram") {
            return Cover::Memory;
        }
        match self.by_table.get(name) {
            Some(Encryption::Full) => return Cover::Encrypted(vec![name.to_owned()]),
            Some(Encryption::Partial) => {
                return Cover::Unknown(format!("{name} is encrypted only in part"));
            }
            None if self.has_crypt_uuid(name) => return Cover::Encrypted(vec![name.to_owned()]),
            None if self.has_empty_uuid(name) => {
                return Cover::Unknown(format!(
                    "only its device mapper table shows whether {name} encrypts, and only root can read it"
                ));
            }
            Some(Encryption::None) | None => {}
        }
        let below = self.system.names(&format!("{BLOCK}/{name}/slaves")).unwrap_or_default();
        if !below.is_empty() {
            return below
                .iter()
                .map(|name| self.behind_device(name, depth + 1))
                .reduce(Cover::join)
                .unwrap_or(Cover::Memory);
        }
        if let Ok(file) = self.system.text(&format!("{BLOCK}/{name}/loop/backing_file")) {
            let device = self.by_path(&file);
            if file.starts_with("/dev/") && self.system.exists(&format!("{BLOCK}/{device}")) {
                return self.behind_device(&device, depth + 1);
            }
            return match self.mount_of(&file) {
                Some(mount) => self.behind_at(mount, depth + 1),
                None => Cover::Unknown(format!("{file}, the backing file of {name}, is on no visible mount")),
            };
        }
        if let Some(whole) = self.whole(name) {
            // The partition is named in place of the whole device.
            return match self.behind_device(&whole, depth + 1) {
                Cover::Plain(names) if names == [whole] => Cover::Plain(vec![name.to_owned()]),
                cover => cover,
            };
        }
        if self.system.exists(&format!("{BLOCK}/{name}")) {
            Cover::Plain(vec![name.to_owned()])
        } else {
            Cover::Unknown(format!("{BLOCK}/{name} does not exist"))
        }
    }

    /// Returns the device that a partition is part of.
    fn whole(&self, name: &str) -> Option<String> {
        if !self.system.exists(&format!("{BLOCK}/{name}/partition")) {
            return None;
        }
        let target = self.system.link(&format!("{BLOCK}/{name}")).ok()?;
        let whole = last(target.rsplit_once('/')?.0)?;
        (whole != name).then(|| whole.to_owned())
    }
}

/// Returns the device that the mount of a file system without a device number names, such as btrfs.
fn source_device(mount: &MountInfo) -> Option<&str> {
    mount
        .mount_source
        .as_deref()
        .filter(|source| source.starts_with("/dev/") && !mount.fs_type.starts_with("fuse"))
}

fn last(path: &str) -> Option<&str> {
    path.rsplit('/').next().filter(|name| !name.is_empty() && *name != "." && *name != "..")
}
