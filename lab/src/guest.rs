/*!
The guest from inside, for scenarios: its kernel and its clock. Programs are run by [`crate::program`].
*/
use std::{fs, thread, time::Duration};

use anyhow::Context;

/// The guest this process runs in.
#[derive(Debug)]
pub struct Guest {
    scenario: Option<String>,
}

impl Guest {
    /// Creates it for the guest's init; on a host it has no meaning.
    #[must_use]
    pub fn here() -> Self {
        Guest { scenario: None }
    }

    /// Creates it for a process that plays this scenario.
    #[must_use]
    pub fn playing(scenario: &str) -> Self {
        Guest { scenario: Some(scenario.to_owned()) }
    }

    /// Returns the name of the scenario that this process plays.
    #[must_use]
    pub fn scenario(&self) -> Option<&str> {
        self.scenario.as_deref()
    }

    /// Returns the kernel's release, as `uname -r` prints it.
    pub fn kernel_release(&self) -> anyhow::Result<String> {
        let text =
            fs::read_to_string("/proc/sys/kernel/osrelease").context("reading /proc/sys/kernel/osrelease")?;
        Ok(text.trim_end().to_owned())
    }
}

/// Returns the limit for an action that takes at most so many seconds on an idle host.
///
/// With one processor the guest's clock counts instructions, whatever the load of the host. With two it is the host's clock, which also
/// advances while the host does not run the guest: the limit is then twenty times as long.
#[must_use]
pub fn patience(seconds: u64) -> Duration {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    Duration::from_secs(if processors > 1 { seconds * 20 } else { seconds })
}

/// Returns the status as a shell would give it: 128 plus the signal for a process that a signal ended.
#[must_use]
pub fn exit_status(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}
