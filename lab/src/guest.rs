/*!
The guest as a scenario sees it: its kernel; programs are run by [`crate::program`].
*/
use std::{fs, thread, time::Duration};

use anyhow::Context;

/// The guest this process runs in.
#[derive(Debug)]
pub struct Guest {
    scenario: Option<String>,
}

impl Guest {
    /// For the guest's init, which is the only place where this makes sense.
    #[must_use]
    pub fn here() -> Self {
        Guest { scenario: None }
    }

    /// The same, for a process that plays a scenario.
    #[must_use]
    pub fn playing(scenario: &str) -> Self {
        Guest { scenario: Some(scenario.to_owned()) }
    }

    /// The name of the scenario that is played.
    #[must_use]
    pub fn scenario(&self) -> Option<&str> {
        self.scenario.as_deref()
    }

    /// The kernel's release, as `uname -r` prints it.
    pub fn kernel_release(&self) -> anyhow::Result<String> {
        let text =
            fs::read_to_string("/proc/sys/kernel/osrelease").context("reading /proc/sys/kernel/osrelease")?;
        Ok(text.trim_end().to_owned())
    }
}

/// How long something may take that takes so many seconds at most on an idle host.
///
/// On one processor the guest's clock counts instructions, however busy the host is. Two run on the host's clock, which goes
/// on while the host lets them stand: there it is twenty times as long.
#[must_use]
pub fn patience(seconds: u64) -> Duration {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    Duration::from_secs(if processors > 1 { seconds * 20 } else { seconds })
}

/// The status as a shell would give it.
#[must_use]
pub fn exit_status(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}
