/*!
Programs of a few instructions, written down by hand: what a seal needs before it has a map, what it tries, and the floor of the
benchmark.
*/
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use aya_obj::generated::{__BindgenBitfieldUnit, bpf_insn};

use crate::{Error, btf::KernelTypes, sys};

/// `BPF_ALU64 | BPF_MOV | BPF_K`
pub(crate) const SET: u8 = 0xb7;

/// `BPF_JMP | BPF_EXIT`: returns what is in register 0.
pub(crate) const EXIT: bpf_insn = instruction(0x95, (0, 0), 0, 0);

/// An instruction on two registers, the first of which is its destination.
pub(crate) const fn instruction(code: u8, (to, from): (u8, u8), off: i16, imm: i32) -> bpf_insn {
    bpf_insn {
        code,
        _bitfield_align_1: [],
        _bitfield_1: __BindgenBitfieldUnit::new([to | from << 4]),
        off,
        imm,
    }
}

/// Loads a program that returns this and does nothing else.
pub(crate) fn load_constant(target: sys::Target, constant: i32) -> io::Result<OwnedFd> {
    load_constants(target, &[constant])
}

/// Loads a program that nobody knows, and lets it go again.
pub(crate) fn load_foreign(target: sys::Target) -> io::Result<()> {
    // Another one each time: what somebody trusts is not it.
    let any = i32::try_from(crate::host::boot_ns() & 0x7fff_ffff).unwrap_or_default();
    load_constants(target, &[any, 0]).map(drop)
}

/// Loads a program that thinks of these one after the other, and returns the last.
fn load_constants(target: sys::Target, constants: &[i32]) -> io::Result<OwnedFd> {
    let mut instructions: Vec<_> =
        constants.iter().map(|&constant| instruction(SET, (0, 0), 0, constant)).collect();
    instructions.push(EXIT);
    load_named_floor(&instructions, target, &mut [])
}

fn load_named_floor(instructions: &[bpf_insn], target: sys::Target, log: &mut [u8]) -> io::Result<OwnedFd> {
    sys::load(instructions, c"GPL", b"floor\0\0\0\0\0\0\0\0\0\0\0", target, None, log)
}

/// Whether the verifier bounds what a program on a hook of the security modules returns: 6.12 and later. Found out by loading one
/// that returns what no hook may.
pub(crate) fn is_bounded(types: &KernelTypes) -> Result<bool, Error> {
    try_bounds(types).map(|(is_bounded, _)| is_bounded)
}

/// The same, with the id of the program that was loaded for it: another process can keep it from being unloaded.
pub(crate) fn try_bounds(types: &KernelTypes) -> Result<(bool, Option<u32>), Error> {
    let Some(hook) = types.hook else { return Ok((false, None)) };
    let harmless = load_constant(sys::Target::lsm(hook), 0);
    let harmless = harmless.map_err(|e| Error::bpf("loading a program that does nothing", e))?;
    let id = crate::foreign::id(harmless.as_fd());
    // A program of another's on the hook `bpf` could refuse the call. The verifier says why it does.
    let mut log = vec![0; 4096];
    let refused = load_named_floor(&[instruction(SET, (0, 0), 0, 1), EXIT], sys::Target::lsm(hook), &mut log)
        .is_err_and(|e| e.raw_os_error() == Some(libc::EINVAL));
    Ok((refused && String::from_utf8_lossy(&log).contains("should have been in"), id))
}
