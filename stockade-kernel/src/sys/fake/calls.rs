/*!
bpf(2): maps a command and its attributes to a call of the model. Layouts: include/uapi/linux/bpf.h, `union bpf_attr`.
*/
use std::{ffi::CStr, os::unix::ffi::OsStrExt, path::PathBuf};

use stockade_common::dialogue::COMMAND;

use super::{Kernel, Kind};

/// The attributes of a command, in the caller's memory.
#[derive(Clone, Copy)]
pub(super) struct Attributes(*mut u8);

impl Attributes {
    /// # Safety
    /// `attr` must be a live attribute block of the size that the command takes, and the addresses in it must be those of live memory of the lengths
    /// that the command
    /// takes, for as long as the result is used.
    pub unsafe fn of(attr: *mut u8) -> Self {
        Self(attr)
    }

    pub fn word(self, at: usize) -> u32 {
        // SAFETY: the caller of `Attributes::of` has a live block of the size that the command takes, which contains the word at `at`. The access
        // may be unaligned.
        unsafe { self.0.add(at).cast::<u32>().read_unaligned() }
    }

    pub fn long(self, at: usize) -> u64 {
        // SAFETY: the caller of `Attributes::of` has a live block of the size that the command takes, which contains the long at `at`. The access
        // may be unaligned.
        unsafe { self.0.add(at).cast::<u64>().read_unaligned() }
    }

    pub fn set(self, at: usize, word: u32) {
        // SAFETY: the caller of `Attributes::of` has a live block of the size that the command takes, which contains the word at `at`. The access
        // may be unaligned.
        unsafe { self.0.add(at).cast::<u32>().write_unaligned(word) }
    }

    /// Returns the bytes at an address in the attributes.
    pub fn bytes(self, at: usize, length: usize) -> Vec<u8> {
        from(self.long(at), length)
    }

    /// Writes bytes to an address in the attributes.
    pub fn fill(self, at: usize, bytes: &[u8]) {
        to(self.long(at), bytes);
    }

    /// Returns bytes of the attributes themselves.
    pub fn array<const N: usize>(self, at: usize) -> [u8; N] {
        // SAFETY: the caller of `Attributes::of` has a live block of the size that the command takes, which contains the array at `at`. The access
        // may be unaligned.
        unsafe { self.0.add(at).cast::<[u8; N]>().read_unaligned() }
    }

    pub fn path(self, at: usize) -> PathBuf {
        // SAFETY: the word at `at` is the address of a live path with a terminating zero: every command with a path takes it so.
        let path = unsafe { CStr::from_ptr(self.long(at) as usize as *const libc::c_char) };
        std::ffi::OsStr::from_bytes(path.to_bytes()).into()
    }
}

/// Copies memory of the caller.
pub(super) fn from(address: u64, length: usize) -> Vec<u8> {
    // SAFETY: the address is from the attributes of a call in progress, whose caller has at least `length` live bytes there.
    unsafe { std::slice::from_raw_parts(address as usize as *const u8, length) }.to_vec()
}

pub(super) fn to(address: u64, bytes: &[u8]) {
    // SAFETY: the address is from the attributes of a call in progress, whose caller has room for these bytes there; `bytes` is memory of the model,
    // so
    // that the two do not overlap.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address as usize as *mut u8, bytes.len()) }
}

/// Returns the kind of a call, and the name or path that it is about.
pub(super) fn kind(command: i64, attr: *mut u8) -> (Kind, String) {
    // SAFETY: `sys` calls this with the attribute block of a bpf(2) call, which is live until the call returns.
    let attr = unsafe { Attributes::of(attr) };
    let text = |bytes: [u8; 16]| String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned();
    match command {
        0 => (Kind::MapCreate, text(attr.array(28))),
        1 => (Kind::Lookup, String::new()),
        2 => (Kind::Update, String::new()),
        3 => (Kind::Delete, String::new()),
        5 => (Kind::Load, text(attr.array(48))),
        6 => (Kind::Pin, attr.path(0).display().to_string()),
        7 => (Kind::OpenPin, attr.path(0).display().to_string()),
        8 => (Kind::CgroupAttach, String::new()),
        9 => (Kind::CgroupDetach, String::new()),
        11 | 12 | 31 => (Kind::NextId, String::new()),
        13 | 14 | 30 => (Kind::ById, String::new()),
        15 => (Kind::Info, String::new()),
        16 => (Kind::Query, String::new()),
        17 => (Kind::Attach, String::new()),
        18 => (Kind::LoadTypes, String::new()),
        22 => (Kind::Freeze, String::new()),
        24 => (Kind::LookupBatch, String::new()),
        26 => (Kind::UpdateBatch, String::new()),
        27 => (Kind::DeleteBatch, String::new()),
        28 => (Kind::LinkCreate, String::new()),
        33 => (Kind::Iterate, String::new()),
        command if command == i64::from(COMMAND) => (Kind::Add, String::new()),
        other => panic!("bpf(2) command {other} is not modelled"),
    }
}

impl Kernel {
    /// # Safety
    /// `attr` must be a live attribute block for this command, as for [`Attributes::of`].
    pub(super) unsafe fn call(&mut self, command: i64, attr: Attributes) -> Result<i64, i32> {
        self.closes();
        match command {
            0 => self.map_create(attr),
            1 => self.map_lookup(attr),
            2 => self.map_update(attr),
            3 => self.map_delete(attr),
            22 => self.map_freeze(attr),
            24 => self.map_lookup_batch(attr),
            26 => self.map_update_batch(attr),
            27 => self.map_delete_batch(attr),
            5 => self.program_load(attr),
            6 => {
                let id = self.find(attr.word(8))?;
                self.pin(id, &attr.path(0)).map(|()| 0)
            }
            7 => {
                let id = self.pinned_at(&attr.path(0))?;
                self.open(id)
            }
            8 => self.cgroup_attach(attr),
            9 => self.cgroup_detach(attr),
            11 => self.next_id(attr, |what| matches!(what, super::objects::What::Program(_))),
            12 => self.next_id(attr, |what| matches!(what, super::objects::What::Map(_))),
            31 => self.next_id(attr, |what| matches!(what, super::objects::What::Link { .. })),
            13 | 14 | 30 => self.open(attr.word(0)),
            15 => self.info(attr),
            16 => self.cgroup_query(attr),
            17 => self.attach(attr),
            18 => Ok(self.make(super::objects::What::Types).into()),
            33 => self.iterator(attr),
            28 => self.link_create(attr),
            command if command == i64::from(COMMAND) => Err(self.answers(attr)),
            other => panic!("bpf(2) command {other} is not modelled"),
        }
    }
}
