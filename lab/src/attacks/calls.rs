//! System calls and shell commands for attacks.

use std::{
    io,
    os::{fd::FromRawFd, unix::process::CommandExt},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use super::{Attempt, Outcome};
use crate::{
    program::{Answer, run},
    syscall::check,
};

/// Returns the command for a line of the guest's shell.
fn command(line: &str) -> Command {
    let mut command = Command::new("/bin/busybox");
    command.args(["sh", "-c", line]).env("PATH", "/bin");
    command
}

/// Runs a line in the shell.
pub(super) fn shell(line: &str) -> Result<Answer> {
    run(&mut command(line))
}

/// Runs an attack that is a line for the shell.
pub(super) fn attack(line: &str) -> Result<Attempt> {
    let answer = shell(line)?;
    match answer.code {
        0 => Attempt::through(),
        code => Attempt::refused(format!("status {code}: {}{}", answer.out, answer.err)),
    }
}

/// A process that is killed when this is dropped.
pub(super) struct Running(pub(super) Child);

impl Running {
    /// Starts a program in a process group of its own, without input and output.
    pub(super) fn new(command: &mut Command) -> Result<Self> {
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(command.spawn().with_context(|| format!("start {command:?}"))?))
    }

    /// Starts a line in the shell.
    pub(super) fn shell(line: &str) -> Result<Self> {
        Self::new(&mut command(line))
    }

    /// Returns its process id.
    pub(super) fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).expect("process numbers fit")
    }

    pub(super) fn send(&self, signal: i32) -> io::Result<()> {
        // SAFETY: kill takes numbers only.
        check(unsafe { libc::kill(self.pid(), signal) }).map(drop)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // SAFETY: kill takes numbers only. The process group is the one that this process was started in.
        unsafe { libc::kill(-self.pid(), libc::SIGKILL) };
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs something in a child process, so that its changes to namespaces, limits and root end with it, and returns its result.
pub(super) fn in_child(what: impl FnOnce() -> Result<Outcome>) -> Result<Outcome> {
    let mut ends = [0; 2];
    // SAFETY: the array has room for the two descriptors that pipe2 writes.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }).context("make a pipe")?;
    // SAFETY: pipe2 has just created both descriptors, and nothing else owns them.
    let (mut told, mut teller) =
        unsafe { (std::fs::File::from_raw_fd(ends[0]), std::fs::File::from_raw_fd(ends[1])) };
    // SAFETY: the processes that play attacks have one thread, so the child's memory is consistent; the child leaves through _exit.
    match check(unsafe { libc::fork() }).context("fork")? {
        0 => {
            let said: Result<Outcome, String> = what().map_err(|error| format!("{error:#}"));
            let sent = serde_json::to_writer(&mut teller, &said);
            // SAFETY: _exit takes a number; it ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(i32::from(sent.is_err())) }
        }
        child => {
            drop(teller);
            let mut said = String::new();
            io::Read::read_to_string(&mut told, &mut said).context("read what the child tells")?;
            let mut status = 0;
            // SAFETY: the status lives through the call, and the child is this process's.
            unsafe { libc::waitpid(child, &raw mut status, 0) };
            ensure!(!said.is_empty(), "the child ended with status {status:#x} and said nothing");
            let said: Result<Outcome, String> = serde_json::from_str(&said)?;
            said.map_err(anyhow::Error::msg)
        }
    }
}

/// A line for the shell that is run when this is dropped.
pub(super) struct Undo(pub(super) &'static str);

impl Drop for Undo {
    fn drop(&mut self) {
        let _ = shell(self.0);
    }
}
