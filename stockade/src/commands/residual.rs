/*!
`stockade residual`: what was opened or loaded before and goes on in spite of the level. Lockdown checks when
something is opened or registered and takes nothing back.
*/
use std::{
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use schemars::JsonSchema;
use serde::Serialize;
use stockade_kernel::{
    btf::KernelTypes,
    host,
    read_back::{program_in_force, read_back},
};
use stockade_reasons::Level;
use stockade_residual::{INVISIBLE, Leftover, Residue, incomplete_view, look};

use self::text::text;
use crate::{Exit, output};

mod text;

/// `enforce` lets the count it prints use as much processor time. A look takes a tenth of it on a machine with 2,000 processes.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long `enforce` waits for the count in any case: a file server that does not answer could make it hang.
const HANG: Duration = Duration::from_secs(15);

/// How often it is looked whether the count has used too much.
const STEP: Duration = Duration::from_millis(50);

/// The output of `residual --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Report {
    /// `uname -r`
    pub kernel: String,
    /// Level of the kernel's own lockdown
    pub native_lockdown: String,
    /// The level Stockade has in force; null when it enforces nothing
    pub stockade: Option<String>,
    /// What goes on
    pub found: Vec<Found>,
    /// How many of them contradict what is in force
    pub contradictions: usize,
    /// What could not be looked at: nothing is claimed of it
    pub not_looked_at: Vec<NotLookedAt>,
    /// What the kernel shows to nobody: nothing is claimed of it either
    pub never_shown: Vec<String>,
    /// What may be worth knowing and is no leftover
    pub notes: Vec<String>,
    /// Processes looked at
    pub processes: usize,
}

/// Something that was opened or loaded before and goes on.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Found {
    /// The reason that would refuse it today
    pub reason: String,
    /// The level from which on this kernel refuses that reason
    pub level: String,
    /// Who refuses that reason now; null when nobody does
    pub refused_now_by: Option<Refuser>,
    /// What sort of thing it is
    pub kind: Kind,
    /// Which one, for instance /dev/mem
    pub what: String,
    /// The process that has it; null where it is the kernel's
    pub process: Option<Process>,
    /// Descriptors it is open under
    pub descriptors: Vec<Descriptor>,
    /// Addresses it is mapped at, and the access, as in /proc/PID/maps
    pub mappings: Vec<String>,
    /// Seconds since it was loaded; null where the kernel does not say, as for all but BPF programs
    pub loaded_seconds_ago: Option<u64>,
    /// Who or what keeps it, and more about it
    pub details: Vec<String>,
    /// What to do about it
    pub advice: String,
}

/// A process.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Process {
    /// Its number
    pub pid: u32,
    /// The thread, where threads do not share their descriptors
    pub thread: Option<u32>,
    /// Its name for itself, control characters replaced
    pub comm: String,
    /// Its program, control characters replaced; null where it has none
    pub exe: Option<String>,
    /// Seconds since the process started; what it holds it may have opened since, or inherited from before
    pub started_seconds_ago: Option<u64>,
}

/// An open descriptor.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Descriptor {
    /// Its number
    pub number: u32,
    /// What it was opened for: read, write or both
    pub access: Access,
}

/// The access mode of a descriptor.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Reading
    Read,
    /// Writing
    Write,
    /// Reading and writing
    Both,
}

/// Something that could not be looked at.
#[derive(Debug, Serialize, JsonSchema)]
pub struct NotLookedAt {
    /// What
    pub what: String,
    /// Why not
    pub why: String,
    /// The reason whose refusal hides it; null when it is something else
    pub hidden_by: Option<String>,
}

/// The lockdown that refuses a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Refuser {
    /// The kernel's own lockdown
    Native,
    /// Stockade
    Stockade,
}

/// The sorts of leftovers.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A file that is open, mapped or both
    File,
    /// Registers of a PCI device mapped into a process
    PciBar,
    /// A kprobe or another probe on kernel functions
    Kprobe,
    /// A probe on a program's function, or on a trace event, set through tracefs
    Uprobe,
    /// A kernel that kexec would start
    KexecImage,
    /// A kernel that a crash would start; kdump loads one on purpose
    CrashImage,
    /// A loaded module that lockdown would not let in
    Module,
    /// What the kernel remembers of modules and tables that are gone
    Taint,
    /// A BPF program that reads kernel memory or writes user memory
    BpfProgram,
}

impl From<stockade_residual::Kind> for Kind {
    fn from(kind: stockade_residual::Kind) -> Self {
        use stockade_residual::Kind as K;
        match kind {
            K::File => Self::File,
            K::PciBar => Self::PciBar,
            K::Kprobe => Self::Kprobe,
            K::Uprobe => Self::Uprobe,
            K::KexecImage => Self::KexecImage,
            K::CrashImage => Self::CrashImage,
            K::Module => Self::Module,
            K::Taint => Self::Taint,
            K::BpfProgram => Self::BpfProgram,
        }
    }
}

/// The reasons that are refused at present, and by which lockdown.
struct InForce<'a> {
    /// None on a kernel that describes no types: the table's levels serve there.
    types: Option<&'a KernelTypes>,
    native: Level,
    /// Stockade's set of refused reasons.
    deny: u64,
}

impl InForce<'_> {
    fn level(&self, reason: &str) -> Level {
        let Some(reason) = stockade_reasons::by_id(reason) else { return Level::Confidentiality };
        match self.types.and_then(|t| Some((t, t.number(reason.enum_name)?))) {
            Some((types, number)) if types.is_integrity(number) => Level::Integrity,
            Some(_) => Level::Confidentiality,
            None => reason.level,
        }
    }

    fn refuser(&self, reason: &str) -> Option<Refuser> {
        if self.native >= self.level(reason) {
            return Some(Refuser::Native);
        }
        let number = self.types?.number(stockade_reasons::by_id(reason)?.enum_name)?;
        (self.deny >> number & 1 == 1).then_some(Refuser::Stockade)
    }

    fn refused(&self) -> Vec<&'static str> {
        stockade_reasons::all().iter().map(|r| r.id).filter(|id| self.refuser(id).is_some()).collect()
    }
}

pub fn run(json: bool) -> Result<Exit> {
    if !host::is_root() {
        bail!(
            "looking into other processes and at BPF programs needs root: {}; nothing was looked at",
            super::how_to_be_root()
        );
    }
    let types = KernelTypes::of_running_kernel().ok();
    let mut notes = Vec::new();
    let native = host::native_lockdown().unwrap_or_else(|e| {
        notes.push(format!("the level of the kernel's own lockdown is not known: {e}"));
        Level::None
    });
    let state = match types.as_ref().map(read_back).transpose() {
        Ok(state) => state.flatten(),
        Err(e) => {
            notes.push(format!("what Stockade has in force is not known: {e}"));
            None
        }
    };
    let in_force = InForce {
        types: types.as_ref(),
        native,
        deny: state.as_ref().map_or(0, |state| state.slot.words.deny),
    };
    let stockade = state.as_ref().map(|state| {
        let audited = if state.slot.audit == 1 { ", audited" } else { "" };
        format!("{}{audited}", super::level_of(state.slot.level))
    });
    let mut residue = look(&|reason| in_force.refuser(reason).is_some(), None);
    notes.append(&mut residue.notes);
    let report = report(residue, &in_force, stockade, &notes);
    if json {
        output::json(&report)?;
    } else {
        output::text(&text(&report))?;
    }
    Ok(match (report.found.is_empty(), report.not_looked_at.is_empty()) {
        (false, _) => Exit::No,
        (true, true) => Exit::Done,
        (true, false) => Exit::Unknown,
    })
}

/// For `enforce`: a line when something contradicts what is in force now. Never an error, never long.
pub fn notice(types: &KernelTypes, native: Level, deny: u64) -> Option<String> {
    let refused = InForce { types: Some(types), native, deny }.refused();
    if refused.is_empty() {
        return None;
    }
    let (sender, answer) = mpsc::channel();
    // Left behind when it takes too long: it holds nothing, and ends with the command.
    thread::spawn(move || {
        let residue = look(&|reason| refused.contains(&reason), program_in_force());
        let contradictions = residue.leftovers.iter().filter(|l| refused.contains(&l.reason)).count();
        let _ = sender.send(contradictions);
    });
    match heard(&answer, PATIENCE, HANG) {
        Ok(0) => None,
        Ok(1) => Some("1 thing opened or loaded before goes on in spite of this: stockade residual".into()),
        Ok(n) => {
            Some(format!("{n} things opened or loaded before go on in spite of this: stockade residual"))
        }
        Err(why) => Some(format!(
            "the things opened or loaded before that go on in spite of this were not counted, since the count {why}: stockade residual"
        )),
    }
}

/// Waits for the answer of another thread of this process, unless it uses too much processor time or hangs.
fn heard<T>(answer: &mpsc::Receiver<T>, patience: Duration, hang: Duration) -> Result<T, String> {
    let (used_before, begin) = (processor_time(), Instant::now());
    loop {
        match answer.recv_timeout(STEP) {
            Ok(answer) => return Ok(answer),
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err("ended without an answer".into()),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
        let used = processor_time().saturating_sub(used_before);
        if used >= patience {
            return Err(format!("used {:.1} s of processor time without an answer", used.as_secs_f64()));
        }
        let elapsed = begin.elapsed();
        if elapsed >= hang {
            return Err(format!(
                "did not answer for {:.1} s and used {:.1} s of processor time",
                elapsed.as_secs_f64(),
                used.as_secs_f64()
            ));
        }
    }
}

/// Of this process.
fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is live for the call, which writes it.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.try_into().unwrap_or_default(), time.tv_nsec.try_into().unwrap_or_default())
}

fn report(residue: Residue, in_force: &InForce<'_>, stockade: Option<String>, notes: &[String]) -> Report {
    let mut found: Vec<Found> = residue.leftovers.into_iter().map(|l| found(l, in_force)).collect();
    // What contradicts first, then by level; within that as they were found.
    let rank = |f: &Found| (f.refused_now_by.is_none(), in_force.level(&f.reason));
    found.sort_by_key(rank);
    let mut not_looked_at: Vec<NotLookedAt> = residue
        .unseen
        .into_iter()
        .map(|u| NotLookedAt {
            what: u.what.into(),
            why: output::harmless(&u.why),
            hidden_by: u.hidden_by.map(Into::into),
        })
        .collect();
    not_looked_at.extend(incomplete_view().map(|why| NotLookedAt {
        what: "processes outside this namespace".into(),
        why: why.into(),
        hidden_by: None,
    }));
    Report {
        kernel: host::kernel_release(),
        native_lockdown: in_force.native.to_string(),
        stockade,
        contradictions: found.iter().filter(|f| f.refused_now_by.is_some()).count(),
        found,
        not_looked_at,
        never_shown: INVISIBLE.map(Into::into).into(),
        notes: notes.iter().map(output::harmless).collect(),
        processes: residue.processes,
    }
}

fn found(leftover: Leftover, in_force: &InForce<'_>) -> Found {
    let ago = |ns: u64| host::boot_ns().saturating_sub(ns) / 1_000_000_000;
    Found {
        level: in_force.level(leftover.reason).to_string(),
        refused_now_by: in_force.refuser(leftover.reason),
        reason: leftover.reason.into(),
        kind: leftover.kind.into(),
        what: output::harmless(&leftover.what),
        process: leftover.process.map(|process| Process {
            pid: process.pid,
            thread: process.thread,
            comm: output::harmless(&process.comm),
            exe: process.exe.map(|exe| output::harmless(&exe)),
            started_seconds_ago: process.started_boot_ns.map(ago),
        }),
        descriptors: leftover
            .descriptors
            .iter()
            .map(|d| Descriptor {
                number: d.number,
                access: match d.access {
                    stockade_residual::Access::Read => Access::Read,
                    stockade_residual::Access::Write => Access::Write,
                    stockade_residual::Access::Both => Access::Both,
                },
            })
            .collect(),
        mappings: leftover.mappings,
        loaded_seconds_ago: leftover.loaded_boot_ns.map(ago),
        details: leftover.details.iter().map(output::harmless).collect(),
        advice: output::harmless(&leftover.advice),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leftover(reason: &'static str, kind: stockade_residual::Kind, what: &str) -> Leftover {
        Leftover::new(reason, kind, what.into(), "reboot".into())
    }

    fn native(level: Level, residue: Residue) -> Report {
        report(residue, &InForce { types: None, native: level, deny: 0 }, None, &[])
    }

    fn two() -> Residue {
        let kcore = leftover("kcore", stockade_residual::Kind::File, "/proc/kcore");
        let module = leftover("module-signature", stockade_residual::Kind::Module, "module x\u{1b}[2J");
        Residue { leftovers: vec![kcore, module], ..Residue::default() }
    }

    #[test]
    fn a_count_is_waited_for_until_it_has_used_too_much_or_hangs() {
        let (sender, answer) = mpsc::channel();
        sender.send(7).unwrap();
        assert_eq!(heard(&answer, Duration::ZERO, Duration::ZERO), Ok(7));
        let long = Duration::from_hours(1);
        let why = heard(&answer, Duration::ZERO, long).unwrap_err();
        assert!(why.contains("of processor time without an answer"), "{why}");
        let why = heard(&answer, long, Duration::ZERO).unwrap_err();
        assert!(why.starts_with("did not answer for 0."), "{why}");
        drop(sender);
        assert_eq!(heard(&answer, long, long), Err("ended without an answer".into()));
    }

    #[test]
    fn what_contradicts_comes_first() {
        let report = native(Level::Integrity, two());
        assert_eq!(report.contradictions, 1);
        let text = text(&report);
        let spite = text.find("in spite of what is in force: 1").unwrap();
        assert!(spite < text.find("would go on under confidentiality: 1").unwrap(), "{text}");
        assert!(!text.contains("under integrity:"), "{text}");
        assert_eq!(native(Level::None, two()).contradictions, 0);
        assert_eq!(native(Level::Confidentiality, two()).contradictions, 2);
    }

    #[test]
    fn nothing_a_process_names_reaches_the_terminal() {
        assert!(!text(&native(Level::None, two())).contains('\u{1b}'));
    }

    #[test]
    fn what_was_not_looked_at_is_never_nothing() {
        let unseen = stockade_residual::Unseen {
            what: "uprobes",
            why: "Operation not permitted".into(),
            hidden_by: Some("tracefs"),
        };
        let report = native(Level::None, Residue { unseen: vec![unseen], ..Residue::default() });
        let text = text(&report);
        assert!(text.contains("in what could be looked at"), "{text}");
        assert!(text.contains("uprobes: cannot be seen while tracefs is refused"), "{text}");
    }
}
