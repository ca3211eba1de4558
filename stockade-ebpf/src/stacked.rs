/*!
Policies with scopes or exceptions that were added to a seal.

`anchor.rs` runs each of them beside the sealed policy, and the strictest verdict counts. The programs in `place.rs` give new cgroups their
places in each of them. The dialogue writes them in transactions, see [`stockade_common::Stacked`].
*/
use aya_ebpf::{helpers::generated::bpf_probe_read_user, maps::HashMap};
use core::{
    ffi::c_void,
    intrinsics::{AtomicOrdering, atomic_or, atomic_xadd, atomic_xchg},
    mem::MaybeUninit,
    ptr::{addr_of, addr_of_mut, read_volatile, write_volatile},
};
use stockade_common::{
    CGROUPS_MAX, CgroupKey, Exception, ExceptionKey, PATTERNS, PathKey, Pattern, STACKED_MAX, Sets, Slot,
    Stacked, Until, UntilKey, Words,
    dialogue::{Commit, DONE, MEDDLED, NO_ROOM, NOTHING, UNREADABLE, table},
};

use crate::{
    bytes::{byte as byte_of, payload},
    maps::{CGROUPS, EXCEPTIONS, PATHS, PATTERNS_BELOW, UNTIL, added, stacked},
};

/// Returns [`Stacked::pending`].
#[inline(always)]
pub fn pending() -> u64 {
    // SAFETY: an aligned word of STACKED.
    unsafe { read_volatile(addr_of!((*stacked()).pending)) }
}

/// Returns [`Stacked::placing`].
#[inline(always)]
pub fn placing() -> u64 {
    // SAFETY: an aligned word of STACKED.
    unsafe { read_volatile(addr_of!((*stacked()).placing)) }
}

/// Returns the number of slots that may hold a policy.
#[inline(always)]
pub fn count() -> u32 {
    // SAFETY: an aligned word of STACKED.
    let count = unsafe { read_volatile(addr_of!((*stacked()).count)) };
    if count > STACKED_MAX as u64 { STACKED_MAX as u32 } else { count as u32 }
}

/// Returns the words of the policy in a slot. The mask keeps the index within the array.
#[inline(always)]
pub fn words(slot: u32) -> *const Words {
    // SAFETY: inside the array.
    unsafe {
        addr_of!((*addr_of!((*stacked()).slots).cast::<Slot>().add(slot as usize & (STACKED_MAX - 1))).words)
    }
}

/// Adds to a counter atomically and returns its former value.
#[inline(always)]
unsafe fn count_up(counter: *mut u64, by: u64) -> u64 {
    // SAFETY: the caller passes a pointer to an aligned word of STACKED.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(counter, by) }
}

/// ANNOUNCE. The generation follows from the value of `written`. A WRITE call that raised `written` earlier must not be accepted with this
/// generation, so ANNOUNCE fails if another call is running before or after it raises `written`.
#[inline(always)]
pub fn announce() -> u32 {
    let here = stacked();
    // SAFETY: aligned words of STACKED.
    unsafe {
        let mut alone = count_up(addr_of_mut!((*here).writing), 1) == 0;
        let written = count_up(addr_of_mut!((*here).written), 1) + 1;
        alone &= count_up(addr_of_mut!((*here).writing), 0) == 1;
        if alone {
            write_volatile(addr_of_mut!((*here).placing), Stacked::generation(written));
            write_volatile(addr_of_mut!((*here).placed_before), count_up(addr_of_mut!((*here).placed), 0));
            atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(
                addr_of_mut!((*here).pending),
                Stacked::generation(written),
            );
        }
        count_up(addr_of_mut!((*here).writing), u64::MAX);
        if alone { DONE } else { MEDDLED }
    }
}

/// WRITE. It raises `written` before it compares the key's generation with `pending`. COMMIT clears `pending` before it reads `written`, and
/// therefore counts every accepted call.
#[inline(always)]
pub fn write(which: u32, from: *const c_void) -> u32 {
    let here = stacked();
    // SAFETY: aligned words of STACKED.
    unsafe {
        count_up(addr_of_mut!((*here).writing), 1);
        count_up(addr_of_mut!((*here).written), 1);
        // Half of the table is kept for cgroups that are created later.
        if which == table::CGROUPS && count_up(addr_of_mut!((*here).placed), 1) >= CGROUPS_MAX as u64 / 2 {
            count_up(addr_of_mut!((*here).writing), u64::MAX);
            return NO_ROOM;
        }
    }
    let answer = match which {
        table::CGROUPS => cgroup(from, WRITES),
        table::PATHS => path(from, WRITES),
        table::PATTERNS => patterns(from, WRITES),
        table::EXCEPTIONS => exception(from, WRITES),
        table::UNTIL => until(from, WRITES),
        _ => NOTHING,
    };
    // SAFETY: an aligned word of STACKED.
    unsafe { count_up(addr_of_mut!((*here).writing), u64::MAX) };
    answer
}

/// ENTRY: reads one byte of an entry.
#[inline(always)]
pub fn tell(at: u32, from: *const c_void) -> u32 {
    let byte = at & (table::FACTOR - 1);
    match at / table::FACTOR {
        table::CGROUPS => cgroup(from, byte),
        table::PATHS => path(from, byte),
        table::PATTERNS => patterns(from, byte),
        table::EXCEPTIONS => exception(from, byte),
        table::UNTIL => until(from, byte),
        _ => NOTHING,
    }
}

/// Stands for the index of a byte when an entry is written instead of read.
const WRITES: u32 = u32::MAX;

/// Writes an entry or reads a byte of one. Each table has a function of its own, since the keys of two tables exceed the BPF stack of 512 bytes.
macro_rules! entry {
    ($name:ident, $table:ident, $key:ty, $value:ty, $write:ident, $generation:expr) => {
        #[inline(never)]
        fn $name(from: *const c_void, byte: u32) -> u32 {
            let mut key = MaybeUninit::<$key>::uninit();
            // SAFETY: the helper fills the whole key, with zeros if it cannot read; keys are plain data. `payload` would copy the key.
            let (failed, key) = unsafe {
                let failed = bpf_probe_read_user(key.as_mut_ptr().cast(), size_of::<$key>() as u32, from);
                (failed, key.assume_init_ref())
            };
            if failed != 0 {
                return UNREADABLE;
            }
            if byte != WRITES {
                let Some(entry) = $table.get_ptr(key) else { return NOTHING };
                return byte_of(entry, byte as usize);
            }
            let generation: fn(&$key) -> u64 = $generation;
            $write::<$key, $value>(&$table, key, generation(key), from)
        }
    };
}

entry!(cgroup, CGROUPS, CgroupKey, Sets, put, |key| key.generation);
entry!(path, PATHS, PathKey, Sets, put, |key| key.generation);
entry!(patterns, PATTERNS_BELOW, PathKey, [Pattern; PATTERNS], fill, |key| key.generation);
entry!(exception, EXCEPTIONS, ExceptionKey, Exception, put, |key| key.generation);
entry!(until, UNTIL, UntilKey, Until, put, |key| key.subject.generation);

/// Reports whether this is the generation of the open transaction.
#[inline(always)]
fn is_pending(generation: u64) -> bool {
    generation != 0 && generation == pending()
}

/// Replaces an entry. Does not write through a pointer to it, since `cgroup_release` deletes entries and the kernel reuses their memory at once.
#[inline(always)]
fn put<K, V>(map: &'static HashMap<K, V>, key: &K, generation: u64, from: *const c_void) -> u32 {
    if !is_pending(generation) {
        return NOTHING;
    }
    let mut value = MaybeUninit::<V>::uninit();
    // SAFETY: the helper fills the whole value; values are plain data.
    let failed = unsafe {
        bpf_probe_read_user(
            value.as_mut_ptr().cast(),
            size_of::<V>() as u32,
            from.cast::<u8>().add(size_of::<K>()).cast(),
        )
    };
    if failed != 0 {
        return UNREADABLE;
    }
    // SAFETY: the helper has filled it.
    if map.insert(key, unsafe { value.assume_init_ref() }, 0).is_ok() { DONE } else { NO_ROOM }
}

/// Patterns that match no name.
static UNUSED: [Pattern; PATTERNS] = [Pattern::UNUSED; PATTERNS];

/// Writes patterns through a pointer to their entry: they exceed the BPF stack, and no program deletes them. `cgroup_mkdir` may read them
/// half-written; it ignores a pattern without a place.
#[inline(always)]
fn fill<K, V>(map: &'static HashMap<K, V>, key: &K, generation: u64, from: *const c_void) -> u32 {
    const NO_EXIST: u64 = 1;
    if !is_pending(generation) {
        return NOTHING;
    }
    // SAFETY: V is the type of UNUSED: this function writes patterns only.
    let unused = unsafe { &*addr_of!(UNUSED).cast::<V>() };
    let _ = map.insert(key, unused, NO_EXIST);
    let Some(entry) = map.get_ptr_mut(key) else { return NO_ROOM };
    // SAFETY: the entry has this size.
    let failed = unsafe {
        bpf_probe_read_user(entry.cast(), size_of::<V>() as u32, from.cast::<u8>().add(size_of::<K>()).cast())
    };
    if failed == 0 { DONE } else { UNREADABLE }
}

/// COMMIT. It counts as running, so that ANNOUNCE fails meanwhile.
#[inline(always)]
pub fn commit(from: *const c_void) -> u32 {
    // SAFETY: an aligned word of STACKED.
    let writing = unsafe { addr_of_mut!((*stacked()).writing) };
    // SAFETY: an aligned word of STACKED.
    unsafe { count_up(writing, 1) };
    let answer = commit_pending(from);
    // SAFETY: an aligned word of STACKED.
    unsafe { count_up(writing, u64::MAX) };
    answer
}

#[inline(never)]
fn commit_pending(from: *const c_void) -> u32 {
    let Some(new) = payload::<Commit>(from) else { return UNREADABLE };
    let generation = new.slot.words.generation;
    if !is_pending(generation) {
        return NOTHING;
    }
    let here = stacked();
    // SAFETY: aligned words of STACKED and ADDED, and a slot that no other call has.
    unsafe {
        // From here on WRITE accepts no call.
        if atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(addr_of_mut!((*here).pending), 0) != generation {
            return NOTHING;
        }
        // In this order: a WRITE that is counted in `placed` is then counted in `written` as well.
        let placed =
            count_up(addr_of_mut!((*here).placed), 0) - read_volatile(addr_of!((*here).placed_before));
        let written = count_up(addr_of_mut!((*here).written), 0);
        if written != new.written {
            return MEDDLED;
        }
        let at = count_up(addr_of_mut!((*here).count), 1);
        if at >= STACKED_MAX as u64 {
            return NO_ROOM;
        }
        let entries = addr_of_mut!((*here).entries).cast::<u64>().add(at as usize & (STACKED_MAX - 1));
        write_volatile(entries, written - (generation - Stacked::FIRST) - placed);
        let slot = addr_of_mut!((*here).slots).cast::<Slot>().add(at as usize & (STACKED_MAX - 1));
        // Decisions test `watched_anywhere` first, then `watched`. Bits that no decision reaches are cleared, so that `status` does not report them.
        let mut unnumbered: MaybeUninit<Slot> = MaybeUninit::new(new.slot);
        let words = addr_of_mut!((*unnumbered.as_mut_ptr()).words);
        (*words).watched &= (*words).watched_anywhere;
        (*words).deny &= (*words).watched;
        (*words).generation = 0;
        slot.write(unnumbered.assume_init());
        // The slot is complete.
        atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(addr_of_mut!((*slot).words.generation), generation);
        let added = added();
        atomic_or::<u64, u64, { AtomicOrdering::Relaxed }>(
            addr_of_mut!((*added).quiet),
            new.slot.words.quiet,
        );
        atomic_or::<u64, u64, { AtomicOrdering::SeqCst }>(
            addr_of_mut!((*added).watched_anywhere),
            new.slot.words.watched_anywhere,
        );
        addr_of_mut!((*added).told).write(new.slot);
        atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(addr_of_mut!((*added).count), 1);
    }
    DONE
}
