/*!
The place of a cgroup: the nearest entry upwards, and entries for new cgroups.

A policy has paths and patterns of names. User space writes the ids of existing cgroups; the programs here give new cgroups their places
before a process can be moved into them, since the tracepoint fires while the new cgroup is not yet visible. No process of Stockade has to
run for that.
*/
use aya_ebpf::{
    helpers::generated::{bpf_get_current_ancestor_cgroup_id, bpf_loop, bpf_snprintf},
    macros::{btf_tracepoint, map},
    maps::Array,
    programs::BtfTracePointContext,
};
use core::ffi::{c_char, c_void};
use stockade_common::{
    CgroupKey, DEPTH_MAX, NAME_PART_MAX, NO_PLACE, PATH_MAX, PATTERNS, PathKey, Sets, Stacked, UNPLACED,
};

use crate::{
    maps::{CGROUPS, PATHS, PATTERNS_BELOW, words_of},
    report::count,
    stacked,
    task::{Cgroup, Task},
};

/// Scratch memory for a path, which exceeds the stack. One entry is enough, since the kernel creates one cgroup at a time.
#[map]
static DESK: Array<Desk> = Array::with_max_entries(1, 0);

#[repr(C)]
struct Desk {
    key: PathKey,
    name: [u64; NAME_PART_MAX / 8 + 1],
    slash: u64,
}

/// The state of the search for the nearest entry.
#[repr(C)]
struct Climb {
    generation: u64,
    /// Number of ancestors of the cgroup to look up next.
    level: u64,
    found: Sets,
}

/// Returns the sets of the nearest cgroup with an entry, from the requester's own upwards. With `bpf_loop` (5.17 and later) the verifier follows
/// one step instead of all.
#[inline(always)]
pub fn nearest(generation: u64) -> Option<Sets> {
    let level = Task::current().cgroup().level().min(DEPTH_MAX);
    let mut climb =
        Climb { generation, level: level as u64, found: Sets { watched: 0, deny: 0, place: 0, pad: 0 } };
    // SAFETY: the kernel calls `step` with the number of the step and a pointer to `climb`, which outlives the call.
    unsafe { bpf_loop(level + 1, step as *mut c_void, (&raw mut climb).cast(), 0) };
    if climb.found.place == NO_PLACE { None } else { Some(climb.found) }
}

/// Looks up one cgroup. A return value other than 0 ends the loop.
extern "C" fn step(_: u32, climb: *mut Climb) -> i64 {
    // SAFETY: a pointer to `climb` in `nearest`.
    let climb = unsafe { &mut *climb };
    // SAFETY: the helper takes a number.
    let cgroup = unsafe { bpf_get_current_ancestor_cgroup_id(climb.level as i32) };
    // SAFETY: user space does not write entries of a policy in force.
    if let Some(sets) = unsafe { CGROUPS.get(CgroupKey { generation: climb.generation, cgroup }) } {
        climb.found = *sets;
        return 1;
    }
    climb.level = climb.level.wrapping_sub(1);
    0
}

/// `cgroup_mkdir(cgroup, path)`: a cgroup is created.
#[btf_tracepoint(function = "cgroup_mkdir")]
pub fn cgroup_mkdir(ctx: BtfTracePointContext) -> i32 {
    let cgroup = Cgroup::from_argument(ctx.arg(0));
    if !cgroup.is_on_default_hierarchy() {
        return 0;
    }
    let mut new = New { cgroup: cgroup.id(), path: ctx.arg(1) };
    // SAFETY: the kernel calls `place_new` with the index of the policy and a pointer to `new`, which outlives the call.
    unsafe { bpf_loop(policies(), place_new as *mut c_void, (&raw mut new).cast(), 0) };
    0
}

/// A new cgroup.
#[repr(C)]
struct New {
    cgroup: u64,
    /// Kernel address of its path.
    path: u64,
}

/// `cgroup_release(cgroup, path)`: the kernel releases a cgroup. Its id is not reused within its hierarchy, but each cgroup v1 hierarchy has ids
/// of its own. Root can reach this program by a tail call from another event, so that it checks that the cgroup is released.
#[btf_tracepoint(function = "cgroup_release")]
pub fn cgroup_release(ctx: BtfTracePointContext) -> i32 {
    let cgroup = Cgroup::from_argument(ctx.arg(0));
    if !cgroup.is_on_default_hierarchy() || !cgroup.is_released() {
        return 0;
    }
    let mut cgroup = cgroup.id();
    // SAFETY: the kernel calls `forget` with the index of the policy and a pointer to the cgroup's id, which outlives the call.
    unsafe { bpf_loop(policies(), forget as *mut c_void, (&raw mut cgroup).cast(), 0) };
    0
}

/// Returns the number of policies that may have places: the one in force, the one that user space may be writing, the one that is being
/// added to a seal, and the added ones.
#[inline(always)]
fn policies() -> u32 {
    SLOTS + 1 + stacked::count()
}

const SLOTS: u32 = 2;

/// Returns the generation of a policy; 0 if it has no places.
#[inline(always)]
fn generation_with_places(of: u32) -> u64 {
    // Constant indices: with a variable one the compiler computes the address before the comparison, where the verifier does not know the bound.
    let words = match of {
        0 => words_of(0),
        1 => words_of(1),
        SLOTS => return stacked::placing(),
        _ => stacked::words(of - SLOTS - 1),
    };
    // SAFETY: inside POLICY or STACKED.
    let words = unsafe { &*words };
    if words.places == 0 { 0 } else { words.generation }
}

/// Removes the entry of a released cgroup from one policy.
extern "C" fn forget(of: u32, cgroup: *mut u64) -> i64 {
    let generation = generation_with_places(of);
    if generation != 0 {
        // SAFETY: a pointer to the id in `cgroup_release`.
        let _ = CGROUPS.remove(CgroupKey { generation, cgroup: unsafe { *cgroup } });
    }
    0
}

/// Writes the entry of a new cgroup into one policy.
extern "C" fn place_new(of: u32, new: *mut New) -> i64 {
    // SAFETY: a pointer to `new` in `cgroup_mkdir`.
    let new = unsafe { &*new };
    let generation = generation_with_places(of);
    if generation == 0 {
        return 0;
    }
    let key = CgroupKey { generation, cgroup: new.cgroup };
    match sets_of(generation, new.path) {
        Found::Sets(sets) if sets.place != NO_PLACE => {
            if CGROUPS.insert(key, sets, 0).is_err() {
                count(UNPLACED);
            }
        }
        found => {
            // Root can have written an entry for a future cgroup into a policy that root added. The sealed policy has no such entries.
            if generation > Stacked::FIRST {
                let _ = CGROUPS.remove(key);
            }
            if let Found::TooLong = found {
                count(UNPLACED);
            }
        }
    }
    0
}

enum Found {
    Nothing,
    Sets(Sets),
    TooLong,
}

/// Returns the sets that a policy has for the cgroup with this path: by path, otherwise by pattern.
#[inline(always)]
fn sets_of(generation: u64, path: u64) -> Found {
    let Some(desk) = DESK.get_ptr_mut(0) else { return Found::Nothing };
    // SAFETY: the only entry, used while the kernel holds cgroup_mutex.
    let desk = unsafe { &mut *desk };
    desk.key.generation = generation;
    clear(&mut desk.key.path);
    let length = print(&mut desk.key.path, path);
    if length < 2 || length > PATH_MAX {
        return Found::TooLong;
    }
    // SAFETY: user space does not write entries of a policy in force.
    if let Some(sets) = unsafe { PATHS.get(&desk.key) } {
        return Found::Sets(*sets);
    }

    desk.slash = 0;
    // bpf_loop accepts only pointers to the stack.
    let mut on_stack: *mut Desk = desk;
    // SAFETY: the kernel calls `look_for_slash` with the number of the round and a pointer to `on_stack`, which outlives the call.
    unsafe { bpf_loop(PATH_MAX as u32, look_for_slash as *mut c_void, (&raw mut on_stack).cast(), 0) };
    let slash = desk.slash & 0xff;
    let name = path + slash + 1;
    let name_length = (length as u64 - slash - 1) as u32;
    // The parent's path is the part before the last slash, or the slash alone.
    let end = if slash == 0 { 1 } else { slash as u32 };
    clear(&mut desk.key.path);
    // SAFETY: at most 256 bytes, the last of which is a zero.
    unsafe { snprintf(desk.key.path.as_mut_ptr(), end + 1, path) };
    // SAFETY: user space does not write entries of a policy in force.
    let Some(patterns) = (unsafe { PATTERNS_BELOW.get(&desk.key) }) else { return Found::Nothing };
    let mut n = 0;
    while n < PATTERNS {
        let pattern = &patterns[n];
        if name_length >= pattern.least {
            read_name(&mut desk.name, name);
            if pattern.head.begins(first(&desk.name)) {
                read_name(&mut desk.name, name + u64::from(name_length - pattern.tail_length));
                if pattern.tail.begins(first(&desk.name)) {
                    return Found::Sets(pattern.sets);
                }
            }
        }
        n += 1;
    }
    Found::Nothing
}

/// Stores the position of a path's last slash. With `bpf_loop` the verifier follows one round.
extern "C" fn look_for_slash(at: u32, desk: *mut *mut Desk) -> i64 {
    let at = at as usize & PATH_MAX;
    // SAFETY: a pointer to `on_stack` in `sets_of`, which points to the scratch memory.
    let desk = unsafe { &mut **desk };
    if desk.key.path[at] == b'/' {
        desk.slash = at as u64;
    }
    0
}

#[inline(always)]
fn first(name: &[u64; NAME_PART_MAX / 8 + 1]) -> &[u64; NAME_PART_MAX / 8] {
    // SAFETY: a shorter array at the same address.
    unsafe { &*name.as_ptr().cast() }
}

/// Copies the first [`NAME_PART_MAX`] bytes at this kernel address and pads them with zeros.
#[inline(always)]
fn read_name(name: &mut [u64; NAME_PART_MAX / 8 + 1], from: u64) {
    let mut at = 0;
    while at < name.len() {
        name[at] = 0;
        at += 1;
    }
    // SAFETY: writes at most this many bytes, the last of which is a zero.
    unsafe { snprintf(name.as_mut_ptr().cast(), NAME_PART_MAX as u32 + 1, from) };
}

/// Copies the string at this kernel address and returns its full length.
#[inline(always)]
fn print(to: &mut [u8; PATH_MAX + 1], from: u64) -> usize {
    // SAFETY: writes at most this many bytes.
    let written = unsafe { snprintf(to.as_mut_ptr(), PATH_MAX as u32 + 1, from) };
    // The helper's result includes the zero.
    if written <= 0 { 0 } else { written as usize - 1 }
}

#[inline(always)]
fn clear(path: &mut [u8; PATH_MAX + 1]) {
    let words: *mut u64 = path.as_mut_ptr().cast();
    let mut at = 0;
    while at < (PATH_MAX + 1) / 8 {
        // SAFETY: inside the path, which is aligned to eight bytes.
        unsafe { words.add(at).write_volatile(0) };
        at += 1;
    }
}

/// "%s" for bpf_snprintf, which reads kernel strings also under the kernel's own confidentiality level, where the verifier rejects
/// bpf_probe_read_kernel_str. In read-only memory, as the verifier demands.
#[unsafe(no_mangle)]
static FORMAT: [u8; 3] = *b"%s\0";

#[inline(always)]
unsafe fn snprintf(to: *mut u8, size: u32, from: u64) -> i64 {
    let mut argument = from;
    // SAFETY: the caller passes a buffer of `size` bytes; the helper reads one argument of eight bytes.
    unsafe { bpf_snprintf(to.cast::<c_char>(), size, FORMAT.as_ptr().cast(), &raw mut argument, 8) as i64 }
}
