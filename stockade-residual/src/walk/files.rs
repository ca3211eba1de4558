/*!
The files of one process in /proc: lines of its mappings, what its descriptors were opened for, its threads.
*/
use std::{
    fs::{self, File},
    io::Read,
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RawDir, StatxFlags};

use crate::Access;

/// A line of /proc/PID/maps that has a file behind it.
pub(super) struct Line<'a> {
    pub(super) range: &'a [u8],
    pub(super) access: &'a [u8],
    /// Device, inode and path.
    pub(super) file: &'a [u8],
}

impl<'a> Line<'a> {
    pub(super) fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.splitn(4, |&b| b == b' ');
        let (range, access, _offset, file) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let nothing =
            file.strip_prefix(b"00:00 0").is_some_and(|rest| rest.first().is_none_or(|&b| b == b' '));
        (!nothing).then_some(Self { range, access, file })
    }

    /// The range as map_files has it, without leading zeros.
    pub(super) fn place(&self) -> String {
        let range = String::from_utf8_lossy(self.range);
        let short = |address: &str| match address.trim_start_matches('0') {
            "" => "0".to_owned(),
            rest => rest.to_owned(),
        };
        let (from, to) = range.split_once('-').unwrap_or((&range, ""));
        format!("{}-{}", short(from), short(to))
    }

    pub(super) fn path(&self) -> String {
        let path = self.file.splitn(3, |&b| b == b' ').nth(2).unwrap_or_default().trim_ascii_start();
        String::from_utf8_lossy(path).into_owned()
    }
}

pub(super) fn open_folder(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

pub(super) fn open_in(folder: &OwnedFd, name: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(folder, name, OFlags::RDONLY | OFlags::CLOEXEC | flags, Mode::empty())
}

pub(super) fn link(path: &PathBuf) -> String {
    fs::read_link(path).map_or_else(|_| "(closed meanwhile)".into(), |l| l.to_string_lossy().into_owned())
}

/// Returns the access mode of a descriptor; `None` if it is closed by now, or names a file without having it open (`O_PATH`).
pub(super) fn access(folder: &OwnedFd, number: u32) -> Option<Access> {
    const O_ACCMODE: u32 = libc::O_ACCMODE.cast_unsigned();
    const O_PATH: u32 = libc::O_PATH.cast_unsigned();
    const WRITE: u32 = libc::O_WRONLY.cast_unsigned();
    const READ: u32 = libc::O_RDONLY.cast_unsigned();
    let flags = u32::from_str_radix(field(&fdinfo(folder, number)?, "flags:")?, 8).ok()?;
    if flags & O_PATH != 0 {
        return None;
    }
    Some(match flags & O_ACCMODE {
        READ => Access::Read,
        WRITE => Access::Write,
        _ => Access::Both,
    })
}

pub(super) fn fdinfo(folder: &OwnedFd, number: u32) -> Option<String> {
    let file = open_in(folder, &format!("fdinfo/{number}"), OFlags::empty()).ok()?;
    let mut text = String::new();
    File::from(file).read_to_string(&mut text).ok()?;
    Some(text)
}

pub(super) fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// The threads of a process beside the first. One thread, the usual case, costs one call: the folder's number
/// of links is that of the threads and two.
pub(super) fn other_threads(pid: u32, folder: &OwnedFd) -> Vec<u32> {
    match rustix::fs::statx(folder, "task", AtFlags::empty(), StatxFlags::NLINK) {
        Ok(answer) if answer.stx_nlink > 3 => {}
        _ => return Vec::new(),
    }
    let Ok(list) = open_in(folder, "task", OFlags::DIRECTORY) else { return Vec::new() };
    let mut threads = Vec::new();
    let mut space = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(list.as_fd(), &mut space);
    while let Some(Ok(entry)) = entries.next() {
        let thread: Option<u32> = entry.file_name().to_str().ok().and_then(|name| name.parse().ok());
        threads.extend(thread.filter(|&thread| thread != pid));
    }
    threads
}

/// Whether two threads use the same table of descriptors. In doubt they do not, and both are read.
pub(super) fn share_descriptors(one: u32, other: u32) -> bool {
    const KCMP_FILES: i32 = 2;
    // SAFETY: kcmp takes numbers only.
    unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_FILES, 0, 0) == 0 }
}
