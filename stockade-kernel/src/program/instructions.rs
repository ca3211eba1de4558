/*!
Programs of a few instructions, made without a compiler: the first guards of a seal, the programs that it tries to load, and the empty programs of
the benchmark.
*/
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use aya_obj::generated::{__BindgenBitfieldUnit, bpf_insn};

use crate::{Error, machine::btf::KernelTypes, program::info, sys};

/// `BPF_ALU64 | BPF_MOV | BPF_K`
pub(crate) const SET: u8 = 0xb7;

/// `BPF_JMP | BPF_EXIT`: returns the value of register 0.
pub(crate) const EXIT: bpf_insn = instruction(0x95, (0, 0), 0, 0);

/// Makes an instruction on two registers, destination first.
pub(crate) const fn instruction(code: u8, (to, from): (u8, u8), off: i16, imm: i32) -> bpf_insn {
    bpf_insn {
        code,
        _bitfield_align_1: [],
        _bitfield_1: __BindgenBitfieldUnit::new([to | from << 4]),
        off,
        imm,
    }
}

/// Loads a program that returns a constant.
pub(crate) fn load_constant(target: sys::Target, constant: i32) -> io::Result<OwnedFd> {
    load_constants(target, &[constant])
}

/// Loads a program that cannot be trusted, and unloads it.
pub(crate) fn load_foreign(target: sys::Target) -> io::Result<()> {
    // A different program each time, so that no trusted one has the same tag.
    let any = i32::try_from(crate::machine::host::boot_ns() & 0x7fff_ffff).unwrap_or_default();
    load_constants(target, &[any, 0]).map(drop)
}

/// Loads a program that moves each constant into r0 and returns the last.
fn load_constants(target: sys::Target, constants: &[i32]) -> io::Result<OwnedFd> {
    let mut instructions: Vec<_> =
        constants.iter().map(|&constant| instruction(SET, (0, 0), 0, constant)).collect();
    instructions.push(EXIT);
    load_named_floor(&instructions, target, &mut [])
}

fn load_named_floor(instructions: &[bpf_insn], target: sys::Target, log: &mut [u8]) -> io::Result<OwnedFd> {
    sys::load(instructions, c"GPL", b"floor\0\0\0\0\0\0\0\0\0\0\0", target, None, log)
}

/// Reports whether the verifier bounds the return value of a program on an LSM hook: 6.12 and later. Tries to load a program that returns a value
/// outside the bounds.
pub(crate) fn is_bounded(types: &KernelTypes) -> Result<bool, Error> {
    try_bounds(types).map(|(is_bounded, _)| is_bounded)
}

/// Does what [`is_bounded`] does, and returns the id of the loaded program: another process can keep it from being unloaded.
pub(crate) fn try_bounds(types: &KernelTypes) -> Result<(bool, Option<u32>), Error> {
    let Some(hook) = types.hook else { return Ok((false, None)) };
    let harmless = load_constant(sys::Target::lsm(hook), 0);
    let harmless = harmless.map_err(|e| Error::bpf("loading a program that does nothing", e))?;
    let id = info::id(harmless.as_fd());
    // A program of others on the hook `bpf` could also refuse the call. Only the verifier's log proves that the verifier did.
    let mut log = vec![0; 4096];
    let refused = load_named_floor(&[instruction(SET, (0, 0), 0, 1), EXIT], sys::Target::lsm(hook), &mut log)
        .is_err_and(|e| e.raw_os_error() == Some(libc::EINVAL));
    Ok((refused && String::from_utf8_lossy(&log).contains("should have been in"), id))
}
