/*!
A child without rights that asks the kernel for what only root should get. What it gets it closes or loses with its end.
*/
use std::{fs, io, ptr};

use crate::{child, nobody};

/// An operation that a setting guards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Log,
    Bpf,
    Userfaultfd,
    IoUring,
    PerfEvent,
    Ptrace,
    LowMemory,
    /// The last: what follows would be asked in the new namespace.
    UserNamespace,
}

const ALL: [What; 8] = [
    What::Log,
    What::Bpf,
    What::Userfaultfd,
    What::IoUring,
    What::PerfEvent,
    What::Ptrace,
    What::LowMemory,
    What::UserNamespace,
];

/// The result of one trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tried {
    Allowed,
    /// With this error.
    Refused(i32),
    NotThere,
}

impl Tried {
    pub(super) fn words(self) -> String {
        match self {
            Self::Allowed => "allowed".into(),
            Self::NotThere => "the kernel has no such call".into(),
            Self::Refused(errno) => io::Error::from_raw_os_error(errno).to_string(),
        }
    }
}

impl What {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Log => "syslog(2), reading the kernel log",
            Self::Bpf => "bpf(2), loading a program that does nothing",
            Self::Userfaultfd => "userfaultfd(2), for faults of the kernel too",
            Self::IoUring => "io_uring_setup(2)",
            Self::PerfEvent => "perf_event_open(2), the kernel included",
            Self::Ptrace => "ptrace(2) of a process beside it",
            Self::LowMemory => "mmap(2) at address 0",
            Self::UserNamespace => "unshare(2), a user namespace and another in it",
        }
    }

    /// In the child. The error, or 0 if it was allowed.
    fn ask(self) -> i32 {
        match self {
            Self::Log => log(),
            Self::Bpf => bpf(),
            Self::Userfaultfd => userfaultfd(),
            Self::IoUring => io_uring(),
            Self::PerfEvent => perf_event(),
            Self::Ptrace => ptrace_sibling(),
            Self::LowMemory => low_memory(),
            Self::UserNamespace => user_namespace(),
        }
    }
}

/// The results of all trials.
pub(super) struct All(Vec<(usize, i32)>);

impl All {
    /// None where there was no answer that says anything.
    pub(super) fn of(&self, what: What) -> Option<Tried> {
        let at = ALL.iter().position(|other| *other == what)?;
        let (_, errno) = self.0.iter().find(|(other, _)| *other == at)?;
        match *errno {
            0 => Some(Tried::Allowed),
            libc::ENOSYS => Some(Tried::NotThere),
            libc::EPERM | libc::EACCES | libc::ENOSPC => Some(Tried::Refused(*errno)),
            // No memory, a wrong argument: neither one nor the other.
            _ => None,
        }
    }
}

pub(super) fn run() -> Result<All, String> {
    let ended = child::run(child::TRIAL, |out| {
        if let Err(error) = nobody::become_nobody() {
            let _ = write!(out, "!{error}");
            return;
        }
        for (at, what) in ALL.iter().enumerate() {
            let _ = writeln!(out, "{at} {}", what.ask());
        }
    });
    let (_, text) = ended.map_err(|error| format!("no child could be started: {error}"))?;
    let text = String::from_utf8_lossy(&text).into_owned();
    if let Some(error) = text.strip_prefix('!') {
        return Err(format!("no child without rights could be had: {error}"));
    }
    let line = |line: &str| {
        let (at, errno) = line.split_once(' ')?;
        Some((at.parse().ok()?, errno.parse().ok()?))
    };
    Ok(All(text.lines().filter_map(line).collect()))
}

/// The error of a call that returned this, or 0. What it opened is closed.
fn answer(returned: libc::c_long) -> i32 {
    if returned < 0 {
        return io::Error::last_os_error().raw_os_error().unwrap_or(-1);
    }
    if let Ok(fd @ 3..) = i32::try_from(returned) {
        // SAFETY: the descriptor was just opened by the call that returned it.
        unsafe { libc::close(fd) };
    }
    0
}

fn log() -> i32 {
    const READ_ALL: libc::c_int = 3;
    let mut text = [0_u8; 64];
    // SAFETY: the kernel writes at most as many bytes as the buffer has.
    let returned = unsafe { libc::klogctl(READ_ALL, text.as_mut_ptr().cast(), 64) };
    if returned < 0 { answer(-1) } else { 0 }
}

/// The part of bpf(2)'s attributes that loading needs.
#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    level: u32,
    size: u32,
    log: u64,
}

fn bpf() -> i32 {
    const PROG_LOAD: libc::c_int = 5;
    const SOCKET_FILTER: u32 = 1;
    /// `r0 = 0; exit`
    const PROGRAM: [u64; 2] = [0xb7, 0x95];
    let load = Load {
        kind: SOCKET_FILTER,
        count: 2,
        instructions: PROGRAM.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        ..Load::default()
    };
    // SAFETY: the attributes and what they point to live for the call.
    answer(unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const load, size_of::<Load>()) })
}

fn userfaultfd() -> i32 {
    // SAFETY: takes flags and returns a descriptor.
    answer(unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) })
}

fn io_uring() -> i32 {
    // `struct io_uring_params` has 120 bytes.
    let mut parameters = [0_u64; 15];
    // SAFETY: the kernel reads and writes the parameters, which are as large and live for the call.
    answer(unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) })
}

fn perf_event() -> i32 {
    const SOFTWARE: u64 = 1;
    const SIZE: u64 = 64;
    // `struct perf_event_attr` as of its first version: type and size, the clock of the CPU, and the flag `disabled`. Without
    // `exclude_kernel` the kernel is counted.
    let mut attributes = [0_u64; 8];
    attributes[0] = SOFTWARE | SIZE << 32;
    attributes[5] = 1;
    // SAFETY: the attributes have the size they say and live for the call.
    answer(unsafe { libc::syscall(libc::SYS_perf_event_open, attributes.as_ptr(), 0, -1, -1, 8_u64) })
}

/// Two children of this child: one sleeps, the other attaches to it. A parent may always trace its children, so it does not try itself.
fn ptrace_sibling() -> i32 {
    // SAFETY: each process makes system calls alone and leaves through _exit or by a signal; both are waited for.
    unsafe {
        // Who gave up root's rights would be refused for that. Kept to the two children.
        let dumpable = libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0);
        libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
        let target = libc::fork();
        if target == 0 {
            libc::pause();
            libc::_exit(0);
        }
        let tracer = if target > 0 { libc::fork() } else { -1 };
        if tracer == 0 {
            let none = ptr::null_mut::<libc::c_void>();
            let returned = libc::ptrace(libc::PTRACE_SEIZE, target, none, none);
            libc::_exit(if returned == 0 { 0 } else { *libc::__errno_location() & 0xff });
        }
        let mut status = 0;
        let heard = tracer > 0 && libc::waitpid(tracer, &raw mut status, 0) == tracer;
        if target > 0 {
            libc::kill(target, libc::SIGKILL);
            libc::waitpid(target, ptr::null_mut(), 0);
        }
        libc::prctl(libc::PR_SET_DUMPABLE, libc::c_ulong::from(dumpable == 1), 0, 0, 0);
        if heard && libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { libc::EAGAIN }
    }
}

fn low_memory() -> i32 {
    const SIZE: usize = 4096;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: nothing is mapped at 0, and nothing that is mapped is replaced.
    let at = unsafe { libc::mmap(ptr::null_mut(), SIZE, libc::PROT_READ, flags, -1, 0) };
    if at == libc::MAP_FAILED {
        return answer(-1);
    }
    // SAFETY: takes away the page that was just mapped.
    unsafe { libc::munmap(at, SIZE) };
    0
}

/// Some systems give the namespace without its rights: what counts is whether they can be used.
fn user_namespace() -> i32 {
    // SAFETY: takes flags and changes this child alone, which does nothing else afterwards.
    let first = unsafe { libc::unshare(libc::CLONE_NEWUSER) };
    if first != 0 {
        let errno = answer(-1);
        // So says a kernel without these namespaces.
        let is_built = fs::symlink_metadata("/proc/self/ns/user").is_ok();
        return if errno == libc::EINVAL && !is_built { libc::ENOSYS } else { errno };
    }
    // SAFETY: as before.
    let second = unsafe { libc::unshare(libc::CLONE_NEWUTS) };
    if second == 0 { 0 } else { answer(-1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_answered_on_this_machine() {
        let all = run().unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(all.0.len(), ALL.len(), "{:?}", all.0);
        assert!(all.of(What::LowMemory).is_some());
    }

    #[test]
    fn errors_that_say_nothing_are_no_answers() {
        let all = All(vec![(0, 0), (1, libc::EPERM), (2, libc::ENOSYS), (3, libc::ENOMEM)]);
        assert_eq!(
            [What::Log, What::Bpf, What::Userfaultfd, What::IoUring, What::Ptrace].map(|what| all.of(what)),
            [Some(Tried::Allowed), Some(Tried::Refused(libc::EPERM)), Some(Tried::NotThere), None, None]
        );
    }
}
