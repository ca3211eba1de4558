/*!
The cgroup v2 hierarchy: existing cgroups, and the cgroup of a systemd unit.

A cgroup's id is the inode number of its directory. A path in a policy starts at the root of the hierarchy, like the paths in
/proc/PID/cgroup outside of cgroup namespaces.
*/
use std::{
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use stockade_common::{DEPTH_MAX, Sets};
use stockade_policy::{check::Disk, compile::CompiledPlace, finder::Finder, unit::is_of, unit_files};

use crate::{Error, machine::host, sys::fs};

/// Mount points that systemd uses: without cgroup v1 hierarchies, and beside them.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// Returns the mount point of the hierarchy.
///
/// # Errors
/// [`Error::Request`] if it is not mounted there.
pub fn root() -> Result<&'static Path, Error> {
    mount().ok_or_else(|| not_mounted("the policy speaks of cgroups"))
}

fn mount() -> Option<&'static Path> {
    MOUNTS.iter().map(Path::new).find(|mount| host::is_cgroup2(mount))
}

/// The hierarchy, opened for reading.
struct Tree {
    root: PathBuf,
    /// The opened root cgroup, if systemd's mount points do not have the hierarchy.
    _apart: Option<OwnedFd>,
}

impl Tree {
    fn open() -> Result<Self, Error> {
        if let Some(mount) = mount() {
            return Ok(Self { root: mount.into(), _apart: None });
        }
        let apart = open_root_anywhere().map_err(|e| Error::io("open the root of the cgroup tree", e))?;
        let root = format!("/proc/self/fd/{}", apart.as_raw_fd()).into();
        Ok(Self { root, _apart: Some(apart) })
    }
}

fn not_mounted(why: &str) -> Error {
    Error::Request(format!(
        "{why}, and the cgroup hierarchy of version 2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup"
    ))
}

/// Inode number of the root cgroup's directory, and the root cgroup's id.
pub(crate) const ROOT_ID: u64 = 1;

/// Opens the root cgroup, below which every process is.
///
/// # Errors
/// [`Error::Request`] if the hierarchy is not mounted, or this process is in a cgroup namespace of its own.
pub(crate) fn open_root() -> Result<OwnedFd, Error> {
    #[cfg(test)]
    if let Some(root) = crate::sys::fake::root_cgroup() {
        return root.map_err(|e| Error::io("open the root of the cgroup tree", e));
    }
    let mount = mount().ok_or_else(|| {
        not_mounted("the policy holds settings, which is done at the root of the cgroup tree")
    })?;
    let failed = |e| Error::io(format!("open {}", mount.display()), e);
    let root = fs::File::open(mount).map_err(failed)?;
    if root.metadata().map_err(failed)?.ino() != ROOT_ID {
        return Err(Error::Request(format!(
            "the policy holds settings, which is done at the root of the cgroup tree, and what is mounted at {} is a part of \
             the tree: run this outside of the cgroup namespace, for instance: nsenter -t 1 -m -C stockade enforce",
            mount.display()
        )));
    }
    Ok(root.into())
}

/// Opens the root cgroup at any mount point; without one, by a detached mount.
pub(crate) fn open_root_anywhere() -> io::Result<OwnedFd> {
    #[cfg(test)]
    if let Some(root) = crate::sys::fake::root_cgroup() {
        return root;
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for line in mounts.lines().filter(|line| line.contains(" - cgroup2 ")) {
        // mountinfo writes a space in a path as \040: opening such a path fails, and the mount is skipped.
        let Some(path) = line.split(' ').nth(4) else { continue };
        if let Ok(folder) = fs::File::open(path)
            && is_root(&folder, Path::new(path))
        {
            return Ok(folder.into());
        }
    }
    let folder = std::fs::File::from(mounted_apart()?);
    if folder.metadata()?.ino() == ROOT_ID {
        return Ok(folder.into());
    }
    Err(io::Error::other("this process is in a cgroup namespace of its own, as in a container"))
}

fn is_root(folder: &std::fs::File, path: &Path) -> bool {
    host::is_cgroup2(path) && folder.metadata().is_ok_and(|metadata| metadata.ino() == ROOT_ID)
}

/// Opens the hierarchy by a detached mount. Mount options apply to the whole hierarchy, so they are those of systemd.
fn mounted_apart() -> io::Result<OwnedFd> {
    use rustix::{
        fs::{Mode, OFlags, openat},
        mount::{
            FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsmount, fsopen,
        },
    };
    let context = fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for option in ["nsdelegate", "memory_recursiveprot"] {
        fsconfig_set_flag(context.as_fd(), option)?;
    }
    fsconfig_create(context.as_fd())?;
    let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    Ok(openat(mount, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Returns the path of this process's cgroup in the v2 hierarchy.
#[must_use]
pub fn own() -> Option<String> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

/// Returns the ids of this process's cgroup and of its ancestors, from its own upwards.
///
/// # Errors
/// If the hierarchy cannot be read.
pub(crate) fn own_ids() -> Result<Vec<u64>, Error> {
    let (tree, own) = (Tree::open()?, own().unwrap_or_default());
    let own = Path::new(own.trim_start_matches('/'));
    let id = |path: &Path| {
        let folder = tree.root.join(path);
        fs::metadata(&folder)
            .map(|found| found.ino())
            .map_err(|e| Error::io(format!("look at {}", folder.display()), e))
    };
    own.ancestors().map(id).collect()
}

/// Returns the ids of all cgroups.
pub(crate) fn all_ids() -> Result<Vec<u64>, Error> {
    let mut found = Vec::new();
    walk(&Tree::open()?.root, "/", 0, &mut |_, id| found.push(id))
        .map_err(|e| Error::io("read the cgroup tree", e))?;
    Ok(found)
}

/// Returns the ids of the cgroups that places name, each with the sets of its most specific place.
pub(crate) fn place(places: &[CompiledPlace]) -> Result<Vec<(u64, Sets)>, Error> {
    let finder = Finder::new(places);
    let mut found = Vec::new();
    walk(root()?, "/", 0, &mut |path, id| {
        if let Some(sets) = finder.find(path) {
            found.push((id, sets));
        }
    })
    .map_err(|e| Error::io("read the cgroup tree", e))?;
    Ok(found)
}

fn walk(folder: &Path, path: &str, depth: u32, visit: &mut dyn FnMut(&str, u64)) -> io::Result<()> {
    match fs::metadata(folder) {
        Ok(metadata) => visit(path, metadata.ino()),
        // Removed in the meantime.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    }
    if depth == DEPTH_MAX {
        return Ok(());
    }
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let Ok(entry) = entry else { continue };
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let name = entry.file_name();
            let below = format!("{}/{}", if path == "/" { "" } else { path }, name.to_string_lossy());
            walk(&entry.path(), &below, depth + 1, visit)?;
        }
    }
    Ok(())
}

/// Returns the path of a unit's cgroup: the existing one, otherwise the one that follows from the unit's files.
///
/// # Errors
/// [`Error::Request`] if neither is known, or several cgroups have the unit's name.
pub fn of_unit(unit: &str) -> Result<String, Error> {
    let disk = Disk::new("/").map_err(|e| Error::io("open /", e))?;
    let placed = unit_files::place(unit, &disk);
    let found = running(&placed.name);
    match (&found[..], placed.path) {
        ([path], _) => Ok(path.clone()),
        ([], path) => path.map_err(|unplaced| Error::Request(unplaced.to_string())),
        // The path from the unit's files is the unit of the system manager; the other cgroups only have the same name.
        (several, Ok(path)) if several.contains(&path) => Ok(path),
        (several, _) => Err(Error::Request(format!(
            "several cgroups have the name of the unit {unit}: {}; give the path with `cgroup` instead of `unit`",
            several.join(", ")
        ))),
    }
}

/// Returns the paths of existing cgroups that have this unit's name.
fn running(unit: &str) -> Vec<String> {
    let mut found = Vec::new();
    let Ok(root) = root() else { return found };
    // If the hierarchy cannot be read, the path follows from the unit's files.
    let _ = walk(root, "/", 0, &mut |path, _| {
        if is_of(path, unit) {
            found.push(path.to_owned());
        }
    });
    found
}
