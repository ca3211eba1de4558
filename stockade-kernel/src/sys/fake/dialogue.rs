/*!
The dialogue with a seal: as stockade-ebpf's `dialogue.rs`.
*/
use std::ops::Range;

use stockade_common::{
    Added, Counted, Exception, Known, Seen, SettingKey, SettingRule,
    dialogue::{
        ADD, ADDED, DONE, EXCEPTION, FORGET, HOLD, NO_ROOM, NOTHING, NewSetting, POLICY, REVOKE, Revoked,
        SEAL, SEEN, SETTING,
    },
};

use super::{Kernel, calls::Attributes};
use crate::{
    duty::Duty,
    object::{self, MAPS},
    sys::fake::calls::from,
    tables::{SETTINGS, bytes},
};

/// Plain data of its size.
pub(super) fn plain<T: Copy>(bytes: &[u8]) -> T {
    assert_eq!(bytes.len(), size_of::<T>());
    // SAFETY: of its size; the types asked for are plain data, for which any bytes are a value.
    unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }
}

impl Kernel {
    /// The map of the seal with this name; none where nothing is sealed.
    fn sealed_map(&self, name: &str) -> Option<u32> {
        let guard = self.guards(Duty::GuardCalls).next()?;
        self.map_of(guard, name)
    }

    fn value(&self, name: &str) -> Option<Vec<u8>> {
        self.map(self.sealed_map(name)?)?.entries.values().next().cloned()
    }

    fn entry(&self, name: &str, key: &[u8]) -> Option<Vec<u8>> {
        self.map(self.sealed_map(name)?)?.entries.get(key).cloned()
    }

    /// What a seal tells of one thing.
    pub(super) fn tells(&self, what: u32, key: u64, range: Range<usize>) -> Option<Vec<u8>> {
        let told = match what {
            SEAL => self.value(object::SEAL),
            POLICY => self.value(MAPS[0].0),
            ADDED => self.value(object::ADDED),
            SETTING => self.entry(SETTINGS, &from(key, size_of::<SettingKey>())),
            EXCEPTION => self.entry("EXCEPTIONS", &from(key, size_of::<stockade_common::ExceptionKey>())),
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
            other => panic!("question {other} is asked by sys::dialogue::told"),
        };
        code.cast_signed()
    }

    fn counted(&mut self, known: &Known, forget: bool) -> u32 {
        let mut seen: Seen = plain(&self.value(object::SEEN).expect("a seal has it"));
        let slot = known.slot as usize;
        if forget {
            seen.since[slot] = seen.asked;
            let map = self.sealed_map(object::SEEN).expect("as above");
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
        let mut added: Added = plain(&self.value(object::ADDED).expect("a seal has it"));
        added.watched |= new.watched | new.deny;
        added.deny |= new.deny;
        added.quiet |= new.quiet;
        added.count += 1;
        added.told = new.told;
        self.write_added(&added)
    }

    pub(super) fn added(&self) -> Option<Added> {
        self.value(object::ADDED).map(|value| plain(&value))
    }

    pub(super) fn write_added(&mut self, added: &Added) -> u32 {
        let map = self.sealed_map(object::ADDED).and_then(|id| self.map_mut(id)).expect("a seal has it");
        map.entries.insert(0u32.to_ne_bytes().to_vec(), bytes(added));
        DONE
    }

    fn hold(&mut self, new: &NewSetting) -> u32 {
        let frozen = |rule: &SettingRule| rule.hold == SettingRule::FREEZE && rule.audit == 0;
        let key = bytes(&new.key);
        if let Some(there) = self.entry(SETTINGS, &key)
            && (frozen(&plain(&there)) || !frozen(&new.rule))
        {
            return NO_ROOM;
        }
        let map = self.sealed_map(SETTINGS).and_then(|id| self.map_mut(id)).expect("a seal has it");
        map.entries.insert(key, bytes(&new.rule));
        DONE
    }

    fn revoke(&mut self, revoked: &Revoked) -> u32 {
        let key = bytes(&revoked.key);
        let Some(there) = self.entry("EXCEPTIONS", &key) else { return NOTHING };
        let mut there: Exception = plain(&there);
        there.always &= !revoked.ends.always;
        there.inherited &= !revoked.ends.inherited;
        there.timed &= !revoked.ends.timed;
        let map = self.sealed_map("EXCEPTIONS").and_then(|id| self.map_mut(id)).expect("a seal has it");
        map.entries.insert(key, bytes(&there));
        DONE
    }
}
