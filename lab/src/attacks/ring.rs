/*!
A minimal io_uring, for one operation at a time. Since 5.4 both rings are one mapping.

```text
 entries ─▶ submission ring ─ enter ─▶ kernel, a worker or the polling thread ─▶ completion ring
```
*/
use std::{
    ffi::CStr,
    fs::File,
    io,
    os::fd::{AsRawFd, OwnedFd},
    ptr,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use crate::syscall::{check, descriptor};

/// Setup flag: a kernel thread polls for submissions.
pub(super) const SQPOLL: u32 = 2;
/// Entry flag: a worker executes the operation.
pub(super) const ASYNC: u8 = 16;

const SETUP: libc::c_long = 425;
const ENTER: libc::c_long = 426;
const ENTER_GETEVENTS: u32 = 1;
const ENTER_WAKEUP: u32 = 2;
const ENTRIES_AT: libc::off_t = 0x1000_0000;
const OPENAT: u8 = 18;
const WRITE: u8 = 23;

/// `struct io_uring_sqe`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Entry {
    operation: u8,
    flags: u8,
    priority: u16,
    fd: i32,
    offset: u64,
    address: u64,
    length: u32,
    operation_flags: u32,
    user_data: u64,
    rest: [u64; 3],
}

/// An io_uring instance and its mappings.
pub(super) struct Ring {
    fd: OwnedFd,
    rings: *mut u8,
    entries: *mut Entry,
    /// `struct io_uring_params`, in words.
    parameters: [u32; 30],
}

impl Ring {
    pub(super) fn new(flags: u32) -> io::Result<Self> {
        let mut parameters = [0_u32; 30];
        parameters[2] = flags;
        // SAFETY: the array has the size of `struct io_uring_params`.
        let fd = descriptor(unsafe { libc::syscall(SETUP, 4, parameters.as_mut_ptr()) })?;
        let map = |offset| {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
            // SAFETY: the kernel chooses a free address, and the descriptor is open.
            let place = unsafe { libc::mmap(ptr::null_mut(), 4096, access, flags, fd.as_raw_fd(), offset) };
            if place == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(place) }
        };
        let (rings, entries) = (map(0)?.cast(), map(ENTRIES_AT)?.cast());
        Ok(Self { fd, rings, entries, parameters })
    }

    /// Returns the word of the rings whose offset is in this parameter.
    fn word(&self, parameter: usize) -> &AtomicU32 {
        let offset = self.parameters[parameter] as usize;
        assert!(offset < 4096);
        // SAFETY: the offset is inside the mapping and aligned, and the kernel accesses the word atomically.
        unsafe { &*self.rings.add(offset).cast() }
    }

    /// Executes one operation, and returns its result.
    fn run(&mut self, entry: Entry) -> io::Result<i32> {
        const SUBMISSION: [usize; 4] = [11, 12, 14, 16];
        const COMPLETION: [usize; 4] = [20, 21, 22, 25];
        let [tail, mask, _, array] = SUBMISSION;
        let at = self.word(tail).load(Ordering::Relaxed);
        let slot = at & self.word(mask).load(Ordering::Relaxed);
        // SAFETY: the mask keeps the slot below the number of entries, and the array of indices has as many words.
        unsafe {
            self.entries.add(slot as usize).write(entry);
            let indices = self.rings.add(self.parameters[array] as usize);
            ptr::write_unaligned(indices.add(slot as usize * 4).cast(), slot);
        }
        self.word(tail).store(at.wrapping_add(1), Ordering::Release);
        let polled = self.parameters[2] & SQPOLL != 0;
        let (submit, flags) = if polled { (0, ENTER_WAKEUP) } else { (1, ENTER_GETEVENTS) };
        let wait = usize::from(!polled);
        // SAFETY: the descriptor is open, and the null signal mask means none.
        check(unsafe {
            libc::syscall(ENTER, self.fd.as_raw_fd(), submit, wait, flags, ptr::null::<u8>(), 0)
        })?;
        let [head, tail, mask, completions] = COMPLETION;
        let begin = Instant::now();
        let at = self.word(head).load(Ordering::Relaxed);
        while self.word(tail).load(Ordering::Acquire) == at {
            if begin.elapsed() > crate::guest::patience(10) {
                return Err(io::Error::other("io_uring does not answer"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let slot = at & self.word(mask).load(Ordering::Relaxed);
        let offset = self.parameters[completions] as usize + slot as usize * 16 + 8;
        assert!(offset < 4096);
        // SAFETY: the offset of the result is inside the mapping, and the kernel has written it.
        let result = unsafe { ptr::read_unaligned(self.rings.add(offset).cast::<i32>()) };
        self.word(head).store(at.wrapping_add(1), Ordering::Release);
        if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result) }
    }

    /// Writes to the start of a file.
    pub(super) fn write(&mut self, file: &File, bytes: &'static [u8], flags: u8) -> io::Result<()> {
        let entry = Entry {
            operation: WRITE,
            flags,
            fd: file.as_raw_fd(),
            address: bytes.as_ptr() as u64,
            length: u32::try_from(bytes.len()).map_err(io::Error::other)?,
            ..Entry::default()
        };
        self.run(entry).map(drop)
    }

    /// Opens a file for reading, and closes it.
    pub(super) fn open(&mut self, path: &'static CStr, flags: u8) -> io::Result<()> {
        let entry = Entry {
            operation: OPENAT,
            flags,
            fd: libc::AT_FDCWD,
            address: path.as_ptr() as u64,
            ..Entry::default()
        };
        let fd = self.run(entry)?;
        // SAFETY: the kernel has just created the descriptor for this process, and nothing else owns it.
        unsafe { libc::close(fd) };
        Ok(())
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: both were mapped by `new`, with this length.
        unsafe {
            libc::munmap(self.rings.cast(), 4096);
            libc::munmap(self.entries.cast(), 4096);
        }
    }
}
