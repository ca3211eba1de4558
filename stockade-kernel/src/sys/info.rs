/*!
The kernel's information on programs, maps and links of any process.
*/
use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
};

use aya_obj::generated::{bpf_insn, bpf_prog_info};

use super::{address, bpf, creates, fd_number};

const BPF_PROG_GET_NEXT_ID: i64 = 11;
const BPF_MAP_GET_NEXT_ID: i64 = 12;
const BPF_PROG_GET_FD_BY_ID: i64 = 13;
pub(super) const BPF_OBJ_GET_INFO_BY_FD: i64 = 15;
const BPF_TASK_FD_QUERY: i64 = 20;
const BPF_LINK_GET_FD_BY_ID: i64 = 30;
const BPF_LINK_GET_NEXT_ID: i64 = 31;

/// The kernel's information on a link.
#[derive(Debug)]
pub struct LinkInfo {
    /// The type, of `enum bpf_link_type`.
    pub kind: u32,
    /// The link's id.
    pub id: u32,
    /// The id of the attached program.
    pub program: u32,
    /// The attach type, of `enum bpf_attach_type`. Not valid for a link to a cgroup.
    pub attach_type: u32,
    /// The BTF id of the target for a tracing link, the attach type for a link to a cgroup.
    pub target: u32,
    /// For a link to a cgroup, the cgroup's id; 0 once it is detached.
    pub cgroup: u64,
}

#[repr(C)]
pub(super) struct InfoAttr {
    pub(super) bpf_fd: u32,
    pub(super) info_len: u32,
    pub(super) info: u64,
}

/// Reads the kernel's information on a link.
pub fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut info = [0u32; 32];
    let mut attr = InfoAttr { bpf_fd: fd_number(link), info_len: 128, info: address(info.as_mut_ptr()) };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    let cgroup = u64::from(info[4]) | u64::from(info[5]) << 32;
    Ok(LinkInfo {
        kind: info[0],
        id: info[1],
        program: info[2],
        attach_type: info[4],
        target: info[6],
        cgroup,
    })
}

#[repr(C)]
pub(super) struct IdAttr {
    pub(super) id: u32,
    pub(super) next_id: u32,
    pub(super) open_flags: u32,
}

/// Reports whether a program with this id is loaded. Errors other than ENOENT count as yes.
pub fn program_exists(id: u32) -> bool {
    !matches!(program_by_id(id), Err(e) if e.raw_os_error() == Some(libc::ENOENT))
}

/// Opens a loaded program.
pub fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    creates(BPF_PROG_GET_FD_BY_ID, &mut IdAttr { id, next_id: 0, open_flags: 0 })
}

/// Returns the lowest id of a loaded program above this one.
pub fn next_program(after: u32) -> io::Result<Option<u32>> {
    next_id(BPF_PROG_GET_NEXT_ID, after)
}

/// Returns the lowest id of a map above this one. Since 4.13.
pub fn next_map(after: u32) -> io::Result<Option<u32>> {
    next_id(BPF_MAP_GET_NEXT_ID, after)
}

/// Returns the lowest id of a link above this one. Since 5.8.
pub fn next_link(after: u32) -> io::Result<Option<u32>> {
    next_id(BPF_LINK_GET_NEXT_ID, after)
}

fn next_id(command: i64, after: u32) -> io::Result<Option<u32>> {
    let mut attr = IdAttr { id: after, next_id: 0, open_flags: 0 };
    match bpf(command, &mut attr) {
        Ok(_) => Ok(Some(attr.next_id)),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Opens a link. Since 5.8.
pub fn link_by_id(id: u32) -> io::Result<OwnedFd> {
    creates(BPF_LINK_GET_FD_BY_ID, &mut IdAttr { id, next_id: 0, open_flags: 0 })
}

/// Reads the information on a program, with as many of its translated instructions as fit. `xlated_prog_len` is their size in bytes; zero means
/// that the kernel does not show them.
pub fn program_info(program: BorrowedFd<'_>, into: &mut [bpf_insn]) -> io::Result<bpf_prog_info> {
    // SAFETY: bpf_prog_info is plain data, for which zeros are valid.
    let mut answer: bpf_prog_info = unsafe { std::mem::zeroed() };
    answer.xlated_prog_len = u32::try_from(size_of_val(into)).expect("our buffers are small");
    answer.xlated_prog_insns = address(into.as_mut_ptr());
    let mut attr = InfoAttr {
        bpf_fd: fd_number(program),
        info_len: u32::try_from(size_of::<bpf_prog_info>()).expect("it has some 200 bytes"),
        info: address(&raw mut answer),
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(answer)
}

/// Returns the ids of the maps that a loaded program uses. Since 4.15.
pub fn program_maps(program: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut ids = vec![0u32; 64];
    // SAFETY: bpf_prog_info is plain data, for which zeros are valid.
    let mut answer: bpf_prog_info = unsafe { std::mem::zeroed() };
    answer.nr_map_ids = u32::try_from(ids.len()).expect("a constant");
    answer.map_ids = address(ids.as_mut_ptr());
    let mut attr = InfoAttr {
        bpf_fd: fd_number(program),
        info_len: u32::try_from(size_of::<bpf_prog_info>()).expect("it has some 200 bytes"),
        info: address(&raw mut answer),
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    ids.truncate(answer.nr_map_ids as usize);
    Ok(ids)
}

/// Returns the program that a process's perf event runs. Since 4.18.
pub fn perf_event_program(pid: u32, fd: u32) -> io::Result<u32> {
    #[repr(C)]
    struct Attr {
        pid: u32,
        fd: u32,
        flags: u32,
        buf_len: u32,
        buf: u64,
        prog_id: u32,
        fd_type: u32,
        probe_offset: u64,
        probe_addr: u64,
    }
    let mut attr = Attr {
        pid,
        fd,
        flags: 0,
        buf_len: 0,
        buf: 0,
        prog_id: 0,
        fd_type: 0,
        probe_offset: 0,
        probe_addr: 0,
    };
    bpf(BPF_TASK_FD_QUERY, &mut attr)?;
    Ok(attr.prog_id)
}
