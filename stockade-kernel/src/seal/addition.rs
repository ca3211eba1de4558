/*!
What a stricter policy adds to what is sealed.

The seal's own program does it, and can do three things: refuse a reason everywhere and to everybody, hold one more setting, and
end an exception. Each of them is strict by itself, so that a command that is killed halfway leaves something between the old
policy and the new one, and the next one goes on. What would need more than that is refused, and named.
*/
use std::collections::HashMap;

use stockade_common::{Added, Exception, ExceptionKey, ReasonSet, dialogue::Revoked};
use stockade_policy::{
    compile::{CompileError, CompiledSetting, Excepted, Subject, Tables, bit, compile},
    model::Exception as Said,
    settings,
};

use super::{TRACING, proof};
use crate::{
    Error,
    description::Description,
    enforce::{Machine, step},
    host,
    ready::Ready,
    sealed::{self, Sealed},
    selftest::SelfTest,
};

/// What is to be added.
#[derive(Debug, Default)]
struct Addition {
    reasons: Added,
    revoked: Vec<Revoked>,
    settings: Vec<CompiledSetting>,
}

impl Addition {
    fn is_empty(&self) -> bool {
        self.reasons == Added::NONE && self.revoked.is_empty() && self.settings.is_empty()
    }
}

/// Adds a policy that is nowhere laxer than what was sealed, whose description this is. Says whether anything was to be added.
pub(crate) fn add(
    machine: &Machine,
    sealed: &Sealed,
    described: &Description,
    ready: &mut Ready,
) -> Result<(bool, SelfTest), Error> {
    let mut addition = difference(machine, sealed, described, ready)?;
    if addition.is_empty() {
        return Ok((false, proof(sealed, &machine.types, machine.native)?));
    }
    ready.describe(sealed.slot().words.generation + 1 + sealed.added.count)?;
    let mut left_out = Vec::new();
    for setting in &addition.settings {
        // Anybody who is root may have added another rule for it: no reason to leave the rest of the policy out.
        if !sealed::add_setting(sealed.slot().words.generation, setting)? {
            left_out.push(settings::dotted(&setting.name));
        }
        step("setting-added");
    }
    for revoked in &addition.revoked {
        sealed::revoke(revoked)?;
        step("exception-ended");
    }
    // Last, since with it the new description counts.
    addition.reasons.told = ready.slot;
    sealed::add_reasons(&addition.reasons)?;
    step("added");
    if !left_out.is_empty() {
        return Err(Error::Request(format!(
            "the policy was added to the seal, except for {}: somebody has added another rule for it, or the kernel's table is full; \
             freeze it instead (`[settings] freeze`), which takes the place of any rule",
            left_out.join(", ")
        )));
    }
    let now = Sealed::ask()?.ok_or_else(|| Error::Request("the seal does not answer any more".into()))?;
    let proof = proof(&now, &machine.types, machine.native)?;
    // What is told is what is in force, with what was sealed and added before.
    ready.slot = now.in_force(&machine.types);
    Ok((true, proof))
}

fn difference(
    machine: &Machine,
    sealed: &Sealed,
    described: &Description,
    ready: &Ready,
) -> Result<Addition, Error> {
    let policy = &described.policy;
    let before = compile(policy, described.auto.into(), &machine.types.kernel_reasons(), host::now())
        .map_err(|e: CompileError| Error::Request(e.to_string()))?;
    let after = &ready.tables;
    let there = sealed.slot().words;
    let deny = after.words.deny & !there.deny;
    let watched = after.words.watched & !there.watched;
    if before.places != after.places || !before.places.is_empty() && deny | watched != 0 {
        return Err(cannot(
            "scopes, and exceptions by unit or cgroup, other than those that were sealed, or reasons beside them",
        ));
    }
    let seen =
        |program: usize| described.programs.iter().find(|seen| seen.path == before.programs[program].path);
    let mut addition = Addition::default();
    addition.reasons.deny = deny & !sealed.added.deny;
    addition.reasons.watched = (deny | watched) & !sealed.added.watched;
    if addition.reasons != Added::NONE {
        addition.reasons.quiet = after.words.quiet;
    }
    let mut new: HashMap<_, &Excepted> =
        after.exceptions.iter().map(|(subject, excepted)| (named(after, *subject), excepted)).collect();
    for (subject, excepted) in &before.exceptions {
        let left = new.remove(&named(&before, *subject));
        let program = subject.program.and_then(seen);
        let key = ExceptionKey {
            generation: there.generation,
            inode: program.map_or(0, |seen| seen.inode),
            device: program.map_or(0, |seen| seen.device),
            place: subject.place,
            uid: subject.uid,
            pad: 0,
        };
        let ends = ends(excepted, left)
            .ok_or_else(|| cannot("an exception that ends earlier: revoke it altogether"))?;
        let still = sealed::exception(&key)?.unwrap_or_default();
        let ends = Exception {
            always: ends.always & still.always,
            inherited: ends.inherited & still.inherited,
            timed: ends.timed & still.timed,
        };
        if ends != Exception::default() {
            addition.revoked.push(Revoked { key, ends });
        }
        if left.is_some_and(|left| all(left) & deny != 0) {
            return Err(newly_refused(&policy.exceptions));
        }
    }
    if new.values().any(|excepted| all(excepted) & deny != 0) {
        return Err(newly_refused(&ready.description.policy.exceptions));
    }
    for setting in &after.settings {
        let held = sealed.rule(&setting.name)?;
        if held.is_some_and(|held| held.is_at_least(&setting.rule)) || setting.name == TRACING {
            continue;
        }
        if settings::FILES.iter().any(|files| files.kernel_name == setting.name) {
            return Err(cannot(&format!(
                "{}, which is held by a guard of its own",
                settings::dotted(&setting.name)
            )));
        }
        addition.settings.push(setting.clone());
    }
    Ok(addition)
}

/// Whom an exception is for, whatever number a program has.
fn named(tables: &Tables, subject: Subject) -> (Option<&std::path::Path>, u32, u32) {
    (subject.program.map(|at| tables.programs[at].path.as_path()), subject.place, subject.uid)
}

fn all(excepted: &Excepted) -> ReasonSet {
    excepted.timed.iter().fold(excepted.always | excepted.inherited, |all, (reason, ..)| all | bit(*reason))
}

/// What of an exception does not hold any more; none where only its end is another, which a seal cannot change.
fn ends(before: &Excepted, after: Option<&Excepted>) -> Option<Exception> {
    let timed = |excepted: &Excepted| excepted.timed.iter().fold(0, |all, (reason, ..)| all | bit(*reason));
    let none = Excepted::default();
    let after = after.unwrap_or(&none);
    let ends = Exception {
        always: before.always & !after.always,
        inherited: before.inherited & !after.inherited,
        timed: timed(before) & !timed(after),
    };
    // What was without end and now has one, or ends earlier than it did.
    let shortened = ends.always & timed(after) != 0
        || after.timed.iter().any(|new| {
            before.timed.iter().any(|old| old.0 == new.0 && old.1.saturating_sub(new.1) > SAME_END)
        });
    (!shortened).then_some(ends)
}

/// Two readings of one clock by another: an end is worked out anew each time, in nanoseconds since boot.
const SAME_END: u64 = 2_000_000_000;

fn newly_refused(exceptions: &[Said]) -> Error {
    let names: Vec<_> = exceptions.iter().map(|exception| exception.name.value.as_str()).collect();
    cannot(&format!("exceptions to what was not refused before ({})", names.join(", ")))
}

fn cannot(what: &str) -> Error {
    Error::Sealed {
        what: "adding this policy",
        instead: format!(
            "what is added refuses reasons to everybody, holds settings and ends exceptions; it cannot have {what}\n  \
             apply a policy without them, or seal the whole policy after the next boot"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excepted(always: ReasonSet, inherited: ReasonSet, timed: &[(u32, u64, u64)]) -> Excepted {
        Excepted { always, inherited, timed: timed.to_vec() }
    }

    #[test]
    fn what_of_an_exception_ends_is_told_apart_and_a_nearer_end_is_none_of_it() {
        const SECOND: u64 = 1_000_000_000;
        let before = excepted(0b11, 0b10, &[(2, 100 * SECOND, 0)]);
        let of = |after: Option<&Excepted>| ends(&before, after);
        assert_eq!(of(Some(&before)), Some(Exception::default()));
        assert_eq!(of(None), Some(Exception { always: 0b11, inherited: 0b10, timed: 0b100 }));
        let less = excepted(0b01, 0, &[(2, 101 * SECOND, 0)]);
        assert_eq!(of(Some(&less)), Some(Exception { always: 0b10, inherited: 0b10, timed: 0 }));
        // Without end before, and now with one; or with one that is nearer.
        assert_eq!(of(Some(&excepted(0b01, 0b10, &[(1, 5 * SECOND, 0), (2, 100 * SECOND, 0)]))), None);
        assert_eq!(of(Some(&excepted(0b11, 0b10, &[(2, 50 * SECOND, 0)]))), None);
        // The same end, by another reading of the clock.
        assert_eq!(of(Some(&excepted(0b11, 0b10, &[(2, 99 * SECOND, 0)]))), Some(Exception::default()));
    }
}
