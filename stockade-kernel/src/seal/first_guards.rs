/*!
LSM programs that protect a seal while it is made.

```text
bpf_prog               gives a descriptor of a newer program only to this process and the one that loads it; only this process can load programs that could bypass these guards
ptrace_access_check    refuses to trace this process, to access its memory and to copy its descriptors
bpf_map                gives a descriptor of a newer map only to the process that creates it
```

`seal` attaches them in this order, before it creates the first map that decides and loads the first program of the seal. "Newer" objects have ids above the
highest one when the guard was made; an object that is being created has a single reference. The guards stay attached until the first call of bpf(2) after the
commit, from which on the seal's own guards refuse these descriptors.

BPF links hold them, which support neither BPF_LINK_DETACH nor BPF_LINK_UPDATE for LSM programs, and which the kernel closes when the command is killed.
Another process could write to a map, so they have none: the instructions are written here, with the ids and offsets as immediates.

A program on the same hook, or one that modifies the return value of the hook, can bypass them. Once the first guard is attached no other process can load one, and
[`fail_if_bypassable`] fails if one is loaded already. It calls bpf(2) and uses no BPF iterator, since root could write to the iterator's map.
*/
use std::os::fd::{AsFd, OwnedFd};

use aya_obj::generated::bpf_insn;
use stockade_common::{GuardOffsets, Seal, kinds};

use crate::{
    Error,
    machine::host,
    pinned::pins,
    program::{
        duty::{Duty, Sealing},
        info,
        instructions::{self, EXIT, SET, instruction},
        links::Links,
        object,
    },
    sealed::{
        foreign::{self, Foreign, Others},
        trust::Trust,
    },
    sys::{self, held},
};

/// The names of the first guards in the kernel.
pub(crate) const OF_MAPS: [u8; 16] = *b"st_first_maps\0\0\0";
pub(crate) const OF_PROGRAMS: [u8; 16] = *b"st_first_progs\0\0";
const OF_COMMAND: [u8; 16] = *b"st_first_self\0\0\0";

/// The hooks of the first guards, and the hook `bpf`, on which a program can make bpf(2) fail.
pub(super) const HOOKS: [Duty; 4] =
    [Duty::GuardPrograms, Duty::SealedTraced, Duty::GuardMaps, Duty::GuardCalls];

/// A first guard, attached until it is dropped.
pub(super) struct FirstGuard {
    program: OwnedFd,
    _link: OwnedFd,
}

impl FirstGuard {
    /// Attaches the guard of the maps that are created from now on.
    pub fn of_maps(sealing: &Sealing) -> Result<Self, Error> {
        let map = sys::create_array("st_newest").map_err(|e| Error::bpf("creating a BPF map", e))?;
        let newest = held::map_info(map.as_fd()).map_err(|e| Error::io("ask for a map's id", e))?.id;
        let instructions = of_maps(still_counts(newest)?, &sealing.offsets)?;
        retry_on_eperm(|| Self::attach(&instructions, &OF_MAPS, sealing.target(Duty::GuardMaps)))
    }

    /// Attaches the guard of the programs that are loaded from now on. It also refuses to load programs that could bypass a first guard.
    pub fn of_programs(sealing: &Sealing) -> Result<Self, Error> {
        // A socket filter cannot bypass a guard, so another process that holds a reference to it does not prevent the seal.
        let program = instructions::load_constant(sys::Target::socket_filter(), 0)
            .map_err(|e| Error::bpf("loading a program that does nothing", e))?;
        let newest = info::id(program.as_fd()).unwrap_or(u32::MAX);
        let hooks = HOOKS.map(|duty| sealing.target(duty).hook());
        let instructions = of_programs(still_counts(newest)?, &hooks, &sealing.offsets)?;
        Self::attach(&instructions, &OF_PROGRAMS, sealing.target(Duty::GuardPrograms))
    }

    /// Attaches the guard that refuses other processes access to this one. `task_tgid` is the offset of `task_struct.tgid`.
    pub fn of_command(sealing: &Sealing, task_tgid: u32) -> Result<Self, Error> {
        let instructions = of_command(task_tgid)?;
        retry_on_eperm(|| Self::attach(&instructions, &OF_COMMAND, sealing.target(Duty::SealedTraced)))
    }

    fn attach(instructions: &[bpf_insn], name: &[u8; 16], hook: sys::Target) -> Result<Self, Error> {
        let program = sys::load(instructions, c"GPL", name, sys::Target::lsm(hook.hook()), None, &mut [])
            .map_err(|e| Error::bpf("loading a guard of what is made", e))?;
        let link =
            sys::attach(program.as_fd()).map_err(|e| Error::bpf("attaching a guard of what is made", e))?;
        Ok(Self { program, _link: link })
    }

    /// Returns the id of its program.
    pub fn id(&self) -> Option<u32> {
        info::id(self.program.as_fd())
    }
}

/// Fails if a loaded program could bypass these guards or the programs of the seal. To be called when all first guards are attached. `seal` has the
/// hooks and flags of
/// the seal to be made. Returns the ids of the pinned programs with which Stockade enforces now.
///
/// # Errors
/// [`Error::Foreign`] with all such programs, and those of which a guard refuses a descriptor and no link proves that they are harmless.
/// [`Error::Request`] if another
/// process traces this one.
pub(super) fn fail_if_bypassable(
    guards: &[FirstGuard],
    seal: &Seal,
    sealing: &Sealing,
    trust: &Trust,
    staying: &[Foreign],
) -> Result<Vec<u32>, Error> {
    let ours: Vec<u32> = guards.iter().filter_map(FirstGuard::id).collect();
    let mut others = Others::look_quietly(&ours)?;
    if host::is_traced() {
        return Err(Error::Request("not sealed: another process traces this one, and could change what is sealed: seal without a debugger".into()));
    }
    for program in others.seen.iter_mut().filter(|program| program.number == kinds::TRACING) {
        // Nothing tells whether a tracing program without a link is for BPF_MODIFY_RETURN. It can be attached later.
        program.attach_type.get_or_insert(kinds::ATTACH_MODIFY_RETURN);
    }
    let known = foreign::enforcing(sealing)?;
    let is_enforcing = |program: &Foreign| program.known().is_some_and(|program| known.contains(&program));
    let stays = |id: u32| staying.iter().any(|program| program.id == id) || trust.is_named(id);
    let programs = others.strangers(seal, &|program| trust.has(program) || is_enforcing(program), &stays);
    if !programs.is_empty() {
        return Err(Error::Foreign { programs, words: String::new() });
    }
    // A copy that root loaded and did not pin does not enforce the policy.
    let pinned = pins::programs();
    let enforcing = others.seen.iter().filter(|program| is_enforcing(program)).map(|program| program.id);
    Ok(enforcing.filter(|id| pinned.contains(id)).collect())
}

/// Explains an EPERM that root gets when a guard is loaded or attached.
pub(super) fn explained(error: Error) -> Error {
    if !matches!(error, Error::NoPrivilege { .. }) || !host::is_root() {
        return error;
    }
    let guards = Links::look().guards_in_words();
    Error::Request(if guards.is_empty() {
        "not sealed: the kernel refuses to load or attach the guards that a seal begins with (EPERM), although this process is root: another security module does, \
         or a BPF program on the hook bpf or bpf_prog that cannot be seen".into()
    } else {
        format!(
            "not sealed: the kernel refuses to load or attach the guards that a seal begins with (EPERM), although this process is root: probably another guard on BPF \
             programs does ({guards}): `bpftool link` lists what holds it; end it, and seal again"
        )
    })
}

/// Retries a call that fails with EPERM, see [`object::create_despite_openers`].
pub(super) fn retry_on_eperm<T>(create: impl Fn() -> Result<T, Error>) -> Result<T, Error> {
    object::create_despite_openers(create, |error| matches!(error, Error::NoPrivilege { .. }))
}

/// Fails for an id above 2^30. The kernel allocates ids of BPF objects in ascending order up to 2^31 - 2 and then starts again at 1: a map or
/// program of the seal
/// would then have a lower id than the guards compare it with. No process creates 2^30 objects while one seal is made.
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
const JUMP: u8 = 0x05;
const JUMP_IF_AT_MOST: u8 = 0xb6;
const JUMP_IF: u8 = 0x15;
const JUMP_UNLESS: u8 = 0x55;
const JUMP_IF_ANY_BIT: u8 = 0x45;
const CALL: u8 = 0x85;
const SHIFT_RIGHT: u8 = 0x77;

/// `BPF_FUNC_get_current_pid_tgid`
const WHO_ASKS: i32 = 14;

/// `PTRACE_MODE_ATTACH`: for tracing, memory and descriptors. Reads of most files in /proc/PID have PTRACE_MODE_READ instead.
const ATTACHES: i32 = 2;

/// Registers. A call overwrites all of them except `PROGRAM` and `MORE`.
const ANSWER: u8 = 0;
const OBJECT: u8 = 1;
const SEEN: u8 = 2;
const HOW: u8 = 3;
const PROGRAM: u8 = 6;
const MORE: u8 = 7;

fn load(code: u8, to: u8, from: u8, offset: u32) -> Result<bpf_insn, Error> {
    let offset = i16::try_from(offset)
        .map_err(|_| Error::TooOld("fields of bpf_map, bpf_prog and task_struct near their beginning"))?;
    Ok(instruction(code, (to, from), offset, 0))
}

/// Returns a jump from instruction `at` to instruction `to` that compares a register with a number.
const fn jump((at, to): (i16, i16), code: u8, register: u8, with: i32) -> bpf_insn {
    instruction(code, (register, 0), to - at - 1, with)
}

const GOES_ON: bpf_insn = instruction(SET, (ANSWER, 0), 0, 0);
const REFUSES: bpf_insn = instruction(SET, (ANSWER, 0), 0, -libc::EPERM);

fn this_process() -> i32 {
    std::process::id().cast_signed()
}

/// `bpf_map(map, mode)`.
fn of_maps(newest: u32, offsets: &GuardOffsets) -> Result<Vec<bpf_insn>, Error> {
    const REFUSED: i16 = 8;
    const END: i16 = 9;
    Ok(vec![
        instruction(LOAD_LONG, (OBJECT, OBJECT), 0, 0),
        load(LOAD_WORD, SEEN, OBJECT, offsets.map_id)?,
        GOES_ON,
        // An older map.
        jump((3, END), JUMP_IF_AT_MOST, SEEN, newest.cast_signed()),
        load(LOAD_LONG, SEEN, OBJECT, offsets.map_references)?,
        jump((5, REFUSED), JUMP_UNLESS, SEEN, 1),
        load(LOAD_LONG, SEEN, OBJECT, offsets.map_users)?,
        // One reference and one user: the map is being created.
        jump((7, END), JUMP_IF, SEEN, 1),
        REFUSES,
        EXIT,
    ])
}

/// `bpf_prog(prog)`.
fn of_programs(newest: u32, hooks: &[u32; 4], offsets: &GuardOffsets) -> Result<Vec<bpf_insn>, Error> {
    // By number, from 0.
    const LSM: i16 = 15;
    const ALLOWED: i16 = 22;
    const END: i16 = 23;
    const REFUSED: i16 = 24;
    Ok(vec![
        instruction(LOAD_LONG, (PROGRAM, OBJECT), 0, 0),
        load(LOAD_LONG, MORE, PROGRAM, offsets.more)?,
        load(LOAD_WORD, SEEN, MORE, offsets.id)?,
        GOES_ON,
        // An older program.
        jump((4, END), JUMP_IF_AT_MOST, SEEN, newest.cast_signed()),
        instruction(CALL, (0, 0), 0, WHO_ASKS),
        instruction(SHIFT_RIGHT, (ANSWER, 0), 0, 32),
        jump((7, ALLOWED), JUMP_IF, ANSWER, this_process()),
        load(LOAD_LONG, SEEN, MORE, offsets.program_references)?,
        // One reference: the program is being loaded.
        jump((9, REFUSED), JUMP_UNLESS, SEEN, 1),
        load(LOAD_WORD, SEEN, PROGRAM, offsets.kind)?,
        load(LOAD_WORD, HOW, PROGRAM, offsets.attach_type)?,
        jump((12, LSM), JUMP_UNLESS, SEEN, kinds::TRACING.cast_signed()),
        jump((13, REFUSED), JUMP_IF, HOW, kinds::ATTACH_MODIFY_RETURN.cast_signed()),
        jump((14, ALLOWED), JUMP, 0, 0),
        jump((15, REFUSED), JUMP_IF, SEEN, kinds::EXT.cast_signed()),
        jump((16, ALLOWED), JUMP_UNLESS, SEEN, kinds::LSM.cast_signed()),
        // A program on the hook of a first guard could bypass it.
        load(LOAD_WORD, SEEN, MORE, offsets.hook)?,
        jump((18, REFUSED), JUMP_IF, SEEN, hooks[0].cast_signed()),
        jump((19, REFUSED), JUMP_IF, SEEN, hooks[1].cast_signed()),
        jump((20, REFUSED), JUMP_IF, SEEN, hooks[2].cast_signed()),
        jump((21, REFUSED), JUMP_IF, SEEN, hooks[3].cast_signed()),
        GOES_ON,
        EXIT,
        REFUSES,
        EXIT,
    ])
}

/// `ptrace_access_check(child, mode)`: the kernel does not call the hook when a process accesses itself.
fn of_command(task_tgid: u32) -> Result<Vec<bpf_insn>, Error> {
    const END: i16 = 6;
    Ok(vec![
        instruction(LOAD_WORD, (HOW, OBJECT), 8, 0),
        instruction(LOAD_LONG, (OBJECT, OBJECT), 0, 0),
        load(LOAD_WORD, SEEN, OBJECT, task_tgid)?,
        GOES_ON,
        jump((4, END), JUMP_UNLESS, SEEN, this_process()),
        jump((5, 7), JUMP_IF_ANY_BIT, HOW, ATTACHES),
        EXIT,
        REFUSES,
        EXIT,
    ])
}
