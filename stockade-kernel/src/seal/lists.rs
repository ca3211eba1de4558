/*!
The list of tasks that a BPF iterator writes.
*/
use std::os::fd::BorrowedFd;

use stockade_common::Seen;

use crate::{
    Error,
    program::object::{MapName, Object},
    sys,
};

/// Makes this process the one for which the iterator writes a list.
pub(super) fn are_for_us(object: &Object) -> Result<(), Error> {
    let seen = Seen { lister: std::process::id().into(), ..Seen::NONE };
    sys::update(object.map(MapName::Seen)?, &0u32, &seen)
        .map_err(|e| Error::bpf("writing which process reads the list of tasks", e))
}

/// Runs a BPF iterator and returns its output without the last line.
///
/// # Errors
/// [`Error::Request`] if the output came from another program, or is cut short.
pub(super) fn read(object: &Object, iterator: BorrowedFd<'_>) -> Result<String, Error> {
    let before = seen(object)?.listed;
    let written = sys::iterate(iterator).map_err(|e| Error::bpf("listing the tasks by a BPF iterator", e))?;
    if seen(object)?.listed == before {
        return Err(Error::Request(
            "not sealed: another process replaced the BPF program that lists the tasks (BPF_LINK_UPDATE): seal again".into(),
        ));
    }
    let written = String::from_utf8_lossy(&written);
    let list = written.trim_end().strip_suffix("\nend").map(str::to_owned);
    list.ok_or_else(|| {
        Error::Request(
            "not sealed: the list of tasks was cut short: another BPF program makes reads of this process fail".into(),
        )
    })
}

/// Reads the map in which the guards and the iterator store what they saw.
pub(super) fn seen(object: &Object) -> Result<Seen, Error> {
    let seen = sys::lookup(object.map(MapName::Seen)?, &0u32);
    let seen = seen.map_err(|e| Error::io("read what the guards saw", e))?;
    seen.ok_or_else(|| Error::Object("a map without a value".into()))
}
