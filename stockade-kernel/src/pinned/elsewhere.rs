/*!
Detects a deciding program that is loaded but not pinned at the known path: pinned in another mount namespace with a BPF file system of its own,
as in a privileged container, or hidden by a BPF file system that was mounted over it. Without this test Stockade would report that
nothing is enforced while a policy is in force.
*/
use crate::{
    Error,
    machine::patience::Patience,
    program::{duty::PROGRAM_NAMES, info},
    sys,
};

/// Fails if a deciding program is loaded. The caller holds the lock and has found no pins: without the lock, the program may be pinned by now.
/// A process that may not list programs gets no error. Waits, since the kernel unloads a program some time after its last reference is gone, and
/// `check-host` loads one for a moment.
pub(crate) fn nothing() -> Result<(), Error> {
    let mut patience = Patience::new();
    while let Some(program) = ours() {
        if !patience.wait() {
            return Err(Error::Elsewhere { program });
        }
    }
    Ok(())
}

/// Returns the first loaded program with the name of a deciding program.
pub(crate) fn ours() -> Option<u32> {
    let mut id = 0;
    while let Ok(Some(next)) = sys::next_program(id) {
        id = next;
        if info::raw_name(id).is_ok_and(|name| PROGRAM_NAMES.contains(&&name)) {
            return Some(id);
        }
    }
    None
}
