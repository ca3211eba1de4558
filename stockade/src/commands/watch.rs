/*!
`stockade watch`: refusals and audits as they happen.
*/
use std::{
    fs,
    io::{self, BufWriter, Write},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::Serialize;
use stockade_kernel::{
    Event, Verdict,
    btf::KernelTypes,
    enforce::{read_back, reason_id},
    events::Reader,
};

use crate::{Exit, flags, requester};

const KERNEL_LOG: &str = "/dev/kmsg";

/// One line of `watch --json`.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Line {
    /// A refusal or an audit
    Event(Seen),
    /// Events that found the buffer full since the last such line
    Lost {
        /// How many
        events: u64,
    },
}

/// A refusal or an audit.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Seen {
    /// Nanoseconds since boot, suspend included
    pub boot_ns: u64,
    /// refused or audited
    pub verdict: String,
    /// The reason's id
    pub reason: String,
    /// The kernel's words for it
    pub kernel_string: String,
    /// Name of the thread
    pub comm: String,
    /// Thread id
    pub pid: u32,
    /// Process id
    pub tgid: u32,
    /// User id
    pub uid: u32,
    /// Inode number of the executable
    pub exe_inode: u64,
    /// Device of the executable, major:minor as the kernel has it
    pub exe_device: String,
    /// Path of the executable, while the process lives
    pub exe: Option<String>,
    /// Id of the cgroup
    pub cgroup_id: u64,
    /// Path of the cgroup, while the process lives
    pub cgroup: Option<String>,
}

pub fn run(flags: &flags::Watch, json: bool) -> Result<Exit> {
    let types = KernelTypes::of_running_kernel()?;
    let mut reader = Reader::open()?;
    let mut log = if flags.kernel_log { Some(KernelLog::open()?) } else { None };
    let mut lost = Lost::default();
    let mut names = requester::Names::default();
    let mut out = BufWriter::new(io::stdout().lock());
    loop {
        while let Some(event) = reader.take() {
            let seen = seen(&event, &types, &mut names);
            if let Some(log) = log.as_mut().filter(|_| seen.verdict == "refused") {
                log.write(&seen)?;
            }
            print(&mut out, &Line::Event(seen), json)?;
        }
        if let Some(line) = lost.since_last(&types, flags.no_follow)? {
            print(&mut out, &line, json)?;
        }
        out.flush()?;
        if flags.no_follow {
            return Ok(Exit::Done);
        }
        reader.wait(Duration::from_secs(1))?;
    }
}

fn seen(event: &Event, types: &KernelTypes, names: &mut requester::Names) -> Seen {
    let reason = reason_id(types, event.reason);
    Seen {
        boot_ns: event.boot_ns,
        verdict: match Verdict::from_number(event.verdict) {
            Some(Verdict::Refused) => "refused",
            Some(Verdict::Audited) => "audited",
            None => "unknown",
        }
        .into(),
        kernel_string: stockade_reasons::by_id(&reason)
            .map_or_else(|| reason.clone(), |r| r.kernel_string.into()),
        reason,
        comm: requester::comm(event),
        pid: event.pid,
        tgid: event.tgid,
        uid: event.uid,
        exe_inode: event.exe_inode,
        exe_device: format!("{}:{}", event.exe_device >> 20, event.exe_device & 0xf_ffff),
        exe: names.exe(event),
        cgroup_id: event.cgroup,
        cgroup: names.cgroup(event),
    }
}

fn print(out: &mut impl Write, line: &Line, json: bool) -> Result<()> {
    if json {
        serde_json::to_writer(&mut *out, line).map_err(io::Error::from)?;
        return Ok(writeln!(out)?);
    }
    match line {
        Line::Lost { events } => Ok(writeln!(
            out,
            "{events} events found the buffer full and are not shown; `stockade status` has counted them"
        )?),
        Line::Event(e) => {
            let exe = e.exe.clone().unwrap_or_else(|| format!("inode {} on {}", e.exe_inode, e.exe_device));
            let cgroup = e.cgroup.clone().unwrap_or_else(|| format!("id {}", e.cgroup_id));
            Ok(writeln!(
                out,
                "[{:>5}.{:06}] {} {}: {} ({}), pid {}, uid {}, cgroup {}; why: stockade explain {}",
                e.boot_ns / 1_000_000_000,
                e.boot_ns / 1000 % 1_000_000,
                e.verdict,
                e.kernel_string,
                e.comm,
                exe,
                e.tgid,
                e.uid,
                cgroup,
                e.reason
            )?)
        }
    }
}

/// Reports lost events, asking at most once a second.
#[derive(Default)]
struct Lost {
    reported: u64,
    asked: Option<Instant>,
}

impl Lost {
    fn since_last(&mut self, types: &KernelTypes, now: bool) -> Result<Option<Line>> {
        if !now && self.asked.is_some_and(|at| at.elapsed() < Duration::from_secs(1)) {
            return Ok(None);
        }
        self.asked = Some(Instant::now());
        let total = read_back(types)?.map_or(self.reported, |state| state.lost_events);
        let events = total.saturating_sub(self.reported);
        self.reported = total;
        Ok((events > 0).then_some(Line::Lost { events }))
    }
}

/// The kernel's own line for a refusal, so that tools that know it keep working. Limited as the kernel
/// limits it: 10 in 5 seconds, then a line that says how many were left out.
struct KernelLog {
    file: fs::File,
    limit: Limit,
}

impl KernelLog {
    fn open() -> Result<Self> {
        let file = fs::OpenOptions::new()
            .write(true)
            .open(KERNEL_LOG)
            .with_context(|| format!("open {KERNEL_LOG} for writing (--kernel-log needs root)"))?;
        Ok(Self { file, limit: Limit::default() })
    }

    fn write(&mut self, seen: &Seen) -> Result<()> {
        let (pass, suppressed) = self.limit.pass(Instant::now());
        let mut line = |text: String| {
            // 5 is notice, as the kernel has it. One write is one record.
            self.file
                .write_all(format!("<5>{text}\n").as_bytes())
                .with_context(|| format!("write to {KERNEL_LOG}"))
        };
        if suppressed > 0 {
            line(format!("Lockdown: {suppressed} callbacks suppressed"))?;
        }
        if pass {
            line(format!(
                "Lockdown: {}: {} is restricted; see man kernel_lockdown.7",
                seen.comm, seen.kernel_string
            ))?;
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
}
