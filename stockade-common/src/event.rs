/*!
Events and counters by which the kernel side reports requests that were not simply allowed, and writes to held settings.
*/

/// Size of the ring buffer in bytes: about 3,200 events while no process reads.
pub const EVENT_BUFFER_BYTES: u32 = 256 * 1024;

/// Number of counters of a reason: one for each [`Verdict`], rounded up to a power of two so that the index is a shift.
const VERDICTS: u32 = 4;

/// Number of entries of the counter map: [`VERDICTS`] for each reason, then [`LOST`], [`UNPLACED`] and those of settings.
pub const COUNTERS: u32 = 64 * VERDICTS + 4;

/// Index of the counter of events that were lost because the ring buffer was full.
pub const LOST: u32 = 64 * VERDICTS;

/// Index of the counter of new cgroups that did not get a place: the path is too long, or the table is full. The enclosing place decides for them.
pub const UNPLACED: u32 = LOST + 1;

/// Index of the counter of writes to settings that were refused.
pub const SETTINGS_REFUSED: u32 = UNPLACED + 1;

/// Index of the counter of writes to settings that were allowed and reported.
pub const SETTINGS_AUDITED: u32 = UNPLACED + 2;

/// The verdict on a request that was not simply allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Verdict {
    /// Refused with EPERM.
    Refused = 0,
    /// Allowed and reported: it would be refused if the policy were enforced.
    Audited = 1,
    /// Allowed by an exception; without it, it would be refused or audited.
    Excepted = 2,
}

impl Verdict {
    /// Returns the verdict for a number in an event.
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

/// Returns the index into the counter map.
#[must_use]
#[inline(always)]
#[allow(clippy::inline_always, reason = "the kernel side has no function calls on this path")]
pub const fn counter_index(reason: u32, verdict: Verdict) -> u32 {
    (reason & crate::LAST_BIT) * VERDICTS + verdict as u32
}

/// A request that was refused, audited or excepted, as stored in the ring buffer.
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
    /// Number of the reason in this kernel.
    pub reason: u32,
    /// Thread id, in the initial pid namespace.
    pub pid: u32,
    /// Process id, in the initial pid namespace.
    pub tgid: u32,
    /// User id, in the initial user namespace.
    pub uid: u32,
    /// A [`Verdict`].
    pub verdict: u32,
    /// Number of the place that decided; 0 for none.
    pub place: u32,
    /// For [`Verdict::Excepted`], the shape of the exception's subject, as in [`crate::decide`]; else 0.
    pub shape: u32,
    /// Name of the requesting thread, padded with zeros.
    pub comm: [u8; 16],
}

const _: () = assert!(size_of::<Event>() == 72);

/// The reason of an [`Event`] that is part of a [`SettingEvent`].
pub const NO_REASON: u32 = u32::MAX;

/// Number of bytes of a value that an event contains.
pub const VALUE_SHOWN: usize = 64;

/// A refused or audited write to a held setting, as stored in the ring buffer. Readers tell it from an [`Event`] by its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SettingEvent {
    /// The requester and the time. The reason is [`NO_REASON`].
    pub event: Event,
    /// The kernel's name of the setting, padded with zeros.
    pub name: [u8; crate::SETTING_NAME_MAX],
    /// The beginning of the value to be written, padded with zeros.
    pub value: [u8; VALUE_SHOWN],
    /// [`crate::SettingRule::FREEZE`] or [`crate::SettingRule::RATCHET`].
    pub hold: u32,
    /// Length of the value to be written in bytes; 0 if it is not known.
    pub length: u32,
}

const _: () = assert!(size_of::<SettingEvent>() == 72 + 64 + 64 + 8);
