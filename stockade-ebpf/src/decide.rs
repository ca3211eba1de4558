/*!
Decides one lockdown check.

`security_locked_down(reason)` is called wherever lockdown matters, whether or not the kernel's own
lockdown is built or active. This program sits behind the other security modules there: it can
refuse what they allow and never allow what they refuse.

An allowed request costs the read of two words. What is decided of the others is in
`stockade_common::decide`; here is the world it asks. A slot that is no longer in force is not rewritten
while a decision may still read it: user space waits for a grace period first.
*/
use aya_ebpf::{
    helpers::generated::bpf_ktime_get_boot_ns,
    macros::{lsm, map},
    maps::HashMap,
    programs::LsmContext,
};
use core::ptr::{addr_of, read_volatile};
use stockade_common::{
    EXCEPTIONS_MAX, Exception, ExceptionKey, LAST_BIT, LAYOUT, Label, MAGIC, Policy, Sets, Slot, Until,
    UntilKey, Verdict, Words,
    decide::{World, decide},
};

use crate::{label, place, report::report, task::Task};

const EPERM: i32 = 1;

/// Entries are allocated when they are written: policies without exceptions pay nothing.
pub const BPF_F_NO_PREALLOC: u32 = 1;

#[map]
static EXCEPTIONS: HashMap<ExceptionKey, Exception> =
    HashMap::with_max_entries(EXCEPTIONS_MAX, BPF_F_NO_PREALLOC);

#[map]
static UNTIL: HashMap<UntilKey, Until> = HashMap::with_max_entries(EXCEPTIONS_MAX, BPF_F_NO_PREALLOC);

const NOTHING: Slot = Slot {
    words: Words {
        watched_anywhere: 0,
        watched: 0,
        deny: 0,
        quiet: 0,
        excepted: 0,
        generation: 0,
        shapes: 0,
        places: 0,
    },
    allow: 0,
    deny_extra: 0,
    audit_extra: 0,
    applied_boot_ns: 0,
    digest: 0,
    level: 0,
    audit: 0,
    pad: [0; 6],
};

/// Written by user space only.
#[unsafe(link_section = ".data.policy")]
#[unsafe(no_mangle)]
static mut POLICY: Policy = Policy { magic: MAGIC, layout: LAYOUT, pad: 0, active: 0, slots: [NOTHING; 2] };

/// Refuses with -EPERM, as the kernel's own lockdown does, or returns 0.
#[lsm(hook = "locked_down")]
pub fn locked_down(ctx: LsmContext) -> i32 {
    let earlier: u64 = ctx.arg(1);
    if earlier != 0 {
        return earlier as i32;
    }
    let reason: u32 = ctx.arg(0);
    let words = words_in_force();
    if reason > LAST_BIT {
        return not_simply_allowed(LAST_BIT, words);
    }
    // SAFETY: points into the policy, which lives as long as the program.
    let watched = unsafe { read_volatile(addr_of!((*words).watched_anywhere)) };
    if watched >> reason & 1 == 0 {
        return 0;
    }
    not_simply_allowed(reason, words)
}

/// A function of its own, so that an allowed request does not pay for saving the registers used here.
#[inline(never)]
fn not_simply_allowed(reason: u32, words: *const Words) -> i32 {
    let reason = reason & LAST_BIT;
    let bit = 1u64 << reason;
    // SAFETY: points into the policy.
    let words = unsafe { &*words };
    // Asked again for the reasons beyond the sets, which come here without a look at it.
    if words.watched_anywhere & bit == 0 {
        return 0;
    }
    let Some(decision) = decide(words, reason, bit, &Here) else { return 0 };
    report(reason, decision, words.quiet & bit != 0);
    if matches!(decision.verdict, Verdict::Refused) { -EPERM } else { 0 }
}

/// The words of the policy in force.
#[inline(always)]
pub fn words_in_force() -> *const Words {
    // SAFETY: both slots are inside POLICY; the verifier checks the bound once more.
    unsafe {
        let policy = addr_of!(POLICY);
        let active = read_volatile(addr_of!((*policy).active)) & 1;
        words_of(active as usize)
    }
}

/// The words of one of the two slots.
#[inline(always)]
pub fn words_of(slot: usize) -> *const Words {
    // SAFETY: as above.
    unsafe { addr_of!((*addr_of!((*addr_of!(POLICY)).slots).cast::<Slot>().add(slot)).words) }
}

/// The requester and the tables, as decisions see them.
struct Here;

impl World for Here {
    #[inline(always)]
    fn place(&self, generation: u64) -> Option<Sets> {
        place::nearest(generation)
    }

    #[inline(always)]
    fn label(&self) -> Option<Label> {
        label::of_current()
    }

    #[inline(always)]
    fn uid(&self) -> u32 {
        Task::current().uid()
    }

    #[inline(always)]
    fn boot_ns(&self) -> u64 {
        // SAFETY: no arguments.
        unsafe { bpf_ktime_get_boot_ns() }
    }

    #[inline(always)]
    fn exception(&self, key: &ExceptionKey) -> Option<Exception> {
        // SAFETY: entries of a policy in force are not written.
        unsafe { EXCEPTIONS.get(key).copied() }
    }

    #[inline(always)]
    fn until(&self, key: &UntilKey) -> Option<Until> {
        // SAFETY: as above.
        unsafe { UNTIL.get(key).copied() }
    }
}
