/*!
The lines of `watch`: what each tells, made of what the kernel told, and how it reads.
*/
use std::io::{self, Write};

use anyhow::Result;
use schemars::JsonSchema;
use serde::Serialize;
use stockade_kernel::{Event, SettingEvent, SettingRule, Verdict, btf::KernelTypes};
use stockade_policy::settings;

use crate::{output, requester};

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
    pub(super) fn time(&self) -> u64 {
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

fn verdict(event: &Event) -> &'static str {
    match Verdict::from_number(event.verdict) {
        Some(Verdict::Refused) => "refused",
        Some(Verdict::Audited) => "audited",
        Some(Verdict::Excepted) => "excepted",
        None => "unknown",
    }
}

pub(super) fn written(told: &SettingEvent, names: &mut requester::Names) -> Written {
    let text = |bytes: &[u8]| {
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        output::harmless(bytes[..end].strip_suffix(b"\n").unwrap_or(&bytes[..end]))
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

pub(super) fn seen(event: &Event, types: &KernelTypes, names: &mut requester::Names) -> Seen {
    let reason = types.reason_id(event.reason);
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

pub(super) fn print(out: &mut impl Write, line: &Line, json: bool) -> Result<()> {
    if json {
        let line = serde_json::to_string(line).map_err(io::Error::from)?;
        return Ok(writeln!(out, "{}", stockade_text::harmless_json(&line))?);
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

/// Returns the time in the form of the kernel log.
fn clock(boot_ns: u64) -> String {
    format!("[{:>5}.{:06}]", boot_ns / 1_000_000_000, boot_ns / 1000 % 1_000_000)
}
