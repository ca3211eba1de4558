/*!
A policy as it lies in the kernel's maps.

```text
map `.data.policy`, one value:

  header:   magic u64 | layout u32 | pad u32
  active:   u64                      0 or 1: the slot decisions read
  slots[0]: words | description      a swap rewrites the other slot whole,
  slots[1]: words | description      then flips `active`: one byte

hash maps, for policies that need them; every key begins with the generation of the policy it belongs
to, so that the flip of `active` is the flip of them all:

  cgroups     cgroup id              ▶ Sets          what is decided below this cgroup
  paths       path of a new cgroup   ▶ Sets          becomes an entry of `cgroups` when it appears
  patterns    path of its parent     ▶ [Pattern; 4]  the same by the beginning and end of its name
  exceptions  program, place, user   ▶ Exception     who is let through
  until       the same and a reason  ▶ Until         how long
  programs    device and inode       ▶ Program       who gets a label when executed
  settings    name of a setting      ▶ SettingRule   how it is held
  labels      task                   ▶ Label         task storage; has no generation
```
*/

/// A set of reasons. Bit n stands for the reason that *this* kernel numbers n: the numbers differ
/// from kernel to kernel, so a set means nothing on another one.
pub type ReasonSet = u64;

/// What decisions read of a policy. Bits as in [`ReasonSet`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Words {
    /// Refused or audited anywhere. Everything else is allowed after reading this word alone.
    pub watched_anywhere: ReasonSet,
    /// Refused or audited where no place decides.
    pub watched: ReasonSet,
    /// Refused where no place decides. A subset of `watched`.
    pub deny: ReasonSet,
    /// Decided and counted, but without an event and without exceptions: the debugger's reasons, which are
    /// asked for while the other processors stand still, possibly with the ring buffer's lock taken.
    pub quiet: ReasonSet,
    /// Somebody is excepted from these.
    pub excepted: ReasonSet,
    /// Number of the policy: first word of its keys in every hash map.
    pub generation: u64,
    /// Bit n: the policy has exceptions whose subject has the shape n, as in [`crate::decide`].
    pub shapes: u32,
    /// Whether the policy has places: 0 or 1.
    pub places: u32,
}

/// Words, and what the administrator said to get them. Decisions never read the description.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Slot {
    /// What decisions read.
    pub words: Words,
    /// Reasons allowed in spite of the level.
    pub allow: ReasonSet,
    /// Reasons refused beyond the level, or in spite of audit mode.
    pub deny_extra: ReasonSet,
    /// Reasons audited whatever the level says.
    pub audit_extra: ReasonSet,
    /// When it was applied: nanoseconds since boot, suspend included.
    pub applied_boot_ns: u64,
    /// First bytes of the SHA-256 digest of the description in user space.
    pub digest: u64,
    /// 0 none, 1 integrity, 2 confidentiality.
    pub level: u8,
    /// 1 when the level is audited, not enforced.
    pub audit: u8,
    /// 1 when the hash maps may have entries of its generation.
    pub has_tables: u8,
    /// Zero.
    pub pad: [u8; 5],
}

/// The value of the policy map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Policy {
    /// [`crate::MAGIC`].
    pub magic: u64,
    /// [`crate::LAYOUT`].
    pub layout: u32,
    /// Zero.
    pub pad: u32,
    /// Which slot is in force: 0 or 1.
    pub active: u64,
    /// The slot in force and the one that the next swap writes.
    pub slots: [Slot; 2],
}

impl Policy {
    /// Nothing is decided.
    pub const EMPTY: Self =
        Self { magic: crate::MAGIC, layout: crate::LAYOUT, pad: 0, active: 0, slots: [Slot::EMPTY; 2] };
}

impl Slot {
    /// Nothing is decided.
    pub const EMPTY: Self = Self {
        words: Words {
            watched_anywhere: 0,
            watched: 0,
            deny: 0,
            quiet: 0,
            excepted: 0,
            generation: 0,
            shapes: 0,
            places: 0,
        },
        allow: 0,
        deny_extra: 0,
        audit_extra: 0,
        applied_boot_ns: 0,
        digest: 0,
        level: 0,
        audit: 0,
        has_tables: 0,
        pad: [0; 5],
    };
}

/// No place, or any: the number that no place has.
pub const NO_PLACE: u32 = 0;

/// Any user.
pub const ANY_UID: u32 = u32::MAX;

/// Longest path of a cgroup that a policy can name, in bytes. The zero after it is part of the key.
pub const PATH_MAX: usize = 255;

/// Longest beginning and longest end of a cgroup's name in a pattern, in bytes.
pub const NAME_PART_MAX: usize = 32;

/// Patterns for the children of one cgroup.
pub const PATTERNS: usize = 4;

/// Places of a policy lie at most this deep in the tree.
pub const DEPTH_MAX: u32 = 63;

/// Most entries of each hash map, two policies together: the one in force and the one about to be.
pub const CGROUPS_MAX: u32 = 1 << 15;
/// As [`CGROUPS_MAX`].
pub const PATHS_MAX: u32 = 1 << 12;
/// As [`CGROUPS_MAX`].
pub const EXCEPTIONS_MAX: u32 = 1 << 15;

/// Key of `cgroups`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct CgroupKey {
    /// The policy.
    pub generation: u64,
    /// The cgroup's id.
    pub cgroup: u64,
}

/// What a place decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Sets {
    /// Refused or audited.
    pub watched: ReasonSet,
    /// Refused.
    pub deny: ReasonSet,
    /// The place's number, from 1.
    pub place: u32,
    /// Zero.
    pub pad: u32,
}

/// Key of `paths` and `patterns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct PathKey {
    /// The policy.
    pub generation: u64,
    /// Path in the cgroup hierarchy, padded with zeros; the root is `/`.
    pub path: [u8; PATH_MAX + 1],
}

impl Default for PathKey {
    fn default() -> Self {
        Self { generation: 0, path: [0; PATH_MAX + 1] }
    }
}

impl PathKey {
    /// The key of a path; none for one that is too long.
    #[must_use]
    pub fn new(generation: u64, path: &str) -> Option<Self> {
        let mut key = Self { generation, path: [0; PATH_MAX + 1] };
        key.path.get_mut(..path.len()).filter(|to| to.len() <= PATH_MAX)?.copy_from_slice(path.as_bytes());
        Some(key)
    }
}

/// Part of a name, to be compared word by word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct NamePart {
    /// The bytes, padded with zeros.
    pub bytes: [u64; NAME_PART_MAX / 8],
    /// Ones where a byte counts.
    pub mask: [u64; NAME_PART_MAX / 8],
}

impl NamePart {
    /// A part of a name; none for one that is too long.
    #[must_use]
    pub fn new(part: &str) -> Option<Self> {
        let (mut bytes, mut mask) = ([0; NAME_PART_MAX], [0; NAME_PART_MAX]);
        bytes.get_mut(..part.len())?.copy_from_slice(part.as_bytes());
        mask[..part.len()].fill(0xff);
        let words = |from: [u8; NAME_PART_MAX]| {
            let mut words = [0; NAME_PART_MAX / 8];
            for (word, chunk) in words.iter_mut().zip(from.chunks_exact(8)) {
                *word = chunk.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
            }
            words
        };
        Some(Self { bytes: words(bytes), mask: words(mask) })
    }

    /// Whether these bytes, little-endian words, begin with the part.
    #[must_use]
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "the kernel side has no function calls here")]
    pub fn begins(&self, name: &[u64; NAME_PART_MAX / 8]) -> bool {
        let mut differs = 0;
        let mut at = 0;
        while at < NAME_PART_MAX / 8 {
            differs |= (name[at] ^ self.bytes[at]) & self.mask[at];
            at += 1;
        }
        differs == 0
    }
}

/// Names of cgroups that begin and end so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Pattern {
    /// How names begin.
    pub head: NamePart,
    /// How they end.
    pub tail: NamePart,
    /// Length of the end in bytes.
    pub tail_length: u32,
    /// Length of beginning and end together, which a name has at least; [`u32::MAX`] for an unused entry.
    pub least: u32,
    /// What the place decides.
    pub sets: Sets,
}

impl Pattern {
    /// Names nothing.
    pub const UNUSED: Self = {
        let none = NamePart { bytes: [0; NAME_PART_MAX / 8], mask: [0; NAME_PART_MAX / 8] };
        let sets = Sets { watched: 0, deny: 0, place: NO_PLACE, pad: 0 };
        Self { head: none, tail: none, tail_length: 0, least: u32::MAX, sets }
    };
}

/// Key of `exceptions`: the subject, each part of which may be left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct ExceptionKey {
    /// The policy.
    pub generation: u64,
    /// Inode number of the program; 0 for any.
    pub inode: u64,
    /// Its device, as in [`crate::Event::exe_device`]; 0 for any.
    pub device: u32,
    /// Number of the place; [`NO_PLACE`] for any.
    pub place: u32,
    /// Real user id; [`ANY_UID`] for any.
    pub uid: u32,
    /// Zero.
    pub pad: u32,
}

/// From what a subject is excepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Exception {
    /// Without end.
    pub always: ReasonSet,
    /// Without end, for children that inherited the program's label.
    pub inherited: ReasonSet,
    /// For a time: `until` knows how long.
    pub timed: ReasonSet,
}

/// Key of `until`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct UntilKey {
    /// The subject.
    pub subject: ExceptionKey,
    /// This kernel's number of the reason.
    pub reason: u64,
}

/// Until when a subject is excepted from a reason: nanoseconds since boot, suspend included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Until {
    /// The program itself, or whoever is at the place.
    pub itself: u64,
    /// Children that inherited the program's label.
    pub inherited: u64,
}

/// Key of `programs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct ProgramKey {
    /// The policy.
    pub generation: u64,
    /// Inode number.
    pub inode: u64,
    /// Device.
    pub device: u32,
    /// Zero.
    pub pad: u32,
}

/// A program that gets a label when executed, if it is still the one that was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Program {
    /// Change time of its inode, seconds.
    pub ctime: i64,
    /// And nanoseconds.
    pub ctime_nsec: u32,
    /// Generation of the inode number: the number is used again, this is not.
    pub inode_generation: u32,
    /// Bits [`Program::VERITY`] and so on.
    pub flags: u32,
    /// Zero.
    pub pad: u32,
    /// The digest that fs-verity has to have measured, with [`Program::VERITY`].
    pub digest: [u64; 4],
}

impl Program {
    /// The content is bound by fs-verity. Where the kernel's measurement can be read, it has to be [`Program::digest`], and
    /// the change time does not matter. Elsewhere the file has to be under fs-verity and unchanged.
    pub const VERITY: u32 = 1;
    /// Children that the program forks get a label as well.
    pub const INHERIT: u32 = 2;
    /// The file system does not tell the generation of its inode numbers: it is not compared.
    pub const NO_GENERATION: u32 = 4;
}

/// What a process is known to execute. In task storage of the process's first thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Label {
    /// Inode number of the program.
    pub inode: u64,
    /// Its device.
    pub device: u32,
    /// Bits [`Label::INHERITED`] and so on.
    pub flags: u32,
    /// The process's `self_exec_id` when it was labelled. The label is void once the process has executed something else, also
    /// if it could not be deleted then.
    pub exec_id: u32,
    /// Zero.
    pub pad: u32,
}

impl Label {
    /// No label: memory that was made for one.
    pub const NONE: Self = Self { inode: 0, device: 0, flags: 0, exec_id: 0, pad: 0 };
    /// Forked off a process with the label.
    pub const INHERITED: u32 = 1;
    /// Worth nothing: another process could have changed this one's memory.
    pub const LOST: u32 = 2;
    /// Children that this process forks get the label.
    pub const HANDS_ON: u32 = 4;
    /// A child of a labelled process, which has copies of its descriptors and memory until it executes something. The label
    /// excepts from nothing; the child is guarded like its parent.
    pub const GUARDED: u32 = 8;
    /// Such a child that shares the memory itself: whoever changes the child's changes the parent's.
    pub const SHARES_MEMORY: u32 = 16;
}

const _: () = assert!(size_of::<Words>() == 56);
const _: () = assert!(size_of::<Slot>() == 104);
const _: () = assert!(size_of::<Policy>() == 24 + 2 * 104);
const _: () = assert!(size_of::<PathKey>() == 264);
const _: () = assert!(size_of::<Pattern>() == 160);
const _: () = assert!(size_of::<ExceptionKey>() == 32);
const _: () = assert!(size_of::<UntilKey>() == 40);
const _: () = assert!(size_of::<Program>() == 56);
const _: () = assert!(size_of::<Label>() == 24);
