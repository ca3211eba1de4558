/*!
A seal, read by its dialogue.

No process gets a descriptor of a map that a seal decides by, Stockade included: see [`stockade_common::dialogue`]. Everything that is reported about a
seal was answered by the program that keeps it attached, and no other program can answer in its place. The maps of counters and events
alone can be opened: nothing is decided by them, and nothing proven.
*/
mod added_policies;
pub(crate) mod anchor;
pub mod blocked_programs;
pub mod foreign;
pub(crate) mod gap;
pub(crate) mod kept_files;
pub(crate) mod trust;

use std::{collections::BTreeSet, os::fd::OwnedFd};

use aya::maps::{Map, MapData, RingBuf};
use stockade_common::{
    Added, Counted, Exception, ExceptionKey, Known, LAYOUT, MAGIC, NO_PLACE, Policy, STACKED_MAX, Seal, Sets,
    SettingKey, SettingRule, Slot, Stacked,
    dialogue::{self, NewSetting, Revoked},
};
use stockade_policy::compile::{CompiledSetting, bit};

use crate::{
    Error,
    machine::{btf::KernelTypes, cgroups},
    pinned::description::Description,
    program::duty::Duty,
    sys::{
        Counters,
        dialogue::{Answer, add, told},
        held,
    },
};

pub(crate) use added_policies::{Comparison, SAME_END, Transaction};

/// The switch that silences all programs, by the kernel's name.
pub(crate) const TRACING: &str = "kernel/ftrace_enabled";

/// Policies that were added with scopes or exceptions, in the order of their commits, each with its number of [`Stacked::entries`].
type AddedPolicies = Vec<(Slot, u64)>;

/// The values of [`Sealed::added`] and [`Sealed::added_policies`], from one reading.
type Additions = (Added, AddedPolicies);

/// A seal, as it was when it was read.
pub(crate) struct Sealed {
    /// The state that its programs read.
    pub seal: Seal,
    /// The sealed policy.
    policy: Policy,
    /// Additions since.
    pub added: Added,
    /// The policies that were added with scopes or exceptions.
    added_policies: AddedPolicies,
}

fn failed(error: std::io::Error) -> Error {
    Error::io("ask what is sealed", error)
}

/// Reads one value of the dialogue. `T` is plain data, for which any bytes are a value.
fn read<T: Copy, K>(what: u32, key: &K) -> Result<Option<T>, Error> {
    read_at(what, key, 0)
}

/// Reads a part of one value of the dialogue, from this byte on.
fn read_at<T: Copy, K>(what: u32, key: &K, at: usize) -> Result<Option<T>, Error> {
    let Some(bytes) = told(what, key, at..at + size_of::<T>()).map_err(failed)? else { return Ok(None) };
    assert_eq!(bytes.len(), size_of::<T>(), "as many as were asked for");
    // SAFETY: of its size, and the caller asks for plain data.
    Ok(Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }))
}

impl Sealed {
    /// Reads the seal; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::SealedByOther`] if it is of another version, and errors of bpf(2).
    pub fn ask() -> Result<Option<Self>, Error> {
        // Magic number and layout come first, whatever follows in another version.
        let Some(begin) = read::<[u64; 2], _>(dialogue::SEAL, &())? else {
            return Ok(None);
        };
        if begin[0] != MAGIC || begin[1] & u64::from(u32::MAX) != u64::from(LAYOUT) {
            return Err(Error::SealedByOther);
        }
        let missing = || Error::Object("a seal that does not tell what it holds".into());
        let (added, added_policies) = Self::read_additions()?.ok_or_else(missing)?;
        Ok(Some(Self {
            seal: read(dialogue::SEAL, &())?.ok_or_else(missing)?,
            policy: read(dialogue::POLICY, &())?.ok_or_else(missing)?,
            added,
            added_policies,
        }))
    }

    /// Slots that are being written when they are asked for have no number, and are left out.
    fn read_added_policies() -> Result<AddedPolicies, Error> {
        let missing = || Error::Object("a seal that does not tell what was added".into());
        let begin = std::mem::offset_of!(Stacked, count);
        // A seal without room answers nothing.
        let count: u64 = read_at(dialogue::STACKED, &(), begin)?.unwrap_or_default();
        let mut found = Vec::new();
        for at in 0..STACKED_MAX.min(usize::try_from(count).unwrap_or(usize::MAX)) {
            let slot = std::mem::offset_of!(Stacked, slots) + at * size_of::<Slot>();
            let slot: Slot = read_at(dialogue::STACKED, &(), slot)?.ok_or_else(missing)?;
            let entries = std::mem::offset_of!(Stacked, entries) + at * size_of::<u64>();
            if slot.words.generation != 0 {
                found.push((slot, read_at(dialogue::STACKED, &(), entries)?.ok_or_else(missing)?));
            }
        }
        Ok(found)
    }

    /// Reads what was added. Each byte is one bpf(2) call, and another process can add something between two calls: two successive readings should be equal.
    ///
    /// A process that adds something at every call must not keep others from adding, so after ten readings the last one is used. Additions only grow:
    /// the reading contains all that was added before the first one. The description is checked against its digest, and [`crate::seal::prove`] tries what is refused.
    fn read_additions() -> Result<Option<Additions>, Error> {
        const TRIES: usize = 10;
        let mut before: Option<Additions> = None;
        for _ in 0..TRIES {
            let Some(added) = read::<Added, _>(dialogue::ADDED, &())? else { return Ok(None) };
            let now = (Added { heard: 0, ..added }, Self::read_added_policies()?);
            if before.as_ref() == Some(&now) {
                break;
            }
            before = Some(now);
        }
        Ok(before)
    }

    /// Discards the reference counts that the guards have stored for an object.
    pub fn forget(known: &Known) -> Result<(), Error> {
        done(add(dialogue::FORGET, known), "what it counted")
    }

    /// Whether its guards saw more references to something than are known, when somebody asked for it since [`Self::forget`].
    pub fn counted(known: &Known) -> Result<Counted, Error> {
        match add(dialogue::SEEN, known).map_err(failed)? {
            Some(Answer::Done) => Ok(Counted::Known),
            Some(Answer::NoRoom) => Ok(Counted::More),
            Some(Answer::Nothing) => Ok(Counted::NotSince),
            other => Err(Error::Object(format!("the seal answers {other:?} to what it saw"))),
        }
    }

    /// How many requests the seal has decided that it does not simply allow. Each byte is asked for: two readings are equal
    /// where the seal decided nothing in between, and tell no more than that where it did.
    ///
    /// # Errors
    /// Errors of bpf(2), and [`Error::Request`] if the seal does not answer.
    pub fn decided_requests() -> Result<u64, Error> {
        read_at(dialogue::ADDED, &(), std::mem::offset_of!(Added, heard))?
            .ok_or_else(|| Error::Request("the seal does not answer any more".into()))
    }

    /// The policy that was sealed.
    pub fn slot(&self) -> Slot {
        self.policy.slots[usize::from(self.policy.active & 1 == 1)]
    }

    /// The policies that decide as a whole: what was sealed, and what was added with scopes or exceptions.
    pub fn policies(&self) -> impl Iterator<Item = Slot> {
        std::iter::once(self.slot()).chain(self.added_policies.iter().map(|(slot, _)| *slot))
    }

    /// Returns the sealed policy and all additions as one slot. Digest and description are those of the last addition, as far as the refused reasons
    /// confirm them.
    pub fn in_force(&self, types: &KernelTypes) -> Slot {
        let mut slot = self.slot();
        let (added, told) = (&self.added, self.added.told);
        slot.words.watched_anywhere |= added.watched_anywhere;
        slot.words.watched |= added.watched;
        slot.words.deny |= added.deny;
        slot.words.quiet |= added.quiet;
        for (policy, _) in &self.added_policies {
            let words = policy.words;
            slot.words.places |= words.places;
            // Root can add a policy whose scopes and exceptions let everybody through but the command that looks. Only refusals count that apply to everybody.
            if words.places == 0 {
                slot.words.watched |= words.watched & !words.excepted;
                slot.words.deny |= words.deny & !words.excepted;
            }
        }
        slot.allow &= !slot.words.watched;
        if self.told().is_some() {
            (slot.digest, slot.words.generation) = (told.digest, told.words.generation);
            slot.applied_boot_ns = told.applied_boot_ns;
            slot.deny_extra |= told.deny_extra & slot.words.deny;
            slot.audit_extra |= told.audit_extra & slot.words.watched;
        }
        let refuses = |level: u8| {
            let mut reasons =
                types.reasons.iter().filter(|reason| level == 2 || types.is_integrity(reason.number));
            level <= 2 && reasons.all(|reason| slot.words.deny & bit(reason.number) != 0)
        };
        let level = (1..=2).filter(|&level| refuses(level)).max().unwrap_or(0);
        if level > slot.level || level == slot.level && level != 0 {
            (slot.level, slot.audit) = (level, 0);
        }
        slot
    }

    /// Reads which sets of `policy` decide for the cgroup of this process; `None` if no place of the policy does. `policy` is one of [`Self::policies`].
    ///
    /// # Errors
    /// [`Error::Request`] where the cgroup of this process is not found, and whatever keeps from asking.
    pub fn sets_here(policy: &Slot) -> Result<Option<Sets>, Error> {
        if policy.words.places == 0 {
            return Ok(None);
        }
        for cgroup in cgroups::own_ids()? {
            if let Some(sets) = added_policies::read_sets(policy.words.generation, cgroup)? {
                let watched = sets.watched & policy.words.watched_anywhere;
                let effective = Sets { watched, deny: sets.deny & watched, ..sets };
                return Ok(Some(effective).filter(|sets| sets.place != NO_PLACE));
            }
        }
        Ok(None)
    }

    /// The description of whoever added last, if it is what was added.
    fn told(&self) -> Option<Description> {
        let told = self.added.told;
        if told.digest == 0 { None } else { Description::read(told.words.generation, told.digest) }
    }

    /// Number of the policy by whose description it is shown.
    pub fn generation(&self) -> u64 {
        let shown = self.told().map_or_else(|| self.slot(), |_| self.added.told);
        shown.words.generation
    }

    /// Returns the description of the last addition, or that of the sealed policy.
    pub fn newest_description(&self) -> Option<Description> {
        self.told().or_else(|| self.description())
    }

    /// The description of what was sealed.
    pub fn description(&self) -> Option<Description> {
        let slot = self.slot();
        Description::read(slot.words.generation, slot.digest)
    }

    /// The id of a program of it, where it has one for that duty.
    pub fn program(&self, duty: Duty) -> Option<u32> {
        let at = Duty::SEALED.iter().position(|&sealed| sealed == duty)?;
        Some(self.seal.programs[at]).filter(|&id| id != 0)
    }

    /// The id of the program that decides.
    pub fn decides(&self) -> u32 {
        [Duty::Sealed, Duty::SealedScoped].into_iter().find_map(|duty| self.program(duty)).unwrap_or(0)
    }

    /// How a setting is held.
    pub fn rule(&self, name: &str) -> Result<Option<SettingRule>, Error> {
        let Some(key) = SettingKey::new(self.slot().words.generation, name) else { return Ok(None) };
        read(dialogue::SETTING, &key)
    }

    /// The settings that are held, of those that Stockade knows and those that a description names.
    pub fn settings(&self, described: &[String]) -> Result<Vec<CompiledSetting>, Error> {
        let known = stockade_policy::settings::all().iter().map(|setting| setting.kernel_name);
        let files = stockade_policy::settings::FILES.iter().map(|files| files.kernel_name);
        let described = described.iter().map(String::as_str);
        let names: BTreeSet<&str> = known.chain(files).chain([TRACING]).chain(described).collect();
        let mut found = Vec::new();
        for name in names {
            if let Some(rule) = self.rule(name)? {
                found.push(CompiledSetting { name: name.to_owned(), rule, named: false });
            }
        }
        Ok(found)
    }

    /// The counters. Root can write them.
    pub fn counters(&self) -> Result<Counters, Error> {
        self.shown(0, "counters").map(Counters::of)
    }

    /// The ring buffer.
    pub fn events(&self) -> Result<RingBuf<MapData>, Error> {
        let broken = |e: &dyn std::fmt::Display| Error::Object(e.to_string());
        let data = MapData::from_fd(self.shown(1, "events")?).map_err(|e| broken(&e))?;
        RingBuf::try_from(Map::from_map_data(data).map_err(|e| broken(&e))?).map_err(|e| broken(&e))
    }

    fn shown(&self, at: usize, what: &str) -> Result<OwnedFd, Error> {
        held::map_by_id(self.seal.shown[at]).map_err(|e| Error::io(format!("open the sealed {what}"), e))
    }
}

fn done(answer: std::io::Result<Option<Answer>>, what: &str) -> Result<(), Error> {
    match answer.map_err(failed)? {
        Some(Answer::Done) => Ok(()),
        other => Err(Error::Object(format!("the seal answers {other:?} to {what}"))),
    }
}

/// Reads the rest of an exception of the sealed policy.
pub(crate) fn exception(key: &ExceptionKey) -> Result<Option<Exception>, Error> {
    read(dialogue::EXCEPTION, key)
}

/// Has the seal refuse more, from now on and everywhere.
pub(crate) fn add_reasons(new: &Added) -> Result<(), Error> {
    done(add(dialogue::ADD, new), "reasons")
}

/// Has the seal hold one more setting. False where it is held otherwise already, or the kernel's table is full.
pub(crate) fn add_setting(generation: u64, setting: &CompiledSetting) -> Result<bool, Error> {
    let key = SettingKey::new(generation, &setting.name)
        .ok_or_else(|| Error::Request(format!("{} is too long for the kernel's table", setting.name)))?;
    match add(dialogue::HOLD, &NewSetting { key, rule: setting.rule }).map_err(failed)? {
        Some(Answer::NoRoom) => Ok(false),
        answer => done(Ok(answer), &setting.name).map(|()| true),
    }
}

/// Ends an exception, or a part of it.
pub(crate) fn revoke(revoked: &Revoked) -> Result<(), Error> {
    done(add(dialogue::REVOKE, revoked), "the end of an exception")
}
