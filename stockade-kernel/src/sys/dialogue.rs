/*!
The dialogue with a seal, see [`stockade_common::dialogue`]: calls of bpf(2) that always fail, and whose errno is the answer of the seal's guard.
*/
use std::{io, ops::Range};

use stockade_common::dialogue::{
    BYTE, COMMAND, DONE, MEDDLED, NO_ROOM, NOT_ROOT, NOTHING, Question, UNREADABLE, WRITE,
};

use super::{address, bpf};

/// The answer of a seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A byte.
    Byte(u8),
    /// The call succeeded.
    Done,
    /// There is no such byte, key or question.
    Nothing,
    /// The existing rule is at least as strict, the table is full, or there are more references than known.
    NoRoom,
    /// Another process wrote during the transaction.
    Meddled,
}

/// Asks a seal; `None` without a seal, since the kernel does not know the command.
///
/// # Errors
/// Those of bpf(2), and EPERM for a caller without the privilege.
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

/// Reads these bytes of a value of the seal; `None` without a seal or such a value. `key` names the entry of a map.
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

/// Adds to a seal.
pub fn add<T>(what: u32, new: &T) -> io::Result<Option<Answer>> {
    ask(what, 0, new)
}

/// Writes an entry of the open transaction: the key, followed by the value.
pub fn write(table: u32, entry: &[u8]) -> io::Result<Option<Answer>> {
    ask(WRITE, table, &entry[0])
}
