//! Doors of perf: kprobes and the registers of an interrupted task.
//!
//! `kernel.perf_event_paranoid` answers EACCES, not EPERM, and does not concern root.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use crate::answer::{Outcome, check};
use crate::file;

/// `struct perf_event_attr` of `linux/perf_event.h`, version 5 (Linux 4.8).
#[repr(C)]
#[derive(Default)]
struct Attr {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    config1: u64,
    config2: u64,
    branch_sample_type: u64,
    sample_regs_user: u64,
    sample_stack_user: u32,
    clockid: i32,
    sample_regs_intr: u64,
    aux_watermark: u32,
    sample_max_stack: u16,
    reserved: u16,
}

const SIZE: u32 = 112;
const _: () = assert!(size_of::<Attr>() == SIZE as usize);

/// The first bit of the flags: the event does not count until it is enabled, which never happens here.
const DISABLED: u64 = 1;
const PERF_TYPE_SOFTWARE: u32 = 1;
const PERF_COUNT_SW_CPU_CLOCK: u64 = 0;
const PERF_SAMPLE_REGS_INTR: u64 = 1 << 18;

/// An address of user space, where no kernel code is.
const NO_CODE: u64 = 1;

/// Asks for a disabled perf event on a kprobe at an address where no code is. `__register_trace_kprobe()` in
/// `kernel/trace/trace_kprobe.c` asks: EPERM is a refusal; ENOENT or EINVAL is what `register_kprobe()` says of the address after that,
/// and no kprobe is placed.
pub(crate) fn kprobe() -> Outcome {
    let Some(kind) =
        file::text("/sys/bus/event_source/devices/kprobe/type").and_then(|kind| kind.parse().ok())
    else {
        return Outcome::absent("this kernel offers no kprobes to perf");
    };
    let attr = Attr { kind, size: SIZE, flags: DISABLED, config2: NO_CODE, ..Attr::default() };
    let tried = "perf event on a kprobe where no code is";
    match open(&attr) {
        Ok(_) => Outcome::failed(format!("{tried}: the kernel placed it")),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Outcome::free().with(&error),
        Err(error) => Outcome::from_error_past(tried, &error, libc::EINVAL),
    }
}

/// Opens a disabled software clock event, for this child alone, that would sample one register of the
/// interrupted task, and closes it. `perf_event_open()` in `kernel/events/core.c` asks for every event with
/// `PERF_SAMPLE_REGS_INTR`.
pub(crate) fn registers() -> Outcome {
    let attr = Attr {
        kind: PERF_TYPE_SOFTWARE,
        size: SIZE,
        config: PERF_COUNT_SW_CPU_CLOCK,
        sample_period: 1_000_000,
        sample_type: PERF_SAMPLE_REGS_INTR,
        sample_regs_intr: 1,
        flags: DISABLED,
        ..Attr::default()
    };
    Outcome::from_result("perf event with PERF_SAMPLE_REGS_INTR", open(&attr))
}

/// Opens an event on the calling process, on any CPU.
fn open(attr: &Attr) -> io::Result<OwnedFd> {
    const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;
    // SAFETY: the kernel reads `size` bytes of `attr`, which points at nothing.
    let fd = check(unsafe {
        libc::syscall(libc::SYS_perf_event_open, std::ptr::from_ref(attr), 0, -1, -1, PERF_FLAG_FD_CLOEXEC)
    })?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the call succeeded, so the descriptor is open and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
