/*!
The dialogue with a seal: a call of bpf(2) with [`COMMAND`] and a [`Question`] as its attributes. The call always fails; the errno is the answer.
*/
/// The command. Kernels number theirs from 0, and have some forty.
pub const COMMAND: u32 = 0x7374_6b64;

/// What is asked, in the kernel's block of attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Question {
    /// One of the constants below.
    pub what: u32,
    /// Which byte is wanted.
    pub at: u32,
    /// Address of what belongs to the question, in two halves: a key, with what is to be added behind it.
    pub from: [u32; 2],
}

/// The byte `at` of [`crate::Seal`].
pub const SEAL: u32 = 1;
/// The byte `at` of [`crate::Policy`].
pub const POLICY: u32 = 2;
/// The byte `at` of [`crate::Added`].
pub const ADDED: u32 = 3;
/// The byte `at` of the rule of a setting: `from` points at its [`crate::SettingKey`].
pub const SETTING: u32 = 4;
/// The byte `at` of an exception: `from` points at its [`crate::ExceptionKey`].
pub const EXCEPTION: u32 = 5;
/// Sets bits of [`crate::Added`]: `from` points at one of which `watched`, `deny`, `quiet` and `told` count.
pub const ADD: u32 = 6;
/// Holds a setting more strictly: `from` points at [`NewSetting`].
pub const HOLD: u32 = 7;
/// Ends an exception: `from` points at [`Revoked`].
pub const REVOKE: u32 = 8;
/// Compares the last reference count of a program or map with [`crate::Known`], which `from` points at. Answered by
/// [`DONE`] if there are no more references, [`NO_ROOM`] if there are more, [`NOTHING`] if none was counted since [`FORGET`].
pub const SEEN: u32 = 9;
/// Discards the last reference count of the program or map in [`crate::Known`], which `from` points at.
pub const FORGET: u32 = 10;
/// The byte `at` of [`crate::Stacked`]. This and what follows is answered by [`NOTHING`] where the seal has no room.
pub const STACKED: u32 = 11;
/// Opens a transaction for a policy with scopes or exceptions: its generation becomes [`crate::Stacked::pending`]. Answered by [`MEDDLED`] while another call is
/// running.
pub const ANNOUNCE: u32 = 12;
/// Writes an entry of the policy in [`crate::Stacked::pending`]: `at` is one of [`table`], `from` points at key and value. Answered by [`NOTHING`] if the key has
/// another generation, by [`NO_ROOM`] if the table is full.
pub const WRITE: u32 = 13;
/// Commits the policy in [`crate::Stacked::pending`]: `from` points at [`Commit`]. Answered by [`NOTHING`] if another policy was announced since, by
/// [`MEDDLED`] if another process called [`WRITE`], by [`NO_ROOM`] if no slot is free.
pub const COMMIT: u32 = 14;
/// A byte of an entry, whose key `from` points at: `at` is one of [`table`] times [`table::FACTOR`], and the number of the byte.
pub const ENTRY: u32 = 15;

/// Tables that [`WRITE`] writes and [`ENTRY`] tells of.
pub mod table {
    /// `cgroups`
    pub const CGROUPS: u32 = 0;
    /// `paths`
    pub const PATHS: u32 = 1;
    /// `patterns`
    pub const PATTERNS: u32 = 2;
    /// `exceptions`
    pub const EXCEPTIONS: u32 = 3;
    /// `until`
    pub const UNTIL: u32 = 4;
    /// Larger than any entry in bytes.
    pub const FACTOR: u32 = 1 << 16;
}

/// An answer that is a byte, which is added to it.
pub const BYTE: u32 = 1024;
/// It is done.
pub const DONE: u32 = BYTE + 256;
/// There is no such byte, key or question.
pub const NOTHING: u32 = BYTE + 257;
/// Only root of the initial user namespace with `CAP_SYS_ADMIN` may ask.
pub const NOT_ROOT: u32 = BYTE + 258;
/// What belongs to the question cannot be read.
pub const UNREADABLE: u32 = BYTE + 259;
/// The rule that is there is not weaker, or there is no room for another.
pub const NO_ROOM: u32 = BYTE + 260;
/// Another process wrote at the same time.
pub const MEDDLED: u32 = BYTE + 261;

/// The argument of [`COMMIT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Commit {
    /// The policy, with its generation.
    pub slot: crate::Slot,
    /// The commit fails unless [`crate::Stacked::written`] has this value.
    pub written: u64,
}

/// A setting to be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct NewSetting {
    /// Of the generation that was sealed.
    pub key: crate::SettingKey,
    /// How.
    pub rule: crate::SettingRule,
}

/// Part of an exception that ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Revoked {
    /// Of the generation that was sealed.
    pub key: crate::ExceptionKey,
    /// What it does not hold for any longer.
    pub ends: crate::Exception,
}

const _: () = assert!(size_of::<Revoked>() == 56);
