/*!
`stockade watch`: refusals and audits as they happen, Stockade's own and those of the kernel's own lockdown,
which refuses before Stockade is asked and tells the kernel log alone.
*/
use std::{
    collections::HashMap,
    io::{self, BufWriter, Write},
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

use anyhow::Result;
use schemars::JsonSchema;
use serde::Serialize;
use stockade_kernel::{
    Event, SettingEvent, SettingRule, Verdict,
    attach::Attachment,
    btf::KernelTypes,
    description::Description,
    events::{self, Reader, Told},
    host,
    read_back::{InForce, program_in_force, read_back, reason_id},
};
use stockade_policy::settings;
use stockade_reasons::Level;

use crate::{Exit, flags, kernel_log, output, requester};

/// Events shown before the kernel log is looked at again.
const BATCH: usize = 4096;

/// One line of `watch --json`.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Line {
    /// A refusal or an audit that Stockade saw
    Event(Seen),
    /// A write to a setting that is held
    Setting(Written),
    /// A refusal by the kernel's own lockdown, of which only the kernel log tells
    Native(Native),
    /// Events that found the buffer full since the last such line
    Lost {
        /// How many
        events: u64,
    },
    /// Refusals by the kernel's own lockdown that it wrote no line for
    NotLogged {
        /// How many
        refusals: u64,
    },
    /// The kernel log was overwritten before it was read: refusals by the kernel's own lockdown may be missing
    LogOverwritten,
}

impl Line {
    /// When it happened. What has no time of its own comes last.
    fn time(&self) -> u64 {
        match self {
            Self::Event(seen) => seen.boot_ns,
            Self::Setting(written) => written.boot_ns,
            Self::Native(native) => native.boot_ns,
            Self::Lost { .. } | Self::NotLogged { .. } | Self::LogOverwritten => u64::MAX,
        }
    }
}

/// A refusal by the kernel's own lockdown.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Native {
    /// Nanoseconds since boot by the kernel log's clock, which runs apart from that of events, in time by seconds
    pub boot_ns: u64,
    /// refused
    pub verdict: String,
    /// The reason's id; null for words that this version does not know
    pub reason: Option<String>,
    /// The kernel's words for it
    pub kernel_string: String,
    /// Name of the thread
    pub comm: String,
}

/// A refusal, an audit, or the use of an exception.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Seen {
    /// Nanoseconds since boot, suspend included
    pub boot_ns: u64,
    /// refused, audited, or excepted: let through by an exception or a grant
    pub verdict: String,
    /// Who decided: stockade; or native, where Stockade let through what the kernel's own lockdown refused
    pub by: String,
    /// Name of the exception or grant that let it through; null where none did, or its policy is no longer in force
    pub exception: Option<String>,
    /// Place of the policy that decided, a cgroup or a pattern of them; null outside of every scope
    pub place: Option<String>,
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
    /// Id of the cgroup in the v2 hierarchy; the root's, 1, where only v1 hierarchies are used
    pub cgroup_id: u64,
    /// Path of the cgroup in the v2 hierarchy, while the process lives and where it is mounted
    pub cgroup: Option<String>,
}

/// A write to a setting that is held.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Written {
    /// Nanoseconds since boot, suspend included
    pub boot_ns: u64,
    /// refused or audited
    pub verdict: String,
    /// The setting, as sysctl(8) names it
    pub setting: String,
    /// How it is held: freeze or ratchet
    pub held: String,
    /// The beginning of what was to be written
    pub value: String,
    /// Whether that is all of it
    pub whole: bool,
    /// Name of the thread
    pub comm: String,
    /// Thread id
    pub pid: u32,
    /// Process id
    pub tgid: u32,
    /// User id
    pub uid: u32,
    /// Path of the executable, while the process lives
    pub exe: Option<String>,
    /// Id of the cgroup in the v2 hierarchy
    pub cgroup_id: u64,
    /// Path of the cgroup in the v2 hierarchy, while the process lives and where it is mounted
    pub cgroup: Option<String>,
}

pub fn run(flags: &flags::Watch, json: bool) -> Result<Exit> {
    watch(&mut BufWriter::new(io::stdout().lock()), flags, json)
}

/// What is there, as `--json --no-follow` prints it. What was read once is in the buffer no more.
pub fn recorded() -> Result<Vec<u8>> {
    let mut lines = Vec::new();
    watch(&mut lines, &flags::Watch { kernel_log: false, no_follow: true }, true)?;
    Ok(lines)
}

fn watch(out: &mut impl Write, flags: &flags::Watch, json: bool) -> Result<Exit> {
    let types = KernelTypes::of_running_kernel()?;
    let mut watched = Watched::open(&types)?;
    let mut native = open_kernel_log();
    let mut own_lines = if flags.kernel_log { Some(kernel_log::Writing::open()?) } else { None };
    let mut names = requester::Names::default();
    let mut shown = Shown::default();
    let mut records = Vec::new();
    loop {
        let mut lines = Vec::new();
        // Before the events: where Stockade is asked first, each record read here has its event in the buffer.
        records.extend(std::iter::from_fn(|| native.as_mut().and_then(kernel_log::Reading::take)));
        while lines.len() < BATCH
            && let Some(told) = watched.take()
        {
            let event = match told {
                Told::Request(event) => event,
                Told::Setting(event) => {
                    lines.push(Line::Setting(written(&event, &mut names)));
                    continue;
                }
            };
            let mut seen = watched.seen(&event, &types, &mut names)?;
            if seen.verdict == "audited" && watched.native_refuses(event.reason, &types) {
                shown.correct(&mut seen);
            }
            if let Some(own) = own_lines.as_mut().filter(|_| seen.verdict == "refused" && seen.by != "native")
            {
                own.refusal(&seen.comm, &seen.kernel_string)?;
            }
            lines.push(Line::Event(seen));
        }
        let all_read = lines.len() < BATCH;
        let last = flags.no_follow && all_read;
        lines.extend(native_lines(&mut records, &mut shown, all_read));
        lines.extend(watched.check(&types, last)?);
        lines.sort_by_key(Line::time);
        for line in &lines {
            print(out, line, json)?;
        }
        out.flush()?;
        if last {
            return Ok(Exit::Done);
        }
        let sources: Vec<_> = watched.source().into_iter().chain(native.as_ref().map(AsFd::as_fd)).collect();
        events::wait(&sources, Duration::from_secs(1))?;
    }
}

/// Native refusals are worth having, not worth failing for.
fn open_kernel_log() -> Option<kernel_log::Reading> {
    kernel_log::Reading::open()
        .inspect_err(|e| {
            eprintln!("stockade: refusals by the kernel's own lockdown are not shown: /dev/kmsg: {e}");
        })
        .ok()
}

/// What native lockdown refuses although Stockade let it through: only with modify-return, where Stockade
/// is asked first. Its lines in the kernel log are about requests that were shown already.
#[derive(Default)]
struct Shown {
    expected: HashMap<(String, String), (u32, Instant)>,
}

impl Shown {
    /// Sets an event right: it was let through here, and refused by the kernel's own lockdown.
    fn correct(&mut self, seen: &mut Seen) {
        seen.verdict = "refused".into();
        seen.by = "native".into();
        let key = (seen.comm.clone(), seen.kernel_string.clone());
        let (count, at) = self.expected.entry(key).or_insert((0, Instant::now()));
        (*count, *at) = (*count + 1, Instant::now());
    }

    /// Whether a line of the kernel log is about a request that was shown. The kernel does not write a line
    /// for each, so what is expected is soon forgotten.
    fn has(&mut self, comm: &str, kernel_string: &str) -> bool {
        self.expected.retain(|_, (count, at)| *count > 0 && at.elapsed() < Duration::from_secs(1));
        match self.expected.get_mut(&(comm.to_owned(), kernel_string.to_owned())) {
            Some((count, _)) => {
                *count -= 1;
                true
            }
            None => false,
        }
    }
}

/// Records of the kernel log as lines, without those that were shown already. While events wait to be read
/// (`!all_read`) a record may be about one of them, and is kept.
fn native_lines(records: &mut Vec<kernel_log::Record>, shown: &mut Shown, all_read: bool) -> Vec<Line> {
    records.retain(|record| match record {
        kernel_log::Record::Refusal { comm, kernel_string, .. } => !shown.has(comm, kernel_string),
        _ => true,
    });
    if all_read { std::mem::take(records).into_iter().map(native_line).collect() } else { Vec::new() }
}

fn native_line(record: kernel_log::Record) -> Line {
    match record {
        kernel_log::Record::Refusal { boot_ns, comm, kernel_string } => {
            let reason = stockade_reasons::by_kernel_string(&kernel_string).map(|r| r.id.to_owned());
            Line::Native(Native { boot_ns, verdict: "refused".into(), reason, kernel_string, comm })
        }
        kernel_log::Record::Suppressed(refusals) => Line::NotLogged { refusals },
        kernel_log::Record::Overwritten => Line::LogOverwritten,
    }
}

/// The enforcement that is watched: the one in force, whichever that is by now.
struct Watched {
    reader: Option<Reader>,
    program: Option<u32>,
    /// The level of the kernel's own lockdown where it is asked after Stockade, otherwise none.
    asked_after: Level,
    lost_before: u64,
    checked: Option<Instant>,
    /// The policy in force in words, for the names of exceptions and places.
    description: Option<Description>,
}

impl Watched {
    /// Fails when there is nothing that could refuse.
    fn open(types: &KernelTypes) -> Result<Self> {
        let state = read_back(types)?;
        let program = state.as_ref().map(|state| state.program_id);
        let reader = match program {
            None if host::native_lockdown()? > Level::None => {
                eprintln!(
                    "stockade: Stockade enforces nothing; showing what the kernel's own lockdown refuses"
                );
                None
            }
            _ => Some(Reader::open()?),
        };
        let asked_after = asked_after(state.as_ref())?;
        let description = state.and_then(|state| state.description);
        Ok(Self { reader, program, asked_after, lost_before: 0, checked: None, description })
    }

    fn take(&mut self) -> Option<Told> {
        self.reader.as_mut()?.take()
    }

    /// An event in words, with the names that the policy in force gives.
    fn seen(&mut self, event: &Event, types: &KernelTypes, names: &mut requester::Names) -> Result<Seen> {
        let mut seen = seen(event, types, names);
        let excepted = seen.verdict == "excepted";
        if excepted && self.exception(event, &seen.reason).is_none() {
            // By a policy that was applied since the last look.
            self.description = read_back(types)?.and_then(|state| state.description);
        }
        if excepted {
            seen.exception = self.exception(event, &seen.reason);
        }
        let number = (event.place as usize).checked_sub(1);
        let place = self.description.as_ref().zip(number).and_then(|(d, number)| d.places.get(number));
        seen.place = place.map(ToString::to_string);
        Ok(seen)
    }

    fn exception(&self, event: &Event, reason: &str) -> Option<String> {
        let exe = (event.exe_inode, event.exe_device);
        let description = self.description.as_ref()?;
        let exception = description.exception(reason, event.place, event.shape, exe, event.uid)?;
        Some(exception.name.value.clone())
    }

    /// Whether the kernel's own lockdown refuses this reason after Stockade has let it through.
    fn native_refuses(&self, number: u32, types: &KernelTypes) -> bool {
        match self.asked_after {
            Level::None => false,
            Level::Integrity => types.is_integrity(number),
            Level::Confidentiality => true,
        }
    }

    fn source(&self) -> Option<BorrowedFd<'_>> {
        self.reader.as_ref().map(AsFd::as_fd)
    }

    /// Looks, at most once a second, for lost events and for enforcement that has come or gone.
    fn check(&mut self, types: &KernelTypes, now: bool) -> Result<Option<Line>> {
        if !now && self.checked.is_some_and(|at| at.elapsed() < Duration::from_secs(1)) {
            return Ok(None);
        }
        self.checked = Some(Instant::now());
        let state = read_back(types)?;
        let program = state.as_ref().map(|s| s.program_id);
        self.asked_after = asked_after(state.as_ref())?;
        if program != self.program {
            // The old one's lock has to go before the new one is taken.
            self.reader = None;
            self.reader = match program.map(|_| Reader::open()).transpose() {
                // Already lifted again: the next look tells what is in force by then.
                Err(_) if program_in_force() != program => return Ok(None),
                opened => opened?,
            };
            eprintln!(
                "stockade: {}",
                if program.is_some() { "enforcement was started" } else { "enforcement was lifted" }
            );
            self.program = program;
            self.lost_before = 0;
        }
        let total = state.as_ref().map_or(self.lost_before, |s| s.lost_events);
        self.description = state.and_then(|s| s.description);
        let events = total.saturating_sub(self.lost_before);
        self.lost_before = total;
        Ok((events > 0).then_some(Line::Lost { events }))
    }
}

fn asked_after(state: Option<&InForce>) -> Result<Level> {
    let first = state.is_some_and(|s| s.attachment == Attachment::ModifyReturn);
    Ok(if first { host::native_lockdown()? } else { Level::None })
}

fn verdict(event: &Event) -> &'static str {
    match Verdict::from_number(event.verdict) {
        Some(Verdict::Refused) => "refused",
        Some(Verdict::Audited) => "audited",
        Some(Verdict::Excepted) => "excepted",
        None => "unknown",
    }
}

fn written(told: &SettingEvent, names: &mut requester::Names) -> Written {
    let text = |bytes: &[u8]| {
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        output::harmless(String::from_utf8_lossy(&bytes[..end]).trim_end_matches('\n'))
    };
    let event = &told.event;
    Written {
        boot_ns: event.boot_ns,
        verdict: verdict(event).into(),
        setting: settings::dotted(&text(&told.name)),
        held: if told.hold == SettingRule::FREEZE { "freeze" } else { "ratchet" }.into(),
        value: text(&told.value),
        whole: (1..=told.value.len()).contains(&(told.length as usize)),
        comm: requester::comm(event),
        pid: event.pid,
        tgid: event.tgid,
        uid: event.uid,
        exe: names.exe(event),
        cgroup_id: event.cgroup,
        cgroup: names.cgroup(event),
    }
}

fn seen(event: &Event, types: &KernelTypes, names: &mut requester::Names) -> Seen {
    let reason = reason_id(types, event.reason);
    Seen {
        boot_ns: event.boot_ns,
        verdict: verdict(event).into(),
        by: "stockade".into(),
        exception: None,
        place: None,
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
        Line::NotLogged { refusals } => Ok(writeln!(
            out,
            "{refusals} refusals by the kernel's own lockdown were not logged by it and are not shown"
        )?),
        Line::LogOverwritten => Ok(writeln!(
            out,
            "the kernel log was overwritten before it was read: refusals by the kernel's own lockdown may be missing"
        )?),
        Line::Native(n) => Ok(writeln!(
            out,
            "{} refused by native lockdown {}: {}; why: stockade explain {}",
            clock(n.boot_ns),
            n.kernel_string,
            if n.comm.is_empty() { "unnamed" } else { &n.comm },
            n.reason.as_deref().unwrap_or("REASON (this version does not know these words)")
        )?),
        Line::Setting(w) => Ok(writeln!(
            out,
            "{} {} {}{}: {} ({}), pid {}, uid {}, cgroup {}; the policy holds this setting ({})",
            clock(w.boot_ns),
            w.verdict,
            w.setting,
            match (w.value.as_str(), w.whole) {
                // Nobody got as far as writing.
                ("", false) => String::new(),
                (value, true) => format!(" = {value:?}"),
                (value, false) => format!(" = {value:?} and more"),
            },
            w.comm,
            w.exe.as_deref().unwrap_or("program unknown"),
            w.tgid,
            w.uid,
            w.cgroup.clone().unwrap_or_else(|| format!("v2 id {}", w.cgroup_id)),
            w.held
        )?),
        Line::Event(e) => {
            let exe = e.exe.clone().unwrap_or_else(|| format!("inode {} on {}", e.exe_inode, e.exe_device));
            let cgroup = e.cgroup.clone().unwrap_or_else(|| format!("v2 id {}", e.cgroup_id));
            Ok(writeln!(
                out,
                "{} {}{} {}: {} ({}), pid {}, uid {}, cgroup {}; why: stockade explain {}",
                clock(e.boot_ns),
                e.verdict,
                match &e.exception {
                    Some(name) => format!(" by {name}:"),
                    None if e.by == "native" => " by native lockdown".into(),
                    None => String::new(),
                },
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

/// As the kernel log writes it.
fn clock(boot_ns: u64) -> String {
    format!("[{:>5}.{:06}]", boot_ns / 1_000_000_000, boot_ns / 1000 % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audited(comm: &str) -> Seen {
        Seen {
            boot_ns: 1,
            verdict: "audited".into(),
            by: "stockade".into(),
            exception: None,
            place: None,
            reason: "kcore".into(),
            kernel_string: "/proc/kcore access".into(),
            comm: comm.into(),
            pid: 1,
            tgid: 1,
            uid: 0,
            exe_inode: 0,
            exe_device: String::new(),
            exe: None,
            cgroup_id: 1,
            cgroup: None,
        }
    }

    fn record(comm: &str) -> kernel_log::Record {
        kernel_log::Record::Refusal {
            boot_ns: 1,
            comm: comm.into(),
            kernel_string: "/proc/kcore access".into(),
        }
    }

    #[test]
    fn one_request_is_one_line() {
        let lines = |comm: &str, shown: &mut Shown| native_lines(&mut vec![record(comm)], shown, true).len();
        let mut shown = Shown::default();
        let mut event = audited("dd");
        shown.correct(&mut event);
        assert_eq!((event.verdict.as_str(), event.by.as_str()), ("refused", "native"));
        assert_eq!(lines("cat", &mut shown), 1, "another program's");
        assert_eq!(lines("dd", &mut shown), 0, "its own");
        assert_eq!(lines("dd", &mut shown), 1, "a second one");
    }

    #[test]
    fn a_record_waits_for_its_event() {
        let (mut shown, mut records) = (Shown::default(), vec![record("dd"), record("cat")]);
        assert!(native_lines(&mut records, &mut shown, false).is_empty(), "told before all events were read");
        shown.correct(&mut audited("dd"));
        let told = native_lines(&mut records, &mut shown, true);
        assert!(matches!(&told[..], [Line::Native(n)] if n.comm == "cat"), "{told:?}");
        assert!(records.is_empty());
        assert_eq!(
            native_lines(&mut vec![record("dd")], &mut shown, true).len(),
            1,
            "a real one was swallowed"
        );
    }
}
