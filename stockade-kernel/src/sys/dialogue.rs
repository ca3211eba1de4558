/*!
The dialogue with a seal, as [`stockade_common::dialogue`] describes it: calls of bpf(2) that always fail, whose errno is the
answer of the seal's own guard.
*/
use std::{io, ops::Range};

use stockade_common::dialogue::{
    BYTE, COMMAND, DONE, MEDDLED, NO_ROOM, NOT_ROOT, NOTHING, Question, UNREADABLE, WRITE,
};

use super::{address, bpf};

/// What a seal answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A byte.
    Byte(u8),
    /// It is done.
    Done,
    /// There is no such thing.
    Nothing,
    /// What is there already is at least as strict, or the table is full.
    NoRoom,
    /// Somebody else has written in between.
    Meddled,
}

/// Asks a seal; `None` where there is none: the kernel then knows no such command.
///
/// # Errors
/// As bpf(2) says, and EPERM for whoever may not ask.
fn ask<T>(what: u32, at: u32, from: &T) -> io::Result<Option<Answer>> {
    let from = address(std::ptr::from_ref(from));
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of an address")]
    let mut question = Question { what, at, from: [from as u32, (from >> 32) as u32] };
    match bpf(COMMAND.into(), &mut question) {
        Ok(_) => Err(io::Error::other("the kernel knows a command that only a seal should answer")),
        Err(error) => answered(error),
    }
}

fn answered(error: io::Error) -> io::Result<Option<Answer>> {
    let Some(code) = error.raw_os_error().and_then(|errno| u32::try_from(errno).ok()) else {
        return Err(error);
    };
    Ok(Some(match code {
        code if code.cast_signed() == libc::EINVAL => return Ok(None),
        BYTE..DONE => Answer::Byte(u8::try_from(code - BYTE).expect("there are 256 of them")),
        DONE => Answer::Done,
        NOTHING => Answer::Nothing,
        NO_ROOM => Answer::NoRoom,
        MEDDLED => Answer::Meddled,
        NOT_ROOT => return Err(io::Error::from_raw_os_error(libc::EPERM)),
        UNREADABLE => return Err(io::Error::from_raw_os_error(libc::EFAULT)),
        _ => return Err(error),
    }))
}

/// These bytes of one of the things that a seal tells; `None` where there is no seal, or no such thing. `key` says of which.
pub fn told<K>(what: u32, key: &K, range: Range<usize>) -> io::Result<Option<Vec<u8>>> {
    #[cfg(test)]
    if let Some(told) = super::fake::told(what, address(std::ptr::from_ref(key)), range.clone()) {
        return told;
    }
    let offset = |at| u32::try_from(at).expect("a few kilobytes");
    let mut bytes = Vec::new();
    for at in offset(range.start)..offset(range.end) {
        match ask(what, at, key)? {
            Some(Answer::Byte(byte)) => bytes.push(byte),
            _ if bytes.is_empty() => return Ok(None),
            other => return Err(io::Error::other(format!("the seal answers {other:?} in the middle"))),
        }
    }
    Ok(Some(bytes))
}

/// Asks a seal to hold more than it does.
pub fn add<T>(what: u32, new: &T) -> io::Result<Option<Answer>> {
    ask(what, 0, new)
}

/// Asks a seal to write an entry into one of its tables: key and value, one behind the other.
pub fn write(table: u32, entry: &[u8]) -> io::Result<Option<Answer>> {
    ask(WRITE, table, &entry[0])
}
