/*!
Reads the events from the ring buffer.

The buffer keeps events until they are read, up to its size; the kernel side counts those that do not fit. There is one reader at a time, since
each event is delivered once.
*/
use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    time::Duration,
};

use aya::maps::{MapData, RingBuf};
use stockade_common::{Event, SettingEvent};

use crate::{
    Error,
    pinned::pins,
    sealed::anchor::{self, Found},
};

const READER_LOCK: &str = "/run/stockade-watch.lock";

/// The reader of the ring buffer.
pub struct Reader {
    ring: RingBuf<MapData>,
    _lock: fs::File,
}

impl Reader {
    /// Opens the pinned ring buffer.
    ///
    /// # Errors
    /// [`Error::Request`] when nothing is enforced or another process has the reader, [`Error::OtherVersion`] and the like as in [`crate::enforce`].
    pub fn open() -> Result<Self, Error> {
        let sealed = match anchor::look()? {
            Found::Sealed(sealed) => Some(sealed),
            _ => None,
        };
        if sealed.is_none() && matches!(pins::open()?, pins::Pinned::Nothing { .. }) {
            return Err(Error::Request("nothing is enforced, so there is nothing to watch; start with: stockade enforce integrity --audit".into()));
        }
        let lock =
            fs::File::create(READER_LOCK).map_err(|e| Error::io(format!("create {READER_LOCK}"), e))?;
        // SAFETY: an open descriptor.
        if unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
            let error = io::Error::last_os_error();
            return Err(if error.raw_os_error() == Some(libc::EWOULDBLOCK) {
                Error::Request(
                    "another `stockade watch` is reading the events; two would each see a part of them"
                        .into(),
                )
            } else {
                Error::io(format!("lock {READER_LOCK}"), error)
            });
        }
        let ring = match sealed {
            Some(sealed) => sealed.events()?,
            None => pins::open_events()?,
        };
        Ok(Self { ring, _lock: lock })
    }

    /// Returns the next event, if there is one.
    pub fn take(&mut self) -> Option<EventKind> {
        let item = self.ring.next()?;
        // The two kinds of events differ in size.
        if item.len() == size_of::<SettingEvent>() {
            // SAFETY: a whole event of plain integers, for which any bytes are valid; read unaligned.
            return Some(EventKind::Setting(unsafe { std::ptr::read_unaligned(item.as_ptr().cast()) }));
        }
        if item.len() < size_of::<Event>() {
            return None;
        }
        // SAFETY: at least a whole event of plain integers, for which any bytes are valid; read unaligned.
        Some(EventKind::Request(unsafe { std::ptr::read_unaligned(item.as_ptr().cast()) }))
    }
}

/// An event of the kernel side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A request for a reason.
    Request(Event),
    /// A write to a setting.
    Setting(SettingEvent),
}

impl AsFd for Reader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring buffer keeps its descriptor open as long as `self` lives.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }
}

/// Sleeps until one of these descriptors is readable or the time is over.
///
/// # Errors
/// [`Error::Io`] when poll(2) fails for another cause than a signal.
pub fn wait(sources: &[BorrowedFd<'_>], at_most: Duration) -> Result<(), Error> {
    let mut polls: Vec<libc::pollfd> = sources
        .iter()
        .map(|source| libc::pollfd { fd: source.as_raw_fd(), events: libc::POLLIN, revents: 0 })
        .collect();
    let milliseconds = i32::try_from(at_most.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the array has this many live entries.
    if unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, milliseconds) } < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(Error::io("wait for events", error));
        }
    }
    Ok(())
}
