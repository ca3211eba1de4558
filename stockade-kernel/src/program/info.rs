/*!
Facts about a loaded program: id, name, type and statistics.
*/
use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use crate::sys;

/// Names of `enum bpf_prog_type`, in its order.
const TYPES: [&str; 33] = [
    "unspecified",
    "socket filter",
    "kprobe",
    "traffic classifier",
    "traffic action",
    "tracepoint",
    "XDP",
    "perf event",
    "cgroup skb",
    "cgroup sock",
    "LWT in",
    "LWT out",
    "LWT xmit",
    "sock ops",
    "sk skb",
    "cgroup device",
    "sk msg",
    "raw tracepoint",
    "cgroup sock addr",
    "LWT seg6local",
    "LIRC mode 2",
    "sk reuseport",
    "flow dissector",
    "cgroup sysctl",
    "writable raw tracepoint",
    "cgroup sockopt",
    "tracing",
    "struct ops",
    "extension",
    "LSM",
    "sk lookup",
    "syscall",
    "netfilter",
];

/// The id of a program.
pub(crate) fn id(program: BorrowedFd<'_>) -> Option<u32> {
    sys::program_info(program, &mut []).ok().map(|info| info.id)
}

pub(crate) fn raw_name(program: u32) -> io::Result<[u8; 16]> {
    let program = sys::program_by_id(program)?;
    Ok(sys::program_info(program.as_fd(), &mut [])?.name.map(libc::c_char::cast_unsigned))
}

pub(crate) fn kind(number: u32) -> String {
    TYPES.get(number as usize).map_or_else(|| format!("type {number}"), ToString::to_string)
}

/// Returns the printable name of a loaded program; `None` if it cannot be read.
pub(crate) fn name(id: u32) -> Option<String> {
    let program = sys::program_by_id(id).ok()?;
    let info = sys::program_info(program.as_fd(), &mut []).ok()?;
    Some(text(&info.name.map(libc::c_char::cast_unsigned)))
}

pub(crate) fn text(name: &[u8]) -> String {
    let end = name.iter().position(|&b| b == 0).unwrap_or(name.len());
    stockade_text::harmless(&name[..end])
}

/// The kernel's statistics of a program.
pub(crate) struct Account {
    pub runs: u64,
    pub nanoseconds: u64,
    /// Requests for which the kernel skipped the program, since it was deciding another one on the same processor. Always 0 for LSM programs.
    pub skipped: u64,
}

pub(crate) fn account(program: u32) -> io::Result<Account> {
    let program = sys::program_by_id(program)?;
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd()))?;
    let field = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or_default()
    };
    Ok(Account {
        runs: field("run_cnt:"),
        nanoseconds: field("run_time_ns:"),
        skipped: field("recursion_misses:"),
    })
}
