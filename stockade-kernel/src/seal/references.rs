/*!
Proof that there is no reference to what a seal consists of but those that are known.

The kernel asks the guards when a call begins. A call that began before they were there can be held up, and take a program off or write a
map when it goes on. For that it needs a descriptor, and each descriptor is a reference. The guards write down how many references there are to
a program or a map whenever somebody asks for it, see [`stockade_common::Seen`]. Where there are none but those of the kernel's own
attachments, of the seal's programs and of this process, there is no such call, wherever its descriptor is: in a process, on
the way through a socket, or behind a pin.
*/
use std::io;

use stockade_common::{Counted, Known, Seal};

use crate::{
    Error,
    machine::{patience::Patience, processes},
    sealed::Sealed,
    sys::{self, held},
};

/// Whom the guards tell what they counted: the command that makes the seal, which has the map, or whoever asks the seal.
pub(super) trait Witness {
    /// What was counted of something until now is of no interest.
    fn forget(&self, known: &Known) -> Result<(), Error>;
    /// What was counted of it since.
    fn counted(&self, known: &Known) -> Result<Counted, Error>;
    /// Whether this process makes the seal, so that the first guard on programs exempts it.
    fn is_making(&self) -> bool;
}

/// The seal itself.
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

/// What is known of the programs of a seal: what attaches each has a reference, and whoever asks.
pub(super) fn of_programs(seal: &Seal) -> impl Iterator<Item = Known> {
    let programs = seal.programs.into_iter().enumerate();
    programs.filter(|(_, id)| *id != 0).map(|(slot, id)| Known {
        slot: number(slot),
        id,
        references: 2,
        users: 0,
    })
}

/// What is known of the maps of a seal: so many programs use each, and this process has so many descriptors of it. Whoever asks is one
/// more.
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
        // What nobody uses is gone.
        (programs + ours != 0).then_some(Known { slot, id, references: users + programs, users })
    })
}

fn number(slot: usize) -> u32 {
    u32::try_from(slot).expect("there are a few")
}

/// Something that somebody else has a reference to, or may have.
pub(super) struct Shared {
    known: Known,
    /// Whether that was seen, or nothing was.
    seen: bool,
}

impl Shared {
    /// In words, with who it is. These programs use maps of the seal too, and do not stay.
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
            // A program that uses it, or a link that holds that one.
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

/// Waits until there are no more references to any of these than are known: what is asked for in passing, as by a command that lists all
/// programs, is let go of again.
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
            // A guard that does not refuse this process refuses nobody. While the seal is made, the first guard on programs exempts this process alone.
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

/// Whether it is a map that is no longer there: the programs that used it alone have ended, such as those that root can end.
fn is_gone(known: &Known) -> Result<bool, Error> {
    let next = || sys::next_map(known.id - 1).map_err(|e| Error::io("list the BPF maps", e));
    Ok(is_map(known) && next()? != Some(known.id))
}

fn is_map(known: &Known) -> bool {
    known.slot as usize >= Known::MAPS
}

/// Whether a guard does not give something out.
pub(super) fn is_refusal<T>(answer: &io::Result<T>) -> bool {
    matches!(answer, Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::EPERM)))
}
