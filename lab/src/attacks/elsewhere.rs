//! Attacks that make a request from elsewhere: from namespaces, by other system calls, by other paths to the same devices.

use std::{fs::File, io, os::fd::AsRawFd, os::unix::fs::OpenOptionsExt, path::Path};

use anyhow::{Context, Result};

use super::{
    Attack, Attempt, Outcome, Pins,
    calls::{Undo, in_child, shell},
    proof::{self, reached, try_doors_after},
    ring::{self, Ring},
};
use crate::{
    raw::{self, Caller, Entry},
    syscall::check,
};

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new("user-namespace", "ask as root of a user namespace with root's number", Pins::Holds, || {
        let theirs = raw::answers(Entry::Native, Caller::Container(0))?;
        Ok(reached(&proof::here()?, &proof::named(theirs)).into())
    }),
    Attack::new("32-bit-calls", "ask by the system calls of 32-bit programs", Pins::Holds, || {
        let theirs = proof::named(raw::answers(Entry::Compat, Caller::Root)?);
        if theirs.values().all(|errno| *errno == libc::ENOSYS) {
            return Attempt::impossible("this kernel has no system calls for 32-bit programs");
        }
        Ok(reached(&proof::here()?, &theirs).into())
    }),
    Attack::new("pid-namespace", "ask in a pid namespace of one's own", Pins::Holds, || {
        unshared(libc::CLONE_NEWPID)
    }),
    Attack::new("time-namespace", "ask in a time namespace of one's own", Pins::Holds, || {
        unshared(libc::CLONE_NEWTIME)
    }),
    Attack::new(
        "network-and-ipc-namespaces",
        "ask in network, IPC and UTS namespaces of one's own",
        Pins::Holds,
        || unshared(libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS),
    ),
    Attack::new(
        "own-device-nodes",
        "make device nodes and mount proc, debugfs and tracefs elsewhere",
        Pins::Holds,
        || {
            let undo = Undo("umount -l /tmp/own/proc /tmp/own/debug /tmp/own/tracing; rm -r /tmp/own");
            shell(
            "mkdir -p /tmp/own && cd /tmp/own && mkdir proc debug tracing && mknod mem c 1 1 && mknod port c 1 4 \
             && mount -t proc none proc && mount -t debugfs none debug && mount -t tracefs none tracing",
        )?
        .exits(0)?;
            let paths = ["mem", "port", "proc/kcore", "debug/sched/verbose", "tracing/tracing_on"];
            Ok(opened(&paths.map(|path| format!("/tmp/own/{path}")), |path| File::open(path))?.holding(undo))
        },
    ),
    Attack::new(
        "reopen-by-descriptor",
        "open devices by O_PATH, and again through /proc/self/fd",
        Pins::Holds,
        || {
            opened(&DEVICES.map(str::to_owned), |path| {
                let handle = File::options().read(true).custom_flags(libc::O_PATH).open(path)?;
                File::open(format!("/proc/self/fd/{}", handle.as_raw_fd()))
            })
        },
    ),
    Attack::new("open-by-io-uring", "have io_uring open /dev/mem and kcore", Pins::Holds, || by_ring(0, 0)),
    Attack::new("open-by-io-uring-worker", "have a worker of io_uring's open them", Pins::Holds, || {
        by_ring(0, ring::ASYNC)
    }),
    Attack::new(
        "open-by-io-uring-poller",
        "have the polling thread of io_uring open them",
        Pins::Holds,
        || by_ring(ring::SQPOLL, 0),
    ),
    Attack::new(
        "ask-from-a-thread",
        "ask from a thread that is not the process's first",
        Pins::Holds,
        || {
            let thread = std::thread::spawn(|| {
                let mut paths = DEVICES.iter().filter(|path| Path::new(path).exists());
                paths.find(|path| File::open(path).is_ok()).copied()
            });
            match thread.join().ok().context("the thread has ended well")? {
                Some(path) => Ok(Outcome::Reached((*path).to_owned()).into()),
                None => Attempt::refused("every device"),
            }
        },
    ),
];

const DEVICES: [&str; 4] = ["/dev/mem", "/dev/port", "/proc/kcore", "/sys/kernel/debug/sched/verbose"];

fn unshared(flags: i32) -> Result<Attempt> {
    let supported = in_child(|| {
        // SAFETY: unshare takes flags only. New PID and time namespaces hold for its children, which try the doors.
        let made = check(unsafe { libc::unshare(flags) });
        let why = |error| format!("no such namespace can be made: {error}");
        Ok(made.map_or_else(|error| Outcome::Impossible(why(error)), |_| Outcome::Through))
    })?;
    if supported != Outcome::Through {
        return Ok(supported.into());
    }
    try_doors_after(|| {
        // SAFETY: unshare takes flags only, and this child has one thread.
        check(unsafe { libc::unshare(flags) })?;
        Ok(())
    })
}

fn opened<const N: usize>(paths: &[String; N], open: impl Fn(&str) -> io::Result<File>) -> Result<Attempt> {
    let there = paths.iter().filter(|path| Path::new(path).exists());
    let through: Vec<_> = there.filter(|path| open(path).is_ok()).cloned().collect();
    if through.is_empty() {
        Attempt::refused("every path")
    } else {
        Ok(Outcome::Reached(through.join(", ")).into())
    }
}

/// Opens devices by io_uring in a child process, since workers keep the namespaces in which they were created.
fn by_ring(setup: u32, flags: u8) -> Result<Attempt> {
    let outcome = in_child(|| {
        let mut ring = match Ring::new(setup) {
            Ok(ring) => ring,
            Err(error) => return Ok(Outcome::Impossible(format!("io_uring cannot be set up: {error}"))),
        };
        // io_uring has to open a file that every process may open, or its refusals would prove nothing.
        ring.open(c"/dev/null", flags).context("open /dev/null by io_uring")?;
        for path in [c"/dev/mem", c"/proc/kcore"] {
            if ring.open(path, flags).is_ok() {
                return Ok(Outcome::Reached(path.to_string_lossy().into_owned()));
            }
        }
        Ok(Outcome::Refused("both".into()))
    })?;
    Ok(outcome.into())
}

/// Makes this process root of new namespaces, with the uid of the guest's root.
pub(super) fn enter_container() -> Result<()> {
    raw::enter_container(0)
}
