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
use stockade_kernel::{
    Event,
    attach::Attachment,
    btf::KernelTypes,
    description::Description,
    events::{self, EventKind, Reader},
    host,
    read_back::{InForce, program_in_force, read_back},
};
use stockade_reasons::Level;

use crate::{Exit, flags, kernel_log, requester};

mod line;

pub use line::Line;
use line::{Native, Seen, print, seen, written};

/// Events shown before the kernel log is looked at again.
const BATCH: usize = 4096;

pub fn run(flags: &flags::Watch, json: bool) -> Result<Exit> {
    watch(&mut BufWriter::new(io::stdout().lock()), flags, json)
}

/// Returns the events in the buffer, as `--json --no-follow` prints them. Events that were read once are not in the buffer any more.
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
                EventKind::Request(event) => event,
                EventKind::Setting(event) => {
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
    /// When requests were made whose lines are expected, by who made them and for what: nanoseconds since boot.
    expected: HashMap<(String, String), Vec<u64>>,
}

/// As long after the request its line in the kernel log may be, by the kernel's clock: the task may have had to wait for a processor between
/// the two.
const LATE_NS: u64 = 10_000_000_000;

impl Shown {
    /// Sets an event right: it was let through here, and refused by the kernel's own lockdown.
    fn correct(&mut self, seen: &mut Seen) {
        seen.verdict = "refused".into();
        seen.by = "native".into();
        let key = (seen.comm.clone(), seen.kernel_string.clone());
        self.expected.entry(key).or_default().push(seen.boot_ns);
        self.expected.retain(|_, times| {
            times.retain(|at| seen.boot_ns.saturating_sub(*at) <= LATE_NS);
            !times.is_empty()
        });
    }

    /// Whether a line of the kernel log is about a request that was shown. The kernel does not write a line
    /// for each, so what is expected is soon forgotten.
    fn has(&mut self, comm: &str, kernel_string: &str, boot_ns: u64) -> bool {
        let Some(times) = self.expected.get_mut(&(comm.to_owned(), kernel_string.to_owned())) else {
            return false;
        };
        match times.iter().position(|at| boot_ns.abs_diff(*at) <= LATE_NS) {
            Some(position) => {
                times.remove(position);
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
        kernel_log::Record::Refusal { boot_ns, comm, kernel_string } => {
            !shown.has(comm, kernel_string, *boot_ns)
        }
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

    fn take(&mut self) -> Option<EventKind> {
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
        record_at(1, comm)
    }

    fn record_at(boot_ns: u64, comm: &str) -> kernel_log::Record {
        kernel_log::Record::Refusal { boot_ns, comm: comm.into(), kernel_string: "/proc/kcore access".into() }
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
    fn a_record_belongs_to_a_request_of_its_time_by_the_kernels_clock() {
        let lines =
            |at: u64, shown: &mut Shown| native_lines(&mut vec![record_at(at, "dd")], shown, true).len();
        let mut shown = Shown::default();
        shown.correct(&mut audited("dd"));
        assert_eq!(lines(LATE_NS + 2, &mut shown), 1, "much later");
        assert_eq!(lines(LATE_NS, &mut shown), 0, "its own");
        // What is expected no more is forgotten.
        shown.correct(&mut audited("dd"));
        shown.correct(&mut Seen { boot_ns: LATE_NS * 2, ..audited("cat") });
        assert_eq!(shown.expected.len(), 1);
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
