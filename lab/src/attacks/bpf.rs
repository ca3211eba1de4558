/*!
bpf(2) as an attacker calls it: with bare instructions and without a library.

The programs here only return the value that lets a request through.
*/
use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use anyhow::{Context, Result};

use crate::syscall::{check, descriptor};
use stockade_kernel::btf;

const MAP_LOOKUP_ELEM: i32 = 1;
const MAP_UPDATE_ELEM: i32 = 2;
const MAP_DELETE_ELEM: i32 = 3;
const MAP_GET_NEXT_KEY: i32 = 4;
const PROG_LOAD: i32 = 5;
const OBJ_GET: i32 = 7;
const PROG_ATTACH: i32 = 8;
const PROG_DETACH: i32 = 9;
const PROG_GET_NEXT_ID: i32 = 11;
const MAP_GET_NEXT_ID: i32 = 12;
const PROG_GET_FD_BY_ID: i32 = 13;
const MAP_GET_FD_BY_ID: i32 = 14;
const OBJ_GET_INFO_BY_FD: i32 = 15;
const PROG_QUERY: i32 = 16;
const RAW_TRACEPOINT_OPEN: i32 = 17;
const BTF_LOAD: i32 = 18;
const MAP_FREEZE: i32 = 22;
const LINK_CREATE: i32 = 28;
const LINK_UPDATE: i32 = 29;
const LINK_GET_FD_BY_ID: i32 = 30;
const LINK_GET_NEXT_ID: i32 = 31;
const LINK_DETACH: i32 = 34;
const PROG_BIND_MAP: i32 = 35;
const MAP_CREATE: i32 = 0;

/// A program type and its attach type (`enum bpf_prog_type`, `enum bpf_attach_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    program: u32,
    pub(super) attach: u32,
}

pub(super) const SOCKET_FILTER: Kind = Kind { program: 1, attach: 0 };
pub(super) const SYSCTL: Kind = Kind { program: 23, attach: 18 };
pub(super) const FENTRY: Kind = Kind { program: 26, attach: 24 };
pub(super) const FEXIT: Kind = Kind { program: 26, attach: 25 };
pub(crate) const MODIFY_RETURN: Kind = Kind { program: 26, attach: 26 };
pub(super) const EXTENSION: Kind = Kind { program: 28, attach: 0 };
pub(super) const LSM: Kind = Kind { program: 29, attach: 27 };
pub(crate) const LSM_CGROUP: Kind = Kind { program: 29, attach: 43 };

/// Returns the program `r0 = value; exit`.
pub(super) fn returns(value: u32) -> Vec<u64> {
    vec![u64::from(value) << 32 | 0xb7, 0x95]
}

fn call(command: i32, words: &[u64]) -> io::Result<libc::c_long> {
    // SAFETY: the kernel accesses as many bytes as are passed, and what it writes back into this copy is not read; every caller keeps the
    // memory alive that the words point at.
    check(unsafe { libc::syscall(libc::SYS_bpf, command, words.to_vec().as_mut_ptr(), size_of_val(words)) })
}

fn opens(command: i32, words: &[u64]) -> io::Result<OwnedFd> {
    descriptor(call(command, words)?)
}

/// Returns a descriptor as the lower half of a word; `high` returns it as the upper half.
fn low(fd: &OwnedFd) -> u64 {
    u64::from(fd.as_raw_fd().cast_unsigned())
}

fn high(fd: &OwnedFd) -> u64 {
    low(fd) << 32
}

/// The attributes of a program beside its instructions.
#[derive(Default)]
pub(super) struct Extra<'a> {
    /// The BTF id of the function that it attaches to.
    pub(super) function: u32,
    /// The program that the function belongs to, instead of the kernel.
    pub(super) target: Option<&'a OwnedFd>,
    /// Its BTF, and the id of its only function there.
    pub(super) types: Option<(&'a OwnedFd, u32)>,
}

/// Loads a program.
pub(super) fn load(kind: Kind, instructions: &[u64], extra: &Extra<'_>) -> io::Result<OwnedFd> {
    let functions = [0_u32, extra.types.map_or(0, |(_, id)| id)];
    let mut attr = [0_u64; 16];
    attr[0] = (instructions.len() as u64) << 32 | u64::from(kind.program);
    attr[1] = instructions.as_ptr() as u64;
    attr[2] = c"GPL".as_ptr() as u64;
    // prog_name, 16 bytes from 48 on.
    attr[6] = u64::from_ne_bytes(*b"attack\0\0");
    // prog_ifindex, expected_attach_type.
    attr[8] = u64::from(kind.attach) << 32;
    if let Some((types, _)) = extra.types {
        // prog_btf_fd, func_info_rec_size; func_info; func_info_cnt.
        attr[9] = 8 << 32 | low(types);
        attr[10] = functions.as_ptr() as u64;
        attr[11] = 1;
    }
    // attach_btf_id after line_info_cnt, attach_prog_fd.
    attr[13] = u64::from(extra.function) << 32;
    attr[14] = extra.target.map_or(0, low);
    opens(PROG_LOAD, &attr)
}

/// Loads a program for a kernel function. The program returns `returned`.
pub(crate) fn load_for(kind: Kind, function: &str, returned: u32) -> Result<io::Result<OwnedFd>> {
    let id = btf::function(function)?.with_context(|| format!("this kernel has no function {function}"))?;
    Ok(load(kind, &returns(returned), &Extra { function: id, ..Extra::default() }))
}

/// Loads a cgroup program for a kernel function. The program makes the hook return `answer`.
pub(crate) fn load_answering(function: &str, answer: u32) -> Result<io::Result<OwnedFd>> {
    const SET_RETVAL: u64 = 187;
    let Some(id) = btf::function(function)? else { return Ok(Err(io::ErrorKind::NotFound.into())) };
    // r1 = answer; call; r0 = 1; exit.
    let program = [u64::from(answer) << 32 | 1 << 8 | 0xb7, SET_RETVAL << 32 | 0x85, 1 << 32 | 0xb7, 0x95];
    Ok(load(LSM_CGROUP, &program, &Extra { function: id, ..Extra::default() }))
}

/// Attaches a tracing, LSM or extension program by BPF_RAW_TRACEPOINT_OPEN, which creates a link.
pub(crate) fn attach(program: &OwnedFd) -> io::Result<OwnedFd> {
    opens(RAW_TRACEPOINT_OPEN, &[0, low(program)])
}

/// Attaches a program by BPF_LINK_CREATE, the newer command.
pub(crate) fn link(program: &OwnedFd, target: Option<&OwnedFd>, kind: Kind) -> io::Result<OwnedFd> {
    opens(LINK_CREATE, &[low(program) | target.map_or(0, high), u64::from(kind.attach), 0, 0])
}

/// The flags of BPF_PROG_ATTACH about other programs of the same cgroup.
pub(super) const ALLOW_OVERRIDE: u32 = 1;
pub(super) const ALLOW_MULTI: u32 = 2;
pub(super) const REPLACE: u32 = 4;

/// Attaches a program to a cgroup, without a link.
pub(super) fn attach_to(cgroup: &OwnedFd, program: &OwnedFd, kind: Kind, flags: u32) -> io::Result<()> {
    replace_in(cgroup, program, kind, flags, None)
}

/// Attaches a program to a cgroup in place of another.
pub(super) fn replace_in(
    cgroup: &OwnedFd,
    program: &OwnedFd,
    kind: Kind,
    flags: u32,
    old: Option<&OwnedFd>,
) -> io::Result<()> {
    let attr =
        [low(cgroup) | high(program), u64::from(flags) << 32 | u64::from(kind.attach), old.map_or(0, low)];
    call(PROG_ATTACH, &attr).map(drop)
}

/// Detaches a program from a cgroup; without a program, whichever is attached.
pub(super) fn detach_from(cgroup: &OwnedFd, program: Option<&OwnedFd>, kind: Kind) -> io::Result<()> {
    let attr = [low(cgroup) | program.map_or(0, high), u64::from(kind.attach), 0];
    call(PROG_DETACH, &attr).map(drop)
}

/// Detaches a program from a cgroup by a call with two more arguments, which kernels since 7.0 may accept.
pub(super) fn detach_with_more(cgroup: &OwnedFd, program: &OwnedFd, kind: Kind) -> io::Result<()> {
    const COMMON_ATTRIBUTES: i32 = 1 << 16;
    let attr = [low(cgroup) | high(program), u64::from(kind.attach), 0];
    let common = [0_u64; 2];
    // SAFETY: both blocks live through the call and have the sizes passed.
    check(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            PROG_DETACH | COMMON_ATTRIBUTES,
            attr.as_ptr(),
            size_of_val(&attr),
            common.as_ptr(),
            size_of_val(&common),
        )
    })
    .map(drop)
}

/// Creates an array with one value of this many bytes.
pub(super) fn create_array(name: &[u8; 16], value: u32) -> io::Result<OwnedFd> {
    const ARRAY: u64 = 2;
    let [first, second] =
        [0, 8].map(|at| u64::from_ne_bytes(name[at..at + 8].try_into().expect("eight bytes of sixteen")));
    // map_type, key_size; value_size, max_entries; map_flags, inner_map_fd; numa_node, name in the rest.
    let mut bytes = [0_u8; 64];
    let words = [4 << 32 | ARRAY, 1 << 32 | u64::from(value), 0];
    bytes[..24].copy_from_slice(&words.map(u64::to_ne_bytes).concat());
    bytes[28..36].copy_from_slice(&first.to_ne_bytes());
    bytes[36..44].copy_from_slice(&second.to_ne_bytes());
    let words: Vec<u64> =
        bytes.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().expect("eight bytes"))).collect();
    opens(MAP_CREATE, &words)
}

/// Binds a map to a program that does not use it.
pub(super) fn bind(program: &OwnedFd, map: &OwnedFd) -> io::Result<()> {
    call(PROG_BIND_MAP, &[low(program) | high(map), 0]).map(drop)
}

/// Returns a program that deletes the key of zeros from a map.
pub(super) fn deletes_from(map: &OwnedFd, key: usize) -> Vec<u64> {
    const DELETE: u64 = 3;
    let words = u64::try_from(key.div_ceil(8)).expect("keys are small");
    // *(u64 *)(r10 - 8 n) = 0, for a key of zeros.
    let clear = |n: u64| (n * 8).wrapping_neg() << 48 >> 32 | 0x0a << 8 | 0x7a;
    let mut program: Vec<u64> = (1..=words).map(clear).collect();
    program.extend([
        // r1 = map, in two instructions; r2 = r10 - 8 n.
        low(map) << 32 | 0x11 << 8 | 0x18,
        0,
        0xa2 << 8 | 0xbf,
        (words * 8).wrapping_neg() << 32 | 0x02 << 8 | 0x07,
        DELETE << 32 | 0x85,
        0xb7,
        0x95,
    ]);
    program
}

/// Returns the ids of a cgroup's programs of this type.
pub(super) fn query(cgroup: &OwnedFd, kind: Kind) -> io::Result<Vec<u32>> {
    let (mut ids, mut flags) = ([0_u32; 64], [0_u32; 64]);
    let [ids_at, flags_at] = [ids.as_mut_ptr() as u64, flags.as_mut_ptr() as u64];
    let mut attr = [low(cgroup) | u64::from(kind.attach) << 32, 0, ids_at, 64, flags_at, 0, 0, 0];
    // SAFETY: the block, the ids and their flags live through the call, and have the sizes passed.
    check(unsafe { libc::syscall(libc::SYS_bpf, PROG_QUERY, attr.as_mut_ptr(), size_of_val(&attr)) })?;
    let count = usize::try_from(attr[3] & 0xffff_ffff).unwrap_or(0);
    Ok(ids[..count.min(64)].to_vec())
}

/// The type of a BPF object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ObjectType {
    Program,
    Map,
    Link,
}

/// Opens every object of a type, and returns those that could be opened with their ids.
pub(super) fn objects(object_type: ObjectType) -> Vec<(u32, OwnedFd)> {
    ids(object_type).into_iter().filter_map(|id| Some((id, by_id(object_type, id).ok()?))).collect()
}

/// Returns every id of a type.
pub(crate) fn ids(object_type: ObjectType) -> Vec<u32> {
    let next = match object_type {
        ObjectType::Program => PROG_GET_NEXT_ID,
        ObjectType::Map => MAP_GET_NEXT_ID,
        ObjectType::Link => LINK_GET_NEXT_ID,
    };
    let mut found = Vec::new();
    let mut id = 0;
    loop {
        let mut attr = [id, 0_u32, 0, 0];
        // SAFETY: the block lives through the call and has the size passed.
        let answer = unsafe { libc::syscall(libc::SYS_bpf, next, attr.as_mut_ptr(), size_of_val(&attr)) };
        if answer != 0 {
            return found;
        }
        id = attr[1];
        found.push(id);
    }
}

/// Opens an object.
pub(crate) fn by_id(object_type: ObjectType, id: u32) -> io::Result<OwnedFd> {
    let command = match object_type {
        ObjectType::Program => PROG_GET_FD_BY_ID,
        ObjectType::Map => MAP_GET_FD_BY_ID,
        ObjectType::Link => LINK_GET_FD_BY_ID,
    };
    opens(command, &[u64::from(id), 0])
}

/// The kernel's info about a map.
#[derive(Clone, Debug)]
pub(crate) struct MapInfo {
    pub(super) key: usize,
    pub(super) value: usize,
    pub(super) entries: u32,
    pub(crate) name: String,
}

fn info(object: &OwnedFd) -> io::Result<[u32; 32]> {
    let mut info = [0_u32; 32];
    let attr = [128 << 32 | low(object), info.as_mut_ptr() as u64];
    call(OBJ_GET_INFO_BY_FD, &attr)?;
    Ok(info)
}

/// Returns the name of a program.
pub(crate) fn program_name(program: &OwnedFd) -> io::Result<String> {
    Ok(name(&info(program)?[16..20]))
}

fn name(words: &[u32]) -> String {
    let name: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).take_while(|b| *b != 0).collect();
    String::from_utf8_lossy(&name).into_owned()
}

/// Returns the info about a map.
pub(crate) fn map_info(map: &OwnedFd) -> io::Result<MapInfo> {
    let info = info(map)?;
    Ok(MapInfo { key: info[2] as usize, value: info[3] as usize, entries: info[4], name: name(&info[6..10]) })
}

/// Reads a value of this many bytes.
pub(super) fn lookup(map: &OwnedFd, key: &[u8], bytes: usize) -> io::Result<Vec<u8>> {
    let mut value = vec![0; bytes];
    call(MAP_LOOKUP_ELEM, &[low(map), key.as_ptr() as u64, value.as_mut_ptr() as u64, 0])?;
    Ok(value)
}

/// Writes a value.
pub(super) fn update(map: &OwnedFd, key: &[u8], value: &[u8]) -> io::Result<()> {
    call(MAP_UPDATE_ELEM, &[low(map), key.as_ptr() as u64, value.as_ptr() as u64, 0]).map(drop)
}

/// Deletes an entry.
pub(super) fn delete(map: &OwnedFd, key: &[u8]) -> io::Result<()> {
    call(MAP_DELETE_ELEM, &[low(map), key.as_ptr() as u64, 0, 0]).map(drop)
}

/// Returns the first key.
pub(super) fn first_key(map: &OwnedFd, bytes: usize) -> io::Result<Vec<u8>> {
    let mut key = vec![0; bytes];
    call(MAP_GET_NEXT_KEY, &[low(map), 0, key.as_mut_ptr() as u64, 0])?;
    Ok(key)
}

/// Makes a map read-only for user space.
pub(super) fn freeze(map: &OwnedFd) -> io::Result<()> {
    call(MAP_FREEZE, &[low(map)]).map(drop)
}

/// Opens the object that is pinned at this path.
pub(super) fn open_pin(path: &str) -> Result<OwnedFd> {
    let name = CString::new(path)?;
    opens(OBJ_GET, &[name.as_ptr() as u64, 0]).with_context(|| format!("open the pin {path}"))
}

/// Detaches a link.
pub(super) fn detach(link: &OwnedFd) -> io::Result<()> {
    call(LINK_DETACH, &[low(link)]).map(drop)
}

/// Replaces the program of a link.
pub(super) fn update_link(link: &OwnedFd, program: &OwnedFd) -> io::Result<()> {
    call(LINK_UPDATE, &[low(link) | high(program), 0]).map(drop)
}

/// Loads BTF.
pub(super) fn load_types(blob: &[u8]) -> io::Result<OwnedFd> {
    opens(BTF_LOAD, &[blob.as_ptr() as u64, 0, blob.len() as u64, 0])
}
