/*!
Other processes: their names and their open descriptors, read from /proc.
*/
use std::path::{Path, PathBuf};

use stockade_text::harmless;

use crate::sys::fs;

/// Processes other than this one with a descriptor of the BPF object with this id.
pub(crate) fn holders(field: &str, id: u32) -> Vec<(u32, String)> {
    let wanted = format!("{field}:\t{id}\n");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if pid == std::process::id() {
            continue;
        }
        // The link of a descriptor says whether it is a BPF object: reading it is far cheaper than reading every fdinfo.
        let has = descriptors(&entry.path()).any(|fd| {
            let link = fs::read_link(fd.path()).unwrap_or_default();
            link.to_string_lossy().starts_with("anon_inode:bpf")
                && fs::read_to_string(fdinfo(&fd)).is_ok_and(|info| info.contains(&wanted))
        });
        if has {
            found.push((pid, comm(&entry.path())));
        }
    }
    found
}

/// The open descriptors of all threads of the process with this folder under /proc. A thread can have a descriptor table of its own, and can outlive the
/// first thread.
pub(crate) fn descriptors(process: &Path) -> impl Iterator<Item = fs::DirEntry> {
    let threads = fs::read_dir(process.join("task")).into_iter().flatten().flatten();
    let folders = threads.map(|thread| thread.path().join("fd")).chain([process.join("fd")]);
    folders.flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten())
}

/// The path of the fdinfo of a descriptor.
pub(crate) fn fdinfo(fd: &fs::DirEntry) -> PathBuf {
    let thread = fd.path().ancestors().nth(2).map(Path::to_owned).unwrap_or_default();
    thread.join("fdinfo").join(fd.file_name())
}

/// Returns the name of a process, fit to print. The kernel's text ends with a line break.
pub(crate) fn comm(process: &Path) -> String {
    let comm = fs::read(process.join("comm")).unwrap_or_default();
    harmless(comm.strip_suffix(b"\n").unwrap_or(&comm))
}
