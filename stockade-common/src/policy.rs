/*!
Layout of a policy in the kernel's maps.

```text
map `.data.policy`, one value:

  header:   magic u64 | layout u32 | pad u32
  active:   u64                      0 or 1: the slot in force
  slots[0]: words | description      a new policy is written to the other slot,
  slots[1]: words | description      then one byte of `active` is flipped

hash maps, for policies that need them; every key begins with the generation of its policy, so that
the flip of `active` changes all maps at once:

  cgroups     cgroup id              ▶ Sets          what is decided below this cgroup
  paths       path of a new cgroup   ▶ Sets          copied to `cgroups` when the cgroup is created
  patterns    path of its parent     ▶ [Pattern; 4]  copied likewise, by beginning and end of the name
  exceptions  program, place, user   ▶ Exception     excepted reasons
  until       subject and reason     ▶ Until         end of a timed exception
  programs    device and inode       ▶ Program       gets a label when executed
  settings    name of a setting      ▶ SettingRule   how it is held
  labels      task                   ▶ Label         task storage; has no generation
```
*/

/// A set of reasons. Bit n stands for the reason that *this* kernel numbers n. The numbers differ from kernel to kernel, so a set
/// has no meaning on another kernel.
pub type ReasonSet = u64;

/// The part of a policy that decisions read. Bits as in [`ReasonSet`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Words {
    /// Reasons refused or audited anywhere. A request for any other reason is allowed after this word alone is read.
    pub watched_anywhere: ReasonSet,
    /// Reasons refused or audited where no place decides.
    pub watched: ReasonSet,
    /// Reasons refused where no place decides. A subset of `watched`.
    pub deny: ReasonSet,
    /// Reasons that are decided and counted without events and exceptions: those of the debuggers, which ask while all other processors
    /// are stopped, possibly with the lock of the ring buffer held.
    pub quiet: ReasonSet,
    /// Reasons from which some subject is excepted.
    pub excepted: ReasonSet,
    /// Number of the policy: first word of its keys in every hash map.
    pub generation: u64,
    /// Bit n: the policy has exceptions whose subject has the shape n, as in [`crate::decide`].
    pub shapes: u32,
    /// Whether the policy has places: 0 or 1.
    pub places: u32,
}

/// Words, and a description of the policy as it was configured. Decisions never read the description.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Slot {
    /// The part that decisions read.
    pub words: Words,
    /// Reasons allowed in spite of the level.
    pub allow: ReasonSet,
    /// Reasons refused beyond the level, or in spite of audit mode.
    pub deny_extra: ReasonSet,
    /// Reasons audited whatever the level says.
    pub audit_extra: ReasonSet,
    /// Time of application: nanoseconds since boot, suspend included.
    pub applied_boot_ns: u64,
    /// First bytes of the SHA-256 digest of the description in /run/stockade.
    pub digest: u64,
    /// 0 none, 1 integrity, 2 confidentiality.
    pub level: u8,
    /// 1 when the level is audited, not enforced.
    pub audit: u8,
    /// 1 when the hash maps may have entries of this generation.
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
    /// The slot in force: 0 or 1.
    pub active: u64,
    /// The slot in force, and the one that the next policy is written to.
    pub slots: [Slot; 2],
}

impl Policy {
    /// An empty policy, which allows everything.
    pub const EMPTY: Self =
        Self { magic: crate::MAGIC, layout: crate::LAYOUT, pad: 0, active: 0, slots: [Slot::EMPTY; 2] };
}

impl Slot {
    /// An empty slot, which allows everything.
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

/// The number of no place. In a key it stands for any place.
pub const NO_PLACE: u32 = 0;

/// Any user.
pub const ANY_UID: u32 = u32::MAX;

/// Longest path of a cgroup that a policy can name, in bytes. The zero after it is part of the key.
pub const PATH_MAX: usize = 255;

/// Longest beginning and longest end of a cgroup's name in a pattern, in bytes.
pub const NAME_PART_MAX: usize = 32;

/// Number of patterns for the children of one cgroup.
pub const PATTERNS: usize = 4;

/// Maximum depth of a place in the cgroup tree.
pub const DEPTH_MAX: u32 = 63;

/// Maximum number of entries of `cgroups`, for two policies together: the one in force and the next one.
pub const CGROUPS_MAX: u32 = 1 << 15;
/// Maximum number of entries of `paths` and of `patterns`, for two policies together.
pub const PATHS_MAX: u32 = 1 << 12;
/// Maximum number of entries of `exceptions`, `until` and `programs`, for two policies together.
pub const EXCEPTIONS_MAX: u32 = 1 << 15;

/// Key of `cgroups`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct CgroupKey {
    /// Generation of the policy.
    pub generation: u64,
    /// The cgroup's id.
    pub cgroup: u64,
}

/// The sets of a place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Sets {
    /// Reasons refused or audited.
    pub watched: ReasonSet,
    /// Reasons refused.
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
    /// Generation of the policy.
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
    /// Makes the key of a path; `None` if the path is too long.
    #[must_use]
    pub fn new(generation: u64, path: &str) -> Option<Self> {
        let mut key = Self { generation, path: [0; PATH_MAX + 1] };
        key.path.get_mut(..path.len()).filter(|to| to.len() <= PATH_MAX)?.copy_from_slice(path.as_bytes());
        Some(key)
    }
}

/// The beginning or the end of a name, compared word by word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct NamePart {
    /// The bytes, padded with zeros.
    pub bytes: [u64; NAME_PART_MAX / 8],
    /// Ones for the bytes to compare.
    pub mask: [u64; NAME_PART_MAX / 8],
}

impl NamePart {
    /// Makes a part of a name; `None` if it is too long.
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

    /// Reports whether a name, in little-endian words, begins with this part.
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

/// A pattern for names of cgroups, by their beginning and end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Pattern {
    /// The beginning of a name.
    pub head: NamePart,
    /// The end of a name.
    pub tail: NamePart,
    /// Length of `tail` in bytes.
    pub tail_length: u32,
    /// Length of `head` and `tail` together, the minimum for a name; [`u32::MAX`] for an unused entry.
    pub least: u32,
    /// The sets of the place.
    pub sets: Sets,
}

impl Pattern {
    /// A pattern that matches no name.
    pub const UNUSED: Self = {
        let none = NamePart { bytes: [0; NAME_PART_MAX / 8], mask: [0; NAME_PART_MAX / 8] };
        let sets = Sets { watched: 0, deny: 0, place: NO_PLACE, pad: 0 };
        Self { head: none, tail: none, tail_length: 0, least: u32::MAX, sets }
    };
}

/// Key of `exceptions`: the subject, each part of which may be omitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct ExceptionKey {
    /// Generation of the policy.
    pub generation: u64,
    /// Inode number of the program; 0 for any.
    pub inode: u64,
    /// Device of that inode, as in [`crate::Event::exe_device`]; 0 for any.
    pub device: u32,
    /// Number of the place; [`NO_PLACE`] for any.
    pub place: u32,
    /// Real user id; [`ANY_UID`] for any.
    pub uid: u32,
    /// Zero.
    pub pad: u32,
}

/// The reasons from which a subject is excepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Exception {
    /// Reasons excepted without end.
    pub always: ReasonSet,
    /// Reasons excepted without end for children that inherited the program's label.
    pub inherited: ReasonSet,
    /// Reasons excepted for a time, which `until` has.
    pub timed: ReasonSet,
}

/// Key of `until`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct UntilKey {
    /// The subject.
    pub subject: ExceptionKey,
    /// Number of the reason in this kernel.
    pub reason: u64,
}

/// The end of an exception: nanoseconds since boot, suspend included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Until {
    /// For the program itself, or for every process at the place.
    pub itself: u64,
    /// For children that inherited the program's label.
    pub inherited: u64,
}

/// Key of `programs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct ProgramKey {
    /// Generation of the policy.
    pub generation: u64,
    /// Inode number.
    pub inode: u64,
    /// Device.
    pub device: u32,
    /// Zero.
    pub pad: u32,
}

/// A program that gets a label when executed, if its file has not changed since it was recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Program {
    /// Seconds of the inode's ctime.
    pub ctime: i64,
    /// Nanoseconds of the inode's ctime.
    pub ctime_nsec: u32,
    /// `i_generation` of the inode: inode numbers are reused, this number is not.
    pub inode_generation: u32,
    /// A set of [`Program::VERITY`], [`Program::INHERIT`] and [`Program::NO_GENERATION`].
    pub flags: u32,
    /// Zero.
    pub pad: u32,
    /// The required fs-verity digest, with [`Program::VERITY`].
    pub digest: [u64; 4],
}

impl Program {
    /// The file is under fs-verity. If the kernel's digest can be read, it must equal [`Program::digest`], and the ctime is not compared.
    /// Otherwise the file must be under fs-verity with an unchanged ctime.
    pub const VERITY: u32 = 1;
    /// Children that the program forks get a label as well.
    pub const INHERIT: u32 = 2;
    /// The file system does not report `i_generation`: it is not compared.
    pub const NO_GENERATION: u32 = 4;
}

/// The program that a process is known to execute. Held in task storage of the process's first thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Label {
    /// Inode number of the program.
    pub inode: u64,
    /// Device of that inode.
    pub device: u32,
    /// A set of the flags below.
    pub flags: u32,
    /// The process's `self_exec_id` when it was labelled. Another value there makes the label void: the process has executed another program since.
    pub exec_id: u32,
    /// Zero.
    pub pad: u32,
}

impl Label {
    /// No label: the initial value of new task storage.
    pub const NONE: Self = Self { inode: 0, device: 0, flags: 0, exec_id: 0, pad: 0 };
    /// The process was forked by one with the label.
    pub const INHERITED: u32 = 1;
    /// The label is void for exceptions: another process could have changed the memory of this one.
    pub const LOST: u32 = 2;
    /// Children that this process forks get the label.
    pub const HANDS_ON: u32 = 4;
    /// The process is a child of a labelled one and has copies of its descriptors and memory until execve(2). The label matches no exception; the
    /// child is guarded like its parent.
    pub const GUARDED: u32 = 8;
    /// Such a child shares its parent's memory (`CLONE_VM`), so that a write to the child's memory changes the parent's.
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
