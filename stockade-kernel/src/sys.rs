/*!
The bpf(2) calls that Aya has no door for: loading a program against a BTF id found by our own index,
attaching it, pinning and finding links without a loader around them, and reading what others loaded.

Every call passes a zeroed attribute block of the size that the kernel of its introduction knew, so
older kernels do not refuse it for trailing bytes. Layouts: include/uapi/linux/bpf.h, `union bpf_attr`.
*/
use std::{
    ffi::CStr,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use aya_obj::generated::{bpf_insn, bpf_prog_info};
use stockade_common::{KnownProgram, kinds};

pub mod held;

const BPF_MAP_CREATE: i64 = 0;
const BPF_MAP_LOOKUP_ELEM: i64 = 1;
const BPF_MAP_UPDATE_ELEM: i64 = 2;
const BPF_MAP_LOOKUP_BATCH: i64 = 24;
const BPF_BTF_LOAD: i64 = 18;
const BPF_MAP_UPDATE_BATCH: i64 = 26;
const BPF_MAP_DELETE_ELEM: i64 = 3;
const BPF_MAP_DELETE_BATCH: i64 = 27;
const BPF_PROG_LOAD: i64 = 5;
const BPF_OBJ_PIN: i64 = 6;
const BPF_OBJ_GET: i64 = 7;
const BPF_RAW_TRACEPOINT_OPEN: i64 = 17;
const BPF_PROG_GET_NEXT_ID: i64 = 11;
const BPF_PROG_GET_FD_BY_ID: i64 = 13;
const BPF_OBJ_GET_INFO_BY_FD: i64 = 15;
const BPF_TASK_FD_QUERY: i64 = 20;
const BPF_LINK_GET_FD_BY_ID: i64 = 30;
const BPF_LINK_GET_NEXT_ID: i64 = 31;
const BPF_LINK_CREATE: i64 = 28;

const BPF_LSM_MAC: u32 = 27;
const BPF_TRACE_RAW_TP: u32 = 23;
const BPF_MAP_TYPE_TASK_STORAGE: u32 = 29;
const BPF_MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_F_NO_PREALLOC: u32 = 1;

/// The verifier gives up when a signal is waiting, such as the one that lets a stopped process go on.
const LOAD_TRIES: u32 = 5;

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

    /// Accesses to settings by the processes of a cgroup and all below. 5.2 and later, links 5.7.
    pub fn cgroup_sysctl() -> Self {
        Self { program_type: kinds::CGROUP_SYSCTL, attach_type: kinds::ATTACH_CGROUP_SYSCTL, function: 0 }
    }

    /// How the kernel knows a program with this tag that is loaded for it.
    pub fn known(self, tag: [u8; 8]) -> KnownProgram {
        KnownProgram {
            tag: u64::from_ne_bytes(tag),
            kind: self.program_type,
            hook: self.function,
            attach_type: self.attach_type,
            pad: 0,
        }
    }

    /// Whether it is attached to a cgroup.
    pub fn is_cgroup(self) -> bool {
        self.program_type == kinds::CGROUP_SYSCTL
    }
}

fn bpf<T>(command: i64, attr: &mut T) -> io::Result<i64> {
    // SAFETY: `attr` is a live, initialised block of the size passed; pointers in it outlive the call
    // (each caller holds what they point at).
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

fn owned(answer: i64) -> OwnedFd {
    let fd = i32::try_from(answer).expect("the kernel's descriptors fit an int");
    // SAFETY: a descriptor the kernel has just made for us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn address<T: ?Sized>(pointer: *const T) -> u64 {
    pointer.cast::<u8>() as usize as u64
}

/// Writes the one value of a map and makes the map read-only for user space, for good. The verifier
/// takes what it reads from such a map for constants.
pub fn fill_and_freeze(map: BorrowedFd<'_>, value: &[u8]) -> io::Result<()> {
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
        value: address(value.as_ptr()),
        flags: 0,
    };
    bpf(BPF_MAP_UPDATE_ELEM, &mut update)?;
    held::freeze(map)?;
    // Up to here root could write it too.
    if held::value(map)? == value {
        Ok(())
    } else {
        Err(io::Error::other("another process has written into the map"))
    }
}

/// `BPF_MAP_CREATE`, as far as it is needed here.
#[repr(C)]
#[derive(Default)]
struct CreateAttr {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; 16],
    map_ifindex: u32,
    btf_fd: u32,
    btf_key_type_id: u32,
    btf_value_type_id: u32,
}

/// Makes a map that keeps a value with each task, described by these types: the kernel wants to know them.
/// 5.11 and later.
pub fn create_task_storage(
    btf: &[u8],
    key_type: u32,
    value_type: u32,
    value_size: u32,
) -> io::Result<OwnedFd> {
    let types = load_types(btf)?;
    let mut attr = CreateAttr {
        map_type: BPF_MAP_TYPE_TASK_STORAGE,
        key_size: 4,
        value_size,
        map_flags: BPF_F_NO_PREALLOC,
        map_name: *b"stockade_labels\0",
        btf_fd: fd_number(types.as_fd()),
        btf_key_type_id: key_type,
        btf_value_type_id: value_type,
        ..CreateAttr::default()
    };
    bpf(BPF_MAP_CREATE, &mut attr).map(owned)
}

/// Waits until every program that runs now, sleeping ones aside, has ended: the kernel does so when a map in
/// a map is replaced, since programs may still look into the old one.
pub fn wait_for_programs() -> io::Result<()> {
    let array = CreateAttr {
        map_type: BPF_MAP_TYPE_ARRAY,
        key_size: 4,
        value_size: 4,
        max_entries: 1,
        ..CreateAttr::default()
    };
    let inner = bpf(BPF_MAP_CREATE, &mut CreateAttr { ..array }).map(owned)?;
    let mut outer = CreateAttr {
        map_type: BPF_MAP_TYPE_ARRAY_OF_MAPS,
        key_size: 4,
        value_size: 4,
        max_entries: 1,
        inner_map_fd: fd_number(inner.as_fd()),
        ..CreateAttr::default()
    };
    let outer = bpf(BPF_MAP_CREATE, &mut outer).map(owned)?;
    update(outer.as_fd(), &0u32, &fd_number(inner.as_fd()))
}

#[repr(C)]
struct ElementAttr {
    map_fd: u32,
    pad: u32,
    key: u64,
    /// Or the address for the next key.
    value: u64,
    flags: u64,
}

/// Writes one entry. Key and value have the sizes of the map, which the caller made.
pub fn update<K: Copy, V: Copy>(map: BorrowedFd<'_>, key: &K, value: &V) -> io::Result<()> {
    let (key, value) = (address(&raw const *key), address(&raw const *value));
    let mut attr = ElementAttr { map_fd: fd_number(map), pad: 0, key, value, flags: 0 };
    bpf(BPF_MAP_UPDATE_ELEM, &mut attr).map(drop)
}

/// Reads one entry. `V` is plain data of the map's size, for which any bytes are a value.
pub fn lookup<K: Copy, V: Copy + Default>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    let mut found = V::default();
    let (key, value) = (address(&raw const *key), address(&raw mut found));
    let mut attr = ElementAttr { map_fd: fd_number(map), pad: 0, key, value, flags: 0 };
    match bpf(BPF_MAP_LOOKUP_ELEM, &mut attr) {
        Ok(_) => Ok(Some(found)),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Deletes one entry, and says whether there was one.
pub fn delete<K: Copy>(map: BorrowedFd<'_>, key: &K) -> io::Result<bool> {
    let key = address(&raw const *key);
    let mut attr = ElementAttr { map_fd: fd_number(map), pad: 0, key, value: 0, flags: 0 };
    match bpf(BPF_MAP_DELETE_ELEM, &mut attr) {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Every key of a hash map whose values are of type `V`. What is written meanwhile may be missed. 5.6 and later.
pub fn keys<K: Copy + Default, V: Copy + Default>(map: BorrowedFd<'_>) -> io::Result<Vec<K>> {
    const ROOM: usize = 4096;
    let (mut found, mut keys, mut values) = (Vec::new(), vec![K::default(); ROOM], vec![V::default(); ROOM]);
    let (mut position, mut next) = (0u32, 0u32);
    let mut first = true;
    loop {
        let mut attr = BatchAttr {
            in_batch: if first { 0 } else { address(&raw const position) },
            out_batch: address(&raw mut next),
            keys: address(keys.as_mut_ptr()),
            values: address(values.as_mut_ptr()),
            count: u32::try_from(ROOM).expect("a constant"),
            map_fd: fd_number(map),
            elem_flags: 0,
            flags: 0,
        };
        let answer = bpf(BPF_MAP_LOOKUP_BATCH, &mut attr);
        match &answer {
            Err(e) if e.raw_os_error() != Some(libc::ENOENT) => return answer.map(|_| found),
            _ => found.extend_from_slice(&keys[..attr.count as usize]),
        }
        if answer.is_err() {
            return Ok(found);
        }
        (position, first) = (next, false);
    }
}

#[repr(C)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Writes many entries of a hash map. 5.6 and later.
pub fn update_all<K: Copy, V: Copy>(map: BorrowedFd<'_>, keys: &[K], values: &[V]) -> io::Result<()> {
    assert_eq!(keys.len(), values.len());
    batch(BPF_MAP_UPDATE_BATCH, map, keys, address(values.as_ptr()))
}

/// Deletes many entries of a hash map. 5.6 and later.
pub fn delete_all<K: Copy>(map: BorrowedFd<'_>, keys: &[K]) -> io::Result<()> {
    batch(BPF_MAP_DELETE_BATCH, map, keys, 0)
}

fn batch<K: Copy>(command: i64, map: BorrowedFd<'_>, keys: &[K], values: u64) -> io::Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    let mut attr = BatchAttr {
        in_batch: 0,
        out_batch: 0,
        keys: address(keys.as_ptr()),
        values,
        count: u32::try_from(keys.len()).expect("maps have fewer entries"),
        map_fd: fd_number(map),
        elem_flags: 0,
        flags: 0,
    };
    bpf(command, &mut attr).map(drop)
}

/// Loads type information.
pub fn load_types(btf: &[u8]) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct BtfAttr {
        btf: u64,
        btf_log_buf: u64,
        btf_size: u32,
        btf_log_size: u32,
        btf_log_level: u32,
        /// Bytes behind the last field that a kernel knows have to be zero.
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
    bpf(BPF_BTF_LOAD, &mut attr).map(owned)
}

/// What the kernel wants to know of a program's functions where one of them is called back.
pub struct Functions<'a> {
    /// Type information, loaded.
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
        match bpf(BPF_PROG_LOAD, &mut attr) {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) && tries.next().is_some() => {}
            answer => return answer.map(owned),
        }
    }
}

/// Attaches a loaded program to its target; the attachment lives as long as the link returned or a pin
/// of it. Through BPF_RAW_TRACEPOINT_OPEN, which every kernel since 5.7 takes for these programs.
pub fn attach(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        name: u64,
        prog_fd: u32,
        pad: u32,
    }
    bpf(BPF_RAW_TRACEPOINT_OPEN, &mut Attr { name: 0, prog_fd: fd_number(program), pad: 0 }).map(owned)
}

/// Attaches a loaded program to a cgroup, beside others; the attachment lives as long as the link returned or a pin of
/// it, unless somebody detaches it.
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
    bpf(BPF_LINK_CREATE, &mut attr).map(owned)
}

#[repr(C)]
struct PathAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Gives a BPF object a name in a BPF file system.
pub fn pin(object: BorrowedFd<'_>, path: &CStr) -> io::Result<()> {
    let mut attr = PathAttr { pathname: address(path.as_ptr()), bpf_fd: fd_number(object), file_flags: 0 };
    bpf(BPF_OBJ_PIN, &mut attr).map(drop)
}

/// Opens what a pin names.
pub fn open_pin(path: &CStr) -> io::Result<OwnedFd> {
    let mut attr = PathAttr { pathname: address(path.as_ptr()), bpf_fd: 0, file_flags: 0 };
    bpf(BPF_OBJ_GET, &mut attr).map(owned)
}

/// What the kernel says of a link.
pub struct LinkInfo {
    /// The link's id.
    pub id: u32,
    /// The id of the program it attaches.
    pub program: u32,
    /// How it is attached: one of the constants of `enum bpf_attach_type`.
    pub attach_type: u32,
    /// For a link to a cgroup, the cgroup's id; 0 once it is detached.
    pub cgroup: u64,
}

#[repr(C)]
struct InfoAttr {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// Asks for a link's id and program.
pub fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut info = [0u32; 32];
    let mut attr = InfoAttr { bpf_fd: fd_number(link), info_len: 128, info: address(info.as_mut_ptr()) };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    let cgroup = u64::from(info[4]) | u64::from(info[5]) << 32;
    Ok(LinkInfo { id: info[1], program: info[2], attach_type: info[4], cgroup })
}

#[repr(C)]
struct IdAttr {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// Whether a program with this id is still loaded. Anything but "no such id" counts as yes.
pub fn program_exists(id: u32) -> bool {
    !matches!(program_by_id(id), Err(e) if e.raw_os_error() == Some(libc::ENOENT))
}

/// Opens a loaded program.
pub fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    bpf(BPF_PROG_GET_FD_BY_ID, &mut IdAttr { id, next_id: 0, open_flags: 0 }).map(owned)
}

/// The lowest id of a loaded program above this one.
pub fn next_program(after: u32) -> io::Result<Option<u32>> {
    next_id(BPF_PROG_GET_NEXT_ID, after)
}

/// The lowest id of a link above this one. Since 5.8.
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
    bpf(BPF_LINK_GET_FD_BY_ID, &mut IdAttr { id, next_id: 0, open_flags: 0 }).map(owned)
}

/// Asks what is known of a loaded program, and for as many of its translated instructions as fit. How many
/// bytes it has is in `xlated_prog_len`; zero there means that the kernel keeps them to itself.
pub fn program_info(program: BorrowedFd<'_>, into: &mut [bpf_insn]) -> io::Result<bpf_prog_info> {
    // SAFETY: bpf_prog_info is plain data, for which zeros are a value.
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

/// The program that a process's perf event runs. Since 4.18.
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

fn fd_number(fd: BorrowedFd<'_>) -> u32 {
    u32::try_from(fd.as_raw_fd()).expect("open descriptors are not negative")
}
