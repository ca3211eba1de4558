/*!
Which running processes lack the label that an exception asks for: they were started before anybody looked.
*/
use std::{
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::PathBuf,
};

use stockade_common::Label;

use crate::{Error, description::Program, object::LABELS, pins, sys};

/// Processes that execute one of these programs without a label, by process id and path.
///
/// # Errors
/// [`Error`] when labels cannot be read. Processes that end meanwhile are passed over.
pub fn missing(programs: &[Program]) -> Result<Vec<(u32, PathBuf)>, Error> {
    let mut maps = pins::open_maps()?;
    let labels =
        maps.remove(LABELS.0).ok_or(Error::Damaged { path: pins::FOLDER.into(), missing: LABELS.1 })?;
    let mut missing = Vec::new();
    let processes = fs::read_dir("/proc").map_err(|e| Error::io("list processes", e))?;
    for entry in processes.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(exe) = fs::metadata(entry.path().join("exe")) else { continue };
        // The device is not compared: some file systems show user space another number than the kernel has.
        let Some(program) = programs.iter().find(|program| program.inode == exe.ino()) else { continue };
        if fs::metadata(&program.path).is_ok_and(|file| file.dev() == exe.dev())
            && matches!(label(pid, &labels), Ok(None))
        {
            missing.push((pid, program.path.clone()));
        }
    }
    Ok(missing)
}

/// The label of a process, read through a descriptor of it (5.3 and later).
fn label(pid: u32, labels: &OwnedFd) -> io::Result<Option<Label>> {
    // SAFETY: takes two integers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: a descriptor that the kernel has just made for us.
    let process = unsafe { OwnedFd::from_raw_fd(fd) };
    sys::lookup::<i32, Label>(labels.as_fd(), &process.as_raw_fd())
}
