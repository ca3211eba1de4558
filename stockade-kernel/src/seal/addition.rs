/*!
What a stricter policy adds to what is sealed.

The seal's own program does it, and can do four things: refuse a reason everywhere and to everybody, hold one more setting, end an exception, and
decide by one more policy as a whole. Each of them is strict by itself, so that a command that is killed halfway leaves something between the old
policy and the new one, and the next one goes on. A whole policy is needed for scopes and exceptions other than those that were sealed: it is written
under a number of its own, decides beside the others from its commit on, and the strictest verdict counts. Only seals with room for that can do it, see
[`Ready::is_sealed_with_places`]; what would need more is refused, and named.
*/
use std::collections::HashMap;

use stockade_common::{Added, Exception, ExceptionKey, ReasonSet, Seal, dialogue::Revoked};
use stockade_policy::{
    compile::{CompileError, CompiledProgram, CompiledSetting, Excepted, Subject, Tables, bit, compile},
    settings,
};

use super::proof;
use crate::{
    Error,
    machine::{Machine, host},
    pinned::{
        description::{self, Description},
        tables::{self, Sink},
    },
    program::duty::Duty,
    ready::Ready,
    sealed::{self, Comparison, SAME_END, Sealed, TRACING, Transaction},
    selftest::SelfTest,
    sys::step,
};

/// The parts of a policy that are added to a seal.
#[derive(Debug, Default)]
struct Addition {
    reasons: Added,
    revoked: Vec<Revoked>,
    settings: Vec<CompiledSetting>,
    /// The policy as a whole, for its scopes and exceptions. Then it needs neither of the first two.
    whole: bool,
}

impl Addition {
    fn is_empty(&self) -> bool {
        self.reasons == Added::NONE && self.revoked.is_empty() && self.settings.is_empty() && !self.whole
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
    // The description counts from the last step on, so that nothing is told to hold that does not.
    let transaction = if addition.whole {
        Some(begin(ready)?)
    } else {
        ready.describe(sealed.slot().words.generation + 1 + sealed.added.count)?;
        None
    };
    let mut left_out = Vec::new();
    let mut held = Vec::new();
    for setting in &addition.settings {
        let name = settings::dotted(&setting.name);
        // Anybody who is root may have added another rule for it: no reason to leave the rest of the policy out.
        let is_held = sealed::add_setting(sealed.slot().words.generation, setting)
            .map_err(|error| but_held(error, &held))?;
        if is_held { &mut held } else { &mut left_out }.push(name);
        step("setting-added");
    }
    for revoked in &addition.revoked {
        sealed::revoke(revoked)?;
        step("exception-ended");
    }
    if let Some(transaction) = transaction {
        transaction.commit(&ready.slot).map_err(|error| but_held(error, &held))?;
    } else {
        addition.reasons.told = ready.slot;
        sealed::add_reasons(&addition.reasons)?;
    }
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

/// Begins the transaction of a policy as a whole, and writes its entries. It decides from the commit on.
fn begin(ready: &mut Ready) -> Result<Transaction, Error> {
    let transaction = Transaction::open()?;
    step("announced");
    write_to(&transaction, transaction.generation, ready)?;
    ready.describe(transaction.generation)?;
    Ok(transaction)
}

/// The error of a later step, with the settings that were added before it.
fn but_held(error: Error, held: &[String]) -> Error {
    if held.is_empty() {
        return error;
    }
    Error::Request(format!(
        "{error}\n  these settings of the policy were added before that, and are held until reboot: {}",
        held.join(", ")
    ))
}

fn write_to(sink: &dyn Sink, generation: u64, ready: &Ready) -> Result<(), Error> {
    tables::write_scopes_and_exceptions(sink, &ready.tables, &ready.executables, generation)?;
    tables::place(sink, &ready.tables.places, generation)
}

/// Fails unless the seal has room for the policy as a whole.
fn has_room(sealed: &Sealed, described: &Description, before: &Tables, ready: &Ready) -> Result<(), Error> {
    let places = ready.tables.places.is_empty() || sealed.seal.flags & Seal::NEW_CGROUPS != 0;
    if sealed.program(Duty::SealedScoped).is_none() || !places {
        return Err(cannot(
            "scopes, or exceptions other than those that were sealed, since the sealed policy left no room for them (room-for-scopes = true under [seal])",
        ));
    }
    let labelled = |seen: &description::Program| {
        let same = |it: &description::Program| (it.inode, it.device) == (seen.inode, seen.device);
        described.programs.iter().any(same)
    };
    if let Some(program) = ready.description.programs.iter().find(|program| !labelled(program)) {
        return Err(cannot(&format!(
            "an exception for {}: the kernel labels the programs that the sealed policy excepts, and no others",
            program.path.display()
        )));
    }
    let same = |one: &CompiledProgram, other: &CompiledProgram| {
        (&one.path, &one.digest, one.inherit) == (&other.path, &other.digest, other.inherit)
    };
    let is_another = |program: &&CompiledProgram| !before.programs.iter().any(|it| same(it, program));
    match ready.tables.programs.iter().find(is_another) {
        Some(program) => Err(cannot(&format!(
            "another digest, or another inherit, for {} than the sealed policy has: the kernel labels by that",
            program.path.display()
        ))),
        None => Ok(()),
    }
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
    let seen =
        |program: usize| described.programs.iter().find(|seen| seen.path == before.programs[program].path);
    let mut addition = Addition {
        whole: before.places != after.places || !before.places.is_empty() && deny | watched != 0,
        ..Addition::default()
    };
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
        let Some(ends) = ends(excepted, left) else {
            addition.whole = true;
            continue;
        };
        let still = sealed::exception(&key)?.unwrap_or_default();
        let ends = Exception {
            always: ends.always & still.always,
            inherited: ends.inherited & still.inherited,
            timed: ends.timed & still.timed,
        };
        if ends != Exception::default() {
            addition.revoked.push(Revoked { key, ends });
        }
        addition.whole |= left.is_some_and(|left| all(left) & deny != 0);
    }
    addition.whole |= new.values().any(|excepted| all(excepted) & deny != 0);
    if addition.whole {
        has_room(sealed, described, &before, ready)?;
        (addition.reasons, addition.revoked) = (Added::NONE, Vec::new());
        let put = |comparison: &Comparison| write_to(comparison, comparison.generation, ready);
        addition.whole = !Comparison::finds(sealed, &ready.slot, &put)?;
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

/// Returns the subject of an exception with the path of its program in place of the index.
fn named(tables: &Tables, subject: Subject) -> (Option<&std::path::Path>, u32, u32) {
    (subject.program.map(|at| tables.programs[at].path.as_path()), subject.place, subject.uid)
}

fn all(excepted: &Excepted) -> ReasonSet {
    excepted.timed.iter().fold(excepted.always | excepted.inherited, |all, (reason, ..)| all | bit(*reason))
}

/// Returns the part of an exception that ends; `None` if only its expiry differs, which a seal cannot change.
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

fn cannot(what: &str) -> Error {
    Error::Sealed {
        what: "adding this policy",
        instead: format!(
            "what is added to this seal cannot have {what}\n  \
             apply a policy without that, or seal the whole policy after the next boot"
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
