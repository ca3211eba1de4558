//! Attacks by usermode helpers, which the kernel starts as root and which are no children of the attacker's processes.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{Context, Result, ensure};

use super::{
    Attack, Attempt, Outcome, Pins,
    calls::{Undo, in_child},
    ftrace::{FALLS, FILE, written},
    proof::reached,
    proof::{self, Doors, wait_for},
};

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new("core-pattern-helper", "ask from the helper of kernel.core_pattern", Pins::Holds, || {
        try_doors_by(by_core_pattern)
    }),
    Attack::new("modprobe-helper", "ask from the helper of kernel.modprobe", Pins::Holds, || {
        try_doors_by(by_modprobe)
    }),
    Attack::new(
        "ftrace-off-by-a-core-pattern-helper",
        "write 0 to kernel.ftrace_enabled from the helper of kernel.core_pattern",
        FALLS,
        || {
            by_core_pattern(&format!("echo 0 > {FILE}"))?;
            written(Ok(()))
        },
    )
    .refused_when_sealed(),
    Attack::new(
        "ftrace-off-by-a-modprobe-helper",
        "write 0 to kernel.ftrace_enabled from the helper of kernel.modprobe",
        FALLS,
        || {
            by_modprobe(&format!("echo 0 > {FILE}"))?;
            written(Ok(()))
        },
    )
    .refused_when_sealed(),
];

const HELPER: &str = "/run/attacks/helper";
const ANSWER: &str = "/run/attacks/helper.answer";
const DONE: &str = "/run/attacks/helper.done";

/// Writes the helper's script, makes the kernel start it, and waits until it has ended.
fn helped(line: &str, start: impl FnOnce() -> Result<()>) -> Result<()> {
    let _ = fs::remove_file(DONE);
    fs::write(HELPER, format!("#!/bin/busybox sh\nexport PATH=/bin\n{line}\n: > {DONE}\n"))?;
    fs::set_permissions(HELPER, fs::Permissions::from_mode(0o755))?;
    start()?;
    ensure!(wait_for(20, || Ok(Path::new(DONE).exists()))?, "the kernel did not start its helper");
    Ok(())
}

/// Starts the helper by the core dump of a process.
fn by_core_pattern(line: &str) -> Result<()> {
    const PATTERN: &str = "/proc/sys/kernel/core_pattern";
    let before = fs::read_to_string(PATTERN)?;
    let answer = helped(line, || {
        fs::write(PATTERN, format!("|{HELPER}")).with_context(|| format!("write {PATTERN}"))?;
        // SAFETY: this process has one thread, and the child ends itself at once.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
            // SAFETY: the limit lives through the call, the prctl takes numbers only, and abort ends the child.
            unsafe {
                libc::setrlimit(libc::RLIMIT_CORE, &raw const limit);
                libc::prctl(libc::PR_SET_DUMPABLE, 1);
                libc::abort();
            }
        }
        ensure!(child > 0, "fork: {}", std::io::Error::last_os_error());
        // SAFETY: waitpid takes a null pointer when no status is wanted; the child is this process's.
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
        Ok(())
    });
    fs::write(PATTERN, before.trim_end())?;
    answer
}

/// Starts the helper by a request for a socket family that no kernel has.
fn by_modprobe(line: &str) -> Result<()> {
    const MODPROBE: &str = "/proc/sys/kernel/modprobe";
    let before = fs::read_to_string(MODPROBE)?;
    let answer = helped(line, || {
        fs::write(MODPROBE, HELPER).with_context(|| format!("write {MODPROBE}"))?;
        // SAFETY: socket takes numbers only.
        let socket = unsafe { libc::socket(26, libc::SOCK_DGRAM, 0) };
        ensure!(socket < 0, "there is such a family of sockets, and no module was asked for");
        Ok(())
    });
    fs::write(MODPROBE, before.trim_end())?;
    answer
}

/// Tries every door from the helper.
fn try_doors_by(start: fn(&str) -> Result<()>) -> Result<Attempt> {
    let undo = Undo("rm -f /run/attacks/helper.answer");
    start(&format!("/init --attack-doors > {ANSWER}"))?;
    let theirs: Doors = serde_json::from_slice(&fs::read(ANSWER)?).context("read what the helper told")?;
    let here = in_child(|| Ok(reached(&proof::here()?, &theirs)))?;
    let counted = theirs.values().filter(|errno| **errno == libc::EPERM).count();
    ensure!(counted >= 6 || matches!(here, Outcome::Reached(_)), "the helper tried too little: {theirs:?}");
    Ok(Attempt::from(here).holding(undo))
}
