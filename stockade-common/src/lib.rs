/*!
What the kernel side and the user side share: the policy as it lies in a map, the event, the counters.

Everything here is `repr(C)` with explicit padding, since both sides read the same bytes. Whoever
changes a layout raises [`LAYOUT`]: a program of another version then refuses to touch what it finds
pinned instead of misreading it.

```text
map `.data.policy`, one value:

  header:   magic u64 | layout u32 | pad u32
  active:   u64                      0 or 1: the slot decisions read
  slots[0]: scope | description      a swap rewrites the other slot whole,
  slots[1]: scope | description      then flips `active`: one byte
```
*/
#![no_std]
#![deny(missing_docs)]

/// First bytes of the policy map: "STOCKADE" in ASCII, little endian.
pub const MAGIC: u64 = u64::from_le_bytes(*b"STOCKADE");

/// Version of every layout in this file.
pub const LAYOUT: u32 = 1;

/// Size of the ring buffer in bytes: about 3,600 events while nobody reads.
pub const EVENT_BUFFER_BYTES: u32 = 256 * 1024;

/// Bit for reasons whose number does not fit the sets. Kernels up to 7.2 have about thirty.
pub const LAST_BIT: u32 = 63;

/// Number of entries of the counter map: one for each reason and [`Verdict`], then [`LOST`].
pub const COUNTERS: u32 = 64 * 2 + 1;

/// Index of the counter of events that found the ring buffer full.
pub const LOST: u32 = 64 * 2;

/// A set of reasons. Bit n stands for the reason that *this* kernel numbers n: the numbers differ
/// from kernel to kernel, so a set means nothing on another one.
pub type ReasonSet = u64;

/// What is decided for a subject. Bits as in [`ReasonSet`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Scope {
    /// Refused or audited. Everything else is allowed after reading this word alone.
    pub watched: ReasonSet,
    /// Refused. A subset of `watched`.
    pub deny: ReasonSet,
    /// Decided and counted, but without an event: the debugger's reasons, which are asked for while
    /// the other processors stand still, possibly with the ring buffer's lock taken.
    pub quiet: ReasonSet,
}

/// A scope, and what the administrator said to get it. Decisions never read the description.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Slot {
    /// What decisions read.
    pub scope: Scope,
    /// Reasons allowed in spite of the level.
    pub allow: ReasonSet,
    /// Reasons refused beyond the level, or in spite of audit mode.
    pub deny_extra: ReasonSet,
    /// Reasons audited whatever the level says.
    pub audit_extra: ReasonSet,
    /// When it was applied: nanoseconds since boot, suspend included.
    pub applied_boot_ns: u64,
    /// 0 none, 1 integrity, 2 confidentiality.
    pub level: u8,
    /// 1 when the level is audited, not enforced.
    pub audit: u8,
    /// Zero.
    pub pad: [u8; 6],
}

/// The value of the policy map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Policy {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`LAYOUT`].
    pub layout: u32,
    /// Zero.
    pub pad: u32,
    /// Which slot is in force: 0 or 1.
    pub active: u64,
    /// The slot in force and the one that the next swap writes.
    pub slots: [Slot; 2],
}

/// What was decided about a request that was not simply allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Verdict {
    /// Answered with EPERM.
    Refused = 0,
    /// Let through and reported: it would be refused if the policy were enforced.
    Audited = 1,
}

impl Verdict {
    /// The verdict behind a number in an event.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Refused),
            1 => Some(Self::Audited),
            _ => None,
        }
    }
}

/// Index into the counter map.
#[must_use]
#[inline(always)]
#[allow(clippy::inline_always, reason = "the kernel side has no function calls on this path")]
pub const fn counter_index(reason: u32, verdict: Verdict) -> u32 {
    (reason & LAST_BIT) * 2 + verdict as u32
}

/// One refusal or audit, as it lies in the ring buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// Nanoseconds since boot, suspend included (`CLOCK_BOOTTIME`).
    pub boot_ns: u64,
    /// Id of the requester's cgroup in the v2 hierarchy.
    pub cgroup: u64,
    /// Inode number of the requester's executable; 0 for a kernel thread.
    pub exe_inode: u64,
    /// Device of that inode as the kernel packs it: major in the upper 12 bits, minor in the lower 20.
    pub exe_device: u32,
    /// This kernel's number of the reason.
    pub reason: u32,
    /// Thread id, in the initial pid namespace.
    pub pid: u32,
    /// Process id, in the initial pid namespace.
    pub tgid: u32,
    /// User id, in the initial user namespace.
    pub uid: u32,
    /// A [`Verdict`].
    pub verdict: u32,
    /// Name of the requesting thread, padded with zeros.
    pub comm: [u8; 16],
}

/// Where this kernel keeps what events say of a task: byte offsets, written into the program before it
/// is loaded. The verifier takes them for constants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Offsets {
    /// `task_struct.pid`
    pub task_pid: u32,
    /// `task_struct.tgid`
    pub task_tgid: u32,
    /// `task_struct.comm`
    pub task_comm: u32,
    /// `task_struct.cred`
    pub task_cred: u32,
    /// `cred.uid`
    pub cred_uid: u32,
    /// `task_struct.mm`; this one and the following are all 0 where the kernel lacks one of
    /// them, and the executable is then unknown
    pub task_mm: u32,
    /// `mm_struct.exe_file`
    pub mm_exe_file: u32,
    /// `file.f_inode`
    pub file_inode: u32,
    /// `inode.i_ino`
    pub inode_number: u32,
    /// `inode.i_sb`
    pub inode_superblock: u32,
    /// `super_block.s_dev`
    pub superblock_device: u32,
}

impl Offsets {
    /// The words in order, as they lie in the program.
    #[must_use]
    pub const fn words(self) -> [u32; 11] {
        [
            self.task_pid,
            self.task_tgid,
            self.task_comm,
            self.task_cred,
            self.cred_uid,
            self.task_mm,
            self.mm_exe_file,
            self.file_inode,
            self.inode_number,
            self.inode_superblock,
            self.superblock_device,
        ]
    }
}

const _: () = assert!(size_of::<Offsets>() == 4 * 11);
const _: () = assert!(size_of::<Slot>() == 64);
const _: () = assert!(size_of::<Policy>() == 24 + 2 * 64);
const _: () = assert!(size_of::<Event>() == 64);
