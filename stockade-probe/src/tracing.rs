//! Doors to the debug and trace file systems.
//!
//! Where the file system is not mounted, the child mounts it in a mount namespace of its own, which is
//! gone when the child ends. Mounting is allowed at every lockdown level; what is guarded is the files.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::ptr;

use crate::answer::{Answer, Outcome, check};
use crate::file;

/// A file system to look into: its type, and where it belongs.
struct Tree {
    kind: &'static str,
    place: &'static str,
}

const DEBUGFS: Tree = Tree { kind: "debugfs", place: "/sys/kernel/debug" };
const TRACEFS: Tree = Tree { kind: "tracefs", place: "/sys/kernel/tracing" };

/// A debugfs file that may be written, so that lockdown guards it even for reading; 5.13 and later.
const VERBOSE: &str = "sched/verbose";

/// Opens `sched/verbose` read-only and closes it. `debugfs_locked_down()` in `fs/debugfs/file.c` asks at
/// open for every file but read-only ones (mode 0444) without ioctl and mmap. EPERM has no other cause
/// there.
pub(crate) fn open_debugfs() -> Outcome {
    DEBUGFS.reach().map_or_else(|outcome| outcome, |root| file::open(&root.join(VERBOSE)))
}

/// Gives `sched/verbose` the mode it has. `debugfs_setattr()` in `fs/debugfs/inode.c` asks for every
/// change of mode or owner. EPERM has no other cause for root. All that moves is the ctime of the file.
pub(crate) fn chmod_debugfs() -> Outcome {
    let root = match DEBUGFS.reach() {
        Ok(root) => root,
        Err(outcome) => return outcome,
    };
    let path = root.join(VERBOSE);
    let set_back = || {
        let mode = fs::metadata(&path)?.permissions().mode() & 0o7777;
        fs::set_permissions(&path, Permissions::from_mode(mode))
    };
    Outcome::from_result(&format!("chmod {}", path.display()), set_back())
}

/// Opens `tracing_on` read-only and closes it; tracing goes on or stays off as it is.
/// `tracing_check_open_get_tr()` in `kernel/trace/trace.c` asks at open, and EPERM has no other cause there.
///
/// Where the kernel was locked down before it built the tree, the tree is empty, and the answer is
/// "refused" with ENOENT: that, too, is lockdown's doing, and lasts until reboot.
pub(crate) fn open_tracefs() -> Outcome {
    let root = match TRACEFS.reach() {
        Ok(root) => root,
        Err(outcome) => return outcome,
    };
    let outcome = file::open(&root.join("tracing_on"));
    if matches!(outcome.answer, Answer::Absent(_)) && is_empty(&root) {
        return Outcome::refused(libc::ENOENT);
    }
    outcome
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none())
}

impl Tree {
    /// Where the tree is, mounted privately if it has to be; or why it cannot be reached.
    fn reach(&self) -> Result<PathBuf, Outcome> {
        let mounts = file::text("/proc/self/mounts").unwrap_or_default();
        if let Some(place) = mounted_at(&mounts, self.kind) {
            return Ok(place);
        }
        self.mount_privately().map(|()| self.place.into()).map_err(|error| {
            let tried = format!("{} is not mounted, and mounting it for the probe: {error}", self.kind);
            match error.raw_os_error() {
                // EPERM is what debugfs=off on the command line answers to a mount.
                Some(libc::ENODEV | libc::ENOENT | libc::EPERM) => Outcome::absent(tried),
                _ => Outcome::failed(tried),
            }
            .with(&error)
        })
    }

    /// Mounts the tree in a new mount namespace, cut off from the old one first.
    fn mount_privately(&self) -> io::Result<()> {
        // SAFETY: unshare takes flags only; this child has one thread.
        check(unsafe { libc::unshare(libc::CLONE_NEWNS) }.into())?;
        mount("none", "/", None, libc::MS_REC | libc::MS_PRIVATE)?;
        mount(self.kind, self.place, Some(self.kind), libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC)
    }
}

fn mount(source: &str, place: &str, kind: Option<&str>, flags: libc::c_ulong) -> io::Result<()> {
    let terminated = |text: &str| std::ffi::CString::new(text).map_err(io::Error::other);
    let (source, place) = (terminated(source)?, terminated(place)?);
    let kind = kind.map(terminated).transpose()?;
    let kind = kind.as_ref().map_or(ptr::null(), |kind| kind.as_ptr());
    // SAFETY: every string is terminated and outlives the call; a null type and null data are allowed.
    let result = unsafe { libc::mount(source.as_ptr(), place.as_ptr(), kind, flags, ptr::null()) };
    check(result.into())?;
    Ok(())
}

/// Where /proc/self/mounts shows a file system of this type.
fn mounted_at(mounts: &str, kind: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let place = fields.next()?;
        (fields.next()? == kind).then(|| unescape(place).into())
    })
}

/// Undoes the octal escapes of /proc/self/mounts.
fn unescape(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(field.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "sysfs /sys sysfs rw 0 0\n\
        debugfs /sys/kernel/debug debugfs rw 0 0\n\
        tracefs /a\\040b tracefs rw 0 0\n";

    #[test]
    fn a_mounted_tree_is_found_by_its_type() {
        assert_eq!(mounted_at(MOUNTS, "debugfs"), Some("/sys/kernel/debug".into()));
        assert_eq!(mounted_at(MOUNTS, "tracefs"), Some("/a b".into()));
        assert_eq!(mounted_at(MOUNTS, "bpf"), None);
        assert_eq!(mounted_at("", "debugfs"), None);
    }
}
