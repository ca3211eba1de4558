//! Policies from files: scopes, exceptions, grants.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{lift_all, waiting, watching::events};
use crate::{
    program::{Answer, run, stockade},
    scenario::Scenario,
};

mod grants;
mod places;
mod settings;
mod stories;
mod subjects;
mod swaps;

pub(super) use subjects::traced_through;

/// Returns every scenario of this folder.
pub(super) fn all() -> Vec<Scenario> {
    [
        subjects::SCENARIOS,
        places::SCENARIOS,
        grants::SCENARIOS,
        swaps::SCENARIOS,
        settings::SCENARIOS,
        stories::SCENARIOS,
    ]
    .concat()
}

pub(super) const POLICY: &str = "/etc/stockade/policy.toml";

/// Writes the policy file of the system.
pub(super) fn write(text: &str) -> Result<()> {
    fs::create_dir_all("/etc/stockade")?;
    fs::write(POLICY, text).with_context(|| format!("write {POLICY}"))
}

/// Writes the policy file of the system and applies it.
pub(super) fn apply(text: &str) -> Result<Answer> {
    write(text)?;
    stockade(&["enforce"])?.exits(0)
}

/// A copy of busybox under another path, which an exception can name. Its first argument selects the applet.
pub(super) struct Tool(PathBuf);

impl Tool {
    pub(in crate::scenarios) fn new(path: &str) -> Result<Self> {
        let _ = fs::remove_file(path);
        fs::copy("/bin/busybox", path).with_context(|| format!("copy busybox to {path}"))?;
        Ok(Self(path.into()))
    }

    /// Returns a command that opens /dev/mem and reads nothing.
    pub(in crate::scenarios) fn opens_mem(&self) -> Command {
        opens(&self.0, "/dev/mem")
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

pub(super) fn opens(program: impl AsRef<Path>, file: &str) -> Command {
    let mut command = Command::new(program.as_ref());
    command.arg0("busybox").args(["dd", &format!("if={file}"), "of=/dev/null", "count=0"]);
    command
}

/// Reports whether a command could open its file.
fn through(command: &mut Command) -> Result<bool> {
    let answer = run(command)?;
    let refused = answer.err.contains("Operation not permitted");
    ensure!(refused || answer.code == 0, "{}: {}{}", answer.line, answer.out, answer.err);
    Ok(!refused)
}

/// Requires that a command can open its file, or that the open is refused.
pub(super) fn expect(command: &mut Command, wanted: bool, who: &str) -> Result<()> {
    let got = through(command)?;
    ensure!(got == wanted, "{who} {}", if got { "got through" } else { "was refused" });
    Ok(())
}

/// Returns the events that `watch` shows now.
fn watched() -> Result<Vec<Value>> {
    events(&stockade(&["watch", "--no-follow", "--json"])?.exits(0)?.out)
}

/// A cgroup, removed when this is dropped if it has no child cgroups.
pub(super) struct Cgroup(String);

pub(super) const TREE: &str = "/sys/fs/cgroup";

impl Cgroup {
    /// Creates the cgroup with this path.
    pub(in crate::scenarios) fn new(path: &str) -> Result<Self> {
        fs::create_dir(format!("{TREE}{path}")).with_context(|| format!("make the cgroup {path}"))?;
        Ok(Self(path.to_owned()))
    }

    /// Returns a cgroup that exists.
    pub(in crate::scenarios) fn there(path: &str) -> Self {
        Self(path.to_owned())
    }

    /// Makes a command run in this cgroup.
    pub(in crate::scenarios) fn runs(&self, command: &mut Command) -> Result<()> {
        use std::ffi::CString;
        let file = CString::new(format!("{TREE}{}/cgroup.procs", self.0))?;
        // SAFETY: the closure makes async-signal-safe calls on data that was allocated before the fork.
        unsafe {
            command.pre_exec(move || {
                let fd = libc::open(file.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
                if fd < 0 || libc::write(fd, c"0".as_ptr().cast(), 1) != 1 {
                    return Err(std::io::Error::last_os_error());
                }
                libc::close(fd);
                Ok(())
            });
        }
        Ok(())
    }

    /// Requires of a command in this cgroup what [`expect`] requires.
    pub(in crate::scenarios) fn expect(&self, mut command: Command, wanted: bool) -> Result<()> {
        self.runs(&mut command)?;
        expect(&mut command, wanted, &self.0)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(format!("{TREE}{}", self.0));
    }
}

/// Reports whether a policy is in force.
fn enforced() -> Result<bool> {
    Ok(!stockade(&["status", "--json"])?.json()?["stockade"].is_null())
}
