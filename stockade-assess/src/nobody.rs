/*!
Children without rights: what every user of a machine can do is tried as somebody who owns nothing.
*/
use std::{io, ptr};

/// The user and group that own nothing (`overflowuid`), as most systems know it.
const NOBODY: u32 = 65534;

/// In a child: gives up all rights of root's, for good. Whoever is not root stays who he is.
///
/// # Errors
/// When the kernel refuses, as in a user namespace that has no such user.
pub fn become_nobody() -> io::Result<()> {
    // SAFETY: only asks who this is.
    if unsafe { libc::geteuid() } != 0 {
        return Ok(());
    }
    // The system calls themselves: the C library's functions would do it for all threads, of which a child has none but this.
    // SAFETY: each takes numbers, or a list of no groups, and changes this process alone.
    let refused = unsafe {
        libc::syscall(libc::SYS_setgroups, 0_usize, ptr::null::<libc::gid_t>()) != 0
            || libc::syscall(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY) != 0
            || libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) != 0
    };
    if refused { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::child;

    #[test]
    fn nobody_has_no_rights() {
        let (_, text) = child::run(Duration::from_secs(20), |out| {
            become_nobody().unwrap();
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let rights = status.lines().find(|line| line.starts_with("CapEff")).unwrap();
            writeln!(out, "{rights}").unwrap();
        })
        .unwrap();
        assert_eq!(String::from_utf8(text).unwrap().trim(), "CapEff:\t0000000000000000");
    }
}
