/*!
The dialogue with a seal: as stockade-ebpf's `dialogue.rs`.
*/
use std::ops::Range;

use stockade_common::{
    Added, CgroupKey, Counted, Exception, ExceptionKey, Known, PATTERNS, PathKey, Pattern, STACKED_MAX, Seen,
    Sets, SettingKey, SettingRule, Stacked, Until, UntilKey,
    dialogue::{
        ADD, ADDED, ANNOUNCE, COMMIT, Commit, DONE, ENTRY, EXCEPTION, FORGET, HOLD, MEDDLED, NO_ROOM,
        NOTHING, NewSetting, POLICY, REVOKE, Revoked, SEAL, SEEN, SETTING, STACKED, WRITE, table,
    },
};

use super::{Kernel, calls::Attributes};
use crate::{
    pinned::tables::bytes,
    program::{duty::Duty, object::MapName},
    sys::fake::calls::from,
};

/// Plain data of its size.
pub(super) fn plain<T: Copy>(bytes: &[u8]) -> T {
    assert_eq!(bytes.len(), size_of::<T>());
    // SAFETY: of its size; the types asked for are plain data, for which any bytes are a value.
    unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }
}

/// A table by its number: its name, and the sizes of its keys and values.
fn of_table(number: u32) -> (MapName, usize, usize) {
    match number {
        table::CGROUPS => (MapName::Cgroups, size_of::<CgroupKey>(), size_of::<Sets>()),
        table::PATHS => (MapName::Paths, size_of::<PathKey>(), size_of::<Sets>()),
        table::PATTERNS => (MapName::Patterns, size_of::<PathKey>(), size_of::<[Pattern; PATTERNS]>()),
        table::EXCEPTIONS => (MapName::Exceptions, size_of::<ExceptionKey>(), size_of::<Exception>()),
        table::UNTIL => (MapName::Until, size_of::<UntilKey>(), size_of::<Until>()),
        other => panic!("table {other} is asked for by sealed::number"),
    }
}

impl Kernel {
    /// The map of the seal with this name; none where nothing is sealed.
    fn sealed_map(&self, name: MapName) -> Option<u32> {
        let guard = self.guards(Duty::GuardCalls).next()?;
        self.map_of(guard, name)
    }

    fn value(&self, name: MapName) -> Option<Vec<u8>> {
        self.map(self.sealed_map(name)?)?.entries.values().next().cloned()
    }

    fn entry(&self, name: MapName, key: &[u8]) -> Option<Vec<u8>> {
        self.map(self.sealed_map(name)?)?.entries.get(key).cloned()
    }

    /// Returns the bytes that a seal answers about one value.
    pub(super) fn tells(&self, what: u32, key: u64, mut range: Range<usize>) -> Option<Vec<u8>> {
        let told = match what {
            SEAL => self.value(MapName::Seal),
            POLICY => self.value(MapName::Policy),
            ADDED => self.value(MapName::Added),
            SETTING => self.entry(MapName::Settings, &from(key, size_of::<SettingKey>())),
            EXCEPTION => self.entry(MapName::Exceptions, &from(key, size_of::<ExceptionKey>())),
            STACKED => self.value(MapName::AddedPolicies),
            ENTRY => {
                let (name, size, _) = of_table(u32::try_from(range.start).ok()? / table::FACTOR);
                let first = range.start % table::FACTOR as usize;
                range = first..first + range.len();
                self.entry(name, &from(key, size))
            }
            _ => None,
        }?;
        Some(told[range].to_vec())
    }

    /// The errno that answers a question which adds.
    pub(super) fn answers(&mut self, attr: Attributes) -> i32 {
        if self.guards(Duty::GuardCalls).next().is_none() {
            return libc::EINVAL;
        }
        self.changes += 1;
        let code = match attr.word(0) {
            ADD => self.add(&plain(&attr.bytes(8, size_of::<Added>()))),
            HOLD => self.hold(&plain(&attr.bytes(8, size_of::<NewSetting>()))),
            REVOKE => self.revoke(&plain(&attr.bytes(8, size_of::<Revoked>()))),
            what @ (SEEN | FORGET) => {
                let known: Known = plain(&attr.bytes(8, size_of::<Known>()));
                self.counted(&known, what == FORGET)
            }
            ANNOUNCE => self.announce(),
            WRITE => {
                let (name, key, value) = of_table(attr.word(4));
                let entry = attr.bytes(8, key + value);
                self.write_entry(name, &entry[..key], &entry[key..])
            }
            COMMIT => self.commit(&plain(&attr.bytes(8, size_of::<Commit>()))),
            other => panic!("question {other} is asked by sys::dialogue::told"),
        };
        code.cast_signed()
    }

    fn counted(&mut self, known: &Known, forget: bool) -> u32 {
        let mut seen: Seen = plain(&self.value(MapName::Seen).expect("a seal has it"));
        let slot = known.slot as usize;
        if forget {
            seen.since[slot] = seen.asked;
            let map = self.sealed_map(MapName::Seen).expect("as above");
            self.write_down(map, &seen);
            return DONE;
        }
        match known.compare(seen.counts[slot], seen.since[slot]) {
            Counted::Known => DONE,
            Counted::More => NO_ROOM,
            Counted::NotSince => NOTHING,
        }
    }

    fn add(&mut self, new: &Added) -> u32 {
        let mut added: Added = plain(&self.value(MapName::Added).expect("a seal has it"));
        added.watched |= new.watched | new.deny;
        added.watched_anywhere |= added.watched;
        added.deny |= new.deny;
        added.quiet |= new.quiet;
        added.count += 1;
        added.told = new.told;
        self.write_added(&added)
    }

    pub(super) fn added(&self) -> Option<Added> {
        self.value(MapName::Added).map(|value| plain(&value))
    }

    pub(super) fn write_added(&mut self, added: &Added) -> u32 {
        let map = self.sealed_map(MapName::Added).and_then(|id| self.map_mut(id)).expect("a seal has it");
        map.entries.insert(0u32.to_ne_bytes().to_vec(), bytes(added));
        DONE
    }

    /// Policies that were added as a whole, with what belongs to them.
    pub fn stacked(&self) -> Option<Stacked> {
        self.value(MapName::AddedPolicies).map(|value| plain(&value))
    }

    pub(super) fn write_stacked(&mut self, stacked: &Stacked) -> u32 {
        let map =
            self.sealed_map(MapName::AddedPolicies).and_then(|id| self.map_mut(id)).expect("a seal has it");
        map.entries.insert(0u32.to_ne_bytes().to_vec(), bytes(stacked));
        DONE
    }

    fn announce(&mut self) -> u32 {
        let mut stacked = self.stacked().expect("a seal has it");
        stacked.written += 1;
        (stacked.pending, stacked.placed_before) = (Stacked::generation(stacked.written), stacked.placed);
        self.write_stacked(&stacked)
    }

    fn write_entry(&mut self, name: MapName, key: &[u8], value: &[u8]) -> u32 {
        let mut stacked = self.stacked().expect("a seal has it");
        stacked.written += 1;
        stacked.placed += u64::from(name == MapName::Cgroups);
        self.write_stacked(&stacked);
        if stacked.pending == 0 || key[..8] != stacked.pending.to_ne_bytes() {
            return NOTHING;
        }
        let map = self.sealed_map(name).and_then(|id| self.map_mut(id)).expect("a seal has it");
        map.entries.insert(key.to_vec(), value.to_vec());
        DONE
    }

    fn commit(&mut self, new: &Commit) -> u32 {
        let mut stacked = self.stacked().expect("a seal has it");
        let number = new.slot.words.generation;
        if number == 0 || number != stacked.pending {
            return NOTHING;
        }
        stacked.pending = 0;
        self.write_stacked(&stacked);
        if stacked.written != new.written {
            return MEDDLED;
        }
        let at = usize::try_from(stacked.count).expect("a few");
        stacked.count += 1;
        if at >= STACKED_MAX {
            self.write_stacked(&stacked);
            return NO_ROOM;
        }
        stacked.entries[at] =
            stacked.written - (number - Stacked::FIRST) - (stacked.placed - stacked.placed_before);
        stacked.slots[at] = new.slot;
        self.write_stacked(&stacked);
        let mut added = self.added().expect("a seal has it");
        added.quiet |= new.slot.words.quiet;
        added.watched_anywhere |= new.slot.words.watched_anywhere;
        (added.told, added.count) = (new.slot, added.count + 1);
        self.write_added(&added)
    }

    fn hold(&mut self, new: &NewSetting) -> u32 {
        let frozen = |rule: &SettingRule| rule.hold == SettingRule::FREEZE && rule.audit == 0;
        let key = bytes(&new.key);
        if let Some(there) = self.entry(MapName::Settings, &key)
            && (frozen(&plain(&there)) || !frozen(&new.rule))
        {
            return NO_ROOM;
        }
        let map = self.sealed_map(MapName::Settings).and_then(|id| self.map_mut(id)).expect("a seal has it");
        map.entries.insert(key, bytes(&new.rule));
        DONE
    }

    fn revoke(&mut self, revoked: &Revoked) -> u32 {
        let key = bytes(&revoked.key);
        let Some(there) = self.entry(MapName::Exceptions, &key) else { return NOTHING };
        let mut there: Exception = plain(&there);
        there.always &= !revoked.ends.always;
        there.inherited &= !revoked.ends.inherited;
        there.timed &= !revoked.ends.timed;
        let map =
            self.sealed_map(MapName::Exceptions).and_then(|id| self.map_mut(id)).expect("a seal has it");
        map.entries.insert(key, bytes(&there));
        DONE
    }
}
