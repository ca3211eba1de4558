/*!
The addresses of the parts of a program: each child executes a tiny program, is stopped before its first instruction, read and killed.

```text
check ── clone ──▶ child: PTRACE_TRACEME, execveat(image)
   │                        stops at exec
   ├─ reads /proc/PID/auxv, /proc/PID/stat
   └─ kills it
```
*/
use std::{
    ffi::{CStr, c_int, c_void},
    fs::File,
    io::{self, Write},
    os::fd::{AsRawFd, FromRawFd, RawFd},
    ptr,
};

use super::image::{Width, image};
use crate::System;

/// The addresses of the parts of one child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub stack: u64,
    pub mmap: u64,
    pub executable: u64,
    /// The beginning of the heap.
    pub heap: u64,
    pub vdso: Option<u64>,
}

/// The reason why there is no sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The kernel runs no programs of this width.
    NoSuchPrograms,
    Other(String),
}

/// Keys of the auxiliary vector (getauxval(3)).
const AT_PHDR: u64 = 3;
const AT_BASE: u64 = 7;
const AT_SYSINFO_EHDR: u64 = 33;

/// The exit status of a child that cannot be traced. Another status is the errno of execveat(2).
const NOT_TRACED: c_int = 201;

/// Returns the layouts of this many programs.
pub(super) fn sample(system: &System, width: Width, count: usize) -> Result<Vec<Layout>, Trouble> {
    let image = Image::new(width)?;
    let mut stack = vec![0_u8; 64 * 1024];
    (0..count).map(|_| image.look(system, &mut stack)).collect()
}

struct Image {
    file: File,
    width: Width,
}

/// The arguments of the child, which shares the memory of its parent until execveat(2).
struct Start {
    fd: RawFd,
    parent: libc::pid_t,
}

fn other(what: &str) -> Trouble {
    Trouble::Other(format!("{what}: {}", io::Error::last_os_error()))
}

impl Image {
    fn new(width: Width) -> Result<Self, Trouble> {
        const NAME: &CStr = c"stockade-assess";
        const EXECUTABLE: libc::c_uint = 0x10;
        // SAFETY: the name is a NUL-terminated constant.
        let create = |flags| unsafe { libc::memfd_create(NAME.as_ptr(), libc::MFD_CLOEXEC | flags) };
        let mut fd = create(EXECUTABLE);
        if fd < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL) {
            // Before Linux 6.3 every memfd was executable, and MFD_EXEC was not known.
            fd = create(0);
        }
        if fd < 0 {
            return Err(other("cannot create an executable memfd (vm.memfd_noexec may forbid it)"));
        }
        // SAFETY: the descriptor was just created, and nothing else owns it.
        let mut file = unsafe { File::from_raw_fd(fd) };
        let Some(bytes) = image(width, &format!("/proc/self/fd/{fd}")) else {
            return Err(Trouble::Other("not tried on this architecture".into()));
        };
        file.write_all(&bytes)
            .map_err(|error| Trouble::Other(format!("cannot write the test program to a memfd: {error}")))?;
        Ok(Self { file, width })
    }

    fn look(&self, system: &System, stack: &mut [u8]) -> Result<Layout, Trouble> {
        // SAFETY: getpid has no precondition and cannot fail.
        let start = Start { fd: self.file.as_raw_fd(), parent: unsafe { libc::getpid() } };
        let top = (stack.as_mut_ptr_range().end as usize & !15) as *mut c_void;
        // SAFETY: `begin` runs on this stack, which nothing else uses, while this process waits until it executes the program or exits
        // (CLONE_VFORK); `start` lives until then.
        let pid = unsafe {
            libc::clone(
                begin,
                top,
                libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
                (&raw const start).cast_mut().cast(),
            )
        };
        if pid < 0 {
            return Err(other("no child could be started"));
        }
        let mut status = 0;
        // SAFETY: `status` is valid for writing and lives for the call.
        if unsafe { libc::waitpid(pid, &raw mut status, 0) } != pid {
            return Err(other("waitpid(2) for a child failed"));
        }
        if !libc::WIFSTOPPED(status) {
            return Err(self.ended(status));
        }
        // SIGTRAP is the stop at exec of a traced process.
        let layout = match libc::WSTOPSIG(status) {
            libc::SIGTRAP => self.read(system, pid),
            signal => Err(Trouble::Other(format!("the test program could not be started: signal {signal}"))),
        };
        // SAFETY: both calls take numbers, and waitpid(2) accepts a null status; `pid` is an unreaped child, so its number is not reused.
        unsafe {
            libc::kill(pid, libc::SIGKILL);
            libc::waitpid(pid, ptr::null_mut(), 0);
        }
        layout
    }

    fn ended(&self, status: c_int) -> Trouble {
        if !libc::WIFEXITED(status) {
            return Trouble::Other("a child was killed before its addresses could be read".into());
        }
        match libc::WEXITSTATUS(status) {
            NOT_TRACED => {
                Trouble::Other("ptrace(2) of a child is refused (kernel.yama.ptrace_scope may be 3)".into())
            }
            libc::ENOEXEC if self.width == Width::Compat => Trouble::NoSuchPrograms,
            errno => {
                let error = io::Error::from_raw_os_error(errno);
                Trouble::Other(format!("the test program could not be started: {error}"))
            }
        }
    }

    fn read(&self, system: &System, pid: libc::pid_t) -> Result<Layout, Trouble> {
        let read = |name: &str| {
            system.bytes(&format!("/proc/{pid}/{name}")).map_err(|unread| Trouble::Other(unread.to_string()))
        };
        let vector = vector(&read("auxv")?, self.width);
        let value = |key| vector.iter().find(|(other, _)| *other == key).map(|(_, value)| *value);
        let stat = String::from_utf8_lossy(&read("stat")?).into_owned();
        // The fields behind the name, which may contain any character; the first of them is field 3.
        let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
        let field = |number: usize| after.split_whitespace().nth(number - 3)?.parse::<u64>().ok();
        let layout = || {
            Some(Layout {
                stack: field(28)?,
                heap: field(47)?,
                mmap: value(AT_BASE)?,
                executable: value(AT_PHDR)?,
                vdso: value(AT_SYSINFO_EHDR),
            })
        };
        layout().ok_or_else(|| {
            Trouble::Other("the kernel does not show the addresses of the parts of a program".into())
        })
    }
}

/// Returns the keys and values of an auxiliary vector.
fn vector(bytes: &[u8], width: Width) -> Vec<(u64, u64)> {
    let size = if width == Width::Compat { 4 } else { 8 };
    let number = |part: &[u8]| {
        let mut whole = [0; 8];
        whole[..size].copy_from_slice(part);
        u64::from_le_bytes(whole)
    };
    bytes
        .chunks_exact(2 * size)
        .map(|pair| (number(&pair[..size]), number(&pair[size..])))
        .take_while(|(key, _)| *key != 0)
        .collect()
}

/// Runs in the child. It shares memory with its parent, so it only makes system calls.
extern "C" fn begin(start: *mut c_void) -> c_int {
    const QUERY: libc::c_ulong = 0xffff_ffff;
    const ARGUMENTS: [*const libc::c_char; 2] = [c"p".as_ptr(), ptr::null()];
    // SAFETY: `start` is the parent's reference and lives while this runs. The system calls change only this child; their strings and arrays are
    // constants or live on this stack.
    unsafe {
        let start = &*start.cast::<Start>();
        // The child dies with its parent, also after exec: a tracer that dies leaves stopped tracees behind.
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::getppid() != start.parent {
            libc::_exit(NOT_TRACED);
        }
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
        // With an unlimited stack, or a parent started by `setarch -R`, the kernel uses another layout than for usual programs.
        let mut limit = none;
        if libc::getrlimit(libc::RLIMIT_STACK, &raw mut limit) == 0 && limit.rlim_cur == libc::RLIM_INFINITY {
            limit.rlim_cur = 8 << 20;
            libc::setrlimit(libc::RLIMIT_STACK, &raw const limit);
        }
        let personality = libc::personality(QUERY);
        let changed = libc::ADDR_NO_RANDOMIZE | libc::ADDR_COMPAT_LAYOUT;
        if personality >= 0 && personality & changed != 0 {
            #[allow(clippy::cast_sign_loss, reason = "not negative")]
            libc::personality((personality & !changed) as libc::c_ulong);
        }
        if libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) != 0 {
            libc::_exit(NOT_TRACED);
        }
        let none: [*const libc::c_char; 1] = [ptr::null()];
        libc::syscall(
            libc::SYS_execveat,
            start.fd,
            c"".as_ptr(),
            ARGUMENTS.as_ptr(),
            none.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
        libc::_exit(*libc::__errno_location())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_s_parts_are_where_programs_have_them() {
        let layouts = sample(&System::live(false), Width::Native, 3).unwrap();
        for layout in layouts {
            // All in the user half, the heap above the program, the stack above the mmap region.
            assert!(layout.heap > layout.executable && layout.stack > layout.mmap, "{layout:?}");
            assert!(layout.executable > 0x1_0000 && layout.stack < 1 << 63);
        }
    }

    #[test]
    fn the_vector_ends_at_its_end() {
        assert_eq!(vector(&[7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0], Width::Compat), [(7, 1)]);
        assert_eq!(vector(&[1, 2, 3], Width::Native), []);
    }
}
