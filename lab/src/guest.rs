/*!
The guest as a scenario sees it: its kernel and its programs.
*/
use std::{fs, process::Command};

use anyhow::{Context, bail};

/// The guest this process runs in.
#[derive(Debug)]
pub struct Guest(());

/// What a program answered.
#[derive(Clone, Debug)]
pub struct Output {
    /// Exit status, or 128 and the number of the signal that ended it.
    pub status: i32,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Output {
    /// The printed text when the status is 0, otherwise an error with everything that was said.
    pub fn success(self) -> anyhow::Result<String> {
        if self.status != 0 {
            bail!("exit status {}, stdout {:?}, stderr {:?}", self.status, self.stdout, self.stderr);
        }
        Ok(self.stdout)
    }
}

impl Guest {
    /// For the guest's init, which is the only place where this makes sense.
    #[must_use]
    pub fn here() -> Self {
        Guest(())
    }

    /// The kernel's release, as `uname -r` prints it.
    pub fn kernel_release(&self) -> anyhow::Result<String> {
        let text =
            fs::read_to_string("/proc/sys/kernel/osrelease").context("reading /proc/sys/kernel/osrelease")?;
        Ok(text.trim_end().to_owned())
    }

    /// Runs a program of the guest, such as `["stockade", "status"]`, to its end.
    pub fn run(&self, command: &[&str]) -> anyhow::Result<Output> {
        let (program, arguments) = command.split_first().context("no program was named")?;
        let output = Command::new(program)
            .args(arguments)
            .output()
            .with_context(|| format!("running {}", command.join(" ")))?;
        Ok(Output {
            status: exit_status(output.status),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

/// The status as a shell would give it.
#[must_use]
pub fn exit_status(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}
