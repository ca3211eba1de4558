/*!
`stockade explain`: what a reason means, for whoever has just met its line in a log; what a code of
`policy check` does, and what a finding of `assess` is about.
*/
use std::fmt::Write;

use anyhow::{Result, anyhow};
use schemars::JsonSchema;
use serde::Serialize;
use stockade_assess::{Text, everything};
use stockade_policy::check::{Code, code};
use stockade_reasons::{Implies, Probe, Reason, Subject};

use super::assess::report::About;
use crate::names;
use crate::{Exit, flags, output};

/// The output of `explain --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Report {
    /// The reason's id
    pub reason: String,
    /// The kernel's name for it
    pub enum_name: String,
    /// The kernel's words for it
    pub kernel_string: String,
    /// The lowest level that refuses it
    pub level: String,
    /// First mainline kernel that has it
    pub first_version: String,
    /// Architectures that have it
    pub architecture: String,
    /// What refusing it closes
    pub closes: String,
    /// Programs that are commonly hit
    pub commonly_hit: Vec<String>,
    /// What to do instead
    pub instead: String,
    /// What else falls if it is allowed; the one word everything when that is the whole level
    pub implies: Vec<String>,
    /// Why
    pub implies_why: String,
    /// Whether the process that asks is the one that wants it
    pub trustworthy_subject: bool,
    /// Why
    pub subject_why: String,
    /// How `stockade probe` tries it, or why it never does
    pub probe: String,
    /// The process in the kernel's line, when one was given
    pub comm: Option<String>,
}

/// The output of `explain --json` for a code of `policy check`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct CodeReport {
    /// The code, such as SP001
    pub code: String,
    /// The code in words
    pub name: String,
    /// The worst it can be: error, warning or note
    pub severity: String,
    /// What is wrong
    pub title: String,
    /// Why that matters
    pub explanation: String,
    /// What to do
    pub remedy: String,
    /// A policy that provokes it
    pub wrong: String,
    /// One that does not
    pub right: String,
}

/// The output of `explain --json` for a finding of `assess`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct FindingReport {
    /// The finding
    pub id: String,
    /// What is known about it
    #[serde(flatten)]
    pub about: About,
}

/// The output of `explain --json` for a feature that `assess` looks at.
#[derive(Debug, Serialize, JsonSchema)]
pub struct FeatureReport {
    /// The feature
    pub feature: String,
    /// Its name
    pub title: String,
    /// Its findings
    pub findings: Vec<FindingReport>,
}

pub fn run(flags: &flags::Explain, json: bool) -> Result<Exit> {
    let what = flags.what.join(" ");
    if let Some(code) = code(&what) {
        if json {
            output::json(&code_report(code))?;
        } else {
            output::text(&code_text(code))?;
        }
        return Ok(Exit::Done);
    }
    if is_code(&what) {
        return Err(anyhow!("this version knows no code {what}; docs/checks/README.md lists those it knows"));
    }
    if let Some(finding) = Text::of(&what) {
        let report = FindingReport { id: finding.id.into(), about: About::of(finding) };
        if json {
            output::json(&report)?;
        } else {
            output::text(&finding_text(&report))?;
        }
        return Ok(Exit::Done);
    }
    if let Some(feature) = everything().iter().find(|feature| feature.id == what) {
        let finding = |text: &Text| FindingReport { id: text.id.into(), about: About::of(text) };
        let findings: Vec<_> = Text::of_feature(feature.id).map(finding).collect();
        if json {
            let (feature, title) = (feature.id.into(), feature.title.into());
            output::json(&FeatureReport { feature, title, findings })?;
        } else {
            output::text(&findings.iter().map(finding_text).collect::<Vec<_>>().join("\n"))?;
        }
        return Ok(Exit::Done);
    }
    if is_finding(&what) {
        return Err(anyhow!(names::none(&what)));
    }
    let (reason, comm) = find(&what)
        .map_err(|error| if is_like_feature(&what) { anyhow!(names::none(&what)) } else { error })?;
    let report = report(reason, comm);
    if json {
        output::json(&report)?;
    } else {
        output::text(&text(&report))?;
    }
    Ok(Exit::Done)
}

/// Whether it is written like a code.
fn is_code(what: &str) -> bool {
    let digits = what.strip_prefix("SP").or_else(|| what.strip_prefix("sp"));
    digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether it is written like a finding: no reason has a full stop.
fn is_finding(what: &str) -> bool {
    what.contains('.') && what.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'))
}

/// Whether it is a word that is like a feature and like no reason.
fn is_like_feature(what: &str) -> bool {
    !what.contains(' ') && stockade_reasons::nearest(what).is_none() && names::near(what).is_some()
}

fn finding_text(finding: &FindingReport) -> String {
    let about = &finding.about;
    let mut out = format!("{}: {}\n\n{}\n", finding.id, about.title, about.why);
    for (whose, fix) in about.fix.each() {
        let whose = if whose.is_empty() { "To do".to_owned() } else { format!("To do on {whose}") };
        let _ = writeln!(out, "\n{whose}:");
        for line in fix.lines() {
            let _ = writeln!(out, "  {line}");
        }
    }
    match about.root.as_str() {
        "yes" => out.push_str("\nOnly root sees anything of it.\n"),
        "more" => out.push_str("\nRoot sees more of it.\n"),
        _ => {}
    }
    out.push('\n');
    for (word, list) in [("See", &about.links), ("CIS", &about.cis), ("HSI", &about.hsi)] {
        for entry in list {
            let _ = writeln!(out, "{word}: {entry}");
        }
    }
    out
}

fn code_report(code: &Code) -> CodeReport {
    CodeReport {
        code: code.id.into(),
        name: code.name.into(),
        severity: code.severity.to_string(),
        title: code.title.into(),
        explanation: code.explanation.into(),
        remedy: code.remedy.into(),
        wrong: code.wrong.into(),
        right: code.right.into(),
    }
}

fn code_text(code: &Code) -> String {
    let policy = |text: &str| {
        text.lines().map(|line| format!("    {line}").trim_end().to_owned() + "\n").collect::<String>()
    };
    format!(
        "{} ({}), at worst: {}\n{}.\n\n{}\n\nWhat to do: {}\n\nA policy that provokes it:\n\n{}\nOne that does not:\n\n{}",
        code.id,
        code.name,
        code.severity,
        code.title,
        code.explanation,
        code.remedy,
        policy(code.wrong),
        policy(code.right)
    )
}

fn find(what: &str) -> Result<(&'static Reason, Option<String>)> {
    if let Some(line) = stockade_reasons::parse_kernel_line(what) {
        let reason = stockade_reasons::by_kernel_string(line.reason).ok_or_else(|| {
            anyhow!(
                "that is a lockdown line, but this version knows no reason {:?}",
                output::harmless(line.reason)
            )
        })?;
        return Ok((reason, Some(output::harmless(line.comm)).filter(|c| !c.is_empty())));
    }
    if let Some(reason) = stockade_reasons::by_kernel_string(what) {
        return Ok((reason, None));
    }
    Ok((super::reason(what)?, None))
}

fn report(reason: &Reason, comm: Option<String>) -> Report {
    Report {
        reason: reason.id.into(),
        enum_name: reason.enum_name.into(),
        kernel_string: reason.kernel_string.into(),
        level: reason.level.to_string(),
        first_version: reason.first_version.into(),
        architecture: reason.architecture.into(),
        closes: reason.closes.into(),
        commonly_hit: reason.commonly_hit.iter().map(ToString::to_string).collect(),
        instead: reason.instead.into(),
        implies: match reason.implies {
            Implies::Everything => vec!["everything".into()],
            Implies::Reasons(_) => stockade_reasons::closure(reason).iter().map(|r| r.id.into()).collect(),
        },
        implies_why: reason.implies_why.into(),
        trustworthy_subject: reason.subject == Subject::Trustworthy,
        subject_why: reason.subject_why.into(),
        probe: match reason.probe {
            Probe::How(how) => how.into(),
            Probe::Never(why) => format!("never: {why}"),
        },
        comm,
    }
}

fn text(r: &Report) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "{} ({}), refused from level {} on", r.reason, r.kernel_string, r.level);
    let _ =
        writeln!(out, "{}; since Linux {}; architecture: {}", r.enum_name, r.first_version, r.architecture);
    if let Some(comm) = &r.comm {
        let _ = writeln!(out, "Asked for by: {comm}");
    }
    let _ = writeln!(out, "\n{}", r.closes);
    if !r.commonly_hit.is_empty() {
        let _ = writeln!(out, "\nCommonly hit:");
        for program in &r.commonly_hit {
            let _ = writeln!(out, "  {program}");
        }
    }
    let _ = writeln!(out, "\nInstead: {}", r.instead);
    let implies = match r.implies.as_slice() {
        [] => "nothing else falls".to_owned(),
        [all] if all == "everything" => "everything else falls too".to_owned(),
        more => format!("this falls too: {}", more.join(", ")),
    };
    let _ = writeln!(out, "\nIf it is allowed, {implies}. {}", r.implies_why);
    let subject = if r.trustworthy_subject { "is" } else { "may not be" };
    let _ = writeln!(out, "\nThe process named {subject} the one that asks. {}", r.subject_why);
    let _ = writeln!(out, "\nProbed by: {}", r.probe);
    let _ =
        writeln!(out, "\nTo let it through and keep the rest: stockade enforce LEVEL --allow {}", r.reason);
    out
}
