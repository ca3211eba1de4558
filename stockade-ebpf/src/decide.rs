/*!
Decides one lockdown check.

`security_locked_down(reason)` is called wherever lockdown matters, whether or not the kernel's own
lockdown is built or active. This program sits behind the other security modules there: it can
refuse what they allow and never allow what they refuse.

The decision reads one slot of the policy. An allowed request costs the read of two words. The slot
may be rewritten while a decision reads it only when two swaps happen within that decision; the
refusal is decided by a single word, so even then it is the verdict of one whole policy.
*/
use aya_ebpf::{macros::lsm, programs::LsmContext};
use core::ptr::{addr_of, read_volatile};
use stockade_common::{LAST_BIT, LAYOUT, MAGIC, Policy, Scope, Slot, Verdict};

use crate::report::report;

const EPERM: i32 = 1;

const NOTHING: Slot = Slot {
    scope: Scope { watched: 0, deny: 0, quiet: 0 },
    allow: 0,
    deny_extra: 0,
    audit_extra: 0,
    applied_boot_ns: 0,
    level: 0,
    audit: 0,
    pad: [0; 6],
};

/// Written by user space only.
#[unsafe(link_section = ".data.policy")]
#[unsafe(no_mangle)]
static mut POLICY: Policy =
    Policy { magic: MAGIC, layout: LAYOUT, pad: 0, active: 0, slots: [NOTHING; 2] };

/// Refuses with -EPERM, as the kernel's own lockdown does, or returns 0.
#[lsm(hook = "locked_down")]
pub fn locked_down(ctx: LsmContext) -> i32 {
    let earlier: u64 = ctx.arg(1);
    if earlier != 0 {
        return earlier as i32;
    }
    let reason: u32 = ctx.arg(0);
    let scope = scope_in_force();
    if reason > LAST_BIT {
        return refuse_or_audit(LAST_BIT, scope);
    }
    // SAFETY: points into the policy, which lives as long as the program.
    let watched = unsafe { read_volatile(addr_of!((*scope).watched)) };
    if watched >> reason & 1 == 0 {
        return 0;
    }
    refuse_or_audit(reason, scope)
}

/// A function of its own, so that an allowed request does not pay for saving the registers used here.
#[inline(never)]
fn refuse_or_audit(reason: u32, scope: *const Scope) -> i32 {
    let bit = 1u64 << (reason & LAST_BIT);
    // SAFETY: points into the policy. Read again for the reasons beyond the sets, which come here
    // without a look at it.
    if unsafe { read_volatile(addr_of!((*scope).watched)) } & bit == 0 {
        return 0;
    }
    // SAFETY: points into the policy.
    let (deny, quiet) = unsafe { (read_volatile(addr_of!((*scope).deny)), read_volatile(addr_of!((*scope).quiet))) };
    let refused = deny & bit != 0;
    report(reason, if refused { Verdict::Refused } else { Verdict::Audited }, quiet & bit != 0);
    if refused { -EPERM } else { 0 }
}

#[inline(always)]
fn scope_in_force() -> *const Scope {
    // SAFETY: both slots are inside POLICY; the verifier checks the bound once more.
    unsafe {
        let policy = addr_of!(POLICY);
        let active = read_volatile(addr_of!((*policy).active)) & 1;
        addr_of!((*addr_of!((*policy).slots).cast::<Slot>().add(active as usize)).scope)
    }
}
