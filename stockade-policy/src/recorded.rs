/*!
What happened, as `stockade watch --json` wrote it down: one JSON object for each line.

A record is evidence that others rely on, so what it lacks is said: events that were lost, lines that were cut
off, and a clock that starts anew. Fields that this version does not know are passed over, so that a record of
a newer watch can be read; a line that cannot be read at all is an error, since it may be the one that matters.
*/
use std::{
    collections::HashMap,
    io::{self, BufRead},
};

use serde::Deserialize;

use stockade_text::harmless;

/// The longest line that is read, in bytes. Two paths of 4 KiB, with every byte escaped, fit.
const LONGEST_LINE: u64 = 1 << 20;

/// By so much the clock of one boot may seem to run backwards: events of several processors arrive out of order.
const DISORDER_NS: u64 = 10_000_000_000;

/// The outcome of a request when it was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was let through and reported.
    Audited,
    /// It was refused.
    Refused,
    /// An exception let it through.
    Excepted,
    /// A word that this version does not know.
    #[serde(other)]
    Unknown,
}

/// A request that Stockade saw.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Event {
    /// Nanoseconds since boot.
    pub boot_ns: u64,
    /// The outcome.
    pub verdict: Outcome,
    /// The lockdown that decided: `stockade`, or `native`.
    #[serde(default)]
    pub by: String,
    /// Id of the reason; the kernel's name for it where the table lacks it.
    pub reason: String,
    /// Name of the thread. The process chose it.
    #[serde(default)]
    pub comm: String,
    /// Real user id.
    pub uid: u32,
    /// Path of the program, where its process still lived when it was looked up.
    #[serde(default)]
    pub exe: Option<String>,
    /// Number of the cgroup, which no other one has until reboot.
    #[serde(default)]
    pub cgroup_id: u64,
    /// Path of the cgroup, where it could be looked up.
    #[serde(default)]
    pub cgroup: Option<String>,
    /// Name of the exception that let it through.
    #[serde(default)]
    pub exception: Option<String>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
enum Line {
    Event(Event),
    Setting {},
    Native {},
    Lost {
        events: u64,
    },
    NotLogged {
        refusals: u64,
    },
    LogOverwritten,
    #[serde(other)]
    Other,
}

/// A whole record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The requests that Stockade decided, in the record's order.
    pub events: Vec<Event>,
    /// The parts that are known to be missing.
    pub missing: Missing,
}

/// The parts that a record lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Events that found the buffer full.
    pub lost: u64,
    /// Refusals by the kernel's own lockdown, which no policy of Stockade's changes.
    pub native: u64,
    /// Of those, the ones that the kernel did not log.
    pub not_logged: u64,
    /// Writes to settings, which are held whoever writes.
    pub settings: u64,
    /// Whether the kernel log was overwritten before it was read.
    pub overwritten: bool,
    /// Lines of types that this version does not know.
    pub other_lines: u64,
    /// The number of the last line, where it was cut off.
    pub cut_off: Option<u64>,
    /// The number of the line at which the clock starts anew: the host was booted in between.
    pub rebooted: Option<u64>,
}

/// Why a record could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file.
    #[error("read {file}: {source}")]
    Unreadable {
        /// Which.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// A line.
    #[error(
        "{file}:{line}: this is not a line of `stockade watch --json`: {why}; take the line out if it does not belong there"
    )]
    Broken {
        /// In which file.
        file: String,
        /// Which, from 1.
        line: u64,
        /// The mistake.
        why: String,
    },
}

/// Reads a record. The name is for messages.
///
/// # Errors
/// When it cannot be read, or a line of it is broken. A last line that was cut off is told in [`Missing`]: watch
/// was stopped while it wrote.
pub fn read_record(name: &str, mut input: impl BufRead) -> Result<Record, RecordError> {
    let name = harmless(name);
    let mut record = Record::default();
    let mut bytes = Vec::new();
    let (mut line, mut clock) = (0, 0);
    loop {
        bytes.clear();
        let read = io::Read::take(&mut input, LONGEST_LINE).read_until(b'\n', &mut bytes);
        let length = read.map_err(|source| RecordError::Unreadable { file: name.clone(), source })?;
        if length == 0 {
            break;
        }
        line += 1;
        let ended = bytes.last() == Some(&b'\n');
        let broken = |why: String| RecordError::Broken { file: name.clone(), line, why };
        if !ended && length as u64 == LONGEST_LINE {
            return Err(broken(format!("it has more than {LONGEST_LINE} bytes")));
        }
        if bytes.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice::<Line>(&bytes) {
            Ok(Line::Event(event)) => {
                if event.boot_ns.saturating_add(DISORDER_NS) < clock {
                    record.missing.rebooted.get_or_insert(line);
                }
                clock = event.boot_ns;
                record.take(event);
            }
            Ok(other) => record.missing.note(&other),
            Err(e) if e.is_eof() && !ended => record.missing.cut_off = Some(line),
            Err(e) => return Err(broken(why(&e))),
        }
    }
    if record.missing.rebooted.is_none() {
        record.complete_cgroups();
    }
    Ok(record)
}

/// Without the number of the line, which is always the first of what was handed over.
fn why(error: &serde_json::Error) -> String {
    let said = harmless(error.to_string());
    let words = said.split(" at line ").next().unwrap_or_default();
    if error.column() > 0 { format!("{words} at column {}", error.column()) } else { words.to_owned() }
}

impl Record {
    fn take(&mut self, event: Event) {
        // Stockade let it through, and an exception would again: the kernel's own lockdown refuses it still.
        if event.by == "native" {
            self.missing.native += 1;
        } else {
            self.events.push(event);
        }
    }

    /// Gives events whose process was gone the cgroup that another event with the same number had. A number is never
    /// given twice while the host runs.
    fn complete_cgroups(&mut self) {
        let mut paths: HashMap<u64, Option<String>> = HashMap::new();
        // Without a v2 hierarchy every event has the root's number, 1.
        for event in self.events.iter().filter(|event| event.cgroup_id > 1) {
            if let Some(path) = &event.cgroup {
                let known = paths.entry(event.cgroup_id).or_insert_with(|| Some(path.clone()));
                if known.as_ref() != Some(path) {
                    *known = None;
                }
            }
        }
        for event in self.events.iter_mut().filter(|event| event.cgroup.is_none()) {
            event.cgroup = paths.get(&event.cgroup_id).cloned().flatten();
        }
    }

    /// Paths of all cgroups in it.
    pub fn cgroups(&self) -> impl Iterator<Item = &str> {
        self.events.iter().filter_map(|event| event.cgroup.as_deref())
    }
}

impl Missing {
    fn note(&mut self, line: &Line) {
        match line {
            Line::Event(_) => {}
            Line::Setting {} => self.settings += 1,
            Line::Native {} => self.native += 1,
            Line::Lost { events } => self.lost = self.lost.saturating_add(*events),
            Line::NotLogged { refusals } => {
                self.native = self.native.saturating_add(*refusals);
                self.not_logged = self.not_logged.saturating_add(*refusals);
            }
            Line::LogOverwritten => self.overwritten = true,
            Line::Other => self.other_lines += 1,
        }
    }

    /// Returns the caveats for everything that is made from the record, one sentence each.
    #[must_use]
    pub fn caveats(&self) -> Vec<String> {
        let mut caveats = Vec::new();
        if self.lost > 0 {
            caveats.push(format!(
                "{} missing from this record: the buffer was full",
                count(self.lost, "event is", "events are")
            ));
        }
        if let Some(line) = self.cut_off {
            caveats.push(format!("line {line}, the last one, is cut off and was left out"));
        }
        if let Some(line) = self.rebooted {
            caveats.push(format!(
                "the clock starts anew at line {line}: the host was booted in between, and times since boot are of either boot"
            ));
        }
        if self.native > 0 {
            caveats.push(format!(
                "{} left out, since no policy of Stockade's changes that",
                count(
                    self.native,
                    "refusal by the kernel's own lockdown was",
                    "refusals by the kernel's own lockdown were"
                )
            ));
        }
        if self.not_logged > 0 {
            caveats.push(format!(
                "of those, {} not logged by the kernel",
                count(self.not_logged, "was", "were")
            ));
        }
        if self.settings > 0 {
            caveats.push(format!(
                "{} left out: who may change a setting that is held is nobody's exception",
                count(self.settings, "write to a setting was", "writes to settings were")
            ));
        }
        if self.overwritten {
            caveats.push(
                "the kernel log was overwritten before it was read: refusals by the kernel's own lockdown may be missing"
                    .into(),
            );
        }
        if self.other_lines > 0 {
            caveats.push(format!(
                "{} of types that this version does not know left out: a newer stockade wrote this record",
                count(self.other_lines, "line was", "lines were")
            ));
        }
        caveats
    }
}

/// `1 event is`, `2 events are`.
pub(crate) fn count(number: u64, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"type":"event","boot_ns":5,"verdict":"audited","by":"stockade","reason":"msr","kernel_string":"raw MSR access","comm":"wrmsr","pid":7,"tgid":7,"uid":0,"exe_inode":9,"exe_device":"8:1","exe":"/usr/sbin/wrmsr","cgroup_id":40,"cgroup":"/system.slice/tune.service"}"#;

    fn record(text: &str) -> Record {
        read_record("events", text.as_bytes()).unwrap()
    }

    fn error(text: &str) -> String {
        read_record("ev\nents", text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn what_watch_writes_is_read_and_what_is_newer_passed_over() {
        let newer = EVENT.replace("\"uid\"", "\"colour\":{\"a\":[1]},\"uid\"").replace("audited", "pondered");
        let text = format!(
            "{EVENT}\n\n{newer}\n{}\n{}\n{}\n{}\n{}\n",
            r#"{"type":"native","boot_ns":1,"verdict":"refused","reason":null,"kernel_string":"x","comm":"y"}"#,
            r#"{"type":"lost","events":3}"#,
            r#"{"type":"not-logged","refusals":2}"#,
            r#"{"type":"log-overwritten"}"#,
            r#"{"type":"sealed","by":"root"}"#,
        );
        let record = record(&text);
        let verdicts: Vec<_> = record.events.iter().map(|e| e.verdict).collect();
        assert_eq!(verdicts, [Outcome::Audited, Outcome::Unknown]);
        assert_eq!(record.events[0].exe.as_deref(), Some("/usr/sbin/wrmsr"));
        let Missing { lost, native, not_logged, overwritten, other_lines, .. } = record.missing;
        assert_eq!((lost, native, not_logged, overwritten, other_lines), (3, 3, 2, true, 1));
        assert!(record.missing.caveats()[0].starts_with("3 events are missing from this record"));
    }

    #[test]
    fn a_broken_line_is_named_unless_it_is_the_last_one_cut_off() {
        assert!(error(&format!("{EVENT}\nnonsense\n{EVENT}\n")).starts_with("ev?ents:2: "));
        assert!(error(&format!("{EVENT}\n{{\"type\":\"event\"}}\n")).contains("missing field"));
        assert!(
            error(&EVENT[..40].to_owned().add_newline()).starts_with("ev?ents:1: "),
            "cut, but not the end"
        );
        for cut in 1..EVENT.len() {
            let record = record(&format!("{EVENT}\n{}", &EVENT[..cut]));
            assert_eq!((record.events.len(), record.missing.cut_off), (1, Some(2)), "{cut}");
        }
        let whole = record(EVENT);
        assert_eq!((whole.events.len(), whole.missing.cut_off), (1, None));
        let cut_character = [EVENT.as_bytes(), b"\n{\"type\":\"\xc3"].concat();
        assert_eq!(read_record("f", cut_character.as_slice()).unwrap().missing.cut_off, Some(2));
    }

    trait AddNewline {
        fn add_newline(self) -> String;
    }

    impl AddNewline for String {
        fn add_newline(self) -> String {
            self + "\n"
        }
    }

    #[test]
    fn a_line_without_end_is_not_taken_into_memory() {
        let endless = io::BufReader::new(io::repeat(b' '));
        assert!(read_record("f", endless).unwrap_err().to_string().contains("more than"));
    }

    #[test]
    fn native_refusals_are_no_business_of_a_policy() {
        let record = record(&format!("{}\n", EVENT.replace("\"stockade\"", "\"native\"")));
        assert_eq!((record.events.len(), record.missing.native), (0, 1));
    }

    #[test]
    fn a_cgroup_is_known_by_its_number_within_one_boot() {
        let gone =
            EVENT.replace("\"/system.slice/tune.service\"", "null").replace("\"boot_ns\":5", "\"boot_ns\":6");
        let known = record(&format!("{gone}\n{EVENT}\n"));
        assert_eq!(known.events[0].cgroup.as_deref(), Some("/system.slice/tune.service"));
        let late = EVENT.replace("\"boot_ns\":5", "\"boot_ns\":50000000000");
        let two_boots = record(&format!("{late}\n{gone}\n"));
        assert_eq!((two_boots.missing.rebooted, two_boots.events[1].cgroup.as_deref()), (Some(2), None));
        let root = record(&format!("{gone}\n{EVENT}\n").replace("\"cgroup_id\":40", "\"cgroup_id\":1"));
        assert_eq!(root.events[0].cgroup, None);
    }
}
