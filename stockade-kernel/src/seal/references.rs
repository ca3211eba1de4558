/*!
Proof that there are only the known references to the programs and maps of a seal.

The kernel calls the guards when a system call begins. A call that began before they were attached can be delayed, and detach a program or write a
map when it continues. For that it needs a reference, which it took from a descriptor. The guards store the reference count of a program or map
whenever a process requests a descriptor of it, see [`stockade_common::Seen`]. If there are only the references of the attachments, of the seal's
programs and of this process, there is no such call, wherever its descriptor is: in a process, in a socket, or behind a pin.
*/
use std::io;

use stockade_common::{Counted, Known, Seal};

use crate::{
    Error,
    machine::{patience::Patience, processes},
    sealed::Sealed,
    sys::{self, held},
};

/// A source of the counts: the map, for the command that makes the seal, or the dialogue.
pub(super) trait Witness {
    /// Discards what was counted of an object until now.
    fn forget(&self, known: &Known) -> Result<(), Error>;
    /// Returns what was counted of it since.
    fn counted(&self, known: &Known) -> Result<Counted, Error>;
    /// Reports whether this process makes the seal, so that the first guard on programs exempts it.
    fn is_making(&self) -> bool;
}

/// The dialogue with the seal.
pub(super) struct Asked;

impl Witness for Asked {
    fn forget(&self, known: &Known) -> Result<(), Error> {
        Sealed::forget(known)
    }

    fn counted(&self, known: &Known) -> Result<Counted, Error> {
        Sealed::counted(known)
    }

    fn is_making(&self) -> bool {
        false
    }
}

/// Returns the known references to the programs of a seal: the attachment of each has one, and the call that requests a descriptor.
pub(super) fn of_programs(seal: &Seal) -> impl Iterator<Item = Known> {
    let programs = seal.programs.into_iter().enumerate();
    programs.filter(|(_, id)| *id != 0).map(|(slot, id)| Known {
        slot: number(slot),
        id,
        references: 2,
        users: 0,
    })
}

/// Returns the known references to the maps of a seal: `programs` use each, and this process has `ours` descriptors of it. The call that requests a
/// descriptor has one more.
pub(super) fn of_maps(
    seal: &Seal,
    programs: impl Fn(usize, u32) -> u32,
    ours: u32,
) -> impl Iterator<Item = Known> {
    let maps = seal.maps.into_iter().enumerate().filter(|(_, id)| *id != 0);
    maps.filter_map(move |(at, id)| {
        let programs = programs(at, id);
        let users = ours + 1;
        let slot = number(Known::MAPS + at);
        // The kernel has freed a map without references.
        (programs + ours != 0).then_some(Known { slot, id, references: users + programs, users })
    })
}

fn number(slot: usize) -> u32 {
    u32::try_from(slot).expect("there are a few")
}

/// A program or map to which another process has a reference, or may have one.
pub(super) struct Shared {
    known: Known,
    /// Whether a guard counted more references than are known. False if no guard was called.
    seen: bool,
}

impl Shared {
    /// Describes it and the processes that hold it. `passing` are programs that use maps of the seal and are unloaded before the commit.
    pub fn describe(&self, passing: &[u32]) -> String {
        let id = self.known.id;
        let (what, field) = if is_map(&self.known) { ("map", "map_id") } else { ("program", "prog_id") };
        if !self.seen {
            return format!(
                "how many references there are to {what} {id} of the seal cannot be told: another guard refuses it before that of the seal is asked"
            );
        }
        let mut by = processes::holders(field, id);
        if is_map(&self.known) {
            // A process can hold a program that uses the map, or a link to one.
            by.extend(passing.iter().flat_map(|program| processes::holders("prog_id", *program)));
        }
        let by: Vec<_> = by.into_iter().map(|(pid, comm)| format!("{comm} ({pid})")).collect();
        let by = if by.is_empty() { "nobody that can be seen".to_owned() } else { by.join(", ") };
        format!(
            "somebody else has a reference to {what} {id} of the seal, by which a call of bpf(2) that began earlier could take the seal off: held \
             by {by}"
        )
    }
}

/// Waits until there are only the known references to each of these: a command that lists all programs, for example, has more only for a moment.
/// Returns the first object that still has others after some seconds.
pub(super) fn wait_for_known_references(
    known: impl IntoIterator<Item = Known>,
    witness: &dyn Witness,
) -> Result<Option<Shared>, Error> {
    for known in known {
        let mut patience = Patience::new();
        loop {
            witness.forget(&known)?;
            let refused = if is_map(&known) {
                is_refusal(&held::map_by_id(known.id))
            } else {
                is_refusal(&sys::program_by_id(known.id))
            };
            // A guard that gives this process a descriptor gives every process one. While the seal is made, the first guard on programs exempts this
            // process alone.
            let is_exempt = witness.is_making() && !is_map(&known);
            let counted = if refused || is_exempt { witness.counted(&known)? } else { Counted::More };
            if counted == Counted::Known || counted == Counted::NotSince && is_gone(&known)? {
                break;
            }
            if !patience.wait() {
                return Ok(Some(Shared { known, seen: counted == Counted::More }));
            }
        }
    }
    Ok(None)
}

/// Reports whether it is a map that the kernel has freed: root can detach the programs on tracepoints, which may be the only users.
fn is_gone(known: &Known) -> Result<bool, Error> {
    let next = || sys::next_map(known.id - 1).map_err(|e| Error::io("list the BPF maps", e));
    Ok(is_map(known) && next()? != Some(known.id))
}

fn is_map(known: &Known) -> bool {
    known.slot as usize >= Known::MAPS
}

/// Reports whether a request for a descriptor failed with ENOENT, as the guards of a seal answer, or with EPERM, as the first guards do. ENOENT is
/// also the
/// error if the object does not exist.
pub(super) fn is_refusal<T>(answer: &io::Result<T>) -> bool {
    matches!(answer, Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::EPERM)))
}
