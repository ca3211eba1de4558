//! Attacks that write 0 to kernel.ftrace_enabled in different forms and by different system calls.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::{fd::AsRawFd, unix::fs::FileExt},
};

use anyhow::{Context, Result};

use super::{
    Attack, Attempt, Outcome,
    calls::{Undo, in_child, shell},
    ftrace::{FALLS, FILE, by, counted, is_off, written},
    ring::{self, Ring},
};
use crate::raw;

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new(
        "ftrace-off-spelled-otherwise",
        "write 0 in other words: 00, 0x0, -0, with spaces",
        FALLS,
        || {
            each(
                ["00", "0x0", "-0", " 0", "\t0\n", "0 1", "0000000000", "0\0", LONG]
                    .map(|word| move || fs::write(FILE, word)),
            )
        },
    )
    .refused_when_sealed(),
    Attack::new(
        "ftrace-off-behind-the-start",
        "write 0 behind the start of the file, where kernel.sysctl_writes_strict lets one",
        FALLS,
        || {
            let undo = Undo("echo 1 > /proc/sys/kernel/sysctl_writes_strict");
            fs::write("/proc/sys/kernel/sysctl_writes_strict", "-1")?;
            Ok(by(|file| file.write_all_at(b"0", 7))?.holding(undo))
        },
    )
    .refused_when_sealed(),
    Attack::new("ftrace-off-byte-by-byte", "write a space and a 0 in two calls", FALLS, || {
        let undo = Undo("echo 1 > /proc/sys/kernel/sysctl_writes_strict");
        fs::write("/proc/sys/kernel/sysctl_writes_strict", "-1")?;
        let attempt = by(|mut file| {
            let _ = file.write(b" ");
            file.write_all(b"0")
        });
        Ok(attempt?.holding(undo))
    })
    .refused_when_sealed(),
    Attack::new("ftrace-off-by-pwrite", "write 0 by pwrite(2)", FALLS, || {
        by(|file| file.write_all_at(b"0", 0))
    })
    .refused_when_sealed(),
    Attack::new("ftrace-off-by-writev", "write 0 by writev(2)", FALLS, || {
        by(|file| {
            let zero = [libc::iovec { iov_base: c"0".as_ptr().cast_mut().cast(), iov_len: 1 }];
            // SAFETY: the vector and its buffer of one byte live through the call, which only reads them.
            counted(unsafe { libc::writev(file.as_raw_fd(), zero.as_ptr(), 1) })
        })
    })
    .refused_when_sealed(),
    Attack::new("ftrace-off-by-pwritev2", "write 0 by pwritev2(2)", FALLS, || {
        by(|file| {
            let zero = [libc::iovec { iov_base: c"0".as_ptr().cast_mut().cast(), iov_len: 1 }];
            // SAFETY: the vector and its buffer of one byte live through the call, which only reads them.
            counted(unsafe { libc::pwritev2(file.as_raw_fd(), zero.as_ptr(), 1, 0, 0) })
        })
    })
    .refused_when_sealed(),
    Attack::new("ftrace-off-by-sendfile", "have sendfile(2) write 0", FALLS, || {
        fs::write("/tmp/zero", "0")?;
        let zero = File::open("/tmp/zero")?;
        by(|file| {
            // SAFETY: both descriptors are open, and a null offset is allowed.
            counted(unsafe { libc::sendfile(file.as_raw_fd(), zero.as_raw_fd(), std::ptr::null_mut(), 1) })
        })
    })
    .refused_when_sealed(),
    Attack::new("ftrace-off-by-splice", "have splice(2) write 0 from a pipe", FALLS, || {
        let (from, mut to) = io::pipe().context("make a pipe")?;
        to.write_all(b"0")?;
        by(|file| {
            let none = std::ptr::null_mut();
            // SAFETY: both descriptors are open, and null offsets are allowed.
            counted(unsafe { libc::splice(from.as_raw_fd(), none, file.as_raw_fd(), none, 1, 0) })
        })
    })
    .refused_when_sealed(),
    Attack::new("ftrace-off-by-io-uring", "have io_uring write 0", FALLS, || by_ring(0, 0))
        .refused_when_sealed(),
    Attack::new("ftrace-off-by-io-uring-worker", "have a worker of io_uring's write 0", FALLS, || {
        by_ring(0, ring::ASYNC)
    })
    .refused_when_sealed(),
    Attack::new(
        "ftrace-off-by-io-uring-poller",
        "have the polling thread of io_uring write 0",
        FALLS,
        || by_ring(ring::SQPOLL, 0),
    )
    .refused_when_sealed(),
    Attack::new("ftrace-off-by-a-32-bit-call", "write 0 by a system call of 32-bit programs", FALLS, || {
        match raw::write_by_compat(FILE, b"0")? {
            0 => written(Ok(())),
            errno => written(Err(io::Error::from_raw_os_error(errno))),
        }
    })
    .refused_when_sealed(),
    Attack::new(
        "ftrace-off-by-a-shell",
        "write 0 by a program that shares nothing with this one",
        FALLS,
        || {
            let answer = shell(&format!("echo -n 0 | dd of={FILE} bs=1 count=1 conv=notrunc"))?;
            written(if answer.code == 0 { Ok(()) } else { Err(io::Error::other(answer.err)) })
        },
    )
    .refused_when_sealed(),
];

/// More spaces than a short buffer of a parser holds.
const LONG: &str = concat!(
    "                                                                                                    ",
    "                                                                                                    ",
    "                                                                                                   0",
);

/// Tries one form after the other until one switches ftrace off.
fn each<F: Fn() -> io::Result<()>, const N: usize>(ways: [F; N]) -> Result<Attempt> {
    let mut last = Ok(());
    for way in ways {
        last = way();
        if is_off()? {
            break;
        }
    }
    written(last)
}

/// Writes by io_uring in a child process, since workers keep the namespaces in which they were created.
fn by_ring(setup: u32, flags: u8) -> Result<Attempt> {
    let outcome = in_child(|| {
        let mut ring = match Ring::new(setup) {
            Ok(ring) => ring,
            Err(error) => return Ok(Outcome::Impossible(format!("io_uring cannot be set up: {error}"))),
        };
        Ok(by(|file| ring.write(file, b"0", flags))?.outcome)
    })?;
    Ok(outcome.into())
}
