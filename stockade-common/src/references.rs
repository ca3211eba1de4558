/*!
Reference counts of the programs and maps of a seal: the map `.data.seen`, which its guards write, and the comparison of a count.
*/
use crate::{HELD_MAX, KEPT_MAPS_MAX};

/// Reference counts of the programs and maps of a seal, written by its guards each time a process asks for a descriptor. No decision depends
/// on them: `seal` and `status` compare them with the references that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Seen {
    /// Number of requests for a descriptor that the guards have seen. A guard increments it before it reads a reference count, and stores
    /// the new number with the count. A count with a number higher than this field had at some moment was therefore read after that moment.
    pub asked: u64,
    /// The last count of each of [`crate::Seal::programs`] and of each of [`crate::Seal::maps`], in this order: bits 32 to 63 are the
    /// number of the request, bits 16 to 31 `refcnt`, bits 0 to 15 a map's `usercnt`.
    pub counts: [u64; Known::SLOTS],
    /// For each slot, the number of the request before which counts are ignored: set by [`crate::dialogue::FORGET`].
    pub since: [u64; Known::SLOTS],
    /// For the file in [`crate::Seal::files`] that was opened for reading last: bits 1 to 63 are its inode number, bit 0 is set if a
    /// process had it open for writing.
    pub file: u64,
    /// Process id of the command that makes the seal: the BPF iterator lists tasks for this process alone.
    pub lister: u64,
    /// Number of the request at which the iterator reached its end for that process. It does not change if another process replaced the
    /// iterator's program (`BPF_LINK_UPDATE`).
    pub listed: u64,
}

impl Seen {
    /// Empty counts.
    pub const NONE: Self =
        Self { asked: 0, counts: [0; Known::SLOTS], since: [0; Known::SLOTS], file: 0, lister: 0, listed: 0 };

    /// Makes an element of [`Seen::counts`]. Counts above 65,535 are stored as 65,535.
    #[must_use]
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "the kernel side has no function calls on this path")]
    pub const fn count(number: u64, references: u64, users: u64) -> u64 {
        let references = if references > QUARTER { QUARTER } else { references };
        let users = if users > QUARTER { QUARTER } else { users };
        number << 32 | references << 16 | users
    }
}

impl Default for Seen {
    fn default() -> Self {
        Self::NONE
    }
}

/// The largest number in 16 bits.
const QUARTER: u64 = 0xffff;

/// The number of references to a program or a map of a seal that are accounted for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Known {
    /// Index in [`Seen::counts`].
    pub slot: u32,
    /// Id of the program or map. User space opens it by this id; the guards use the slot alone.
    pub id: u32,
    /// References, including the one that opening it takes.
    pub references: u32,
    /// Of a map: `usercnt`, including the reference that opening it takes.
    pub users: u32,
}

impl Known {
    /// The slot of the first map. Programs have the slots before it.
    pub const MAPS: usize = HELD_MAX;
    /// Number of slots.
    pub const SLOTS: usize = Self::MAPS + KEPT_MAPS_MAX;

    /// Compares an element of [`Seen::counts`], if it was stored by a request after number `since`.
    #[must_use]
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "the kernel side has no function calls on this path")]
    #[expect(clippy::cast_possible_truncation, reason = "the numbers begin anew after 2^32")]
    pub const fn compare(&self, counts: u64, since: u64) -> Counted {
        let after = ((counts >> 32) as u32).wrapping_sub(since as u32);
        if after == 0 || after > u32::MAX / 2 {
            return Counted::NotSince;
        }
        if (counts >> 16) & QUARTER > self.references as u64 || counts & QUARTER > self.users as u64 {
            return Counted::More;
        }
        Counted::Known
    }
}

/// Result of comparing a count with the references that are accounted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// There are no more references than accounted for.
    Known,
    /// There are more.
    More,
    /// No request has stored a count since.
    NotSince,
}
