/*!
Children without rights: what every user of a machine can do is tried as somebody who owns nothing.
*/
use std::{io, ptr};

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// The user and group that own nothing (`overflowuid`), as most systems know it.
const NOBODY: u32 = 65534;

/// In a child: gives up all rights of root's, for good. Whoever is not root stays who he is, and loses what capabilities he has.
///
/// # Errors
/// When the kernel refuses, as in a user namespace that has no such user.
pub fn become_nobody() -> io::Result<()> {
    // SAFETY: only asks who this is.
    if unsafe { libc::geteuid() } == 0 {
        become_user()?;
    }
    drop_capabilities()
}

fn become_user() -> io::Result<()> {
    let parent = getppid();
    // The system calls themselves: the C library's functions would do it for all threads, of which a child has none but this.
    // SAFETY: each takes numbers, or a list of no groups, and changes this process alone.
    let refused = unsafe {
        libc::syscall(libc::SYS_setgroups, 0_usize, ptr::null::<libc::gid_t>()) != 0
            || libc::syscall(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY) != 0
            || libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) != 0
    };
    if refused {
        return Err(io::Error::last_os_error());
    }
    // Whoever becomes somebody else does not end with his parent any more, until it is said again (PR_SET_PDEATHSIG).
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() == parent { Ok(()) } else { Err(io::Error::other("the parent has ended meanwhile")) }
}

/// Drops the capabilities that a change of the user id leaves: a service may have ambient ones, and securebits(7) may let root keep its own.
fn drop_capabilities() -> io::Result<()> {
    /// `_LINUX_CAPABILITY_VERSION_3`, and this process.
    const HEADER: [u32; 2] = [0x2008_0522, 0];
    /// Effective, permitted, inheritable; twice, for 64 of each.
    const NONE: [u32; 6] = [0; 6];
    // SAFETY: both are as large as this version says and live for the call.
    match unsafe { libc::syscall(libc::SYS_capset, HEADER.as_ptr(), NONE.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::child::{self, End};

    #[test]
    fn nobody_has_no_rights() {
        let (_, text) = child::run(child::TRIAL, |out| {
            become_nobody().unwrap();
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let rights = status.lines().find(|line| line.starts_with("CapEff")).unwrap();
            writeln!(out, "{rights}").unwrap();
        })
        .unwrap();
        assert_eq!(String::from_utf8(text).unwrap().trim(), "CapEff:\t0000000000000000");
    }

    #[test]
    fn nobody_ends_with_his_parent() {
        let (end, text) = child::run(child::TRIAL, |out| {
            become_nobody().unwrap();
            write!(out, "{:?}", rustix::process::parent_process_death_signal().unwrap()).unwrap();
        })
        .unwrap();
        assert_eq!(
            (end, String::from_utf8(text).unwrap()),
            (End::Exited(0), format!("{:?}", Some(Signal::KILL)))
        );
    }
}
