/*!
Maps: creates, writes, reads and freezes them.
*/
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use super::{address, bpf, creates, fd_number, programs::load_types};

const BPF_MAP_CREATE: i64 = 0;
pub(super) const BPF_MAP_LOOKUP_ELEM: i64 = 1;
pub(super) const BPF_MAP_UPDATE_ELEM: i64 = 2;
const BPF_MAP_LOOKUP_BATCH: i64 = 24;
const BPF_MAP_UPDATE_BATCH: i64 = 26;
const BPF_MAP_DELETE_ELEM: i64 = 3;
const BPF_MAP_DELETE_BATCH: i64 = 27;
const BPF_MAP_TYPE_TASK_STORAGE: u32 = 29;
const BPF_MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;
/// `BPF_MAP_TYPE_ARRAY`
pub const ARRAY: u32 = 2;
/// `BPF_MAP_TYPE_PERCPU_ARRAY`
pub const PERCPU_ARRAY: u32 = 6;
/// `BPF_MAP_TYPE_RINGBUF`
pub const RINGBUF: u32 = 27;
const BPF_F_NO_PREALLOC: u32 = 1;

/// The attributes of `BPF_MAP_CREATE` that are used here.
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

/// Creates a map as the object describes it. The name is truncated to 15 bytes.
pub fn create(name: &str, map: &aya_obj::Map) -> io::Result<OwnedFd> {
    let mut attr = CreateAttr {
        map_type: map.map_type(),
        key_size: map.key_size(),
        value_size: map.value_size(),
        max_entries: map.max_entries(),
        map_flags: map.map_flags(),
        ..CreateAttr::default()
    };
    for (to, byte) in attr.map_name[..15].iter_mut().zip(name.bytes()) {
        *to = byte;
    }
    creates(BPF_MAP_CREATE, &mut attr)
}

/// Creates an array with one number.
pub fn create_array(name: &str) -> io::Result<OwnedFd> {
    let mut attr =
        CreateAttr { map_type: ARRAY, key_size: 4, value_size: 4, max_entries: 1, ..CreateAttr::default() };
    for (to, byte) in attr.map_name[..15].iter_mut().zip(name.bytes()) {
        *to = byte;
    }
    creates(BPF_MAP_CREATE, &mut attr)
}

/// Creates a map with a value for each task, described by this BTF, which the kernel requires. 5.11 and later.
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
    creates(BPF_MAP_CREATE, &mut attr)
}

/// Waits until every program that runs now has ended, sleepable ones excepted. The kernel does so when the inner map of a map-in-map is replaced,
/// since programs may still read the old one.
pub fn wait_for_programs() -> io::Result<()> {
    let array =
        CreateAttr { map_type: ARRAY, key_size: 4, value_size: 4, max_entries: 1, ..CreateAttr::default() };
    let inner = creates(BPF_MAP_CREATE, &mut CreateAttr { ..array })?;
    let mut outer = CreateAttr {
        map_type: BPF_MAP_TYPE_ARRAY_OF_MAPS,
        key_size: 4,
        value_size: 4,
        max_entries: 1,
        inner_map_fd: fd_number(inner.as_fd()),
        ..CreateAttr::default()
    };
    let outer = creates(BPF_MAP_CREATE, &mut outer)?;
    update(outer.as_fd(), &0u32, &fd_number(inner.as_fd()))
}

#[repr(C)]
pub(super) struct ElementAttr {
    pub(super) map_fd: u32,
    pub(super) pad: u32,
    pub(super) key: u64,
    /// The address of the value, or of the next key.
    pub(super) value: u64,
    pub(super) flags: u64,
}

/// Writes one entry. The caller passes key and value of the map's sizes.
pub fn update<K: Copy, V: Copy>(map: BorrowedFd<'_>, key: &K, value: &V) -> io::Result<()> {
    let (key, value) = (address(&raw const *key), address(&raw const *value));
    let mut attr = ElementAttr { map_fd: fd_number(map), pad: 0, key, value, flags: 0 };
    bpf(BPF_MAP_UPDATE_ELEM, &mut attr).map(drop)
}

/// Reads one entry. `V` is plain data of the map's size, for which any bytes are valid.
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

/// Deletes one entry and reports whether it existed.
pub fn delete<K: Copy>(map: BorrowedFd<'_>, key: &K) -> io::Result<bool> {
    let key = address(&raw const *key);
    let mut attr = ElementAttr { map_fd: fd_number(map), pad: 0, key, value: 0, flags: 0 };
    match bpf(BPF_MAP_DELETE_ELEM, &mut attr) {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Returns the keys of a hash map whose values have type `V`. Entries that are written during the call may be missed. 5.6 and later.
pub fn keys<K: Copy + Default, V: Copy + Default>(map: BorrowedFd<'_>) -> io::Result<Vec<K>> {
    const ROOM: usize = 4096;
    let (mut found, mut keys, mut values) = (Vec::new(), vec![K::default(); ROOM], vec![V::default(); ROOM]);
    let room = (address(keys.as_mut_ptr()), address(values.as_mut_ptr()), ROOM);
    pages(map, room, |count| found.extend_from_slice(&keys[..count]))?;
    Ok(found)
}

/// Reads a hash map page by page into buffers for keys and values with `room` entries. Calls `page` after each page with the number of its entries.
pub(super) fn pages(
    map: BorrowedFd<'_>,
    (keys, values, room): (u64, u64, usize),
    mut page: impl FnMut(usize),
) -> io::Result<()> {
    let (mut position, mut next) = (0u32, 0u32);
    let mut first = true;
    loop {
        let mut attr = BatchAttr {
            in_batch: if first { 0 } else { address(&raw const position) },
            out_batch: address(&raw mut next),
            keys,
            values,
            count: u32::try_from(room).expect("callers have room for some thousand"),
            map_fd: fd_number(map),
            elem_flags: 0,
            flags: 0,
        };
        let over = match bpf(BPF_MAP_LOOKUP_BATCH, &mut attr) {
            Ok(_) => false,
            // The last page.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(error) => return Err(error),
        };
        page(attr.count as usize);
        if over {
            return Ok(());
        }
        (position, first) = (next, false);
    }
}

#[repr(C)]
pub(super) struct BatchAttr {
    pub(super) in_batch: u64,
    pub(super) out_batch: u64,
    pub(super) keys: u64,
    pub(super) values: u64,
    pub(super) count: u32,
    pub(super) map_fd: u32,
    pub(super) elem_flags: u64,
    pub(super) flags: u64,
}

/// Writes this many entries of a hash map. 5.6 and later.
pub fn update_all(map: BorrowedFd<'_>, count: usize, keys: &[u8], values: &[u8]) -> io::Result<()> {
    batch(BPF_MAP_UPDATE_BATCH, map, count, address(keys.as_ptr()), address(values.as_ptr()))
}

/// Deletes entries of a hash map. 5.6 and later.
pub fn delete_all<K: Copy>(map: BorrowedFd<'_>, keys: &[K]) -> io::Result<()> {
    batch(BPF_MAP_DELETE_BATCH, map, keys.len(), address(keys.as_ptr()), 0)
}

fn batch(command: i64, map: BorrowedFd<'_>, count: usize, keys: u64, values: u64) -> io::Result<()> {
    if count == 0 {
        return Ok(());
    }
    let mut attr = BatchAttr {
        in_batch: 0,
        out_batch: 0,
        keys,
        values,
        count: u32::try_from(count).expect("maps have fewer entries"),
        map_fd: fd_number(map),
        elem_flags: 0,
        flags: 0,
    };
    bpf(command, &mut attr).map(drop)
}
