/*!
Whether a folder is encrypted by its file system (fscrypt), by asking it for the folder's policy. The answer names a key and does not hold it.
*/
use std::{fs::OpenOptions, io, os::fd::AsRawFd, os::unix::fs::OpenOptionsExt};

/// `_IOWR('f', 22, __u8[9])`. 5.4 and later.
const FS_IOC_GET_ENCRYPTION_POLICY_EX: libc::Ioctl = 0xc009_6616_u32 as libc::Ioctl;

/// Room for a policy of any version.
const SIZE: usize = 64;

/// `struct fscrypt_get_policy_ex_arg`
#[repr(C)]
struct Policy {
    size: u64,
    policy: [u8; SIZE],
}

/// Whether a folder is encrypted; an error if it cannot be asked.
pub(super) fn encrypts(folder: &str) -> io::Result<bool> {
    let folder =
        OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NONBLOCK).open(folder)?;
    let mut policy = Policy { size: SIZE as u64, policy: [0; SIZE] };
    // SAFETY: the kernel writes at most as many bytes behind the size as the size says, which is how many there are.
    let answer = unsafe { libc::ioctl(folder.as_raw_fd(), FS_IOC_GET_ENCRYPTION_POLICY_EX, &raw mut policy) };
    if answer == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        // Not encrypted; a file system that cannot; one on which it is not switched on.
        Some(libc::ENODATA | libc::ENOTTY | libc::EOPNOTSUPP) => Ok(false),
        _ => Err(error),
    }
}
