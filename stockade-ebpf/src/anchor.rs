/*!
The decision, and labels, held by the root of the cgroup tree.

Attached to the root cgroup by BPF_PROG_ATTACH, these programs are kept by the cgroup itself: no link, pin,
descriptor, mount or process has to live for them. The kernel asks all that are attached and refuses when one
does; a program here returns 1 to let through and 0 to refuse. A hook as such allows at most ten kinds of
programs of this kind on the whole machine: one is used for decisions, four by policies that speak of programs.
*/
use aya_ebpf::{helpers::generated::bpf_get_retval, macros::lsm_cgroup, programs::LsmContext};
use core::ptr::{addr_of, read_volatile};
use stockade_common::{LAST_BIT, Seal, Words};

use crate::{
    decide::{refuse_or_audit, with_places_and_exceptions, words_in_force},
    label,
};

const GOES_ON: i32 = 1;
const REFUSED: i32 = 0;

/// Written once by user space, then by nobody.
#[unsafe(link_section = ".data.seal")]
#[unsafe(no_mangle)]
static mut SEAL: Seal = Seal::NONE;

#[inline(always)]
pub fn seal() -> *const Seal {
    addr_of!(SEAL)
}

/// Decides, for policies without places and exceptions.
#[lsm_cgroup(hook = "locked_down")]
pub fn sealed(ctx: LsmContext) -> i32 {
    unless_allowed(&ctx, refuse)
}

/// Decides, for all policies.
#[lsm_cgroup(hook = "locked_down")]
pub fn sealed_whole(ctx: LsmContext) -> i32 {
    unless_allowed(&ctx, refuse_whole)
}

#[inline(always)]
fn unless_allowed(ctx: &LsmContext, otherwise: fn(u32, *const Words) -> i32) -> i32 {
    let reason: u32 = ctx.arg(0);
    let words = words_in_force();
    // Numbers beyond the sets share the last bit.
    let reason = if reason > LAST_BIT { LAST_BIT } else { reason };
    // SAFETY: points into the policy, which lives as long as the program.
    let watched = unsafe { read_volatile(addr_of!((*words).watched_anywhere)) };
    if watched >> reason & 1 == 0 { GOES_ON } else { otherwise(reason, words) }
}

#[inline(never)]
fn refuse(reason: u32, words: *const Words) -> i32 {
    if is_refused() || refuse_or_audit(reason, words) == 0 { GOES_ON } else { REFUSED }
}

#[inline(never)]
fn refuse_whole(reason: u32, words: *const Words) -> i32 {
    if is_refused() || with_places_and_exceptions(reason, words) == 0 { GOES_ON } else { REFUSED }
}

/// Whether a generation before this one has refused, and told it.
#[inline(always)]
fn is_refused() -> bool {
    // SAFETY: takes no arguments.
    unsafe { bpf_get_retval() != 0 }
}

/// Labels a process that executes a program, as [`label::bprm_committed_creds`].
#[lsm_cgroup(hook = "bprm_committed_creds")]
pub fn sealed_label(ctx: LsmContext) -> i32 {
    label::on_exec(ctx.arg(0));
    GOES_ON
}

/// Labels a child, as [`label::task_alloc`].
#[lsm_cgroup(hook = "task_alloc")]
pub fn sealed_hand_on(ctx: LsmContext) -> i32 {
    if label::on_fork(ctx.arg(0), ctx.arg(1)) { GOES_ON } else { REFUSED }
}

/// Refuses access to a labelled process, where [`label::ptrace_access_check`] takes the label away.
#[lsm_cgroup(hook = "ptrace_access_check")]
pub fn sealed_traced(ctx: LsmContext) -> i32 {
    if label::on_ptrace_access(ctx.arg(0), ctx.arg(1), true) { GOES_ON } else { REFUSED }
}

/// Keeps a labelled process from handing itself over, where [`label::ptrace_traceme`] takes the label away.
#[lsm_cgroup(hook = "ptrace_traceme")]
pub fn sealed_trace_me(ctx: LsmContext) -> i32 {
    if label::on_ptrace_traceme(ctx.arg(0), true) { GOES_ON } else { REFUSED }
}
