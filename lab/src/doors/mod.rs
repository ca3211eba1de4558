/*!
The doors of the conformance matrix: what user space sees when it knocks.

`stockade-probe` has doors too, harmless ones for machines that somebody needs. These are for guests that
are thrown away, and go all the way: they load the module, the kernel image, the BPF program, and put
everything back if they got through. Each knocks in a child process, which is sound since the programs
that call this have one thread.
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

/// One operation that lockdown concerns.
#[derive(Clone, Copy, Debug)]
pub struct Door {
    /// The reason's id.
    pub reason: &'static str,
    /// What is done, in words; unique.
    pub name: &'static str,
    knock: fn() -> Answer,
}

/// What user space sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was done; with what came back, where that matters.
    Done(String),
    /// The kernel's errno.
    Errno(i32),
    /// This guest does not have the door: why.
    Absent(String),
}

impl Answer {
    const DONE: Self = Self::Done(String::new());

    fn of<T>(result: io::Result<T>) -> Self {
        match result {
            Ok(_) => Self::DONE,
            Err(e) => Self::Errno(e.raw_os_error().unwrap_or(libc::EIO)),
        }
    }

    /// The errno of a system call, from what it returned.
    fn call(returned: i64) -> Self {
        if returned < 0 { Self::of::<()>(Err(io::Error::last_os_error())) } else { Self::DONE }
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

/// Every door, by the kernel's order of reasons.
#[must_use]
pub fn all() -> Vec<Door> {
    [modules::DOORS, files::DOORS, kexec::DOORS, pci::DOORS, ports::DOORS, bpf::DOORS].concat()
}

impl Door {
    const fn new(reason: &'static str, name: &'static str, knock: fn() -> Answer) -> Self {
        Self { reason, name, knock }
    }

    /// Knocks, in a child, and returns the answer as words.
    ///
    /// # Errors
    /// When there can be no child, or it ended without an answer.
    pub fn knock(&self) -> io::Result<String> {
        let mut ends = [0; 2];
        // SAFETY: the array has the two places that are written.
        if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: both descriptors were just made for this process.
        let (mut answer, mut told) = unsafe { (File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1])) };
        // SAFETY: this process has one thread, so its copy is whole; the child leaves through _exit.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                let sent = told.write_all((self.knock)().to_string().as_bytes());
                // SAFETY: ends the child without running the parent's exit handlers.
                unsafe { libc::_exit(i32::from(sent.is_err())) }
            }
            child => {
                drop(told);
                let mut words = String::new();
                let read = answer.read_to_string(&mut words);
                // SAFETY: waits for the child; no status is wanted.
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

/// Opens a file that is there.
fn open(path: &str, options: &OpenOptions) -> Answer {
    if Path::new(path).exists() { Answer::of(options.open(path)) } else { missing(path) }
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

/// The kernel's name for an error, for those that doors give.
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
