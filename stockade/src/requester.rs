/*!
Who asked: what an event's numbers are called on this machine, while the process still lives.
*/
use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use stockade_kernel::{Event, host};

/// More processes than this at once are looked up anew.
const REMEMBERED: usize = 1024;

/// Paths already looked up, so that a storm of events from few processes stays cheap.
#[derive(Default)]
pub struct Names {
    exe: HashMap<(u32, u64), Option<String>>,
    cgroup: HashMap<(u32, u64), Option<String>>,
}

impl Names {
    /// Path of the requester's executable, when its process still ran the same file when first seen.
    pub fn exe(&mut self, event: &Event) -> Option<String> {
        remember(&mut self.exe, (event.tgid, event.exe_inode), || exe_path(event))
    }

    /// Path of the requester's cgroup in the v2 hierarchy, when its process was still there when first seen.
    pub fn cgroup(&mut self, event: &Event) -> Option<String> {
        remember(&mut self.cgroup, (event.tgid, event.cgroup), || cgroup_path(event))
    }
}

fn remember(
    known: &mut HashMap<(u32, u64), Option<String>>,
    key: (u32, u64),
    look_up: impl FnOnce() -> Option<String>,
) -> Option<String> {
    if known.len() >= REMEMBERED {
        known.clear();
    }
    known.entry(key).or_insert_with(look_up).clone()
}

fn exe_path(event: &Event) -> Option<String> {
    let link = PathBuf::from(format!("/proc/{}/exe", event.tgid));
    // The device is not compared: btrfs and overlayfs show user space another number than the kernel has.
    if fs::metadata(&link).ok()?.ino() != event.exe_inode {
        return None;
    }
    fs::read_link(&link).ok().map(|path| crate::output::harmless(path.as_os_str().as_encoded_bytes()))
}

fn cgroup_path(event: &Event) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{}/cgroup", event.tgid)).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?.to_owned();
    // A cgroup's id is the inode number of its folder. Where only v1 hierarchies are mounted, another file
    // system is found here, whose root may have the same number: no path is better than a wrong one.
    let folder = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].iter().map(|root| format!("{root}{path}"));
    let same = |folder: String| {
        host::is_cgroup2(Path::new(&folder)) && fs::metadata(folder).is_ok_and(|m| m.ino() == event.cgroup)
    };
    folder.into_iter().any(same).then(|| crate::output::harmless(&path))
}

/// The thread's name.
pub fn comm(event: &Event) -> String {
    let end = event.comm.iter().position(|&b| b == 0).unwrap_or(event.comm.len());
    crate::output::harmless(&event.comm[..end])
}
