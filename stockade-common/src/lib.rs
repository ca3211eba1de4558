/*!
Types that the kernel side and the user side share: the layout of a policy in maps, the decision, events and counters.

All data types are `repr(C)` with explicit padding, since both sides read the same bytes. Every change of a layout increments
[`LAYOUT`]: a program of another version then refuses pinned maps instead of misreading them.
*/
#![no_std]
#![deny(missing_docs)]

pub mod decide;
pub mod dialogue;
mod event;
mod offsets;
mod policy;
mod references;
mod seal;
mod settings;

pub use event::{
    COUNTERS, EVENT_BUFFER_BYTES, Event, LOST, NO_REASON, SETTINGS_AUDITED, SETTINGS_REFUSED, SettingEvent,
    UNPLACED, VALUE_SHOWN, Verdict, counter_index,
};
pub use offsets::{ALWAYS_READ, MAY_LACK, Offsets, WHO_ASKS};
pub use policy::{
    ANY_UID, CGROUPS_MAX, CgroupKey, DEPTH_MAX, EXCEPTIONS_MAX, Exception, ExceptionKey, Label,
    NAME_PART_MAX, NO_PLACE, NamePart, PATH_MAX, PATHS_MAX, PATTERNS, PathKey, Pattern, Policy, Program,
    ProgramKey, ReasonSet, Sets, Slot, Until, UntilKey, Words,
};
pub use references::{Counted, Known, Seen};
pub use seal::{
    Added, GuardOffsets, HELD_MAX, KEPT_FILES_MAX, KEPT_MAPS_MAX, KNOWN_MAX, KeptFile, KnownProgram,
    STACKED_MAX, STAYING_MAX, Seal, Stacked, TRUSTED_MAX, kinds,
};
pub use settings::{
    SETTING_NAME_MAX, SETTING_VALUE_MAX, SETTINGS_MAX, SettingKey, SettingRule, SettingText, same_text,
};

/// First bytes of the policy map: "STOCKADE" in ASCII, little endian.
pub const MAGIC: u64 = u64::from_le_bytes(*b"STOCKADE");

/// Version of every layout in this crate.
pub const LAYOUT: u32 = 7;

/// Bit for reasons whose number exceeds the sets. Kernels up to 7.3 have about thirty reasons.
pub const LAST_BIT: u32 = 63;
