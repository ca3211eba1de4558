/*!
`stockade status`: what is enforced here, by whom, and what came of it.
*/
use std::fmt::Write;

use anyhow::Result;
use schemars::JsonSchema;
use serde::Serialize;
use stockade_kernel::{btf::KernelTypes, enforce::read_back, host};
use stockade_reasons::Level;

use crate::{Exit, output};

/// What `status --json` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Report {
    /// `uname -r`
    pub kernel: String,
    /// Level of the kernel's own lockdown
    pub native_lockdown: String,
    /// What Stockade has in force; null when nothing
    pub stockade: Option<InForce>,
    /// What weakens the protection right now
    pub warnings: Vec<String>,
}

/// What Stockade has in force.
#[derive(Debug, Serialize, JsonSchema)]
pub struct InForce {
    /// none, integrity or confidentiality
    pub level: String,
    /// Whether the level is audited, not enforced
    pub audit: bool,
    /// How the program is attached: bpf-lsm, or modify-return, which is weaker
    pub attachment: String,
    /// Whether root can lift it before reboot
    pub sealed: bool,
    /// Seconds since it was applied
    pub applied_seconds_ago: u64,
    /// Reasons refused
    pub refused: Vec<String>,
    /// Reasons let through and reported
    pub audited: Vec<String>,
    /// Reasons let through in spite of the level
    pub allowed: Vec<String>,
    /// Requests per reason since enforcement started
    pub counters: Vec<Counter>,
    /// Events that found the buffer full, most often since nobody watched
    pub lost_events: u64,
    /// Requests let through unasked, since another one was being decided on the same processor: can only
    /// happen with modify-return
    pub skipped: u64,
    /// As in `bpftool prog`
    pub program_id: u32,
    /// As in `bpftool link`
    pub link_id: u32,
}

/// Requests for one reason.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Counter {
    /// The reason's id
    pub reason: String,
    /// Refused
    pub refused: u64,
    /// Let through and reported
    pub audited: u64,
}

pub fn run(json: bool) -> Result<Exit> {
    let types = KernelTypes::of_running_kernel()?;
    let native = host::native_lockdown()?;
    let stockade = read_back(&types)?.map(|state| InForce {
        level: super::level_of(state.slot.level).to_string(),
        audit: state.slot.audit == 1,
        attachment: super::attachment(state.attachment).into(),
        skipped: state.skipped,
        sealed: false,
        applied_seconds_ago: host::boot_ns().saturating_sub(state.slot.applied_boot_ns) / 1_000_000_000,
        refused: super::ids(state.slot.scope.deny, &types),
        audited: super::ids(state.slot.scope.watched & !state.slot.scope.deny, &types),
        allowed: super::ids(state.slot.allow, &types),
        counters: state
            .counts
            .into_iter()
            .map(|c| Counter { reason: c.reason, refused: c.refused, audited: c.audited })
            .collect(),
        lost_events: state.lost_events,
        program_id: state.program_id,
        link_id: state.link_id,
    });
    let report = Report {
        kernel: host::kernel_release(),
        native_lockdown: native.to_string(),
        warnings: warnings(stockade.as_ref(), native, &types),
        stockade,
    };
    if json {
        output::json(&report)?;
    } else {
        output::text(&text(&report))?;
    }
    Ok(if report.stockade.is_some() { Exit::Done } else { Exit::No })
}

fn warnings(stockade: Option<&InForce>, native: Level, types: &KernelTypes) -> Vec<String> {
    let mut warnings = Vec::new();
    let in_force = stockade.is_some();
    let weaker = stockade.is_some_and(|s| s.attachment == "modify-return");
    if let Some(s) = stockade.filter(|_| weaker) {
        let lsms = host::active_lsms().unwrap_or_default();
        warnings.push(super::weaker(&lsms, host::may_switch_in_kernel()));
        if s.skipped > 0 {
            warnings.push(format!(
                "{} requests of all processes were let through unasked, since another one was being decided on the same processor",
                s.skipped
            ));
        }
    }
    if in_force && host::tracing_is_off() {
        warnings.push("kernel.ftrace_enabled is 0: the program does not run, nothing is refused by Stockade; turn it on with: sysctl kernel.ftrace_enabled=1".into());
    }
    if in_force && native > Level::None && weaker {
        warnings.push(format!("the kernel's own lockdown is at {native}: what Stockade lets through it still refuses, so allowing that has no effect"));
    } else if in_force && native > Level::None {
        warnings.push(format!("the kernel's own lockdown is at {native} and refuses first: what it refuses is not counted here, and allowing it has no effect"));
    }
    for reason in &types.reasons {
        if stockade_reasons::by_enum_name(&reason.enum_name).is_none() {
            warnings.push(format!(
                "this kernel checks {}, which this version of Stockade does not know",
                reason.enum_name
            ));
        }
    }
    warnings
}

fn text(report: &Report) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "Kernel           {}", report.kernel);
    let _ = writeln!(out, "Native lockdown  {}", report.native_lockdown);
    match &report.stockade {
        None => {
            let _ =
                writeln!(out, "Stockade         enforces nothing; try: stockade enforce integrity --audit");
        }
        Some(s) => {
            let mode = if s.audit { "audited, not enforced" } else { "enforced" };
            let _ = writeln!(out, "Stockade         {}, {mode}, since {} s", s.level, s.applied_seconds_ago);
            let _ = writeln!(
                out,
                "  attached as    {} (program {}, link {})",
                if s.attachment == "bpf-lsm" { "BPF LSM" } else { "modify-return, the weaker way" },
                s.program_id,
                s.link_id
            );
            let _ = writeln!(
                out,
                "  sealed         {}",
                if s.sealed { "yes: until reboot" } else { "no: root can lift it" }
            );
            for (title, list) in [("refused", &s.refused), ("audited", &s.audited), ("allowed", &s.allowed)] {
                if !list.is_empty() {
                    let _ = writeln!(out, "  {title:<13}  {}", list.join(", "));
                }
            }
            if !s.counters.is_empty() {
                let _ = writeln!(out, "\n  {:<24} {:>10} {:>10}", "since the start", "refused", "audited");
                for c in &s.counters {
                    let _ = writeln!(out, "  {:<24} {:>10} {:>10}", c.reason, c.refused, c.audited);
                }
            }
            if s.lost_events > 0 {
                let _ = writeln!(
                    out,
                    "  {} events found the buffer full (counted above, not seen by watch)",
                    s.lost_events
                );
            }
        }
    }
    for warning in &report.warnings {
        let _ = writeln!(out, "warning: {warning}");
    }
    out
}
