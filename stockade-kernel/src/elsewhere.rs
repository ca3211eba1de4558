/*!
Whether a program of ours is loaded though none is pinned where we look: in a mount namespace with a BPF file
system of its own, as a privileged container has, or under one that was mounted over the other. Without this
look, "nothing is enforced" would be said of a machine that enforces.
*/
use std::{io, os::fd::AsFd};

use crate::{Error, duty::PROGRAM_NAMES, patience::Patience, sys};

/// Says that nothing is enforced elsewhere either; with nothing pinned here, that nothing is enforced at all. For who holds
/// the lock: without it, what is loaded may be pinned here by now.
/// Who may not list programs is not told of any. The kernel takes a moment to forget a program that nobody holds any more, and
/// `check-host` holds one for a moment.
pub(crate) fn nothing() -> Result<(), Error> {
    let mut patience = Patience::new();
    while let Some(program) = ours() {
        if !patience.wait() {
            return Err(Error::Elsewhere { program });
        }
    }
    Ok(())
}

/// The first loaded program with one of our names.
pub(crate) fn ours() -> Option<u32> {
    let mut id = 0;
    while let Ok(Some(next)) = sys::next_program(id) {
        id = next;
        if name(id).is_ok_and(|name| PROGRAM_NAMES.contains(&&name)) {
            return Some(id);
        }
    }
    None
}

pub(crate) fn name(program: u32) -> io::Result<[u8; 16]> {
    let program = sys::program_by_id(program)?;
    Ok(sys::program_info(program.as_fd(), &mut [])?.name.map(libc::c_char::cast_unsigned))
}
