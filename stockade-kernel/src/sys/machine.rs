/*!
The system calls beside bpf(2) and files: each in one place, so that tests can put a model of the machine there.
*/
use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    time::Duration,
};

#[cfg(test)]
use super::fake;

/// How many processors there could be, which is how many values a map has that keeps one for each.
pub fn processors() -> io::Result<usize> {
    #[cfg(test)]
    if fake::is_there() {
        return Ok(fake::PROCESSORS);
    }
    aya::util::nr_cpus().map_err(|(_, error)| error)
}

/// This thread, on one processor after the other. It may go back to where it was once this is dropped.
pub struct EachProcessor {
    before: rustix::thread::CpuSet,
    at: std::cell::Cell<usize>,
}

impl EachProcessor {
    pub fn new() -> Self {
        let before =
            rustix::thread::sched_getaffinity(None).unwrap_or_else(|_| rustix::thread::CpuSet::new());
        Self { before, at: std::cell::Cell::new(0) }
    }

    /// Moves it to the next one of those that it may run on. Where the kernel refuses that it stays where it is.
    pub fn next(&self) {
        let all = 0..rustix::thread::CpuSet::MAX_CPU;
        let allowed: Vec<usize> = all.filter(|&cpu| self.before.is_set(cpu)).collect();
        let Some(&cpu) = allowed.get(self.at.get() % allowed.len().max(1)) else { return };
        self.at.set(self.at.get() + 1);
        let mut one = rustix::thread::CpuSet::new();
        one.set(cpu);
        let _ = rustix::thread::sched_setaffinity(None, &one);
    }
}

impl Drop for EachProcessor {
    fn drop(&mut self) {
        let _ = rustix::thread::sched_setaffinity(None, &self.before);
    }
}

/// The number that the kernel gives to the next descriptor of this process. None in tests, which make descriptors side by side.
pub(super) fn lowest_free_descriptor() -> io::Result<Option<i32>> {
    #[cfg(test)]
    if fake::is_there() {
        return Ok(None);
    }
    // No security module is asked about dup(2), so that no program can answer with a descriptor for this to close.
    // SAFETY: takes numbers only. Rust's runtime has opened 0 to 2 where they were closed.
    let free = unsafe { libc::dup(libc::STDERR_FILENO) };
    if free < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: made above, and nobody else's.
    drop(unsafe { OwnedFd::from_raw_fd(free) });
    Ok(Some(free))
}

/// Whether this number is a descriptor: another thread has taken it meanwhile.
pub(super) fn is_descriptor(fd: i32) -> bool {
    // SAFETY: takes numbers only.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// The effective user id.
pub fn effective_user() -> u32 {
    #[cfg(test)]
    if fake::is_there() {
        return 0;
    }
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::geteuid() }
}

/// The real user id, which exceptions by user go by.
pub fn real_user() -> u32 {
    #[cfg(test)]
    if fake::is_there() {
        return 0;
    }
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::getuid() }
}

/// Whether a file system of this kind (`linux/magic.h`) is mounted at this folder or above it.
pub fn is_mounted(path: &Path, magic: i64) -> bool {
    #[cfg(test)]
    if let Some(answer) = fake::is_mounted(path) {
        return answer;
    }
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    // SAFETY: statfs is plain data, for which zeros are a value.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are live for the call.
    let answer = unsafe { libc::statfs(path.as_ptr(), &raw mut stat) };
    answer == 0 && stat.f_type == magic
}

/// Takes the lock of an open file for this process alone, or fails with EWOULDBLOCK.
pub fn lock(file: &impl AsRawFd) -> io::Result<()> {
    #[cfg(test)]
    fake::passes(fake::Kind::Lock, "")?;
    // SAFETY: an open descriptor.
    let answer = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sleeps, for another process to go on.
pub fn sleep(time: Duration) {
    #[cfg(test)]
    if fake::waits() {
        return;
    }
    std::thread::sleep(time);
}

/// Waits until every task that runs in the kernel now has left what it runs: `MEMBARRIER_CMD_GLOBAL` (4.3) is a grace
/// period. Refused where processors run without ticks (`nohz_full`).
pub fn wait_for_grace_period() -> io::Result<()> {
    const MEMBARRIER_CMD_GLOBAL: i32 = 1;
    #[cfg(test)]
    if let Some(answer) = fake::grace_period() {
        return answer;
    }
    // SAFETY: takes three integers.
    let answer = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A descriptor of a process, by which task storage is asked for (5.3 and later).
pub fn process(pid: u32) -> io::Result<OwnedFd> {
    #[cfg(test)]
    if let Some(answer) = fake::process(pid) {
        return answer;
    }
    // SAFETY: takes two integers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: a descriptor that the kernel has just made for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
