/*!
The doors of the conformance matrix, and the answers that user space gets.

The doors of `stockade-probe` are harmless, for machines in use. These are for throw-away guests and complete the operation: they load the
module, the kernel image or the BPF program, and undo it if it succeeded. Each door is tried in a child process, which is sound since the
programs that call this have one thread.
*/
use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::fd::FromRawFd,
    path::Path,
};

mod bpf;
mod files;
mod kexec;
mod modules;
mod pci;
mod ports;

/// An operation that a lockdown reason governs.
#[derive(Clone, Copy, Debug)]
pub struct Door {
    /// The reason's id.
    pub reason: &'static str,
    /// The operation in words; unique.
    pub name: &'static str,
    attempt: fn() -> Answer,
}

/// The answer that user space gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The operation succeeded; with its result where that matters.
    Done(String),
    /// The operation failed with this errno.
    Errno(i32),
    /// This guest does not have the door, and why.
    Absent(String),
}

impl Answer {
    const DONE: Self = Self::Done(String::new());

    fn from_result<T>(result: io::Result<T>) -> Self {
        match result {
            Ok(_) => Self::DONE,
            Err(e) => Self::Errno(e.raw_os_error().unwrap_or(libc::EIO)),
        }
    }

    /// Converts the return value of a system call, which sets errno.
    fn call(returned: i64) -> Self {
        if returned < 0 { Self::from_result::<()>(Err(io::Error::last_os_error())) } else { Self::DONE }
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Done(what) if what.is_empty() => f.write_str("done"),
            Self::Done(what) => write!(f, "done: {what}"),
            Self::Errno(errno) => f.write_str(&errno_name(*errno)),
            Self::Absent(why) => write!(f, "absent: {why}"),
        }
    }
}

/// Returns every door, family by family.
#[must_use]
pub fn all() -> Vec<Door> {
    [modules::DOORS, files::DOORS, kexec::DOORS, pci::DOORS, ports::DOORS, bpf::DOORS].concat()
}

impl Door {
    const fn new(reason: &'static str, name: &'static str, attempt: fn() -> Answer) -> Self {
        Self { reason, name, attempt }
    }

    /// Tries the door in a child process, and returns the answer in words.
    ///
    /// # Errors
    /// When no child can be created, or it ends without an answer.
    pub fn try_door(&self) -> io::Result<String> {
        let mut ends = [0; 2];
        // SAFETY: the array has room for the two descriptors that pipe2 writes.
        if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: pipe2 has just created both descriptors, and nothing else owns them.
        let (mut answer, mut told) = unsafe { (File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1])) };
        // SAFETY: this process has one thread, so the child's memory is consistent; the child leaves through _exit.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                let sent = told.write_all((self.attempt)().to_string().as_bytes());
                // SAFETY: _exit takes a number; it ends the child without running the parent's exit handlers.
                unsafe { libc::_exit(i32::from(sent.is_err())) }
            }
            child => {
                drop(told);
                let mut words = String::new();
                let read = answer.read_to_string(&mut words);
                // SAFETY: waitpid takes a null pointer when no status is wanted; the child is this process's.
                unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
                read?;
                if words.is_empty() {
                    return Err(io::Error::other(format!("{}: the child died without an answer", self.name)));
                }
                Ok(words)
            }
        }
    }
}

/// Opens a file, or reports that it is absent.
fn open(path: &str, options: &OpenOptions) -> Answer {
    if Path::new(path).exists() { Answer::from_result(options.open(path)) } else { missing(path) }
}

fn missing(path: &str) -> Answer {
    Answer::Absent(format!("there is no {path}"))
}

fn reading() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true);
    options
}

fn writing() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    options
}

/// Returns the name of an errno, for those that doors give.
fn errno_name(errno: i32) -> String {
    let name = match errno {
        libc::EPERM => "EPERM",
        libc::ENOENT => "ENOENT",
        libc::EIO => "EIO",
        libc::ENXIO => "ENXIO",
        libc::ENOEXEC => "ENOEXEC",
        libc::EAGAIN => "EAGAIN",
        libc::ENOMEM => "ENOMEM",
        libc::EACCES => "EACCES",
        libc::EFAULT => "EFAULT",
        libc::EBUSY => "EBUSY",
        libc::EEXIST => "EEXIST",
        libc::ENODEV => "ENODEV",
        libc::EINVAL => "EINVAL",
        libc::ENOTTY => "ENOTTY",
        libc::EADDRNOTAVAIL => "EADDRNOTAVAIL",
        libc::ENOSYS => "ENOSYS",
        libc::ENODATA => "ENODATA",
        libc::EBADMSG => "EBADMSG",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        libc::ENOKEY => "ENOKEY",
        libc::EKEYREJECTED => "EKEYREJECTED",
        other => return format!("errno {other}"),
    };
    name.to_owned()
}
