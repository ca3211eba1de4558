/*!
`stockade seal`: no way back before the next boot.
*/
use std::fmt::Write;

use anyhow::Result;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use stockade_kernel::{
    enforce::SelfTest,
    seal::{Done, Options, seal},
};
use stockade_policy::{
    model::{Clock, Exception},
    trusted::TrustedProgram,
};
use stockade_reasons::Level;

use super::record;
use crate::{Exit, flags, output};

/// The output of `seal --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Report {
    /// The level that is sealed
    pub level: String,
    /// Whether the level is audited, not enforced
    pub audit: bool,
    /// Reasons refused
    pub refused: Vec<String>,
    /// Reasons let through and reported
    pub audited: Vec<String>,
    /// Milliseconds until it was in force; its proof and its record come after
    pub effective_after_ms: u64,
    /// Whether it was proven, by trying, that it holds
    pub verified: bool,
    /// The reason that was asked for to prove that it decides; null when there was none to ask for
    pub proven_by: Option<String>,
    /// Exceptions and grants that are sealed with it
    pub exceptions: Vec<String>,
    /// Foreign programs that were trusted by --trust: id, name and tag; the id alone of one that another guard hides
    pub trusted: Vec<String>,
    /// What the policy trusts, loaded or not: name, kind, hook and tags
    pub trusted_by_policy: Vec<String>,
    /// What is left open
    pub left_open: Vec<String>,
    /// Kernel hooks at which programs are held by the root cgroup
    pub hooks: Vec<String>,
    /// Where it was recorded
    pub recorded: Vec<String>,
    /// What the administrator should know
    pub notices: Vec<String>,
}

pub fn run(flags: &flags::Seal, json: bool) -> Result<Exit> {
    let options = Options { trust: flags.trust.clone(), best_effort: flags.best_effort };
    // Whether it can be recorded as the policy demands is to be known before: there is no way back.
    let (done, prepared) = seal(&options, |policy| record::prepare(&policy.seal))?;
    let mut report = report(&done);
    let at = Clock { boot_ns: done.sealed_boot_ns, wall: Timestamp::now() };
    let left_open = done.open.iter().map(stockade_kernel::seal::Gap::word).collect();
    let recorded = record::commit(prepared, &done.policy, done.auto, left_open, at);
    match &recorded {
        Ok(recorded) => {
            report.recorded = record::words(recorded);
            report.notices.extend(recorded.problems.iter().cloned());
        }
        Err(error) => report.notices.push(error.to_string()),
    }
    if json {
        output::json(&report)?;
    } else {
        output::text(&text(&report))?;
    }
    // The seal stands, and does not hold or was not recorded as demanded.
    Ok(if recorded.is_ok() && report.verified { Exit::Done } else { Exit::No })
}

fn report(done: &Done) -> Report {
    let words = done.slot.words;
    let mut notices: Vec<String> = done
        .started_before
        .iter()
        .map(|(pid, path)| {
            format!("{} runs as process {pid} and is excepted only once it is started anew", path.display())
        })
        .collect();
    notices.extend(done.problems.iter().map(|problem| format!("the seal does not hold: {problem}")));
    notices.extend(done.trusted_by_id.iter().map(|id| {
        format!(
            "program {id} is trusted as it is loaded now: another guard keeps its kind and tag from being looked at, and none of its kind \
             and tag can be loaded again"
        )
    }));
    notices.extend(done.trusted_without_hook.iter().map(|(name, hook)| {
        format!(
            "{name} is trusted on {hook}, which this kernel does not have: no program can be attached there"
        )
    }));
    if done.slot.audit == 1 {
        notices.push("the level is audited and not enforced: only what is refused by name is refused".into());
    }
    let powerful = |exception: &&Exception| {
        let reasons = exception.reasons.iter().filter_map(|reason| stockade_reasons::by_id(&reason.value));
        reasons.into_iter().any(|reason| reason.level == Level::Integrity)
    };
    for exception in done.policy.exceptions.iter().filter(powerful) {
        notices.push(format!(
            "whoever gets hold of what the exception {} lets through can change the kernel, and with it the seal",
            exception.name.value
        ));
    }
    notices.extend(super::residual::notice(&done.types, Level::None, words.deny));
    Report {
        level: super::level_of(done.slot.level).to_string(),
        audit: done.slot.audit == 1,
        refused: super::ids(words.deny, &done.types),
        audited: super::ids(words.watched & !words.deny, &done.types),
        effective_after_ms: u64::try_from(done.effective_after.as_millis()).unwrap_or(u64::MAX),
        verified: done.problems.is_empty(),
        proven_by: match &done.self_test {
            SelfTest::Passed { reason } => Some(reason.clone()),
            SelfTest::NativeRefusesFirst | SelfTest::NothingToTest => None,
        },
        exceptions: done.policy.exceptions.iter().map(|exception| exception.name.value.clone()).collect(),
        trusted: done
            .trusted
            .iter()
            .map(|program| format!("{} {} {}", program.id, program.name, program.tag_words()))
            .chain(done.trusted_by_id.iter().map(u32::to_string))
            .collect(),
        trusted_by_policy: done.policy.seal.trusted.iter().map(by_policy).collect(),
        left_open: done.open.iter().map(ToString::to_string).collect(),
        hooks: done.hooks.iter().map(ToString::to_string).collect(),
        recorded: Vec::new(),
        notices,
    }
}

fn by_policy(program: &TrustedProgram) -> String {
    let tags: Vec<_> = program.tags.iter().map(|tag| tag.value.to_string()).collect();
    format!("{}: {}, {}", program.name.value, program.target(), tags.join(" "))
}

fn text(report: &Report) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "Sealed: {}{}.", report.level, if report.audit { ", audited" } else { "" });
    let _ = writeln!(out, "  {} reasons refused, {} audited", report.refused.len(), report.audited.len());
    let _ = writeln!(
        out,
        "  {}",
        match &report.proven_by {
            _ if !report.verified => "NOT VERIFIED: see the notes".to_owned(),
            Some(reason) => format!(
                "proven: a real request ({reason}) reached the sealed program and got its answer, and the guards refused what was tried"
            ),
            None => "the guards refused what was tried; that the program decides could not be tried: the kernel's own lockdown \
                     refuses first, or the policy lets these doors through"
                .to_owned(),
        }
    );
    for (title, list) in [
        ("excepted", &report.exceptions),
        ("trusted", &report.trusted),
        ("trusted by the policy", &report.trusted_by_policy),
    ] {
        if !list.is_empty() {
            let _ = writeln!(out, "  {title}: {}", list.join(", "));
        }
    }
    for open in &report.left_open {
        let _ = writeln!(out, "  left open: {open}");
    }
    for place in &report.recorded {
        let _ = writeln!(out, "  recorded: {place}");
    }
    for notice in &report.notices {
        let _ = writeln!(out, "  note: {notice}");
    }
    let _ = writeln!(out, "Nothing ends it before the next boot. What holds: stockade status");
    out
}
