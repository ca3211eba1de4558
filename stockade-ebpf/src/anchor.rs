/*!
The sealed programs: the decision and the labels as LSM_CGROUP programs on the root cgroup.

BPF_PROG_ATTACH attaches these programs to the root cgroup, which then keeps them: they need no link, pin, descriptor, mount or process.
The kernel runs all attached programs and refuses if one of them refuses; a program returns 1 to allow and 0 to refuse. The kernel
allows LSM_CGROUP programs on at most ten hooks of the whole machine: decisions use one, policies with exceptions by program four more.
*/
use aya_ebpf::{helpers::generated::bpf_loop, macros::lsm_cgroup, programs::LsmContext};
use core::{
    ffi::c_void,
    intrinsics::{AtomicOrdering, atomic_xadd},
    ptr::{addr_of, addr_of_mut, read_volatile},
};
use stockade_common::{
    LAST_BIT, NO_PLACE, Verdict, Words,
    decide::{Decision, decide},
};

use crate::{
    decide::Here,
    label,
    maps::{added, words_in_force},
    report::{Who, report},
    stacked,
    task::Task,
};

const GOES_ON: i32 = 1;
const REFUSED: i32 = 0;

/// Decides for policies without places and exceptions.
#[lsm_cgroup(hook = "locked_down")]
pub fn sealed(ctx: LsmContext) -> i32 {
    unless_allowed(&ctx, refuse)
}

/// Decides for all policies.
#[lsm_cgroup(hook = "locked_down")]
pub fn sealed_whole(ctx: LsmContext) -> i32 {
    unless_allowed(&ctx, refuse_whole)
}

#[inline(always)]
fn unless_allowed(ctx: &LsmContext, otherwise: fn(u32, *const Words) -> i32) -> i32 {
    let reason: u32 = ctx.arg(0);
    let words = words_in_force();
    // Numbers above the sets share the last bit.
    let reason = if reason > LAST_BIT { LAST_BIT } else { reason };
    // SAFETY: inside POLICY and ADDED, which live as long as the program.
    let watched = unsafe {
        read_volatile(addr_of!((*words).watched_anywhere))
            | read_volatile(addr_of!((*added()).watched_anywhere))
    };
    if watched >> reason & 1 == 0 { GOES_ON } else { otherwise(reason, words) }
}

#[inline(never)]
fn refuse(reason: u32, words: *const Words) -> i32 {
    let reason = reason & LAST_BIT;
    let who = Who::is(Task::current());
    // SAFETY: inside POLICY.
    let words = unsafe { &*words };
    let verdict = if words.deny >> reason & 1 != 0 { Verdict::Refused } else { Verdict::Audited };
    let sealed = words.watched_anywhere >> reason & 1 != 0;
    together(reason, words, sealed.then_some(Decision { verdict, place: NO_PLACE, shape: 0 }), |_| who)
}

#[inline(never)]
fn refuse_whole(reason: u32, words: *const Words) -> i32 {
    let reason = reason & LAST_BIT;
    let mut asked = Asked { reason, verdict: NO_VERDICT, place: NO_PLACE, shape: 0 };
    // SAFETY: the kernel calls `ask` with the number of the round and a pointer to `asked`, which outlives the call.
    unsafe { bpf_loop(1 + stacked::count(), ask as *mut c_void, (&raw mut asked).cast(), 0) };
    let decision = match asked.verdict {
        REFUSES => Some(Verdict::Refused),
        AUDITS => Some(Verdict::Audited),
        EXCEPTS => Some(Verdict::Excepted),
        _ => None,
    };
    // SAFETY: inside POLICY.
    let words = unsafe { &*words };
    together(
        reason,
        words,
        decision.map(|verdict| Decision { verdict, place: asked.place, shape: asked.shape }),
        Who::is,
    )
}

/// A request, and the strictest verdict so far.
#[repr(C)]
struct Asked {
    reason: u32,
    /// The higher, the stricter.
    verdict: u32,
    place: u32,
    shape: u32,
}

const NO_VERDICT: u32 = 0;
const EXCEPTS: u32 = 1;
const AUDITS: u32 = 2;
const REFUSES: u32 = 3;

/// Asks one policy: the sealed one in round 0, then those that were added with scopes or exceptions. A return value other than 0 ends the loop.
extern "C" fn ask(round: u32, asked: *mut Asked) -> i64 {
    // SAFETY: a pointer to `asked` in `refuse_whole`.
    let asked = unsafe { &mut *asked };
    let bit = 1u64 << (asked.reason & LAST_BIT);
    let words = if round == 0 { words_in_force() } else { stacked::words(round - 1) };
    // SAFETY: inside POLICY or STACKED.
    let words = unsafe { &*words };
    // A slot without a generation is not complete.
    if words.watched_anywhere & bit == 0 || round != 0 && words.generation == 0 {
        return 0;
    }
    let Some(decision) = decide(words, asked.reason, bit, &Here) else { return 0 };
    let verdict = match decision.verdict {
        Verdict::Refused => REFUSES,
        Verdict::Audited => AUDITS,
        _ => EXCEPTS,
    };
    if verdict > asked.verdict {
        (asked.verdict, asked.place, asked.shape) = (verdict, decision.place, decision.shape);
    }
    (verdict == REFUSES) as i64
}

/// Combines the decision of the sealed policy with the additions: a refusal by either refuses the request.
#[inline(always)]
fn together(reason: u32, words: &Words, sealed: Option<Decision>, who: impl FnOnce(Task) -> Who) -> i32 {
    let bit = 1u64 << reason;
    // SAFETY: inside ADDED, whose words are aligned and changed by atomic instructions only.
    let (watched, deny, quiet) = unsafe {
        atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(addr_of_mut!((*added()).heard), 1);
        ((*added()).watched, (*added()).deny, (*added()).quiet)
    };
    let refused = sealed.is_some_and(|decision| matches!(decision.verdict, Verdict::Refused));
    let by_addition = |verdict| Decision { verdict, place: NO_PLACE, shape: 0 };
    let decision = if !refused && deny & bit != 0 {
        by_addition(Verdict::Refused)
    } else if let Some(decision) = sealed {
        decision
    } else if watched & bit != 0 {
        by_addition(Verdict::Audited)
    } else {
        return GOES_ON;
    };
    report(reason, decision, (words.quiet | quiet) & bit != 0, who);
    if matches!(decision.verdict, Verdict::Refused) { REFUSED } else { GOES_ON }
}

/// Labels a process that executes a program, like [`label::bprm_committed_creds`].
#[lsm_cgroup(hook = "bprm_committed_creds")]
pub fn sealed_label(ctx: LsmContext) -> i32 {
    label::on_exec(ctx.arg(0));
    GOES_ON
}

/// Labels a child process, like [`label::task_alloc`].
#[lsm_cgroup(hook = "task_alloc")]
pub fn sealed_hand_on(ctx: LsmContext) -> i32 {
    if label::on_fork(ctx.arg(0), ctx.arg(1)) { GOES_ON } else { REFUSED }
}

/// Refuses access to a labelled process; [`label::ptrace_access_check`] voids the label instead.
#[lsm_cgroup(hook = "ptrace_access_check")]
pub fn sealed_traced(ctx: LsmContext) -> i32 {
    if label::on_ptrace_access(ctx.arg(0), ctx.arg(1), true) { GOES_ON } else { REFUSED }
}

/// Refuses PTRACE_TRACEME of a labelled process; [`label::ptrace_traceme`] voids the label instead.
#[lsm_cgroup(hook = "ptrace_traceme")]
pub fn sealed_trace_me(ctx: LsmContext) -> i32 {
    if label::on_ptrace_traceme(ctx.arg(0), true) { GOES_ON } else { REFUSED }
}
