/*!
`stockade policy diff`: what it would change to put another policy in the place of this one.
*/
use std::fmt::Write;

use anyhow::Result;
use schemars::JsonSchema;
use serde::Serialize;
use stockade_policy::{
    diff::{self, About, Difference, Effect, When},
    load,
    load::{Trust, Where},
    words::Word,
};

use crate::{Exit, flags, output};

/// The output of `policy diff --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Report {
    /// Whether the two policies differ
    pub different: bool,
    /// The files of the one
    pub from: Vec<String>,
    /// The files of the other
    pub to: Vec<String>,
    /// Reasons that would be decided otherwise at host level: outside all scopes, without exceptions
    pub verdicts: Vec<Verdict>,
    /// What is said otherwise
    pub changes: Vec<Change>,
}

/// A reason that would be decided otherwise.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Verdict {
    /// The reason's id
    pub reason: String,
    /// always, secure-boot-on, or secure-boot-off, which includes machines without EFI
    pub when: String,
    /// allow, audit or deny
    pub from: String,
    /// allow, audit or deny
    pub to: String,
    /// stricter or laxer
    pub effect: String,
}

/// Something that is said otherwise.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Change {
    /// host, scope, exception, trusted (a program under `[[seal.trust]]`) or accepted
    pub about: String,
    /// Its name; null for the host
    pub name: Option<String>,
    /// The key; null where the whole of it was added or removed
    pub key: Option<String>,
    /// What was said; null where nothing was
    pub from: Option<String>,
    /// What is said; null where nothing is
    pub to: Option<String>,
    /// stricter, laxer, or depends: on what else is said
    pub effect: String,
}

pub fn run(flags: &flags::PolicyDiff, json: bool) -> Result<Exit> {
    let old = super::read(&flags.files)?;
    let new = load(Where::Named(&flags.new), Trust::Any)?;
    let difference = diff::diff(&old.policy, &new.policy);
    let report = report(super::files(&old), super::files(&new), difference);
    if json {
        output::json(&report)?;
    } else {
        output::text(&text(&report))?;
    }
    Ok(if report.different { Exit::No } else { Exit::Done })
}

fn report(from: Vec<String>, to: Vec<String>, difference: Difference) -> Report {
    Report {
        different: !difference.is_empty(),
        from,
        to,
        verdicts: difference.verdicts.into_iter().map(verdict).collect(),
        changes: difference.changes.into_iter().map(change).collect(),
    }
}

fn verdict(change: diff::VerdictChange) -> Verdict {
    Verdict {
        effect: effect(change.effect()).into(),
        reason: change.reason,
        when: match change.when {
            When::Always => "always",
            When::SecureBootOn => "secure-boot-on",
            When::SecureBootOff => "secure-boot-off",
        }
        .into(),
        from: change.from.word().into(),
        to: change.to.word().into(),
    }
}

fn change(change: diff::Change) -> Change {
    let (about, name) = match change.about {
        About::Host => ("host", None),
        About::Scope(name) => ("scope", Some(name)),
        About::Exception(name) => ("exception", Some(name)),
        About::Trusted(name) => ("trusted", Some(name)),
        About::Accepted(name) => ("accepted", Some(name)),
    };
    let (key, from, to, effect) = (change.key, change.from, change.to, effect(change.effect).into());
    Change { about: about.into(), name, key, from, to, effect }
}

fn effect(effect: Effect) -> &'static str {
    match effect {
        Effect::Stricter => "stricter",
        Effect::Laxer => "laxer",
        Effect::Depends => "depends",
    }
}

fn text(report: &Report) -> String {
    let mut out = String::new();
    if !report.different {
        return "The two policies say the same.\n".into();
    }
    if !report.verdicts.is_empty() {
        out.push_str("Decided otherwise, outside all scopes and without exceptions:\n");
    }
    let mut rest: Vec<&Verdict> = report.verdicts.iter().collect();
    while let Some(first) = rest.first().copied() {
        let alike = |v: &&Verdict| (&v.when, &v.from, &v.to) == (&first.when, &first.from, &first.to);
        let (these, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(alike);
        let when = match first.when.as_str() {
            "secure-boot-on" => ", where Secure Boot is on",
            "secure-boot-off" => ", where Secure Boot is off",
            _ => "",
        };
        let ids: Vec<_> = these.iter().map(|v| v.reason.as_str()).collect();
        let _ = writeln!(out, "  {}: {} -> {}{when}: {}", first.effect, first.from, first.to, ids.join(", "));
        rest = others;
    }
    if !report.changes.is_empty() {
        out.push_str("Said otherwise:\n");
    }
    for change in &report.changes {
        let about = match &change.name {
            Some(name) => format!("{} \"{}\"", change.about, output::harmless(name)),
            None => change.about.clone(),
        };
        let said = |value: &Option<String>| value.as_deref().map_or("nothing".into(), output::harmless);
        let (from, to) = (said(&change.from), said(&change.to));
        let effect = if change.effect == "depends" { String::new() } else { format!(" ({})", change.effect) };
        let _ = match (&change.key, &change.from) {
            (Some(key), _) => writeln!(out, "  ~ {about}: {key}: {from} -> {to}{effect}"),
            (None, None) => writeln!(out, "  + {about}: {to}{effect}"),
            (None, Some(_)) => writeln!(out, "  - {about}: {from}{effect}"),
        };
    }
    out
}
