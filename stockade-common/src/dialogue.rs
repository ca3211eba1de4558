/*!
The dialogue with a seal: a call of bpf(2) with [`COMMAND`] and a [`Question`] as its attributes. The call always fails; the errno is the answer.
*/
/// The command number. Kernels number theirs from 0 and have about forty.
pub const COMMAND: u32 = 0x7374_6b64;

/// A question, passed in place of `union bpf_attr`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Question {
    /// One of the constants below.
    pub what: u32,
    /// Index of the byte to read; for [`WRITE`] and [`ENTRY`] it names a table as well.
    pub at: u32,
    /// Address of the argument, in two 32-bit halves: a key, followed by the value to add.
    pub from: [u32; 2],
}

/// Reads byte `at` of [`crate::Seal`].
pub const SEAL: u32 = 1;
/// Reads byte `at` of [`crate::Policy`].
pub const POLICY: u32 = 2;
/// Reads byte `at` of [`crate::Added`].
pub const ADDED: u32 = 3;
/// Reads byte `at` of the rule of a setting: `from` points at its [`crate::SettingKey`].
pub const SETTING: u32 = 4;
/// Reads byte `at` of an exception: `from` points at its [`crate::ExceptionKey`].
pub const EXCEPTION: u32 = 5;
/// Sets bits of [`crate::Added`]: `from` points at such a structure, of which `watched`, `deny`, `quiet` and `told` are used.
pub const ADD: u32 = 6;
/// Holds a setting more strictly: `from` points at [`NewSetting`].
pub const HOLD: u32 = 7;
/// Removes reasons from an exception: `from` points at [`Revoked`].
pub const REVOKE: u32 = 8;
/// Compares the last reference count of a program or map with [`crate::Known`], which `from` points at. The answer is [`DONE`] if there are
/// no more references, [`NO_ROOM`] if there are more, [`NOTHING`] if none was counted since [`FORGET`].
pub const SEEN: u32 = 9;
/// Discards the last reference count of the program or map in [`crate::Known`], which `from` points at.
pub const FORGET: u32 = 10;
/// Reads byte `at` of [`crate::Stacked`]. The answer to this question and those below is [`NOTHING`] if the seal has no room.
pub const STACKED: u32 = 11;
/// Opens a transaction for a policy with scopes or exceptions: its generation becomes [`crate::Stacked::pending`]. The answer is
/// [`MEDDLED`] while another call is running.
pub const ANNOUNCE: u32 = 12;
/// Writes an entry of the policy in [`crate::Stacked::pending`]: `at` is one of [`table`], `from` points at key and value. The answer is
/// [`NOTHING`] if the key has another generation, [`NO_ROOM`] if the table is full.
pub const WRITE: u32 = 13;
/// Commits the policy in [`crate::Stacked::pending`]: `from` points at [`Commit`]. The answer is [`NOTHING`] if another policy was
/// announced since, [`MEDDLED`] if another process called [`WRITE`], [`NO_ROOM`] if no slot is free.
pub const COMMIT: u32 = 14;
/// Reads a byte of an entry, whose key `from` points at: `at` is one of [`table`] times [`table::FACTOR`], plus the index of the byte.
pub const ENTRY: u32 = 15;

/// Tables that [`WRITE`] writes and [`ENTRY`] reads.
pub mod table {
    /// The map `cgroups`.
    pub const CGROUPS: u32 = 0;
    /// The map `paths`.
    pub const PATHS: u32 = 1;
    /// The map `patterns`.
    pub const PATTERNS: u32 = 2;
    /// The map `exceptions`.
    pub const EXCEPTIONS: u32 = 3;
    /// The map `until`.
    pub const UNTIL: u32 = 4;
    /// Greater than the size of any entry in bytes.
    pub const FACTOR: u32 = 1 << 16;
}

/// Base of the answers that carry a byte: the errno is this number plus the byte.
pub const BYTE: u32 = 1024;
/// The call succeeded.
pub const DONE: u32 = BYTE + 256;
/// There is no such byte, key or question.
pub const NOTHING: u32 = BYTE + 257;
/// The caller is not root of the initial user namespace with `CAP_SYS_ADMIN`.
pub const NOT_ROOT: u32 = BYTE + 258;
/// The argument of the question cannot be read.
pub const UNREADABLE: u32 = BYTE + 259;
/// The existing rule is not weaker, the table has no room, or there are more references than known.
pub const NO_ROOM: u32 = BYTE + 260;
/// Another process wrote during the transaction.
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

/// The argument of [`HOLD`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct NewSetting {
    /// The setting, with the generation of the sealed policy.
    pub key: crate::SettingKey,
    /// The rule to hold it by.
    pub rule: crate::SettingRule,
}

/// The argument of [`REVOKE`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Revoked {
    /// The subject, with the generation of the sealed policy.
    pub key: crate::ExceptionKey,
    /// The reasons to remove from each set.
    pub ends: crate::Exception,
}

const _: () = assert!(size_of::<Revoked>() == 56);
