/*!
Decides one lockdown check.

The kernel calls `security_locked_down(reason)` for every lockdown check, whether or not its own lockdown is built or active. This
program runs after the other security modules: it can refuse a request that they allow, and cannot allow one that they refuse.

An allowed request costs the read of two words. `stockade_common::decide` decides the others; [`Here`] gives it the requester and the
maps. User space does not write a slot that is no longer in force until a grace period has passed, since a decision may still read it.
*/
use aya_ebpf::{
    helpers::generated::{bpf_ktime_get_boot_ns, bpf_loop},
    macros::lsm,
    programs::LsmContext,
};
use core::{
    ffi::c_void,
    ptr::{addr_of, read_volatile},
};
use stockade_common::{
    Exception, ExceptionKey, LAST_BIT, Label, NO_PLACE, Sets, Until, UntilKey, Verdict, Words,
    decide::{Ask, Decision, World, decide},
};

use crate::{
    label,
    maps::{EXCEPTIONS, UNTIL, words_in_force},
    place,
    report::{Who, report},
    task::Task,
};

const EPERM: i32 = 1;

/// Refuses with -EPERM, as the kernel's own lockdown does, or returns 0. For policies without places and exceptions.
#[lsm(hook = "locked_down")]
pub fn locked_down(ctx: LsmContext) -> i32 {
    decide_unless_allowed(&ctx, refuse_or_audit)
}

/// Decides for all policies. A program of its own, since the verifier takes ten times as long for it.
#[lsm(hook = "locked_down")]
pub fn locked_down_whole(ctx: LsmContext) -> i32 {
    decide_unless_allowed(&ctx, with_places_and_exceptions)
}

#[inline(always)]
fn decide_unless_allowed(ctx: &LsmContext, otherwise: fn(u32, *const Words) -> i32) -> i32 {
    let earlier: u64 = ctx.arg(1);
    if earlier != 0 {
        return earlier as i32;
    }
    let reason: u32 = ctx.arg(0);
    let words = words_in_force();
    // Numbers above the sets share the last bit.
    let beyond = reason > LAST_BIT;
    // SAFETY: inside POLICY, which lives as long as the program.
    let watched = unsafe { read_volatile(addr_of!((*words).watched_anywhere)) };
    if beyond {
        return if watched >> LAST_BIT & 1 == 0 { 0 } else { otherwise(LAST_BIT, words) };
    }
    if watched >> reason & 1 == 0 { 0 } else { otherwise(reason, words) }
}

/// Decides a watched request without places and exceptions. Not inlined, so that an allowed request does not save the registers used here.
#[inline(never)]
pub fn refuse_or_audit(reason: u32, words: *const Words) -> i32 {
    let reason = reason & LAST_BIT;
    let bit = 1u64 << reason;
    // SAFETY: inside POLICY.
    let (deny, quiet) = unsafe { ((*words).deny, (*words).quiet) };
    let verdict = if deny & bit != 0 { Verdict::Refused } else { Verdict::Audited };
    report(reason, Decision { verdict, place: NO_PLACE, shape: 0 }, quiet & bit != 0, Who::is);
    if deny & bit != 0 { -EPERM } else { 0 }
}

/// Decides a watched request with places and exceptions. Not inlined, so that an allowed request does not save the registers used here.
#[inline(never)]
pub fn with_places_and_exceptions(reason: u32, words: *const Words) -> i32 {
    let reason = reason & LAST_BIT;
    let bit = 1u64 << reason;
    // SAFETY: inside POLICY.
    let words = unsafe { &*words };
    let Some(decision) = decide(words, reason, bit, &Here) else { return 0 };
    report(reason, decision, words.quiet & bit != 0, Who::is);
    if matches!(decision.verdict, Verdict::Refused) { -EPERM } else { 0 }
}

/// The requester and the maps, for [`decide`].
pub struct Here;

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
        // SAFETY: the helper has no arguments.
        unsafe { bpf_ktime_get_boot_ns() }
    }

    #[inline(always)]
    fn exception(&self, key: &ExceptionKey) -> Option<Exception> {
        // SAFETY: user space does not write entries of a policy in force.
        unsafe { EXCEPTIONS.get(key).copied() }
    }

    #[inline(always)]
    fn look_at_shapes(&self, ask: &mut Ask) {
        // SAFETY: the kernel calls `look` with the number of the round and a pointer to `ask`, which outlives the call.
        unsafe { bpf_loop(7, look as *mut c_void, (&raw mut *ask).cast(), 0) };
    }

    #[inline(always)]
    fn until(&self, key: &UntilKey) -> Option<Until> {
        // SAFETY: user space does not write entries of a policy in force.
        unsafe { UNTIL.get(key).copied() }
    }
}

/// Tries one shape. A return value other than 0 ends the loop.
extern "C" fn look(round: u32, ask: *mut Ask) -> i64 {
    // SAFETY: the pointer that `look_at_shapes` passed to bpf_loop.
    i64::from(unsafe { &mut *ask }.look(round + 1, &Here))
}
