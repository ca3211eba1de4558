/*!
`stockade enforce`: from flags to a policy in force, and how to undo it.
*/
use std::{collections::BTreeMap, fmt::Write, path::Path};

use anyhow::{Result, bail};
use schemars::JsonSchema;
use serde::Serialize;
use stockade_kernel::{
    Error, SettingRule,
    attach::Attachment,
    enforce::{Applied, Change, SelfTest, enforce},
    host::{self, SecureBoot},
    notices::Notice,
    seal,
};
use stockade_policy::{
    load,
    load::{Trust, Where},
    model::{LevelChoice, Mode, Policy, Said, Unknown, Verdict},
};
use stockade_reasons::Level;

use super::record;
use crate::{Exit, flags, output};

const UNDO: &str = "stockade lift";

/// The output of `enforce --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Report {
    /// started, replaced, tightened (added to what is sealed) or unchanged
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
    /// Settings that keep their value, as sysctl(8) names them
    pub frozen: Vec<String>,
    /// Settings that keep their value or get a stricter one
    pub ratcheted: Vec<String>,
    /// Settings held under this name only: writes to it are refused, and the value can change by other ways
    pub name_only: Vec<String>,
    /// How the program is attached: bpf-lsm, root-cgroup once sealed, or modify-return, which is weaker
    pub attachment: String,
    /// How it was proven: the reason that was asked for; null when the kernel left nothing to ask
    pub proven_by: Option<String>,
    /// What the administrator should know
    pub notices: Vec<String>,
    /// How to undo it; null when only a reboot does
    pub undo: Option<String>,
}

pub fn run(flags: &flags::Enforce, json: bool) -> Result<Exit> {
    let (policy, auto, why) = policy(flags)?;
    // What is added to a seal is recorded as the seal is.
    let prepared = if seal::is_sealed()? { Some(record::prepare(&policy.seal)?) } else { None };
    let mut not_recorded = None;
    let done = apply(
        || {
            let mut applied = enforce(&policy, auto)?;
            if let Some(prepared) = prepared.filter(|_| applied.change == Change::Tightened) {
                match record::commit(prepared, &policy, auto, Vec::new(), host::now()) {
                    Ok(recorded) => applied.notices.extend(recorded.problems.into_iter().map(Notice::Other)),
                    Err(error) => not_recorded = Some(error),
                }
            }
            Ok(applied)
        },
        why,
        json,
    )?;
    match not_recorded {
        Some(error) => Err(error.into()),
        None => Ok(done),
    }
}

/// Applies something, and prints what came of it.
pub fn apply(act: impl FnOnce() -> Result<Applied, Error>, why: Option<&str>, json: bool) -> Result<Exit> {
    // Before the level closes the file that tells.
    let weaker = host::active_lsms().is_ok_and(|list| !host::has_bpf_lsm(&list));
    let may_switch = if weaker { host::may_switch_in_kernel() } else { None };
    let applied = act()?;
    let report = report(&applied, why, may_switch);
    if json {
        output::json(&report)?;
    } else {
        output::text(&text(&report))?;
    }
    Ok(Exit::Done)
}

const COMMAND_LINE: &str = "command line";

/// The policy that flags ask for, what `auto` is here, and a word on that.
fn policy(flags: &flags::Enforce) -> Result<(Policy, Level, Option<&'static str>)> {
    let policy = if let Some(level) = flags.level {
        of_flags(level, flags)?
    } else {
        let from = match &flags.policy[..] {
            [] => Where::System(Path::new("/")),
            named => Where::Named(named),
        };
        // Whoever else may write the policy decides what is enforced.
        let mut policy = load(from, Trust::RootOnly)?.policy;
        if flags.audit {
            audit(&mut policy);
        }
        policy
    };
    let (auto, why) = if policy.says_auto() { auto()? } else { (Level::None, None) };
    Ok((policy, auto, why))
}

/// Of a policy from files nothing is refused any more; what would be is reported.
fn audit(policy: &mut Policy) {
    policy.mode = Said::at(Mode::Audit, COMMAND_LINE);
    let scopes = policy.scopes.iter_mut();
    let reasons = scopes.map(|scope| {
        if let Some(mode) = &mut scope.mode {
            *mode = Said::at(Mode::Audit, COMMAND_LINE);
        }
        &mut scope.reasons
    });
    for reasons in reasons.chain([&mut policy.reasons]) {
        for said in reasons.values_mut().filter(|said| said.value == Verdict::Deny) {
            *said = Said::at(Verdict::Audit, COMMAND_LINE);
        }
    }
    if policy.unknown_reasons.value == Unknown::Deny {
        policy.unknown_reasons = Said::at(Unknown::Audit, COMMAND_LINE);
    }
}

fn of_flags(level: LevelChoice, flags: &flags::Enforce) -> Result<Policy> {
    let mut policy = Policy::level(level, COMMAND_LINE);
    if let Some(unknown) = flags.unknown_reasons {
        policy.unknown_reasons = Said::at(unknown, COMMAND_LINE);
    }
    if flags.audit {
        // What is refused by name stays refused.
        policy.mode = Said::at(Mode::Audit, COMMAND_LINE);
    }
    if flags.audit && level == LevelChoice::None {
        bail!(
            "--audit with level none: there is nothing to audit; name the level to try, integrity or confidentiality"
        );
    }
    let mut named: BTreeMap<&str, &str> = BTreeMap::new();
    for (flag, names, verdict) in [
        ("--allow", &flags.allow, Verdict::Allow),
        ("--deny", &flags.deny, Verdict::Deny),
        ("--audit-reason", &flags.audit_reason, Verdict::Audit),
    ] {
        for reason in super::reasons(names)? {
            if let Some(before) = named.insert(reason.id, flag).filter(|before| *before != flag) {
                bail!(
                    "{} is named by both {before} and {flag}: a reason has one verdict; drop one of the two",
                    reason.id
                );
            }
            policy.reasons.insert(reason.id.into(), Said::at(verdict, COMMAND_LINE));
        }
    }
    Ok(policy)
}

/// Returns the level that `auto` stands for on this machine, and the cause.
pub fn auto() -> Result<(Level, Option<&'static str>)> {
    Ok(match host::secure_boot()? {
        SecureBoot::On => (Level::Integrity, Some("auto is integrity: EFI Secure Boot is on")),
        SecureBoot::Off => (Level::None, Some("auto is none: EFI Secure Boot is off")),
        SecureBoot::NoEfi => (Level::None, Some("auto is none: this machine did not boot by EFI")),
    })
}

fn report(applied: &Applied, why: Option<&str>, may_switch: Option<bool>) -> Report {
    let types = &applied.types;
    let words = applied.slot.words;
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
    notices.extend(super::residual::notice(types, applied.native, words.deny));
    Report {
        change: match applied.change {
            Change::Started => "started",
            Change::Replaced => "replaced",
            Change::Tightened => "tightened",
            Change::Unchanged => "unchanged",
        }
        .into(),
        level: level.to_string(),
        audit: applied.slot.audit == 1,
        refused: super::ids(words.deny, types),
        audited: super::ids(words.watched & !words.deny, types),
        allowed: super::ids(applied.slot.allow, types),
        frozen: super::held(&applied.settings, SettingRule::FREEZE),
        ratcheted: super::held(&applied.settings, SettingRule::RATCHET),
        name_only: super::name_only(&applied.settings),
        attachment: super::attachment(applied.attachment).into(),
        proven_by: match &applied.self_test {
            SelfTest::Passed { reason } => Some(reason.clone()),
            _ => None,
        },
        notices,
        undo: (applied.attachment != Attachment::RootCgroup).then(|| UNDO.into()),
    }
}

fn text(report: &Report) -> String {
    let mut out = String::new();
    let what = format!("{}{}", report.level, if report.audit { ", audited" } else { "" });
    let _ = match report.change.as_str() {
        "unchanged" => writeln!(out, "Already in force: {what}. Nothing was changed."),
        "tightened" => writeln!(out, "In force: {what}, added to what is sealed."),
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
    if !report.frozen.is_empty() || !report.ratcheted.is_empty() {
        let (frozen, ratcheted) = (report.frozen.len(), report.ratcheted.len());
        let mode = if report.audit { ", audited: writes go through and are reported" } else { "" };
        let _ = writeln!(out, "  {frozen} settings frozen, {ratcheted} can only become stricter{mode}");
    }
    if !report.name_only.is_empty() {
        let _ = writeln!(
            out,
            "  {} held under this name only, and can change by other ways (stockade policy check names them): {}",
            if report.name_only.len() == 1 { "1 setting" } else { "settings" },
            report.name_only.join(", ")
        );
    }
    if let Some(reason) = &report.proven_by {
        let _ = writeln!(
            out,
            "  proven: a real request ({reason}) reached the kernel program and got its answer"
        );
    }
    for notice in &report.notices {
        let _ = writeln!(out, "  note: {notice}");
    }
    let _ = match &report.undo {
        Some(undo) => writeln!(out, "Lasts until reboot. Undo with: {undo}"),
        None => writeln!(out, "Sealed: lasts until reboot."),
    };
    out
}
