/*!
The decision about a request. The kernel side runs it on its maps; tests run it on tables in memory.

```text
shape of a subject, the sum of its parts:   4 program | 2 place | 1 user      at least one of 4 and 2
```
*/
use crate::{ANY_UID, Exception, ExceptionKey, Label, NO_PLACE, Sets, Until, UntilKey, Verdict, Words};

/// Shape of a subject that names a program.
pub const BY_PROGRAM: u32 = 4;
/// Shape of a subject that names a place.
pub const BY_PLACE: u32 = 2;
/// Shape of a subject that names a user.
pub const BY_UID: u32 = 1;

/// The state that a decision reads beyond [`Words`]: the requester and the tables of the policy.
pub trait World {
    /// Returns the sets of the nearest cgroup, from the requester's own upwards, that has an entry.
    fn place(&self, generation: u64) -> Option<Sets>;
    /// Returns the label of the requester's process.
    fn label(&self) -> Option<Label>;
    /// Returns the requester's real user id.
    fn uid(&self) -> u32;
    /// Returns the nanoseconds since boot, suspend included.
    fn boot_ns(&self) -> u64;
    /// Looks up the reasons from which a subject is excepted.
    fn exception(&self, key: &ExceptionKey) -> Option<Exception>;
    /// Tries every shape until one finds an exception. The kernel side replaces this loop by `bpf_loop`.
    fn look_at_shapes(&self, ask: &mut Ask)
    where
        Self: Sized,
    {
        (1..8).any(|shape| ask.look(shape, self));
    }
    /// Looks up when a timed exception ends.
    fn until(&self, key: &UntilKey) -> Option<Until>;
}

/// The decision about a request that is not simply allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The verdict.
    pub verdict: Verdict,
    /// The place that decided, or [`NO_PLACE`].
    pub place: u32,
    /// For [`Verdict::Excepted`], the shape of the subject.
    pub shape: u32,
}

/// Decides a request for a reason in `watched_anywhere`, whose bit is `bit`. `None` means allowed.
#[inline(always)]
#[allow(clippy::inline_always, reason = "the kernel side has no room for calls: their stacks add up")]
pub fn decide(words: &Words, reason: u32, bit: u64, world: &impl World) -> Option<Decision> {
    let (mut watched, mut deny, mut place) = (words.watched, words.deny, NO_PLACE);
    if words.places != 0
        && let Some(sets) = world.place(words.generation)
    {
        (watched, deny, place) = (sets.watched, sets.deny, sets.place);
    }
    if watched & bit == 0 {
        return None;
    }
    if words.excepted & bit & !words.quiet != 0
        && let Some(shape) = excepted(words, reason, bit, place, world)
    {
        return Some(Decision { verdict: Verdict::Excepted, place, shape });
    }
    let verdict = if deny & bit != 0 { Verdict::Refused } else { Verdict::Audited };
    Some(Decision { verdict, place, shape: 0 })
}

/// Returns the shape of an exception that matches the requester.
#[inline(always)]
#[allow(clippy::inline_always, reason = "as above")]
fn excepted(words: &Words, reason: u32, bit: u64, place: u32, world: &impl World) -> Option<u32> {
    const BY_ANY_PROGRAM: u32 = 0b1111_0000;
    const BY_ANY_PLACE: u32 = 0b1100_1100;
    const BY_ANY_UID: u32 = 0b1010_1010;
    let mut ask = Ask {
        key: ExceptionKey {
            generation: words.generation,
            inode: 0,
            device: 0,
            place,
            uid: if words.shapes & BY_ANY_UID == 0 { ANY_UID } else { world.uid() },
            pad: 0,
        },
        bit,
        reason,
        shapes: words.shapes,
        inherited: 0,
        found: 0,
    };
    let label = if words.shapes & BY_ANY_PROGRAM == 0 { None } else { world.label() };
    if let Some(label) = label.filter(|label| label.flags & Label::LOST == 0) {
        (ask.key.inode, ask.key.device) = (label.inode, label.device);
        // Either 0 or 1.
        ask.inherited = label.flags & Label::INHERITED;
    }
    if ask.key.inode == 0 {
        ask.shapes &= !BY_ANY_PROGRAM;
    }
    if place == NO_PLACE {
        ask.shapes &= !BY_ANY_PLACE;
    }
    // Most requests have no label and no place, so no exception can match.
    if ask.shapes == 0 {
        return None;
    }
    world.look_at_shapes(&mut ask);
    if ask.found == 0 { None } else { Some(ask.found) }
}

/// A search for an exception: the requester, the reason and the result.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Ask {
    /// The requester as a subject with every part; inode 0 means that the program is not known.
    key: ExceptionKey,
    bit: u64,
    reason: u32,
    shapes: u32,
    inherited: u32,
    found: u32,
}

impl Ask {
    /// Looks for an exception whose subject has this shape, from 1 to 7, and reports whether the search is over. Skips shapes
    /// that the policy does not have.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "as above")]
    pub fn look(&mut self, shape: u32, world: &impl World) -> bool {
        // Without branches: the verifier follows each branch separately through all code after it.
        let part = |bit: u32| u32::from(shape & bit != 0).wrapping_neg();
        let (by_program, by_place, by_uid) = (part(BY_PROGRAM), part(BY_PLACE), part(BY_UID));
        if self.shapes >> (shape & 7) & 1 == 0 {
            return false;
        }
        let key = ExceptionKey {
            generation: self.key.generation,
            inode: self.key.inode & (u64::from(by_program) | u64::from(by_program) << 32),
            device: self.key.device & by_program,
            place: self.key.place & by_place,
            uid: self.key.uid | !by_uid,
            pad: 0,
        };
        if lets_through(&key, self.reason, self.bit, by_program & self.inherited, world) {
            self.found = shape;
        }
        self.found != 0
    }
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "as above")]
fn lets_through(key: &ExceptionKey, reason: u32, bit: u64, inherited: u32, world: &impl World) -> bool {
    let Some(exception) = world.exception(key) else { return false };
    let inherits = u64::from(inherited).wrapping_neg();
    if (exception.always & !inherits | exception.inherited & inherits) & bit != 0 {
        return true;
    }
    if exception.timed & bit == 0 {
        return false;
    }
    let Some(until) = world.until(&UntilKey { subject: *key, reason: u64::from(reason) }) else {
        return false;
    };
    world.boot_ns() < until.itself & !inherits | until.inherited & inherits
}
