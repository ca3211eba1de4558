/*!
The mount namespace of an attack on pins, with a BPF file system of its own, so that an attack may unmount anything. Enforcement ends with
the namespace.
*/
use std::{
    fs::{self, File},
    os::fd::AsRawFd,
};

use anyhow::{Context, Result, ensure};

use super::{Setting, calls::shell, proof::wait_for};
use crate::syscall::check;

/// The mounts of PID 1, in its order: type and path.
const MOUNTS: [(&str, &str); 7] = [
    ("sysfs", "/sys"),
    ("securityfs", "/sys/kernel/security"),
    ("debugfs", "/sys/kernel/debug"),
    ("tracefs", "/sys/kernel/tracing"),
    ("bpf", "/sys/fs/bpf"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("proc", "/proc"),
];

/// The mount namespace of an attack. When this is dropped, this process returns to the guest's.
pub(super) struct MountNamespace {
    outside: File,
}

impl MountNamespace {
    pub(super) fn enter(setting: Setting) -> Result<Self> {
        let outside = File::open("/proc/self/ns/mnt").context("open this process's mount namespace")?;
        if setting == Setting::Guest {
            return Ok(Self { outside });
        }
        own_mounts()?;
        if setting == Setting::RemovableMountPoint {
            shell("mount -t tmpfs none /sys/fs && mkdir /sys/fs/bpf /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup")?
                .exits(0)?;
        } else {
            shell("umount /sys/fs/bpf")?.exits(0)?;
        }
        shell("mount -t bpf none /sys/fs/bpf")?.exits(0)?;
        Ok(Self { outside })
    }
}

impl Drop for MountNamespace {
    fn drop(&mut self) {
        // SAFETY: the descriptor is open; this process has one thread.
        unsafe { libc::setns(self.outside.as_raw_fd(), libc::CLONE_NEWNS) };
    }
}

/// Gives this process a mount namespace whose mounts no other process sees.
pub(super) fn own_mounts() -> Result<()> {
    // SAFETY: unshare takes flags only; the processes that play attacks have one thread.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) }).context("unshare the mount namespace")?;
    let flags = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: the strings are NUL-terminated, and a change of propagation needs neither type nor data.
    let answer =
        unsafe { libc::mount(c"none".as_ptr(), c"/".as_ptr(), std::ptr::null(), flags, std::ptr::null()) };
    check(answer).context("make mounts private")?;
    Ok(())
}

/// Mounts the file systems again that an attack on the guest's own mounts has unmounted.
pub(super) fn mount_again() -> Result<()> {
    for (kind, place) in MOUNTS {
        let mounted = || {
            let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
            mounts.lines().any(|line| {
                let mut words = line.split(' ').skip(1);
                words.next() == Some(place) && words.next() == Some(kind)
            })
        };
        if !mounted() {
            shell(&format!("mount -t {kind} {kind} {place}"))?.exits(0)?;
            ensure!(mounted(), "{kind} is not at {place}");
        }
    }
    Ok(())
}

/// Waits until nothing is enforced any more.
pub(super) fn wait_until_free() -> Result<()> {
    let free = wait_for(10, || Ok(File::open("/proc/kcore").is_ok()))?;
    ensure!(free, "the mount namespace of the attack has ended, and kcore is still refused");
    Ok(())
}
