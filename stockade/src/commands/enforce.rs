/*!
`stockade enforce`: from flags to a policy in force, and how to undo it.
*/
use std::fmt::Write;

use anyhow::Result;
use schemars::JsonSchema;
use serde::Serialize;
use stockade_kernel::{
    attach::Attachment,
    enforce::{Applied, Change, SelfTest, enforce},
    host::{self, SecureBoot},
    intent::{Intent, Unknown},
};
use stockade_reasons::Level;

use crate::{Exit, flags, output};

const UNDO: &str = "stockade lift";

/// What `enforce --json` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Report {
    /// started, replaced or unchanged
    pub change: String,
    /// The level in force
    pub level: String,
    /// Whether the level is audited, not enforced
    pub audit: bool,
    /// Reasons refused
    pub refused: Vec<String>,
    /// Reasons let through and reported
    pub audited: Vec<String>,
    /// Reasons let through in spite of the level
    pub allowed: Vec<String>,
    /// How the program is attached: bpf-lsm, or modify-return, which is weaker
    pub attachment: String,
    /// How it was proven: the reason that was asked for; null when the kernel left nothing to ask
    pub proven_by: Option<String>,
    /// What the administrator should know
    pub notices: Vec<String>,
    /// How to undo it
    pub undo: String,
}

pub fn run(flags: &flags::Enforce, json: bool) -> Result<Exit> {
    let (level, why) = level(flags.level)?;
    let intent = Intent {
        level,
        audit: flags.audit,
        allow: super::reasons(&flags.allow)?,
        deny: super::reasons(&flags.deny)?,
        audit_reasons: super::reasons(&flags.audit_reason)?,
        unknown: match flags.unknown_reasons {
            flags::UnknownChoice::Level => Unknown::Level,
            flags::UnknownChoice::Allow => Unknown::Allow,
            flags::UnknownChoice::Audit => Unknown::Audit,
            flags::UnknownChoice::Deny => Unknown::Deny,
        },
    };
    // Before the level closes the file that tells.
    let weaker = host::active_lsms().is_ok_and(|list| !host::has_bpf_lsm(&list));
    let may_switch = if weaker { host::may_switch_in_kernel() } else { None };
    let applied = enforce(&intent)?;
    let report = report(&applied, why, may_switch);
    if json {
        output::json(&report)?;
    } else {
        output::text(&text(&report))?;
    }
    Ok(Exit::Done)
}

fn level(choice: flags::LevelChoice) -> Result<(Level, Option<&'static str>)> {
    Ok(match choice {
        flags::LevelChoice::None => (Level::None, None),
        flags::LevelChoice::Integrity => (Level::Integrity, None),
        flags::LevelChoice::Confidentiality => (Level::Confidentiality, None),
        flags::LevelChoice::Auto => match host::secure_boot()? {
            SecureBoot::On => (Level::Integrity, Some("auto is integrity: EFI Secure Boot is on")),
            SecureBoot::Off => (Level::None, Some("auto is none: EFI Secure Boot is off")),
            SecureBoot::NoEfi => (Level::None, Some("auto is none: this machine did not boot by EFI")),
        },
    })
}

fn report(applied: &Applied, why: Option<&str>, may_switch: Option<bool>) -> Report {
    let types = &applied.types;
    let scope = applied.slot.scope;
    let mut notices: Vec<String> = why.iter().map(ToString::to_string).collect();
    notices.extend(applied.notices.iter().map(ToString::to_string));
    let level = super::level_of(applied.slot.level);
    let weaker = applied.attachment == Attachment::ModifyReturn;
    if weaker {
        notices.push(super::weaker(&host::active_lsms().unwrap_or_default(), may_switch));
    }
    if applied.native > Level::None && weaker {
        notices.push(format!(
            "the kernel's own lockdown is at {} too and refuses what Stockade lets through; allowing, auditing or lifting here has no effect on that until reboot",
            applied.native
        ));
    } else if applied.native > Level::None {
        let covers =
            if applied.native >= level { "everything this level would" } else { "the integrity reasons" };
        notices.push(format!(
            "the kernel's own lockdown is at {} and refuses {covers} first; allowing, auditing or lifting here has no effect on that until reboot",
            applied.native
        ));
    }
    if applied.self_test == SelfTest::NativeRefusesFirst {
        notices.push(
            "self-test not possible: the kernel's own lockdown refuses every door before Stockade is asked"
                .into(),
        );
    }
    notices.extend(super::residual::notice(types, applied.native, scope.deny));
    Report {
        change: match applied.change {
            Change::Started => "started",
            Change::Replaced => "replaced",
            Change::Unchanged => "unchanged",
        }
        .into(),
        level: level.to_string(),
        audit: applied.slot.audit == 1,
        refused: super::ids(scope.deny, types),
        audited: super::ids(scope.watched & !scope.deny, types),
        allowed: super::ids(applied.slot.allow, types),
        attachment: super::attachment(applied.attachment).into(),
        proven_by: match &applied.self_test {
            SelfTest::Passed { reason } => Some(reason.clone()),
            _ => None,
        },
        notices,
        undo: UNDO.into(),
    }
}

fn text(report: &Report) -> String {
    let mut out = String::new();
    let what = format!("{}{}", report.level, if report.audit { ", audited" } else { "" });
    let _ = match report.change.as_str() {
        "unchanged" => writeln!(out, "Already in force: {what}. Nothing was changed."),
        "replaced" => writeln!(out, "In force: {what}, instead of the policy before."),
        _ => writeln!(out, "In force: {what}."),
    };
    let _ = writeln!(
        out,
        "  {} reasons refused, {} audited{}",
        report.refused.len(),
        report.audited.len(),
        if report.allowed.is_empty() {
            String::new()
        } else {
            format!(", allowed by name: {}", report.allowed.join(", "))
        }
    );
    if let Some(reason) = &report.proven_by {
        let _ = writeln!(
            out,
            "  proven: a real request ({reason}) reached the kernel program and got its answer"
        );
    }
    for notice in &report.notices {
        let _ = writeln!(out, "  note: {notice}");
    }
    let _ = writeln!(out, "Lasts until reboot. Undo with: {}", report.undo);
    out
}
