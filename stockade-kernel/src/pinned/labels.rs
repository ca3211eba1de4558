/*!
Labels of running processes, from user space: which lack the one that an exception asks for, since they were started before
anybody looked; and taking all of them away.
*/
use std::{
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::PathBuf,
};

use stockade_common::Label;

use crate::{
    Error,
    pinned::{description::Program, pins},
    program::object::MapName,
    sys::{self, fs, process},
};

/// Takes every process's label away. Before anybody looks at what is executed again: meanwhile a process may have
/// become another program, or have fallen into other hands, and nobody saw.
///
/// # Errors
/// [`Error`] when labels cannot be taken away.
pub fn forget_all() -> Result<(), Error> {
    let labels = map()?;
    // While the policy in force names no program none is given. What a process hands on to a child while the
    // list is read, by an attachment that is about to end, is found by the next round.
    loop {
        let mut found = false;
        for pid in processes()? {
            // Empty ones are made again and again where the kernel side has to make them to look.
            let forget = |process: OwnedFd| match found_by(&process, labels.as_fd())? {
                Some(_) => sys::delete(labels.as_fd(), &process.as_raw_fd()),
                None => Ok(false),
            };
            match process(pid).and_then(forget) {
                Ok(there) => found |= there,
                Err(e) if e.raw_os_error() == Some(libc::ESRCH) => {}
                Err(e) => return Err(Error::io(format!("take away the label of process {pid}"), e)),
            }
        }
        if !found {
            return Ok(());
        }
    }
}

fn map() -> Result<OwnedFd, Error> {
    let mut maps = pins::open_maps()?;
    maps.remove(&MapName::Labels)
        .ok_or(Error::Damaged { path: pins::FOLDER.into(), missing: MapName::Labels.pin() })
}

fn processes() -> Result<impl Iterator<Item = u32>, Error> {
    let entries = fs::read_dir("/proc").map_err(|e| Error::io("list processes", e))?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

/// Processes that execute one of these programs without a label, by process id and path.
///
/// # Errors
/// [`Error`] when labels cannot be read. Processes that end meanwhile are passed over.
pub fn missing(programs: &[Program]) -> Result<Vec<(u32, PathBuf)>, Error> {
    missing_in(map()?.as_fd(), programs)
}

/// Does what [`missing`] does, with this map of labels.
pub(crate) fn missing_in(labels: BorrowedFd<'_>, programs: &[Program]) -> Result<Vec<(u32, PathBuf)>, Error> {
    let mut missing = Vec::new();
    for pid in processes()? {
        let Ok(exe) = fs::metadata(format!("/proc/{pid}/exe")) else { continue };
        // The device is not compared: some file systems show user space another number than the kernel has.
        let Some(program) = programs.iter().find(|program| program.inode == exe.ino()) else { continue };
        if fs::metadata(&program.path).is_ok_and(|file| file.dev() == exe.dev())
            && !has_label(pid, labels)?.unwrap_or(true)
        {
            missing.push((pid, program.path.clone()));
        }
    }
    Ok(missing)
}

/// Whether any process has a label here.
pub(crate) fn any_in(labels: BorrowedFd<'_>) -> Result<bool, Error> {
    for pid in processes()? {
        if has_label(pid, labels)? == Some(true) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Reports whether a process has a label; `None` if the process has ended.
fn has_label(pid: u32, labels: BorrowedFd<'_>) -> Result<Option<bool>, Error> {
    match process(pid).and_then(|process| found_by(&process, labels)) {
        Ok(label) => Ok(Some(label.is_some())),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ESRCH | libc::ENOENT)) => Ok(None),
        Err(e) => Err(Error::io(format!("read the label of process {pid}"), e)),
    }
}

/// Returns the label of the process with this pidfd. An empty label is none.
fn found_by(process: &OwnedFd, labels: BorrowedFd<'_>) -> io::Result<Option<Label>> {
    let label = sys::lookup::<i32, Label>(labels, &process.as_raw_fd())?;
    Ok(label.filter(|label| label.inode != 0))
}
