/*!
The dialogue with a seal: reads it, and adds to it.

No process has a descriptor of the maps by which a seal decides. A process therefore calls bpf(2) with a command that no kernel has,
and the errno carries one byte of the answer. Additions can only refuse more. They set bits by atomic instructions, so that concurrent additions
do not undo each other.
*/
use aya_ebpf::helpers::generated::bpf_set_retval;
use core::{
    ffi::c_void,
    intrinsics::{AtomicOrdering, atomic_and, atomic_or, atomic_xadd},
    ptr::{addr_of, addr_of_mut, read_volatile, write_volatile},
};
use stockade_common::{
    Added, Counted, ExceptionKey, Known, Policy, Seal, SettingKey, SettingRule, Stacked,
    dialogue::{
        ADD, ADDED, ANNOUNCE, COMMIT, DONE, ENTRY, EXCEPTION, FORGET, HOLD, NO_ROOM, NOT_ROOT, NOTHING,
        NewSetting, POLICY, REVOKE, Revoked, SEAL, SEEN, SETTING, STACKED, UNREADABLE, WRITE,
    },
};

use crate::{
    bytes::{byte, payload},
    maps::{
        EXCEPTIONS, GUARD_OFFSETS, SETTINGS, added, has_room, policy, seal, seen, stacked, words_in_force,
    },
    stacked,
    task::{Task, field},
};

const REFUSED: i32 = 0;

/// Answers a call of bpf(2) with these attributes.
#[inline(never)]
pub fn answer(attr: *const u32) -> i32 {
    // SAFETY: loads through BTF pointers read zero instead of faulting; the kernel has already copied the attributes.
    let (what, at, from) =
        unsafe { (*attr, *attr.add(1), *attr.add(2) as u64 | (*attr.add(3) as u64) << 32) };
    let code = if is_root() { code(what, at as usize, from as *const c_void) } else { NOT_ROOT };
    // SAFETY: sets the return value of the system call; codes are below 4096.
    unsafe { bpf_set_retval(-(code as i32 & 0xfff)) };
    REFUSED
}

/// Questions with a large argument have a function each, since together their arguments exceed the BPF stack of 512 bytes.
#[inline(always)]
fn code(what: u32, at: usize, from: *const c_void) -> u32 {
    match what {
        SEAL => byte::<Seal>(seal(), at),
        POLICY => byte::<Policy>(policy(), at),
        ADDED => byte::<Added>(added(), at),
        SETTING => setting(at, from),
        EXCEPTION => exception(at, from),
        ADD => add(from),
        HOLD => hold(from),
        REVOKE => revoke(from),
        SEEN => counted(from, false),
        FORGET => counted(from, true),
        _ => {
            if has_room() {
                of_stacked(what, at, from)
            } else {
                NOTHING
            }
        }
    }
}

#[inline(always)]
fn of_stacked(what: u32, at: usize, from: *const c_void) -> u32 {
    match what {
        STACKED => byte::<Stacked>(stacked(), at),
        ANNOUNCE => stacked::announce(),
        WRITE => stacked::write(at as u32, from),
        COMMIT => stacked::commit(from),
        ENTRY => stacked::tell(at as u32, from),
        _ => NOTHING,
    }
}

/// Reports whether the caller is root of the initial user namespace with CAP_SYS_ADMIN.
#[inline(always)]
fn is_root() -> bool {
    const CAP_SYS_ADMIN: u32 = 21;
    let cred = Task::current().credentials();
    // SAFETY: loads through BTF pointers read zero instead of faulting. Capabilities below 32 are in the first word in every
    // kernel's declaration of the set.
    unsafe {
        let capabilities = *field::<u32>(cred, &GUARD_OFFSETS.cred_capabilities);
        let namespace: *const u8 = *field(cred, &GUARD_OFFSETS.cred_namespace);
        let level = *field::<u32>(namespace, &GUARD_OFFSETS.namespace_level);
        capabilities >> CAP_SYS_ADMIN & 1 != 0 && level == 0 && Task::current().uid() == 0
    }
}

#[inline(never)]
fn setting(at: usize, from: *const c_void) -> u32 {
    let Some(key) = payload::<SettingKey>(from) else { return UNREADABLE };
    // SAFETY: no program removes entries.
    let Some(rule) = (unsafe { SETTINGS.get(&key) }) else { return NOTHING };
    byte::<SettingRule>(rule, at)
}

#[inline(never)]
fn exception(at: usize, from: *const c_void) -> u32 {
    let Some(key) = payload::<ExceptionKey>(from) else { return UNREADABLE };
    // SAFETY: no program removes entries.
    let Some(exception) = (unsafe { EXCEPTIONS.get(&key) }) else { return NOTHING };
    byte(exception, at)
}

#[inline(never)]
fn add(from: *const c_void) -> u32 {
    let Some(new) = payload::<Added>(from) else { return UNREADABLE };
    let here = added();
    // SAFETY: inside ADDED, whose words are aligned and changed by atomic instructions only.
    unsafe {
        atomic_or::<u64, u64, { AtomicOrdering::Relaxed }>(addr_of_mut!((*here).quiet), new.quiet);
        atomic_or::<u64, u64, { AtomicOrdering::Relaxed }>(addr_of_mut!((*here).deny), new.deny);
        let watched = new.watched | new.deny;
        atomic_or::<u64, u64, { AtomicOrdering::Relaxed }>(addr_of_mut!((*here).watched), watched);
        // Last, since decisions read the other words only for bits set here.
        atomic_or::<u64, u64, { AtomicOrdering::SeqCst }>(addr_of_mut!((*here).watched_anywhere), watched);
        addr_of_mut!((*here).told).write(new.told);
        atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(addr_of_mut!((*here).count), 1);
    }
    DONE
}

/// Inserts the rule of a setting, or makes a weaker rule as strict.
#[inline(never)]
fn hold(from: *const c_void) -> u32 {
    let Some(new) = payload::<NewSetting>(from) else { return UNREADABLE };
    // SAFETY: the slot is inside POLICY.
    if new.key.generation != unsafe { (*words_in_force()).generation } {
        return NOTHING;
    }
    const NO_EXIST: u64 = 1;
    // No rule is stricter than an enforced freeze, so it may replace any.
    let frozen = new.rule.hold == SettingRule::FREEZE && new.rule.audit == 0;
    let Some(there) = SETTINGS.get_ptr_mut(&new.key) else {
        let inserted = SETTINGS.insert(&new.key, &new.rule, NO_EXIST);
        return if inserted.is_ok() { DONE } else { NO_ROOM };
    };
    // SAFETY: entries are neither removed nor replaced: the kernel would reuse the memory of a replaced entry at once, and a decision under way
    // would then use the rule of another setting. An entry is made stricter in place, word by word.
    unsafe {
        let there_frozen = (*there).hold == SettingRule::FREEZE && (*there).audit == 0;
        if there_frozen || !frozen {
            return NO_ROOM;
        }
        addr_of_mut!((*there).hold).write_volatile(SettingRule::FREEZE);
        addr_of_mut!((*there).audit).write_volatile(0);
    }
    DONE
}

#[inline(never)]
fn counted(from: *const c_void, forget: bool) -> u32 {
    let Some(known) = payload::<Known>(from) else { return UNREADABLE };
    look_at(&known, u32::from(forget))
}

/// Not inlined: the verifier must know the bound of the register that is added.
#[inline(never)]
fn look_at(known: &Known, forget: u32) -> u32 {
    let slot = known.slot as usize;
    if slot >= Known::SLOTS {
        return NOTHING;
    }
    // SAFETY: aligned words inside the arrays of SEEN.
    unsafe {
        let seen = seen();
        let since = addr_of_mut!((*seen).since).cast::<u64>().add(slot);
        if forget != 0 {
            write_volatile(since, read_volatile(addr_of!((*seen).asked)));
            return DONE;
        }
        let counts = addr_of!((*seen).counts).cast::<u64>().add(slot);
        match known.compare(read_volatile(counts), read_volatile(since)) {
            Counted::Known => DONE,
            Counted::More => NO_ROOM,
            Counted::NotSince => NOTHING,
        }
    }
}

#[inline(never)]
fn revoke(from: *const c_void) -> u32 {
    let Some(revoked) = payload::<Revoked>(from) else { return UNREADABLE };
    // SAFETY: the slot is inside POLICY.
    if revoked.key.generation != unsafe { (*words_in_force()).generation } {
        return NOTHING;
    }
    let Some(exception) = EXCEPTIONS.get_ptr_mut(&revoked.key) else { return NOTHING };
    // SAFETY: an entry of the map, which no program removes; its words are aligned and changed by atomic instructions only.
    unsafe {
        atomic_and::<u64, u64, { AtomicOrdering::Relaxed }>(
            addr_of_mut!((*exception).always),
            !revoked.ends.always,
        );
        atomic_and::<u64, u64, { AtomicOrdering::Relaxed }>(
            addr_of_mut!((*exception).inherited),
            !revoked.ends.inherited,
        );
        atomic_and::<u64, u64, { AtomicOrdering::Relaxed }>(
            addr_of_mut!((*exception).timed),
            !revoked.ends.timed,
        );
    }
    DONE
}
