/*!
The bpf(2) calls that Aya lacks: loading a program for a BTF id of [`crate::machine::btf`], attaching it, pinning and opening links, and reading programs and
maps of others.

Every call passes a zeroed attribute block of the size at the call's introduction, since older kernels reject unknown bytes that are not
zero. Layouts: include/uapi/linux/bpf.h, `union bpf_attr`.

This is also the test seam. Every call of bpf(2) goes through [`bpf`], every file that a command reads or changes through [`fs`], and the few other
system calls through `machine.rs`. Unit tests put a model of the kernel there (`fake`); in the released program the seam is the standard
library and the system call.
*/
use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use stockade_common::kinds;

mod counters;
pub mod dialogue;
#[cfg(test)]
pub(crate) mod fake;
pub mod held;
mod info;
mod machine;
mod maps;
mod programs;

pub use counters::Counters;
#[cfg(test)]
pub(crate) use fake::files as fs;
pub use info::*;
pub use machine::*;
pub use maps::*;
pub use programs::*;
#[cfg(not(test))]
pub(crate) use std::fs;

const BPF_LSM_MAC: u32 = 27;
const BPF_TRACE_RAW_TP: u32 = 23;
pub(crate) const BPF_TRACE_ITER: u32 = 28;

/// The target that a program is loaded for.
#[derive(Clone, Copy)]
pub struct Target {
    program_type: u32,
    attach_type: u32,
    function: u32,
}

impl Target {
    /// An LSM hook, by the BTF id of its function. 5.7 and later.
    pub fn lsm(function: u32) -> Self {
        Self { program_type: kinds::LSM, attach_type: BPF_LSM_MAC, function }
    }

    /// An LSM hook, for programs on a cgroup. 6.0 and later.
    pub fn lsm_of_cgroup(function: u32) -> Self {
        Self { program_type: kinds::LSM, attach_type: kinds::ATTACH_LSM_CGROUP, function }
    }

    /// A tracepoint, by the BTF id of its `btf_trace_…` type. 5.5 and later.
    pub fn tracepoint(name: u32) -> Self {
        Self { program_type: kinds::TRACING, attach_type: BPF_TRACE_RAW_TP, function: name }
    }

    /// A kernel function, by its BTF id, to run before it: a return value other than 0 becomes the function's result, and the function does not
    /// run. 5.7 and later.
    pub fn modify_return(function: u32) -> Self {
        Self { program_type: kinds::TRACING, attach_type: kinds::ATTACH_MODIFY_RETURN, function }
    }

    /// A BPF iterator, by the BTF id of its `bpf_iter_…` function: the program runs for each object, and its output is read from a file. 5.8 and
    /// later.
    pub fn iterator(function: u32) -> Self {
        Self { program_type: kinds::TRACING, attach_type: BPF_TRACE_ITER, function }
    }

    /// The packets of one socket. 3.19 and later.
    pub fn socket_filter() -> Self {
        const SOCKET_FILTER: u32 = 1;
        Self { program_type: SOCKET_FILTER, attach_type: 0, function: 0 }
    }

    /// Accesses to sysctls by processes of a cgroup and its descendants. 5.2 and later, links 5.7.
    pub fn cgroup_sysctl() -> Self {
        Self { program_type: kinds::CGROUP_SYSCTL, attach_type: kinds::ATTACH_CGROUP_SYSCTL, function: 0 }
    }

    /// Returns the program type, of `enum bpf_prog_type`.
    pub fn kind(self) -> u32 {
        self.program_type
    }

    /// Returns the BTF id that the program attaches to; 0 for none.
    pub fn hook(self) -> u32 {
        self.function
    }

    /// Reports whether a link to a cgroup attaches the program.
    pub fn is_cgroup(self) -> bool {
        self.program_type == kinds::CGROUP_SYSCTL
    }
}

/// Kills this process if STOCKADE_STOP_AT names the step: the lab uses it as a SIGKILL between two steps. In every build, since the lab tests
/// the released program; it can only end the caller's own command.
pub(crate) fn step(name: &str) {
    if std::env::var_os("STOCKADE_STOP_AT").is_some_and(|at| at == name) {
        // SAFETY: takes a number.
        unsafe { libc::raise(libc::SIGKILL) };
    }
}

fn bpf<T>(command: i64, attr: &mut T) -> io::Result<i64> {
    #[cfg(test)]
    if let Some(answer) = fake::bpf(command, std::ptr::from_mut(attr).cast()) {
        return answer;
    }
    // SAFETY: `attr` is a live, initialised block of the size passed; every caller keeps the memory alive to which it points.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// Makes a call that returns a new descriptor.
///
/// A BPF program of others on a hook of this call can set any return value, for example an existing descriptor of this process, which would then be
/// closed like a new one. The kernel returns the lowest free number.
fn creates<T>(command: i64, attr: &mut T) -> io::Result<OwnedFd> {
    let free = machine::lowest_free_descriptor()?;
    let answer = bpf(command, attr)?;
    let fd = i32::try_from(answer).map_err(io::Error::other)?;
    let is_new = |free| machine::is_descriptor(fd) && (fd == free || machine::is_descriptor(free));
    if !free.is_none_or(is_new) {
        return Err(io::Error::other(
            "bpf(2) answered with a descriptor that is not new: another BPF program answers in the kernel's place",
        ));
    }
    // SAFETY: a descriptor that the kernel has just created for this process.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn address<T: ?Sized>(pointer: *const T) -> u64 {
    pointer.cast::<u8>() as usize as u64
}

fn fd_number(fd: BorrowedFd<'_>) -> u32 {
    u32::try_from(fd.as_raw_fd()).expect("open descriptors are not negative")
}
