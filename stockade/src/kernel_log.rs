/*!
The kernel log, read for the refusals of the kernel's own lockdown, and written for tools that only
know its line.
*/
use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::OpenOptionsExt,
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use stockade_kernel::host;
use stockade_reasons::parse_kernel_line;

const KERNEL_LOG: &str = "/dev/kmsg";

/// The kernel's words around the number of lines it left out.
const SUPPRESSED: (&str, &str) = ("lockdown_is_locked_down: ", " callbacks suppressed");

/// A line of the kernel log about lockdown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The kernel's own lockdown refused something.
    Refusal {
        /// Nanoseconds since boot, suspend included. The log's clock stops while the machine is suspended:
        /// records from before the last time are told too late.
        boot_ns: u64,
        /// The task's comm.
        comm: String,
        /// The kernel's words for the reason.
        kernel_string: String,
    },
    /// It refused more than it writes lines for.
    Suppressed(u64),
    /// Records were overwritten before they were read.
    Overwritten,
}

/// Reads the log from its oldest record on.
pub struct Reading(File);

impl Reading {
    pub fn open() -> io::Result<Self> {
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(KERNEL_LOG).map(Self)
    }

    /// The next record about lockdown, if there is one already.
    pub fn take(&mut self) -> Option<Record> {
        let mut record = [0; 8192];
        loop {
            match self.0.read(&mut record) {
                Ok(0) => return None,
                Ok(length) => {
                    let found = parse(&String::from_utf8_lossy(&record[..length]), host::suspended_ns());
                    if found.is_some() {
                        return found;
                    }
                }
                Err(e) if e.kind() == ErrorKind::BrokenPipe => return Some(Record::Overwritten),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
    }
}

impl AsFd for Reading {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn suppressed_line(count: u64) -> String {
    let (before, after) = SUPPRESSED;
    format!("{before}{count}{after}")
}

/// Takes a record apart: `priority,sequence,microseconds,flags;message`, then lines with fields.
fn parse(record: &str, suspended_ns: u64) -> Option<Record> {
    let first = record.lines().next()?;
    let (header, message) = first.split_once(';')?;
    if let Some(count) = message.strip_prefix(SUPPRESSED.0).and_then(|rest| rest.strip_suffix(SUPPRESSED.1)) {
        return is_kernel(header).then(|| count.parse().ok().map(Record::Suppressed))?;
    }
    let line = parse_kernel_line(first)?;
    let microseconds: u64 = header.split(',').nth(2)?.parse().ok()?;
    Some(Record::Refusal {
        boot_ns: microseconds.saturating_mul(1000).saturating_add(suspended_ns),
        comm: crate::output::harmless(line.comm),
        kernel_string: crate::output::harmless(line.reason),
    })
}

/// Facility 0 is the kernel's own; user space writing to /dev/kmsg cannot take it.
fn is_kernel(header: &str) -> bool {
    header.split(',').next().and_then(|priority| priority.parse::<u32>().ok()).is_some_and(|p| p < 8)
}

/// The kernel's own line for a refusal, so that tools that know it keep working. Limited as the kernel
/// limits it: 10 in 5 seconds, then a line that says how many were left out.
pub struct Writing {
    file: File,
    limit: Limit,
}

impl Writing {
    pub fn open() -> Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .open(KERNEL_LOG)
            .with_context(|| format!("open {KERNEL_LOG} for writing (--kernel-log needs root)"))?;
        Ok(Self { file, limit: Limit::default() })
    }

    pub fn refusal(&mut self, comm: &str, kernel_string: &str) -> Result<()> {
        let (pass, suppressed) = self.limit.pass(Instant::now());
        let mut line = |text: String| {
            // 5 is notice, as the kernel has it. One write is one record.
            self.file
                .write_all(format!("<5>{text}\n").as_bytes())
                .with_context(|| format!("write to {KERNEL_LOG}"))
        };
        if suppressed > 0 {
            line(suppressed_line(suppressed.into()))?;
        }
        if pass {
            line(format!("Lockdown: {comm}: {kernel_string} is restricted; see man kernel_lockdown.7"))?;
        }
        Ok(())
    }
}

#[derive(Default)]
struct Limit {
    began: Option<Instant>,
    passed: u32,
    suppressed: u32,
}

impl Limit {
    /// Whether this one may pass, and how many were suppressed in a window that has just ended.
    fn pass(&mut self, now: Instant) -> (bool, u32) {
        let mut report = 0;
        if self.began.is_none_or(|began| now.duration_since(began) > Duration::from_secs(5)) {
            report = std::mem::take(&mut self.suppressed);
            self.began = Some(now);
            self.passed = 0;
        }
        if self.passed < 10 {
            self.passed += 1;
            (true, report)
        } else {
            self.suppressed += 1;
            (false, report)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_in_five_seconds_then_a_count() {
        let mut limit = Limit::default();
        let start = Instant::now();
        let passed = (0..25).filter(|_| limit.pass(start).0).count();
        assert_eq!(passed, 10);
        assert_eq!(limit.pass(start + Duration::from_secs(6)), (true, 15));
        assert_eq!(limit.pass(start + Duration::from_secs(6)), (true, 0));
    }

    #[test]
    fn the_kernels_records_are_read() {
        let record = "5,339,5140900,-;Lockdown: dd: /dev/mem,kmem,port is restricted; see man kernel_lockdown.7\n SUBSYSTEM=x\n";
        let refusal = Record::Refusal {
            boot_ns: 5_140_900_007,
            comm: "dd".into(),
            kernel_string: "/dev/mem,kmem,port".into(),
        };
        assert_eq!(parse(record, 7), Some(refusal));
        let record = "4,340,5140900,-;lockdown_is_locked_down: 12 callbacks suppressed\n";
        assert_eq!(parse(record, 0), Some(Record::Suppressed(12)));
        assert_eq!(suppressed_line(12), "lockdown_is_locked_down: 12 callbacks suppressed");
    }

    #[test]
    fn what_user_space_wrote_is_not_believed() {
        // Facility 1, user: our own lines, and anybody's.
        let line = "Lockdown: dd: hibernation is restricted; see man kernel_lockdown.7";
        assert_eq!(parse(&format!("13,339,5140900,-;{line}"), 0), None);
        assert_eq!(parse("12,340,1,-;lockdown_is_locked_down: 12 callbacks suppressed", 0), None);
        assert_eq!(parse("5,340,1,-;something else", 0), None);
        assert_eq!(parse("", 0), None);
    }
}
