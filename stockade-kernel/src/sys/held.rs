/*!
The calls for programs on cgroups and for frozen maps.
*/
use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use aya_obj::generated::bpf_prog_info;
use stockade_common::kinds;

use super::{
    address, bpf, creates, fd_number,
    info::{BPF_OBJ_GET_INFO_BY_FD, IdAttr, InfoAttr},
    maps::{BPF_MAP_LOOKUP_ELEM, BPF_MAP_UPDATE_ELEM, ElementAttr, pages},
};

const BPF_PROG_ATTACH: i64 = 8;
const BPF_PROG_DETACH: i64 = 9;
const BPF_MAP_GET_FD_BY_ID: i64 = 14;
const BPF_PROG_QUERY: i64 = 16;
const BPF_MAP_FREEZE: i64 = 22;

const BPF_F_ALLOW_MULTI: u32 = 1 << 1;
const BPF_F_QUERY_EFFECTIVE: u32 = 1;

#[repr(C)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

/// Attaches a program to a cgroup beside others. The cgroup keeps it; no link is needed.
pub fn attach_to_cgroup(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>, attach_type: u32) -> io::Result<()> {
    let mut attr = AttachAttr {
        target_fd: fd_number(cgroup),
        attach_bpf_fd: fd_number(program),
        attach_type,
        attach_flags: BPF_F_ALLOW_MULTI,
    };
    bpf(BPF_PROG_ATTACH, &mut attr).map(drop)
}

/// Detaches a program from a cgroup.
pub fn detach_from_cgroup(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<()> {
    let mut attr = AttachAttr {
        target_fd: fd_number(cgroup),
        attach_bpf_fd: fd_number(program),
        attach_type,
        attach_flags: 0,
    };
    bpf(BPF_PROG_DETACH, &mut attr).map(drop)
}

/// Reports whether an LSM program is of attach type `BPF_LSM_CGROUP`, which the information on a program does not contain. Tries to attach it to an
/// invalid descriptor: the kernel compares the attach type first, and attaches nothing.
pub fn is_for_cgroups(program: BorrowedFd<'_>) -> io::Result<bool> {
    let mut attr = AttachAttr {
        target_fd: u32::MAX,
        attach_bpf_fd: fd_number(program),
        attach_type: kinds::ATTACH_LSM_CGROUP,
        attach_flags: BPF_F_ALLOW_MULTI,
    };
    match bpf(BPF_PROG_ATTACH, &mut attr) {
        Err(e) if e.raw_os_error() == Some(libc::EBADF) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        answer => answer.map(|_| true),
    }
}

/// Tries to detach an invalid program from an invalid descriptor: the error tells whether the kernel looked at the descriptor or refused before.
pub fn detach_from_nothing(attach_type: u32) -> io::Result<()> {
    let mut attr = AttachAttr { target_fd: u32::MAX, attach_bpf_fd: u32::MAX, attach_type, attach_flags: 0 };
    bpf(BPF_PROG_DETACH, &mut attr).map(drop)
}

/// Returns the ids of the programs that run for a cgroup, its own last.
pub fn programs_of_cgroup(cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<Vec<u32>> {
    #[repr(C)]
    struct Attr {
        target_fd: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        prog_ids: u64,
        prog_cnt: u32,
        pad: u32,
    }
    // At most ten hooks with 64 programs each.
    let mut ids = vec![0u32; 1024];
    let mut attr = Attr {
        target_fd: fd_number(cgroup),
        attach_type,
        query_flags: BPF_F_QUERY_EFFECTIVE,
        attach_flags: 0,
        prog_ids: address(ids.as_mut_ptr()),
        prog_cnt: u32::try_from(ids.len()).expect("a constant"),
        pad: 0,
    };
    bpf(BPF_PROG_QUERY, &mut attr)?;
    ids.truncate(attr.prog_cnt as usize);
    Ok(ids)
}

/// Writes the only value of a map and makes the map read-only for user space, permanently. The verifier takes reads of such a map for constants.
pub fn fill_and_freeze(map: BorrowedFd<'_>, content: &[u8]) -> io::Result<()> {
    #[repr(C)]
    struct Update {
        map_fd: u32,
        pad: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    let key = 0u32;
    let mut update = Update {
        map_fd: fd_number(map),
        pad: 0,
        key: address(&raw const key),
        value: address(content.as_ptr()),
        flags: 0,
    };
    bpf(BPF_MAP_UPDATE_ELEM, &mut update)?;
    freeze(map)?;
    // Until the map was frozen, root could write to it.
    if value(map)? == content {
        Ok(())
    } else {
        Err(io::Error::other("another process has written into the map"))
    }
}

/// Makes a map read-only for user space, permanently. 5.2 and later.
pub fn freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct Attr {
        map_fd: u32,
    }
    bpf(BPF_MAP_FREEZE, &mut Attr { map_fd: fd_number(map) }).map(drop)
}

/// Opens a map by its id.
pub fn map_by_id(id: u32) -> io::Result<OwnedFd> {
    creates(BPF_MAP_GET_FD_BY_ID, &mut IdAttr { id, next_id: 0, open_flags: 0 })
}

/// The kernel's information on a map.
pub struct MapInfo {
    /// The type, of `enum bpf_map_type`.
    pub kind: u32,
    /// The id.
    pub id: u32,
    /// Sizes of a key and of a value in bytes.
    pub sizes: (u32, u32),
    /// Maximum number of entries.
    pub entries: u32,
}

/// Reads the kernel's information on a map.
pub fn map_info(map: BorrowedFd<'_>) -> io::Result<MapInfo> {
    // `struct bpf_map_info` as of 5.2: type, id, four sizes, the name and more.
    let mut info = [0u32; 20];
    let mut attr = InfoAttr { bpf_fd: fd_number(map), info_len: 80, info: address(info.as_mut_ptr()) };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(MapInfo { kind: info[0], id: info[1], sizes: (info[2], info[3]), entries: info[4] })
}

/// Reads the only value of a map, as bytes.
pub fn value(map: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut value = vec![0u8; map_info(map)?.sizes.1 as usize];
    let key = 0u32;
    let mut attr = ElementAttr {
        map_fd: fd_number(map),
        pad: 0,
        key: address(&raw const key),
        value: address(value.as_mut_ptr()),
        flags: 0,
    };
    bpf(BPF_MAP_LOOKUP_ELEM, &mut attr)?;
    Ok(value)
}

/// Reads all entries of a frozen hash map, as bytes. 5.6 and later.
pub fn entries(map: BorrowedFd<'_>) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    const ROOM: usize = 1024;
    let (key, value) = map_info(map)?.sizes;
    let (key, value) = (key as usize, value as usize);
    let (mut keys, mut values) = (vec![0u8; ROOM * key], vec![0u8; ROOM * value]);
    let mut found = BTreeMap::new();
    let room = (address(keys.as_mut_ptr()), address(values.as_mut_ptr()), ROOM);
    pages(map, room, |count| {
        let there = keys.chunks_exact(key).zip(values.chunks_exact(value)).take(count);
        found.extend(there.map(|(key, value)| (key.to_vec(), value.to_vec())));
    })?;
    Ok(found)
}

/// Opens a program by its id and reads the information on it; `None` if it is not loaded.
pub fn program(id: u32) -> io::Result<Option<(OwnedFd, bpf_prog_info)>> {
    match super::program_by_id(id) {
        Ok(program) => {
            let info = super::program_info(program.as_fd(), &mut [])?;
            Ok(Some((program, info)))
        }
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(e) => Err(e),
    }
}
