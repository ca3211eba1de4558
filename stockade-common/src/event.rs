/*!
What the kernel side tells user space about a request that was not simply allowed, and how it counts them.
*/

/// Size of the ring buffer in bytes: about 3,200 events while nobody reads.
pub const EVENT_BUFFER_BYTES: u32 = 256 * 1024;

/// Counters of a reason: one for each [`Verdict`], and one that keeps the index a shift.
const VERDICTS: u32 = 4;

/// Number of entries of the counter map: [`VERDICTS`] for each reason, then [`LOST`] and [`UNPLACED`].
pub const COUNTERS: u32 = 64 * VERDICTS + 2;

/// Index of the counter of events that found the ring buffer full.
pub const LOST: u32 = 64 * VERDICTS;

/// Index of the counter of new cgroups that could not be looked up among a policy's places, since their path is too
/// long, or be given theirs, since the table is full. What surrounds them decides for them.
pub const UNPLACED: u32 = LOST + 1;

/// What was decided about a request that was not simply allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Verdict {
    /// Answered with EPERM.
    Refused = 0,
    /// Let through and reported: it would be refused if the policy were enforced.
    Audited = 1,
    /// Let through by an exception; without it, it would be refused or audited.
    Excepted = 2,
}

impl Verdict {
    /// The verdict behind a number in an event.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Refused),
            1 => Some(Self::Audited),
            2 => Some(Self::Excepted),
            _ => None,
        }
    }
}

/// Index into the counter map.
#[must_use]
#[inline(always)]
#[allow(clippy::inline_always, reason = "the kernel side has no function calls on this path")]
pub const fn counter_index(reason: u32, verdict: Verdict) -> u32 {
    (reason & crate::LAST_BIT) * VERDICTS + verdict as u32
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
    /// Number of the place that decided; 0 where none did.
    pub place: u32,
    /// For [`Verdict::Excepted`], the shape of the exception's subject, as in [`crate::decide`]; else 0.
    pub shape: u32,
    /// Name of the requesting thread, padded with zeros.
    pub comm: [u8; 16],
}

const _: () = assert!(size_of::<Event>() == 72);
