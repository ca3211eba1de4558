/*!
Lists that BPF iterators write: the tasks of the machine, and its loaded programs.
*/
use std::os::fd::BorrowedFd;

use stockade_common::Seen;

use crate::{
    Error,
    object::{Object, SEEN},
    sys,
};

/// Makes this process the one for which the iterators write a list.
pub(super) fn are_for_us(object: &Object) -> Result<(), Error> {
    let seen = Seen { lister: std::process::id().into(), ..Seen::NONE };
    sys::update(object.map(SEEN)?, &0u32, &seen).map_err(|e| Error::bpf("writing who reads the lists", e))
}

/// Runs a BPF iterator and returns its output without the last line.
///
/// # Errors
/// [`Error::Request`] if the output came from another program, or is cut short.
pub(super) fn read(object: &Object, iterator: BorrowedFd<'_>) -> Result<String, Error> {
    let before = seen(object)?.listed;
    let written = sys::iterate(iterator)
        .map_err(|e| Error::bpf("listing what is on this machine by a BPF iterator", e))?;
    if seen(object)?.listed == before {
        return Err(Error::Request(
            "somebody put another BPF program in the place of one that lists what is on this machine, while it did: try again".into(),
        ));
    }
    let written = String::from_utf8_lossy(&written);
    let list = written.trim_end().strip_suffix("\nend").map(str::to_owned);
    list.ok_or_else(|| {
        Error::Request(
            "a list that the kernel makes was cut short: another BPF program changes what this process reads"
                .into(),
        )
    })
}

/// Reads the map in which guards and iterators store what they saw.
pub(super) fn seen(object: &Object) -> Result<Seen, Error> {
    let seen = sys::lookup(object.map(SEEN)?, &0u32);
    let seen = seen.map_err(|e| Error::io("read what the guards saw", e))?;
    seen.ok_or_else(|| Error::Object("a map without a value".into()))
}
