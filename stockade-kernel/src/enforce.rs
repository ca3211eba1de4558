/*!
The steps by which a policy comes into force.

```text
first time                                    later
  1 load, policy "watch everything, refuse      1 attach what the new policy needs beside, and replace
    nothing"                                      the deciding program if it is not enough
  2 attach                                      2 write the tables under a new generation
  3 self-test                                   3 write the slot that is not in force
  4 write the tables and the policy             4 give existing cgroups their places
  5 attach what the policy needs beside         5 flip `active`: the commit
  6 pin the maps and those links                6 self-test; if it fails, flip back
  7 pin the link: the commit                    7 delete the old tables
  8 with settings, whose program refuses
    too: flip `active`, which is then
    the commit
```

A kill before the commit leaves the old state: the kernel detaches a link that has no reference, and decisions do not read the other slot. A
kill after it leaves the new state; the next command deletes the old tables. Decisions read `active`, one slot, and entries of its generation.
*/
use std::collections::HashMap;

use serde::Serialize;
use stockade_common::{Policy as KernelPolicy, Slot, Words};
use stockade_policy::{
    compile::CompiledSetting,
    model::{Exception, Policy},
};
use stockade_reasons::Level;

pub use crate::selftest::SelfTest;
use crate::{
    Error,
    machine::{Machine, btf::KernelTypes, host},
    notices::{self, Notice},
    pinned::{
        description::{self, Description},
        elsewhere, labels,
        pins::{self, Enforcement, Lock, Pinned},
        slots::{same, wait_for_decisions},
        tables::{self, Maps, held_unsealed},
    },
    program::{
        attach::Attachment,
        duty::Duty,
        object::{MapName, Object},
    },
    ready::Ready,
    seal,
    sealed::{
        Sealed,
        anchor::{self, Found},
    },
    selftest,
    sys::step,
    trial::{self, Attached},
};

/// The result of [`enforce`].
#[derive(Debug)]
pub struct Applied {
    /// How the state changed.
    pub change: Change,
    /// The slot that is now in force.
    pub slot: Slot,
    /// Notices for the administrator.
    pub notices: Vec<Notice>,
    /// How the deciding program is attached.
    pub attachment: Attachment,
    /// The proof that it decides.
    pub self_test: SelfTest,
    /// The settings that the policy holds.
    pub settings: Vec<CompiledSetting>,
    /// The level of the kernel's own lockdown.
    pub native: Level,
    /// The kernel's types, kept because reading BTF takes most of the time.
    pub types: KernelTypes,
}

/// How the state changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// No policy was in force before.
    Started,
    /// Another policy was in force before.
    Replaced,
    /// The policy was added to a seal.
    Tightened,
    /// This policy was in force already.
    Unchanged,
}

/// Applies a policy until reboot or [`crate::lift::lift`]. `auto` is the level that `auto` stands for. Needs root,
/// BTF and a BPF file system; exceptions by program need the bpf LSM.
///
/// # Errors
/// An [`Error`] that names the remedy for whatever is missing. The state is then unchanged.
pub fn enforce(policy: &Policy, auto: Level) -> Result<Applied, Error> {
    enforce_on(Machine::look()?, policy, auto)
}

/// Returns the exceptions of the policy in force, grants included.
fn exceptions_in_force() -> Result<Vec<Exception>, Error> {
    if let Found::Sealed(sealed) = anchor::look()? {
        // Root writes the description of a policy that root adds, so exceptions come from the sealed description. Its grants may have been
        // revoked since.
        let mut exceptions = sealed.description().ok_or_else(description::lost_for_good)?.policy.exceptions;
        let newest = sealed.newest_description().ok_or_else(description::lost_for_good)?.policy.exceptions;
        exceptions.retain(|exception| !exception.granted || newest.contains(exception));
        return Ok(exceptions);
    }
    let Pinned::Whole(enforcement) = pins::open()? else { return Ok(Vec::new()) };
    let slot = enforcement.slot()?;
    let description = Description::read(slot.words.generation, slot.digest);
    Ok(description.map(|description| description.policy.exceptions).unwrap_or_default())
}

/// Converts the ends of exceptions to nanoseconds since boot. Exceptions in force keep theirs if the date is the same. While the clock is
/// implausible, a new exception may have expired already: it is left out, and the rest of the policy is in force.
fn settle(policy: &mut Policy, in_force: &[Exception]) {
    let now = host::now();
    let wrong = host::implausible(now).is_some();
    let is_dated = |exception: &Exception| exception.expires.is_some() && !exception.granted;
    let by_name: HashMap<&str, &Exception> =
        in_force.iter().filter(|e| is_dated(e)).map(|e| (e.name.value.as_str(), e)).collect();
    for exception in policy.exceptions.iter_mut().filter(|e| is_dated(e)) {
        let before = by_name.get(exception.name.value.as_str()).filter(|other| other.is_dated_as(exception));
        let before = before.and_then(|other| other.ends_boot_ns);
        if wrong {
            // Converted when the clock was right, or 0: already ended.
            exception.ends_boot_ns = Some(before.unwrap_or(0));
        } else {
            exception.settle(now, before.filter(|&ends| ends != 0));
        }
    }
}

/// Changes the policy in force by `change` and applies the result.
///
/// # Errors
/// The errors of [`enforce`]; [`Error::Request`] if nothing is in force or its description is lost, and the errors of `change`.
pub fn amend(change: impl FnOnce(&mut Policy) -> Result<(), Error>) -> Result<Applied, Error> {
    let machine = Machine::look()?;
    let _lock = Lock::take()?;
    let description = if let Found::Sealed(sealed) = anchor::look()? {
        let first = sealed.description().ok_or_else(description::lost_for_good)?;
        let newest = sealed.newest_description().ok_or_else(description::lost_for_good)?;
        // Root can have added a policy with the description of a laxer one.
        let policy = if is_no_laxer(&first.policy, &newest.policy, first.auto.into()).is_ok() {
            newest.policy
        } else {
            first.policy
        };
        Description { policy, ..first }
    } else {
        // Drops the descriptor of the attachment at the end of this block: `exchange` waits for its end.
        let Pinned::Whole(enforcement) = pins::open()? else {
            elsewhere::nothing()?;
            return Err(Error::Request(
                "nothing is enforced, so there is nothing to be excepted from; start with: stockade enforce"
                    .into(),
            ));
        };
        let slot = enforcement.slot()?;
        Description::read(slot.words.generation, slot.digest).ok_or_else(description::lost)?
    };
    let mut policy = description.policy;
    let in_force = policy.exceptions.clone();
    policy.exceptions.retain(|e| !e.granted || !e.has_ended(host::now()));
    change(&mut policy)?;
    settle(&mut policy, &in_force);
    apply(machine, policy, description.auto.into())
}

/// Applies a policy to a machine whose facts are known, see [`enforce`].
///
/// # Errors
/// The errors of [`enforce`].
pub fn enforce_on(machine: Machine, policy: &Policy, auto: Level) -> Result<Applied, Error> {
    let _lock = Lock::take()?;
    let mut policy = policy.clone();
    let in_force = exceptions_in_force()?;
    settle(&mut policy, &in_force);
    // A grant that has not ended stays in force under the new policy.
    policy.exceptions.extend(in_force.into_iter().filter(|e| e.granted && !e.has_ended(host::now())));
    apply(machine, policy, auto)
}

fn apply(machine: Machine, policy: Policy, auto: Level) -> Result<Applied, Error> {
    let mut ready = Ready::new(&machine.types, policy, auto)?;
    let mut notices = notices::of(&ready.description.policy, auto, machine.native, &machine.types);
    notices.extend(notices::of_clock(&ready.description.policy, host::now(), host::clock_care()));
    let found = anchor::look()?;
    if let Found::Sealed(sealed) = &found {
        let (change, self_test) = tighten(&machine, sealed, &mut ready, auto)?;
        let Machine { types, native, .. } = machine;
        let attachment = Attachment::RootCgroup;
        let settings = ready.tables.settings;
        return Ok(Applied {
            change,
            slot: ready.slot,
            notices,
            attachment,
            self_test,
            settings,
            native,
            types,
        });
    }
    anchor::tidy_up()?;
    let Machine { types, lsms, native } = machine;
    let (change, attachment, self_test) = match pins::open()? {
        Pinned::Nothing { leftovers } => {
            if leftovers {
                pins::remove()?;
            }
            elsewhere::nothing()?;
            let attachment = Attachment::choose(&lsms, &types);
            let heard = start(&types, &mut ready, native, attachment)
                .map_err(|error| attachment.explain(error, lsms))?;
            (Change::Started, attachment, heard)
        }
        Pinned::Whole(mut enforcement) => {
            let attachment = enforcement.attachment()?;
            let native = attachment.refused_before(native);
            let (change, proof) = replace(&types, &mut ready, native, attachment, &mut enforcement)?;
            (change, attachment, proof)
        }
    };
    description::keep_only(&[ready.slot.words.generation]);
    if !ready.executables.is_empty() {
        let running = labels::missing(&ready.description.programs)?;
        notices.extend(running.into_iter().map(|(pid, path)| Notice::StartedBefore { pid, path }));
    }
    notices.extend(notices::of_settings(&ready.tables.settings));
    let settings = held_unsealed(ready.tables.settings);
    Ok(Applied { change, slot: ready.slot, notices, attachment, self_test, settings, native, types })
}

/// Adds a stricter policy to a seal. It is compared with the sealed policy, not with additions: any process of root can add, and every addition
/// stays in force.
fn tighten(
    machine: &Machine,
    sealed: &Sealed,
    ready: &mut Ready,
    auto: Level,
) -> Result<(Change, SelfTest), Error> {
    let description = sealed.description().ok_or_else(description::lost_for_good)?;
    is_no_laxer(&description.policy, &ready.description.policy, auto)?;
    let (added, proof) = seal::add(machine, sealed, &description, ready)?;
    if added {
        // The descriptions of the sealed policy and of earlier additions stay: a reader may already have their digests.
        return Ok((Change::Tightened, proof));
    }
    if let Some(newest) = sealed.newest_description() {
        is_no_laxer(&newest.policy, &ready.description.policy, auto)?;
    }
    ready.slot = sealed.in_force(&machine.types);
    Ok((Change::Unchanged, proof))
}

fn is_no_laxer(before: &Policy, after: &Policy, auto: Level) -> Result<(), Error> {
    let laxer = stockade_policy::laxer::laxer(before, after, auto);
    if laxer.is_empty() {
        return Ok(());
    }
    Err(Error::Sealed {
        what: "applying a laxer policy",
        instead: format!(
            "a policy that is stricter in everything is added to what is sealed; this one would let through more:\n  - {}",
            laxer.join("\n  - ")
        ),
    })
}

/// Fails for exceptions by program where the bpf LSM is not active: programs cannot be labelled then.
fn check_attachment(attachment: Attachment, ready: &Ready) -> Result<(), Error> {
    match ready.tables.programs.first() {
        Some(program) if attachment == Attachment::ModifyReturn => Err(Error::Request(format!(
            "the exception {} is for a program, and programs are known only where bpf is among the active security modules: \
             add it to lsm= on the kernel command line, or name a unit",
            program.named_by
        ))),
        _ => Ok(()),
    }
}

fn start(
    types: &KernelTypes,
    ready: &mut Ready,
    native: Level,
    attachment: Attachment,
) -> Result<SelfTest, Error> {
    check_attachment(attachment, ready)?;
    let Attached { object, mut policy, link, counters, heard } =
        trial::attach(types, ready.decider(), native, attachment)?;
    let write = |policy: &KernelPolicy| trial::write(&object, policy);
    // Requests that the self-test and other processes made do not count.
    pins::zero(&counters)?;
    let duties = ready.duties();
    let maps = Maps::of(&object)?;
    ready.write(&maps, 1)?;
    policy.slots[1] = ready.slot;
    write(&policy)?;
    let beside = object.attach_all(&duties)?;
    tables::place(&maps, &ready.tables.places, 1)?;
    let two_attachments = duties.contains(&Duty::Settings);
    if two_attachments {
        // Both programs can refuse, and two pins cannot be made at once: nothing is refused until both are pinned.
        policy.slots[0] = Slot::default();
    } else {
        policy.active = 1;
    }
    write(&policy)?;
    step("decided");

    pins::make_folder()?;
    step("folder");
    let pinned = (|| {
        for map in MapName::PINNED {
            pins::pin(&object.map(map)?, map.pin())?;
            step(map.pin());
        }
        for (duty, link) in &beside {
            pins::pin(link, duty.pin())?;
            step(duty.pin());
        }
        pins::pin(&link, Duty::Decide.pin())?;
        step("link-pinned");
        if two_attachments {
            policy.active = 1;
            write(&policy)?;
            step("flipped");
        }
        Ok(())
    })();
    if pinned.is_err() {
        pins::remove()?;
    }
    pinned?;
    Ok(heard)
}

fn replace(
    types: &KernelTypes,
    ready: &mut Ready,
    native: Level,
    attachment: Attachment,
    enforcement: &mut Enforcement,
) -> Result<(Change, SelfTest), Error> {
    check_attachment(attachment, ready)?;
    let policy = enforcement.policy()?;
    let active = usize::from(policy.active & 1 == 1);
    let before = policy.slots[active];
    let watched = ready.watched_here();
    if same(&before, &ready.slot) && ready.duties().into_iter().all(pins::works) {
        ready.slot = before;
        // Attachments of a command that was killed.
        end_all_but(&ready.duties())?;
        if policy.slots[1 - active].has_tables != 0 {
            wait_for_decisions()?;
            Maps::pinned()?.keep_only(before.words.generation)?;
            enforcement.write_slot(1 - active, Slot::default())?;
        }
        let proof = selftest::run(types, &selftest::counted(&enforcement.counters), watched, native)?;
        return Ok((Change::Unchanged, proof));
    }

    let generation = policy.slots[0].words.generation.max(policy.slots[1].words.generation) + 1;
    let needed = ready.duties();
    let missing: Vec<Duty> = needed.iter().copied().filter(|&duty| !pins::works(duty)).collect();
    let maps = Maps::pinned()?;
    pins::end_next()?;
    let written = (|| {
        if missing.iter().any(|duty| Duty::LABELS.contains(duty)) {
            labels::forget_all()?;
        }
        let needs_scopes = ready.decider() == Duty::DecideScoped && !enforcement.supports_scopes()?;
        if needs_scopes || !missing.is_empty() {
            let object = Object::open(types, pins::open_maps()?)?;
            if needs_scopes {
                enforcement.exchange(object.attach(Duty::DecideScoped, attachment.target(types)?)?)?;
            }
            for (duty, link) in object.attach_all(&missing)? {
                // The pinned attachment does not work any more.
                pins::end(duty)?;
                pins::pin(&link, duty.pin())?;
                step(duty.pin());
            }
        }
        let retired = policy.slots[1 - active];
        if retired != Slot::default() {
            wait_for_decisions()?;
        }
        if retired.has_tables != 0 {
            // Entries of a command that was killed.
            maps.keep_only(before.words.generation)?;
        }
        if ready.slot.has_tables != 0 {
            // If this command is killed now, the next one deletes the entries of this generation.
            let words = Words { generation, ..Words::default() };
            enforcement.write_slot(1 - active, Slot { words, has_tables: 1, ..Slot::default() })?;
        }
        ready.write(&maps, generation)?;
        enforcement.write_slot(1 - active, ready.slot)?;
        step("slot-written");
        tables::place(&maps, &ready.tables.places, generation)?;
        step("placed");
        enforcement.flip()?;
        step("flipped");
        let proof = selftest::run(types, &selftest::counted(&enforcement.counters), watched, native);
        proof.map_err(|error| {
            // A policy without a passed self-test does not stay in force.
            let Err(back) = enforcement.flip() else { return error };
            let why = if let Error::SelfTest(why) = error { why } else { error.to_string() };
            Error::Request(format!(
                "self-test failed: {why}\n  the new policy is in force all the same, since the old one could not be put back: {back}"
            ))
        })
    })();
    let proof = match written {
        Ok(proof) => proof,
        Err(error) => {
            // The next command clears what cannot be cleared now. If the old policy is not in force again, the new one keeps its entries.
            if enforcement.slot().is_ok_and(|in_force| in_force == before) {
                if wait_for_decisions().is_ok() && maps.keep_only(before.words.generation).is_ok() {
                    let _ = enforcement.write_slot(1 - active, Slot::default());
                }
                for duty in missing {
                    let _ = pins::end(duty);
                }
                description::keep_only(&[before.words.generation]);
            }
            return Err(error);
        }
    };
    if before.has_tables != 0 {
        wait_for_decisions()?;
        maps.keep_only(generation)?;
        // The next command then need not wait for readers of this slot.
        enforcement.write_slot(active, Slot::default())?;
    }
    end_all_but(&needed)?;
    Ok((Change::Replaced, proof))
}

/// Ends the attachments that a policy does not need.
fn end_all_but(needed: &[Duty]) -> Result<(), Error> {
    let beside = Duty::PLACES.into_iter().chain(Duty::LABELS).chain([Duty::Settings]);
    beside.filter(|duty| !needed.contains(duty)).try_for_each(pins::end)
}
