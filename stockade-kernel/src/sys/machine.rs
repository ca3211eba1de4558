/*!
System calls other than bpf(2) and file access, each in one place, so that tests can put a model of the machine there.
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

/// Returns the number of possible processors: a per-processor map has so many values for each entry.
pub fn processors() -> io::Result<usize> {
    #[cfg(test)]
    if fake::is_there() {
        return Ok(fake::PROCESSORS);
    }
    aya::util::nr_cpus().map_err(|(_, error)| error)
}

/// Moves this thread from processor to processor. Dropping it restores the thread's affinity.
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

    /// Moves the thread to the next processor of its affinity. If the kernel refuses, it stays.
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

/// Returns the number of this process's next descriptor. `None` in tests, which create descriptors concurrently.
pub(super) fn lowest_free_descriptor() -> io::Result<Option<i32>> {
    #[cfg(test)]
    if fake::is_there() {
        return Ok(None);
    }
    // dup(2) has no LSM hook, so that no BPF program can return a descriptor for this function to close.
    // SAFETY: takes a number. Rust's runtime opens 0 to 2 if they are closed.
    let free = unsafe { libc::dup(libc::STDERR_FILENO) };
    if free < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was created above and has no other owner.
    drop(unsafe { OwnedFd::from_raw_fd(free) });
    Ok(Some(free))
}

/// Reports whether this number is an open descriptor: another thread may have taken it.
pub(super) fn is_descriptor(fd: i32) -> bool {
    // SAFETY: takes numbers only.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// Returns the effective user id.
pub fn effective_user() -> u32 {
    #[cfg(test)]
    if fake::is_there() {
        return 0;
    }
    // SAFETY: no arguments; cannot fail.
    unsafe { libc::geteuid() }
}

/// Returns the real user id, by which exceptions by user match.
pub fn real_user() -> u32 {
    #[cfg(test)]
    if fake::is_there() {
        return 0;
    }
    // SAFETY: no arguments; cannot fail.
    unsafe { libc::getuid() }
}

/// Reports whether a file system with this magic number (`linux/magic.h`) is mounted at this folder or above it.
pub fn is_mounted(path: &Path, magic: i64) -> bool {
    #[cfg(test)]
    if let Some(answer) = fake::is_mounted(path) {
        return answer;
    }
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    // SAFETY: statfs is plain data, for which zeros are valid.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are live for the call.
    let answer = unsafe { libc::statfs(path.as_ptr(), &raw mut stat) };
    answer == 0 && stat.f_type == magic
}

/// Takes the exclusive lock on an open file, or fails with EWOULDBLOCK.
pub fn lock(file: &impl AsRawFd) -> io::Result<()> {
    #[cfg(test)]
    fake::passes(fake::Kind::Lock, "")?;
    // SAFETY: an open descriptor.
    let answer = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sleeps.
pub fn sleep(time: Duration) {
    #[cfg(test)]
    if fake::waits() {
        return;
    }
    std::thread::sleep(time);
}

/// Waits for a grace period: until every task has left the RCU read-side critical section that it is in now. `MEMBARRIER_CMD_GLOBAL` (4.3) does
/// so; the kernel refuses it on machines with `nohz_full` processors.
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

/// The initial user namespace; the inode number is fixed since 3.8 (`PROC_USER_INIT_INO`). The uid map does not identify it, since root can give a new
/// namespace the same map.
const INITIAL_USER_NAMESPACE: &str = "user:[4026531837]";

/// Reports whether this process is in another user namespace than the initial one: its mounts may differ from the machine's, and root there has no
/// rights over the machine.
#[must_use]
pub fn in_container() -> bool {
    super::fs::read_link("/proc/self/ns/user")
        .is_ok_and(|link| link != std::path::Path::new(INITIAL_USER_NAMESPACE))
}

/// Opens a pidfd, the key of task storage (5.3 and later).
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
    // SAFETY: a descriptor that the kernel has just created for this process.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
