/*!
The guard that is there before the first map of a seal is made.

From its attachment on nobody gets a descriptor of a map that is made later, by whatever way, but whoever makes it: the one who
makes a map is its only user at that moment, and there is no other reference to it. So nobody can have kept a descriptor from the
time before the seal's own guard, which knows the maps by their ids, takes over.

It must not have a map itself, not even for its constants, and is short: the instructions are written down here, with the
numbers that they need in them.
*/
use std::os::fd::{AsFd, OwnedFd};

use aya_obj::generated::bpf_insn;
use stockade_common::{GuardOffsets, kinds};

use crate::{
    Error,
    anchor::Root,
    instructions::{EXIT, SET, instruction},
    sys::{self, held},
};

/// The name that it is loaded under.
pub(crate) const NAME: [u8; 16] = *b"st_first_guard\0\0";

/// The guard, attached.
pub(super) struct FirstGuard(OwnedFd);

impl FirstGuard {
    /// Loads and attaches it.
    pub fn attach(root: &Root, target: sys::Target, offsets: &GuardOffsets) -> Result<Self, Error> {
        let newest = newest_map()?;
        let program = sys::load(&instructions(newest, offsets)?, c"GPL", &NAME, target, None, &mut [])
            .map_err(|e| Error::bpf("loading the guard of the maps", e))?;
        held::attach_to_cgroup(root.as_fd(), program.as_fd(), kinds::ATTACH_LSM_CGROUP)
            .map_err(|e| super::made::cannot_attach("bpf_map", e))?;
        Ok(Self(program))
    }

    /// Takes it off: another one has taken over.
    pub fn detach(self, root: &Root) -> Result<(), Error> {
        root.detach(self.0.as_fd(), kinds::ATTACH_LSM_CGROUP)
    }
}

/// The id of a map that is made now: maps that are made later have higher ones.
fn newest_map() -> Result<u32, Error> {
    let map = sys::create_array("st_newest").map_err(|e| Error::bpf("creating a BPF map", e))?;
    let id = held::map_info(map.as_fd()).map_err(|e| Error::io("ask for a map's id", e))?.id;
    // The kernel counts up to the largest signed number and then begins anew.
    if id > i32::MAX as u32 - 10_000 {
        return Err(Error::Request("not sealed: this kernel has used up its ids of BPF maps: reboot".into()));
    }
    Ok(id)
}

/// `bpf_map(map, mode)`: 1 goes on, 0 refuses.
fn instructions(newest: u32, offsets: &GuardOffsets) -> Result<Vec<bpf_insn>, Error> {
    const LOAD_WORD: u8 = 0x61;
    const LOAD_LONG: u8 = 0x79;
    const JUMP_IF_AT_MOST: u8 = 0xb6;
    const JUMP_IF: u8 = 0x15;
    const JUMP_UNLESS: u8 = 0x55;
    let offset = |offset: u32| {
        i16::try_from(offset).map_err(|_| Error::TooOld("fields of bpf_map near its beginning"))
    };
    let (map, seen, answer) = (1, 2, 0);
    Ok(vec![
        instruction(LOAD_LONG, (map, map), 0, 0),
        instruction(LOAD_WORD, (seen, map), offset(offsets.map_id)?, 0),
        instruction(SET, (answer, 0), 0, 1),
        // An older map.
        instruction(JUMP_IF_AT_MOST, (seen, 0), 5, newest.cast_signed()),
        instruction(LOAD_LONG, (seen, map), offset(offsets.map_references)?, 0),
        instruction(JUMP_UNLESS, (seen, 0), 2, 1),
        instruction(LOAD_LONG, (seen, map), offset(offsets.map_users)?, 0),
        // One reference, one user: it is being made.
        instruction(JUMP_IF, (seen, 0), 1, 1),
        instruction(SET, (answer, 0), 0, 0),
        EXIT,
    ])
}
