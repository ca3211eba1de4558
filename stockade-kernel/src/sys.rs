/*!
The bpf(2) calls that Aya has no door for: loading a program against a BTF id found by our own index,
attaching it, pinning and finding links without a loader around them, and reading what others loaded.

Every call passes a zeroed attribute block of the size that the kernel of its introduction knew, so
older kernels do not refuse it for trailing bytes. Layouts: include/uapi/linux/bpf.h, `union bpf_attr`.

This is also the test seam. Every call of bpf(2) goes through [`bpf`], every file that a command reads or changes through
[`fs`], and the few other system calls through `machine.rs`. Unit tests put a model of the kernel there (`fake`); in the
shipped program the seam is the standard library and the system call, with nothing between.
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

/// What a program is loaded for.
#[derive(Clone, Copy)]
pub struct Target {
    program_type: u32,
    attach_type: u32,
    function: u32,
}

impl Target {
    /// A hook of the BPF security module, by the BTF id of its function. 5.7 and later.
    pub fn lsm(function: u32) -> Self {
        Self { program_type: kinds::LSM, attach_type: BPF_LSM_MAC, function }
    }

    /// The same hook, for programs that a cgroup holds. 6.0 and later.
    pub fn lsm_of_cgroup(function: u32) -> Self {
        Self { program_type: kinds::LSM, attach_type: kinds::ATTACH_LSM_CGROUP, function }
    }

    /// A tracepoint, by the BTF id of its `btf_trace_…` type. 5.5 and later.
    pub fn tracepoint(name: u32) -> Self {
        Self { program_type: kinds::TRACING, attach_type: BPF_TRACE_RAW_TP, function: name }
    }

    /// The front of a kernel function, by its BTF id: what the program returns, unless it is 0, is the
    /// function's answer, and the function does not run. 5.7 and later.
    pub fn modify_return(function: u32) -> Self {
        Self { program_type: kinds::TRACING, attach_type: kinds::ATTACH_MODIFY_RETURN, function }
    }

    /// Each object of a kind, by the BTF id of the kind's `bpf_iter_…` function: what the program writes is read from a file. 5.8 and
    /// later.
    pub fn iterator(function: u32) -> Self {
        Self { program_type: kinds::TRACING, attach_type: BPF_TRACE_ITER, function }
    }

    /// The packets of one socket. 3.19 and later.
    pub fn socket_filter() -> Self {
        const SOCKET_FILTER: u32 = 1;
        Self { program_type: SOCKET_FILTER, attach_type: 0, function: 0 }
    }

    /// Accesses to settings by the processes of a cgroup and all below. 5.2 and later, links 5.7.
    pub fn cgroup_sysctl() -> Self {
        Self { program_type: kinds::CGROUP_SYSCTL, attach_type: kinds::ATTACH_CGROUP_SYSCTL, function: 0 }
    }

    /// The program's type: one of `enum bpf_prog_type`.
    pub fn kind(self) -> u32 {
        self.program_type
    }

    /// What it is attached to: a BTF id, 0 for none.
    pub fn hook(self) -> u32 {
        self.function
    }

    /// Whether it is attached to a cgroup.
    pub fn is_cgroup(self) -> bool {
        self.program_type == kinds::CGROUP_SYSCTL
    }
}

fn bpf<T>(command: i64, attr: &mut T) -> io::Result<i64> {
    #[cfg(test)]
    if let Some(answer) = fake::bpf(command, std::ptr::from_mut(attr).cast()) {
        return answer;
    }
    // SAFETY: `attr` is a live, initialised block of the size passed; pointers in it outlive the call
    // (each caller holds what they point at).
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// A call that creates a descriptor.
///
/// A BPF program of another's on a hook of this call can answer with any number in the kernel's place, and so with a descriptor that this process has already, which
/// would then be closed as if it was the new one. The kernel takes the lowest number that is free.
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
    // SAFETY: a descriptor the kernel has just made for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn address<T: ?Sized>(pointer: *const T) -> u64 {
    pointer.cast::<u8>() as usize as u64
}

fn fd_number(fd: BorrowedFd<'_>) -> u32 {
    u32::try_from(fd.as_raw_fd()).expect("open descriptors are not negative")
}
