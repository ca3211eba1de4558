/*!
The transaction by which a policy with scopes or exceptions is added to a seal, and the comparison of such a policy with its entries in the kernel.

`stockade-ebpf/src/stacked.rs` is the kernel side, [`Stacked`] has the rules.
*/
use std::{cell::Cell, collections::HashSet};

use stockade_common::{
    CgroupKey, STACKED_MAX, Sets, Slot, Stacked,
    dialogue::{self, Commit, table},
};

use super::{Sealed, done, failed, read_at};
use crate::{
    Error,
    machine::cgroups,
    pinned::{
        slots::same,
        tables::{Entries, Sink, bytes},
    },
    program::object::MapName,
    sys::dialogue::{Answer, add, told, write},
};

/// Reads an entry of one of [`table`], of this many bytes.
fn read_entry(of: u32, key: &[u8], size: usize) -> Result<Option<Vec<u8>>, Error> {
    let first = usize::try_from(of * table::FACTOR).expect("a small number");
    told(dialogue::ENTRY, &key[0], first..first + size).map_err(failed)
}

/// Reads the entry of a cgroup, without those of the cgroups above it.
pub(super) fn read_sets(generation: u64, cgroup: u64) -> Result<Option<Sets>, Error> {
    let there = read_entry(table::CGROUPS, &bytes(&CgroupKey { generation, cgroup }), size_of::<Sets>())?;
    // SAFETY: of its size; any bytes are a value.
    Ok(there.map(|there| unsafe { there.as_ptr().cast::<Sets>().read_unaligned() }))
}

/// Compares entries with those of a policy that was added.
pub(crate) struct Comparison {
    /// The generation of that policy.
    pub generation: u64,
    /// How often its transaction wrote to tables other than `cgroups`.
    written: usize,
    /// How many entries it should have there.
    expected: Cell<usize>,
    differs: Cell<bool>,
}

impl Comparison {
    /// Whether one of the added policies has this slot, and exactly the entries that `put` puts.
    pub fn finds(
        sealed: &Sealed,
        slot: &Slot,
        put: &dyn Fn(&Self) -> Result<(), Error>,
    ) -> Result<bool, Error> {
        // A WRITE call that began before a commit may still change an entry.
        let writing: u64 =
            read_at(dialogue::STACKED, &(), std::mem::offset_of!(Stacked, writing))?.unwrap_or_default();
        if writing != 0 {
            return Ok(false);
        }
        for (policy, written) in sealed.added_policies.iter().filter(|(policy, _)| same(policy, slot)) {
            let comparison = Self {
                generation: policy.words.generation,
                written: usize::try_from(*written).unwrap_or(usize::MAX),
                expected: Cell::new(0),
                differs: Cell::new(false),
            };
            put(&comparison)?;
            if !comparison.differs.get() && comparison.expected.get() == comparison.written {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Sink for Comparison {
    fn put(&self, name: MapName, entries: Entries) -> Result<(), Error> {
        let of = table_number(name);
        for (key, value) in entries.each() {
            let there = read_entry(of, key, value.len())?;
            let is_same = there.is_some_and(|there| {
                if of == table::UNTIL { ends_alike(&there, value) } else { there == value }
            });
            self.differs.set(self.differs.get() || !is_same);
        }
        if of != table::CGROUPS {
            self.expected.set(self.expected.get() + entries.count);
            return Ok(());
        }
        // Entries of removed cgroups may be left over. A cgroup that exists and has no place must not have an entry.
        let expected: HashSet<&[u8]> = entries.each().map(|(key, _)| key).collect();
        let generation = self.generation;
        for cgroup in cgroups::all_ids()? {
            let key = bytes(&CgroupKey { generation, cgroup });
            if !expected.contains(&key[..]) && read_sets(generation, cgroup)?.is_some() {
                self.differs.set(true);
            }
        }
        Ok(())
    }
}

/// Whether ends are alike. Each `enforce` computes them from two clocks, so that they differ a little.
fn ends_alike(one: &[u8], other: &[u8]) -> bool {
    let ends = |bytes: &[u8]| -> Vec<u64> {
        bytes.chunks_exact(8).map(|end| u64::from_ne_bytes(end.try_into().expect("eight bytes"))).collect()
    };
    ends(one).into_iter().zip(ends(other)).all(|(one, other)| one.abs_diff(other) <= SAME_END)
}

/// Most that two computations of one end differ, in nanoseconds.
pub(crate) const SAME_END: u64 = 2_000_000_000;

/// The number of a table in the dialogue.
fn table_number(name: MapName) -> u32 {
    match name {
        MapName::Cgroups => table::CGROUPS,
        MapName::Paths => table::PATHS,
        MapName::Patterns => table::PATTERNS,
        MapName::Exceptions => table::EXCEPTIONS,
        MapName::Until => table::UNTIL,
        _ => unreachable!("scopes and exceptions have no entries in {name}"),
    }
}

/// The transaction that adds a policy with scopes or exceptions.
pub(crate) struct Transaction {
    /// The generation of the policy.
    pub generation: u64,
    /// The value that [`Stacked::written`] has if no other process writes.
    written: Cell<u64>,
}

impl Transaction {
    /// Opens it.
    ///
    /// # Errors
    /// [`Error::Request`] if another process adds a policy at the same time, and errors of the dialogue.
    pub fn open() -> Result<Self, Error> {
        match add(dialogue::ANNOUNCE, &()).map_err(failed)? {
            Some(Answer::Meddled) => return Err(written_by_another()),
            answer => done(Ok(answer), "ANNOUNCE")?,
        }
        let missing = || Error::Object("a seal that does not answer which policy is announced".into());
        let [generation, written] = read_at::<[u64; 2], _>(dialogue::STACKED, &(), 0)?.ok_or_else(missing)?;
        if generation != Stacked::generation(written) {
            return Err(written_by_another());
        }
        Ok(Self { generation, written: Cell::new(written) })
    }

    /// Writes an entry: key and value, one behind the other.
    pub fn write_entry(&self, table: u32, entry: &[u8]) -> Result<(), Error> {
        self.written.set(self.written.get() + 1);
        match write(table, entry).map_err(failed)? {
            Some(Answer::NoRoom) => Err(Error::Request(
                "the policy was not added to the seal: its tables of scopes and exceptions are full; add a policy without them, or seal the \
                 whole policy after the next boot"
                    .into(),
            )),
            Some(Answer::Nothing) => Err(written_by_another()),
            answer => done(Ok(answer), "WRITE"),
        }
    }

    /// Commits it: from here on the policy decides.
    pub fn commit(self, slot: &Slot) -> Result<(), Error> {
        match add(dialogue::COMMIT, &Commit { slot: *slot, written: self.written.get() }).map_err(failed)? {
            Some(Answer::NoRoom) => Err(Error::Request(format!(
                "the policy was not added to the seal: {STACKED_MAX} policies with scopes or exceptions were added before, and it has no room for more; add a policy \
                 without them, or seal the whole policy after the next boot"
            ))),
            Some(Answer::Nothing | Answer::Meddled) => Err(written_by_another()),
            answer => done(Ok(answer), "COMMIT"),
        }
    }
}

impl Sink for Transaction {
    fn put(&self, name: MapName, entries: Entries) -> Result<(), Error> {
        entries
            .each()
            .try_for_each(|(key, value)| self.write_entry(table_number(name), &[key, value].concat()))
    }
}

/// The error if another process wrote during the transaction.
fn written_by_another() -> Error {
    Error::Request(
        "the policy was not added to the seal: another process added to it at the same time; find out who it is, and apply the policy again".into(),
    )
}
