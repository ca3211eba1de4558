/*!
What is known of one process.
*/
use std::{fs, path::Path};

/// A process that holds something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// The thread that holds it, where threads do not share their descriptors.
    pub thread: Option<u32>,
    /// Its name for itself. Not to be trusted, nor to be printed without care.
    pub comm: String,
    /// The path of its program, where it has one; root can change what this link says.
    pub exe: Option<String>,
    /// When it started, in nanoseconds since boot. Not when it opened anything: it may have opened it at any
    /// time since, or inherited it from a process that opened it before.
    pub started_boot_ns: Option<u64>,
}

impl Process {
    /// Reads what its folder in /proc says. What is gone or hidden is left out.
    #[must_use]
    pub fn read(proc: &Path, pid: u32, thread: Option<u32>) -> Self {
        let folder = proc.join(pid.to_string());
        let comm = fs::read(folder.join("comm")).unwrap_or_default();
        let exe = fs::read_link(folder.join("exe")).ok().map(|path| path.to_string_lossy().into_owned());
        Self {
            pid,
            thread,
            comm: String::from_utf8_lossy(comm.strip_suffix(b"\n").unwrap_or(&comm)).into_owned(),
            exe,
            started_boot_ns: fs::read(folder.join("stat")).ok().and_then(|stat| started(&stat)),
        }
    }
}

/// Field 22 of /proc/PID/stat. The name, field 2, may contain anything, also spaces and parentheses.
fn started(stat: &[u8]) -> Option<u64> {
    let end_of_name = stat.iter().rposition(|&b| b == b')')?;
    let rest = std::str::from_utf8(stat.get(end_of_name + 2..)?).ok()?;
    let ticks: u64 = rest.split(' ').nth(22 - 3)?.parse().ok()?;
    Some(ticks * (1_000_000_000 / rustix::param::clock_ticks_per_second()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_is_found_behind_any_name() {
        let stat = b"7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4200 9 9";
        assert_eq!(started(stat), Some(4200 * 10_000_000));
        assert_eq!(started(b"7 (x"), None);
        assert_eq!(started(b""), None);
    }

    #[test]
    fn this_process_started_after_boot_and_before_now() {
        let me = Process::read(Path::new("/proc"), std::process::id(), None);
        assert!(me.started_boot_ns.unwrap() < stockade_kernel::host::boot_ns());
        assert!(me.exe.unwrap().contains("stockade_residual"));
        assert!(!me.comm.is_empty());
    }
}
