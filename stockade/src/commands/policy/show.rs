/*!
`stockade policy show`: what all files say together, with the file and line of each value.
*/
use std::collections::BTreeMap;

use anyhow::Result;
use schemars::JsonSchema;
use serde::Serialize;
use stockade_policy::{
    Loaded,
    model::{Accepted, Exception, Place, Reasons, Said, Scope},
    show,
    words::Word,
};

use super::NotRead;
use crate::{Exit, flags, output};

/// The output of `policy show --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Report {
    /// The files that were read, later ones over earlier ones
    pub files: Vec<String>,
    /// Files that were there and not read
    pub not_read: Vec<NotRead>,
    /// The level of everything that no scope covers: none, integrity, confidentiality or auto
    pub level: Sourced<String>,
    /// enforce or audit
    pub mode: Sourced<String>,
    /// What happens to reasons that this version does not know: level, allow, audit or deny
    pub unknown_reasons: Sourced<String>,
    /// Verdicts of single reasons by id: allow, audit or deny
    pub reasons: BTreeMap<String, Sourced<String>>,
    /// Settings that are held: freeze or ratchet, by the name that sysctl(8) has; default stands for those that go
    /// with the level
    pub settings: BTreeMap<String, Sourced<String>>,
    /// Settings of these that are held under this name only: the value can change by other ways
    pub name_only: Vec<String>,
    /// Parts of the cgroup tree with verdicts of their own
    pub scopes: Vec<ScopeReport>,
    /// Who is let through where others are not
    pub exceptions: Vec<ExceptionReport>,
    /// Findings of the check that were accepted
    pub accepted: Vec<AcceptedReport>,
    /// How a seal is recorded, and what can be added to it
    pub seal: SealReport,
}

/// How a seal is recorded, and what can be added to it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SealReport {
    /// The TPM's register that it is measured into; null: none
    pub pcr: Option<Sourced<u8>>,
    /// Whether nothing is sealed where no TPM takes the record
    pub require_tpm: Sourced<bool>,
    /// Whether scopes and exceptions can be added to a seal of this policy; they always can where it has scopes
    pub room_for_scopes: Sourced<bool>,
}

/// A value and where it was said.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Sourced<T> {
    /// What
    pub value: T,
    /// The file; null for a default
    pub file: Option<String>,
    /// The line in it, from 1; null for a default
    pub line: Option<u32>,
}

/// A part of the cgroup tree with verdicts of its own.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ScopeReport {
    /// Its name
    pub name: Sourced<String>,
    /// Path or pattern of cgroups, where it has one
    pub cgroup: Option<Sourced<String>>,
    /// Unit of systemd's, where it has one
    pub unit: Option<Sourced<String>>,
    /// Its level; null: the surrounding one's
    pub level: Option<Sourced<String>>,
    /// Its mode; null: the surrounding one's
    pub mode: Option<Sourced<String>>,
    /// Whether it may be laxer than what surrounds it
    pub loosen: Sourced<bool>,
    /// Verdicts of single reasons by id
    pub reasons: BTreeMap<String, Sourced<String>>,
}

/// An exception.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ExceptionReport {
    /// Its name
    pub name: Sourced<String>,
    /// For which reasons, by id
    pub reasons: Vec<Sourced<String>>,
    /// The program
    pub exe: Option<Sourced<String>>,
    /// What its content has to be
    pub digest: Option<Sourced<String>>,
    /// Path or pattern of cgroups
    pub cgroup: Option<Sourced<String>>,
    /// Unit of systemd's
    pub unit: Option<Sourced<String>>,
    /// The real user id
    pub uid: Option<Sourced<u32>>,
    /// Whether children that the program forks are let through as well
    pub inherit: Sourced<bool>,
    /// When it ends, in UTC
    pub expires: Option<Sourced<String>>,
    /// Why
    pub why: Option<Sourced<String>>,
}

/// A finding of the check that was accepted.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AcceptedReport {
    /// The finding's code
    pub code: Sourced<String>,
    /// Name of the exception or scope it is about
    pub about: Option<Sourced<String>>,
    /// Why it is acceptable
    pub why: Sourced<String>,
}

pub fn run(flags: &flags::PolicyShow, json: bool) -> Result<Exit> {
    let loaded = super::read(&flags.files)?;
    if flags.canonical {
        output::text(&show::canonical(&loaded.policy.try_with_units(stockade_kernel::cgroups::of_unit)?))?;
    } else if json {
        output::json(&report(&loaded))?;
    } else {
        output::text(&(show::heading(&loaded) + &stockade_policy::show(&loaded.policy)))?;
    }
    Ok(Exit::Done)
}

fn report(loaded: &Loaded) -> Report {
    let policy = &loaded.policy;
    let not_read =
        loaded.passed_over.iter().map(|f| NotRead { file: f.path.display().to_string(), why: f.why.clone() });
    Report {
        files: super::files(loaded),
        not_read: not_read.collect(),
        level: word(&policy.level),
        mode: word(&policy.mode),
        unknown_reasons: word(&policy.unknown_reasons),
        reasons: reasons(&policy.reasons),
        settings: policy.settings.iter().map(|(name, hold)| (name.clone(), word(hold))).collect(),
        name_only: show::name_only(&policy.settings).map(str::to_owned).collect(),
        scopes: policy.scopes.iter().map(scope).collect(),
        exceptions: policy.exceptions.iter().map(exception).collect(),
        accepted: policy.accepted.iter().map(accepted).collect(),
        seal: SealReport {
            pcr: policy.seal.pcr.as_ref().map(|pcr| sourced(pcr, |pcr| *pcr)),
            require_tpm: sourced(&policy.seal.require_tpm, |require| *require),
            room_for_scopes: sourced(&policy.seal.room_for_scopes, |room| *room),
        },
    }
}

fn sourced<T, U>(said: &Said<T>, value: impl FnOnce(&T) -> U) -> Sourced<U> {
    let origin = &said.origin;
    let there = origin.line > 0;
    Sourced {
        value: value(&said.value),
        file: there.then(|| origin.file.to_string()),
        line: there.then_some(origin.line),
    }
}

fn word(said: &Said<impl Word>) -> Sourced<String> {
    sourced(said, |word| word.word().to_owned())
}

fn text(said: &Said<impl ToString>) -> Sourced<String> {
    sourced(said, ToString::to_string)
}

fn reasons(reasons: &Reasons) -> BTreeMap<String, Sourced<String>> {
    reasons.iter().map(|(id, verdict)| (id.clone(), word(verdict))).collect()
}

/// Returns a place as `cgroup` and as `unit`.
fn place(place: Option<&Said<Place>>) -> (Option<Sourced<String>>, Option<Sourced<String>>) {
    match place {
        Some(said) if matches!(said.value, Place::Unit(_)) => (None, Some(text(said))),
        other => (other.map(text), None),
    }
}

fn scope(s: &Scope) -> ScopeReport {
    let (cgroup, unit) = place(Some(&s.place));
    ScopeReport {
        name: text(&s.name),
        cgroup,
        unit,
        level: s.level.as_ref().map(word),
        mode: s.mode.as_ref().map(word),
        loosen: sourced(&s.loosen, |loosen| *loosen),
        reasons: reasons(&s.reasons),
    }
}

fn exception(e: &Exception) -> ExceptionReport {
    let (cgroup, unit) = place(e.place.as_ref());
    ExceptionReport {
        name: text(&e.name),
        reasons: e.reasons.iter().map(text).collect(),
        exe: e.exe.as_ref().map(|exe| sourced(exe, |path| path.display().to_string())),
        digest: e.digest.as_ref().map(text),
        cgroup,
        unit,
        uid: e.uid.as_ref().map(|uid| sourced(uid, |uid| *uid)),
        inherit: sourced(&e.inherit, |inherit| *inherit),
        expires: e.expires.as_ref().map(text),
        why: e.why.as_ref().map(text),
    }
}

fn accepted(a: &Accepted) -> AcceptedReport {
    AcceptedReport { code: text(&a.code), about: a.about.as_ref().map(text), why: text(&a.why) }
}
