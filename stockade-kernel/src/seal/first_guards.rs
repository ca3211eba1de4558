/*!
LSM programs that protect the maps and programs of a seal while it is made.

`seal` attaches one to the hook `bpf_map` before it creates the first map that the seal decides by, and one to `bpf_prog` before it loads the first program
of the seal. From then on, a process gets a descriptor of a newer map or program only if it creates it: the object then has a single reference.
They stay attached until the commit, from which on the seal's own guards refuse these descriptors.

BPF links hold them, which support neither BPF_LINK_DETACH nor BPF_LINK_UPDATE for LSM programs, and which the kernel closes when the command is killed.
Another process could write to a map, so they have none: the instructions are written here, with the ids and offsets as immediates.

A program that is attached to the same hook later, or that modifies the return value of `security_bpf_map` or `security_bpf_prog`, can bypass them before
`seal` has listed the loaded programs: SECURITY.md, "What is left open".
*/
use std::os::fd::{AsFd, OwnedFd};

use aya_obj::generated::bpf_insn;
use stockade_common::GuardOffsets;

use crate::{
    Error, foreign,
    instructions::{self, EXIT, SET, instruction},
    object,
    sys::{self, held},
};

/// The names that they are loaded under.
pub(crate) const OF_MAPS: [u8; 16] = *b"st_first_maps\0\0\0";
pub(crate) const OF_PROGRAMS: [u8; 16] = *b"st_first_progs\0\0";

/// A guard, attached for as long as this lives.
pub(super) struct FirstGuard {
    program: OwnedFd,
    _link: OwnedFd,
}

impl FirstGuard {
    /// Keeps the maps that are made from now on.
    pub fn of_maps(hook: sys::Target, offsets: &GuardOffsets) -> Result<Self, Error> {
        let map = sys::create_array("st_newest").map_err(|e| Error::bpf("creating a BPF map", e))?;
        let newest = held::map_info(map.as_fd()).map_err(|e| Error::io("ask for a map's id", e))?.id;
        Self::attach(&of_maps(still_counts(newest)?, offsets)?, &OF_MAPS, hook)
    }

    /// Keeps the programs that are loaded from now on.
    pub fn of_programs(hook: sys::Target, offsets: &GuardOffsets) -> Result<Self, Error> {
        // Of a kind that reaches nothing: whoever gets hold of it keeps nothing from being sealed.
        let program = instructions::load_constant(sys::Target::socket_filter(), 0)
            .map_err(|e| Error::bpf("loading a program that does nothing", e))?;
        let newest = foreign::id(program.as_fd()).unwrap_or(u32::MAX);
        Self::attach(&of_programs(still_counts(newest)?, offsets)?, &OF_PROGRAMS, hook)
    }

    fn attach(instructions: &[bpf_insn], name: &[u8; 16], hook: sys::Target) -> Result<Self, Error> {
        let program = sys::load(instructions, c"GPL", name, sys::Target::lsm(hook.hook()), None, &mut [])
            .map_err(|e| Error::bpf("loading a guard of what is made", e))?;
        let link =
            sys::attach(program.as_fd()).map_err(|e| Error::bpf("attaching a guard of what is made", e))?;
        Ok(Self { program, _link: link })
    }

    /// The id of its program.
    pub fn id(&self) -> Option<u32> {
        foreign::id(self.program.as_fd())
    }
}

/// Creates something as [`object::create_despite_openers`] does.
pub(super) fn insist<T>(create: impl Fn() -> Result<T, Error>) -> Result<T, Error> {
    object::create_despite_openers(create, |error| matches!(error, Error::NoPrivilege { .. }))
}

/// Fails for an id above 2^30. Ids of BPF objects rise to 2^31 - 1 and start again at 1: after that, a map or program of the seal would have
/// a lower id than the guards compare it with. Nobody creates 2^30 objects while one seal is made.
fn still_counts(id: u32) -> Result<u32, Error> {
    if id > 1 << 30 {
        return Err(Error::Request(
            "not sealed: this kernel has used up more than half of its ids of BPF maps or programs: reboot, and seal again".into(),
        ));
    }
    Ok(id)
}

const LOAD_WORD: u8 = 0x61;
const LOAD_LONG: u8 = 0x79;
const JUMP_IF_AT_MOST: u8 = 0xb6;
const JUMP_IF: u8 = 0x15;
const JUMP_UNLESS: u8 = 0x55;

/// Registers.
const ANSWER: u8 = 0;
const OBJECT: u8 = 1;
const SEEN: u8 = 2;

fn load(code: u8, to: u8, from: u8, offset: u32) -> Result<bpf_insn, Error> {
    let offset = i16::try_from(offset)
        .map_err(|_| Error::TooOld("fields of bpf_map and bpf_prog near their beginning"))?;
    Ok(instruction(code, (to, from), offset, 0))
}

const GOES_ON: bpf_insn = instruction(SET, (ANSWER, 0), 0, 0);
const REFUSES: bpf_insn = instruction(SET, (ANSWER, 0), 0, -libc::EPERM);

/// `bpf_map(map, mode)`.
fn of_maps(newest: u32, offsets: &GuardOffsets) -> Result<Vec<bpf_insn>, Error> {
    Ok(vec![
        instruction(LOAD_LONG, (OBJECT, OBJECT), 0, 0),
        load(LOAD_WORD, SEEN, OBJECT, offsets.map_id)?,
        GOES_ON,
        // An older map.
        instruction(JUMP_IF_AT_MOST, (SEEN, 0), 5, newest.cast_signed()),
        load(LOAD_LONG, SEEN, OBJECT, offsets.map_references)?,
        instruction(JUMP_UNLESS, (SEEN, 0), 2, 1),
        load(LOAD_LONG, SEEN, OBJECT, offsets.map_users)?,
        // One reference, one user: it is being made.
        instruction(JUMP_IF, (SEEN, 0), 1, 1),
        REFUSES,
        EXIT,
    ])
}

/// `bpf_prog(prog)`.
fn of_programs(newest: u32, offsets: &GuardOffsets) -> Result<Vec<bpf_insn>, Error> {
    Ok(vec![
        instruction(LOAD_LONG, (OBJECT, OBJECT), 0, 0),
        load(LOAD_LONG, OBJECT, OBJECT, offsets.more)?,
        load(LOAD_WORD, SEEN, OBJECT, offsets.id)?,
        GOES_ON,
        // An older program.
        instruction(JUMP_IF_AT_MOST, (SEEN, 0), 3, newest.cast_signed()),
        load(LOAD_LONG, SEEN, OBJECT, offsets.program_references)?,
        // One reference: it is being loaded.
        instruction(JUMP_IF, (SEEN, 0), 1, 1),
        REFUSES,
        EXIT,
    ])
}
