/*!
Programs: loads, attaches and pins them.
*/
use std::{
    ffi::CStr,
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use aya_obj::generated::bpf_insn;

use super::{BPF_TRACE_ITER, Target, address, bpf, creates, fd_number};

const BPF_BTF_LOAD: i64 = 18;
const BPF_PROG_LOAD: i64 = 5;
const BPF_OBJ_PIN: i64 = 6;
const BPF_OBJ_GET: i64 = 7;
const BPF_RAW_TRACEPOINT_OPEN: i64 = 17;
const BPF_LINK_CREATE: i64 = 28;
const BPF_ITER_CREATE: i64 = 33;
/// The verifier returns EAGAIN while a signal is pending, such as SIGCONT for a stopped process.
const LOAD_TRIES: u32 = 5;

/// Loads BTF.
pub fn load_types(btf: &[u8]) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct BtfAttr {
        btf: u64,
        btf_log_buf: u64,
        btf_size: u32,
        btf_log_size: u32,
        btf_log_level: u32,
        /// Zero: the kernel rejects unknown bytes that are not zero.
        pad: u32,
    }
    let size = u32::try_from(btf.len()).expect("it has a hundred bytes");
    let mut attr = BtfAttr {
        btf: address(btf.as_ptr()),
        btf_log_buf: 0,
        btf_size: size,
        btf_log_size: 0,
        btf_log_level: 0,
        pad: 0,
    };
    creates(BPF_BTF_LOAD, &mut attr)
}

/// Function information that the kernel requires of a program with callbacks.
pub struct Functions<'a> {
    /// Loaded BTF.
    pub types: BorrowedFd<'a>,
    /// First instruction and type of each function, in order (`struct bpf_func_info`).
    pub list: &'a [[u32; 2]],
}

/// Loads a program. The verifier's log goes to `log` when it is not empty.
pub fn load(
    instructions: &[bpf_insn],
    license: &CStr,
    name: &[u8; 16],
    target: Target,
    functions: Option<&Functions<'_>>,
    log: &mut [u8],
) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log_buf: u64,
        kern_version: u32,
        prog_flags: u32,
        prog_name: [u8; 16],
        prog_ifindex: u32,
        expected_attach_type: u32,
        prog_btf_fd: u32,
        func_info_rec_size: u32,
        func_info: u64,
        func_info_cnt: u32,
        line_info_rec_size: u32,
        line_info: u64,
        line_info_cnt: u32,
        attach_btf_id: u32,
    }
    let mut attr = Attr {
        prog_type: target.program_type,
        insn_cnt: u32::try_from(instructions.len()).expect("a program has fewer than a million instructions"),
        insns: address(instructions.as_ptr()),
        license: address(license.as_ptr()),
        log_level: u32::from(!log.is_empty()),
        log_size: u32::try_from(log.len()).expect("our buffers are small"),
        log_buf: if log.is_empty() { 0 } else { address(log.as_mut_ptr()) },
        kern_version: 0,
        prog_flags: 0,
        prog_name: *name,
        prog_ifindex: 0,
        expected_attach_type: target.attach_type,
        prog_btf_fd: functions.map_or(0, |f| fd_number(f.types)),
        func_info_rec_size: if functions.is_some() { 8 } else { 0 },
        func_info: functions.map_or(0, |f| address(f.list.as_ptr())),
        func_info_cnt: functions
            .map_or(0, |f| u32::try_from(f.list.len()).expect("a program has a few functions")),
        line_info_rec_size: 0,
        line_info: 0,
        line_info_cnt: 0,
        attach_btf_id: target.function,
    };
    let mut tries = 0..LOAD_TRIES;
    loop {
        match creates(BPF_PROG_LOAD, &mut attr) {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) && tries.next().is_some() => {}
            answer => return answer,
        }
    }
}

/// Attaches a loaded program to its target, as long as the returned link or a pin of it exists. Through BPF_RAW_TRACEPOINT_OPEN, which every
/// kernel since 5.7 accepts for these programs.
pub fn attach(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        name: u64,
        prog_fd: u32,
        pad: u32,
    }
    creates(BPF_RAW_TRACEPOINT_OPEN, &mut Attr { name: 0, prog_fd: fd_number(program), pad: 0 })
}

/// Attaches a loaded program to a cgroup beside others, as long as the returned link or a pin of it exists, unless another process detaches it.
pub fn attach_to_cgroup(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    target: Target,
) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        prog_fd: u32,
        target_fd: u32,
        attach_type: u32,
        flags: u32,
    }
    let mut attr = Attr {
        prog_fd: fd_number(program),
        target_fd: fd_number(cgroup),
        attach_type: target.attach_type,
        flags: 0,
    };
    creates(BPF_LINK_CREATE, &mut attr)
}

/// Runs an iterator's program for each object, and returns its output. 5.8 and later.
pub fn iterate(program: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    #[repr(C)]
    struct LinkAttr {
        prog_fd: u32,
        target_fd: u32,
        attach_type: u32,
        flags: u32,
        info: u64,
        info_len: u32,
        pad: u32,
    }
    #[repr(C)]
    struct Attr {
        link_fd: u32,
        flags: u32,
    }
    let mut attr = LinkAttr {
        prog_fd: fd_number(program),
        target_fd: 0,
        attach_type: BPF_TRACE_ITER,
        flags: 0,
        info: 0,
        info_len: 0,
        pad: 0,
    };
    let link = creates(BPF_LINK_CREATE, &mut attr)?;
    let file = creates(BPF_ITER_CREATE, &mut Attr { link_fd: fd_number(link.as_fd()), flags: 0 })?;
    let mut written = Vec::new();
    #[cfg(test)]
    if let Some(list) = super::fake::list(fd_number(file.as_fd())) {
        return Ok(list.into_bytes());
    }
    std::fs::File::from(file).read_to_end(&mut written)?;
    Ok(written)
}

#[repr(C)]
struct PathAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Pins a BPF object in a BPF file system.
pub fn pin(object: BorrowedFd<'_>, path: &CStr) -> io::Result<()> {
    let mut attr = PathAttr { pathname: address(path.as_ptr()), bpf_fd: fd_number(object), file_flags: 0 };
    bpf(BPF_OBJ_PIN, &mut attr).map(drop)
}

/// Opens a pinned object.
pub fn open_pin(path: &CStr) -> io::Result<OwnedFd> {
    let mut attr = PathAttr { pathname: address(path.as_ptr()), bpf_fd: 0, file_flags: 0 };
    creates(BPF_OBJ_GET, &mut attr)
}
