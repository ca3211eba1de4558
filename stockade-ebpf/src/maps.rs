/*!
The maps that decisions read, and the values that the loader and the dialogue write.

Every program is above this file and none below it. Labels and scratch memory are maps of the files that use them.
*/
use aya_ebpf::{macros::map, maps::HashMap};
use core::ptr::{addr_of, addr_of_mut, read_volatile};
use stockade_common::{
    Added, CGROUPS_MAX, CgroupKey, EXCEPTIONS_MAX, Exception, ExceptionKey, GuardOffsets, PATHS_MAX,
    PATTERNS, PathKey, Pattern, Policy, SETTINGS_MAX, Seal, Seen, Sets, SettingKey, SettingRule, Slot,
    Stacked, Until, UntilKey, Words,
};

/// Entries are allocated when they are written, so that policies without exceptions use no memory.
pub const BPF_F_NO_PREALLOC: u32 = 1;

/// Programs may only read the map, those of others included. The loader clears the flag of maps that the programs of a seal write.
pub const BPF_F_RDONLY_PROG: u32 = 1 << 7;

#[map]
pub static EXCEPTIONS: HashMap<ExceptionKey, Exception> =
    HashMap::with_max_entries(EXCEPTIONS_MAX, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);

#[map]
pub static UNTIL: HashMap<UntilKey, Until> =
    HashMap::with_max_entries(EXCEPTIONS_MAX, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);

/// Written by user space alone.
#[unsafe(link_section = ".data.policy")]
#[unsafe(no_mangle)]
static mut POLICY: Policy = Policy::EMPTY;

#[map]
pub static CGROUPS: HashMap<CgroupKey, Sets> = HashMap::with_max_entries(CGROUPS_MAX, BPF_F_NO_PREALLOC);

#[map]
pub static PATHS: HashMap<PathKey, Sets> =
    HashMap::with_max_entries(PATHS_MAX, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);

#[map]
pub static PATTERNS_BELOW: HashMap<PathKey, [Pattern; PATTERNS]> =
    HashMap::with_max_entries(PATHS_MAX, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);

#[map]
pub static SETTINGS: HashMap<SettingKey, SettingRule> =
    HashMap::with_max_entries(SETTINGS_MAX, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);

/// User space writes the map once and freezes it.
#[unsafe(link_section = ".data.seal")]
#[unsafe(no_mangle)]
static mut SEAL: Seal = Seal::NONE;

/// Additions to the seal.
#[unsafe(link_section = ".data.added")]
#[unsafe(no_mangle)]
static mut ADDED: Added = Added::NONE;

/// Reference counts, written by the guards.
#[unsafe(link_section = ".data.seen")]
#[unsafe(no_mangle)]
static mut SEEN: Seen = Seen::NONE;

/// Written by the dialogue alone.
#[unsafe(link_section = ".data.stacked")]
#[unsafe(no_mangle)]
static mut STACKED: Stacked = Stacked::NONE;

/// Written by the loader: 1 if the seal's deciding program runs these policies. The verifier knows the value and skips code that
/// it makes unreachable.
#[unsafe(no_mangle)]
static HAS_ROOM: u32 = 0;

/// Written by the loader.
#[unsafe(no_mangle)]
pub static GUARD_OFFSETS: GuardOffsets = GuardOffsets::NONE;

/// Returns the words of the policy in force.
#[inline(always)]
pub fn words_in_force() -> *const Words {
    // SAFETY: both slots are inside POLICY; the verifier checks the bound again.
    unsafe {
        let policy = addr_of!(POLICY);
        let active = read_volatile(addr_of!((*policy).active)) & 1;
        words_of(active as usize)
    }
}

/// Returns the words of one of the two slots.
#[inline(always)]
pub fn words_of(slot: usize) -> *const Words {
    // SAFETY: both slots are inside POLICY; the verifier checks the bound again.
    unsafe { addr_of!((*addr_of!((*addr_of!(POLICY)).slots).cast::<Slot>().add(slot)).words) }
}

/// Returns the value of the policy map.
#[inline(always)]
pub fn policy() -> *const Policy {
    addr_of!(POLICY)
}

#[inline(always)]
pub fn seen() -> *mut Seen {
    addr_of_mut!(SEEN)
}

#[inline(always)]
pub fn seal() -> *const Seal {
    addr_of!(SEAL)
}

#[inline(always)]
pub fn added() -> *mut Added {
    addr_of_mut!(ADDED)
}

#[inline(always)]
pub fn has_room() -> bool {
    // SAFETY: a constant that the loader has written.
    unsafe { read_volatile(&raw const HAS_ROOM) != 0 }
}

#[inline(always)]
pub fn stacked() -> *mut Stacked {
    addr_of_mut!(STACKED)
}
