//! Doors of BPF: the helpers that read kernel memory and write user memory.
//!
//! Lockdown hides a helper from the verifier, so a refusal reads EINVAL ("unknown func"), as any broken
//! program does. Each probe therefore loads the same program without the call first, as a control. The
//! programs are never attached, so they never run, and are gone when their descriptor is closed.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use crate::answer::{Outcome, check};

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Insn {
    code: u8,
    /// Destination in the low four bits, source in the high four.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn insn(code: u8, registers: u8, offset: i16, immediate: i32) -> Insn {
    Insn { code, registers, offset, immediate }
}

/// The frame pointer, r10.
const FRAME: u8 = 10;

/// `rN = value`
const fn set(register: u8, value: i32) -> Insn {
    insn(0xb7, register, 0, value)
}

/// `rN = r10`
const fn set_to_frame(register: u8) -> Insn {
    insn(0xbf, FRAME << 4 | register, 0, 0)
}

/// `rN += value`
const fn add(register: u8, value: i32) -> Insn {
    insn(0x07, register, 0, value)
}

/// `*(u64 *)(r10 - 8) = 0`
const ZERO_BUFFER: Insn = insn(0x7a, FRAME, -8, 0);
const EXIT: Insn = insn(0x95, 0, 0, 0);

const fn call(helper: i32) -> Insn {
    insn(0x85, 0, 0, helper)
}

/// `bpf_probe_read_kernel(dst, size, src)`, Linux 5.5.
const PROBE_READ_KERNEL: i32 = 113;
/// `bpf_probe_write_user(dst, src, len)`, Linux 4.8.
const PROBE_WRITE_USER: i32 = 36;

/// Loads a program that would read eight bytes of kernel memory, and closes it. The kernel asks in
/// `bpf_base_func_proto()` or `bpf_tracing_func_proto()`, by version, when the verifier meets the call.
pub(crate) fn read_kernel() -> Outcome {
    let arguments = [set_to_frame(1), add(1, -8), set(2, 8), set(3, 0)];
    with_and_without("bpf_probe_read_kernel", arguments, PROBE_READ_KERNEL)
}

/// Loads a program that would write eight bytes of user memory, and closes it. The kernel asks in
/// `bpf_tracing_func_proto()` in `kernel/trace/bpf_trace.c`; where it allows the helper, it logs one line
/// that a program with it is being installed. A missing CAP_SYS_ADMIN, which would hide the helper as well,
/// is ruled out before.
pub(crate) fn write_user() -> Outcome {
    let arguments = [set(1, 0), set_to_frame(2), add(2, -8), set(3, 8)];
    with_and_without("bpf_probe_write_user", arguments, PROBE_WRITE_USER)
}

fn with_and_without(name: &str, arguments: [Insn; 4], helper: i32) -> Outcome {
    if let Err(error) = load(&program(arguments, set(0, 0))) {
        return without_the_helper(&error);
    }
    match load(&program(arguments, call(helper))) {
        Ok(_) => Outcome::free(),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Outcome::refused(libc::EINVAL),
        Err(error) => Outcome::failed(format!("load a program with {name}: {error}")).with(&error),
    }
}

/// Why not even the control could be loaded.
fn without_the_helper(error: &io::Error) -> Outcome {
    let tried = format!("load a program without the helper: {error}");
    match error.raw_os_error() {
        Some(libc::EPERM) => Outcome::needs_root(tried),
        Some(libc::ENOSYS) => Outcome::absent("this kernel has no bpf system call"),
        _ => Outcome::failed(tried),
    }
    .with(error)
}

/// A program that prepares a buffer and arguments, does `middle`, and returns 0.
fn program(arguments: [Insn; 4], middle: Insn) -> [Insn; 8] {
    let [first, second, third, fourth] = arguments;
    [ZERO_BUFFER, first, second, third, fourth, middle, set(0, 0), EXIT]
}

/// `union bpf_attr` as `BPF_PROG_LOAD` reads it, up to `expected_attach_type` (Linux 4.17).
#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    /// Had to match the kernel for kprobe programs before Linux 5.0; ignored since.
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// Loads a kprobe program under the GPL, which both helpers require.
fn load(program: &[Insn; 8]) -> io::Result<OwnedFd> {
    const BPF_PROG_LOAD: libc::c_int = 5;
    const BPF_PROG_TYPE_KPROBE: u32 = 2;
    let attr = LoadAttr {
        prog_type: BPF_PROG_TYPE_KPROBE,
        insn_cnt: 8,
        insns: program.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        prog_name: *b"stockade_probe\0\0",
        ..LoadAttr::default()
    };
    // SAFETY: the attributes point to eight instructions and a terminated licence that outlive the call.
    let fd = check(unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attr, size_of::<LoadAttr>())
    })?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the call succeeded, so the descriptor is open and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_and_attributes_have_the_kernels_layout() {
        assert_eq!(size_of::<Insn>(), 8);
        assert_eq!(size_of::<LoadAttr>(), 72);
        assert_eq!(set_to_frame(1).registers, 0xa1);
    }

    #[test]
    fn the_control_differs_only_in_the_call() {
        let arguments = [set(1, 0), set(2, 0), set(3, 0), set(4, 0)];
        let (control, probe) = (program(arguments, set(0, 0)), program(arguments, call(36)));
        let differing = control.iter().zip(&probe).filter(|(one, other)| one.code != other.code);
        assert_eq!(differing.count(), 1);
    }
}
