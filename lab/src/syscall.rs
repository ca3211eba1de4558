//! Converts the results of system calls.

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd},
};

/// Converts the result of a libc function or of syscall(2), which is -1 on an error.
///
/// # Errors
/// The errno of the call, which must have been the last one of this thread.
pub fn check<T: PartialEq + From<i8>>(result: T) -> io::Result<T> {
    if result == T::from(-1) { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Converts the result of a system call that creates a file descriptor.
pub(crate) fn descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = i32::try_from(check(result)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just created the descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
