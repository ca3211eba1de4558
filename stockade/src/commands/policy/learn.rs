/*!
`stockade policy learn`: exceptions to review, from events.
*/
use anyhow::Result;
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::Serialize;
use stockade_kernel::host;
use stockade_policy::{
    learn::{self, Learned, Options},
    load,
    load::{Trust, Where},
    model::Place,
    read_record,
};
use stockade_reasons::Level;

use super::Times;
use crate::{Exit, commands::watch, flags, output};

/// The output of `policy learn --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Report {
    /// How many events were audited or refused
    pub events: u64,
    /// How many of them the policy that was given lets through already
    pub passed_already: u64,
    /// The exceptions
    pub exceptions: Vec<Suggestion>,
    /// Reasons whose requester cannot be told, so that they could only be allowed for everybody
    pub only_for_everybody: Vec<Everybody>,
    /// Requests that no exception can be made for
    pub no_exception: Vec<Unnamed>,
    /// What a reader has to know
    pub caveats: Vec<String>,
    /// All of that as a policy file
    pub policy: String,
}

/// An exception to review.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Suggestion {
    /// Its name
    pub name: String,
    /// For which reasons, by id
    pub reasons: Vec<String>,
    /// The program
    pub exe: Option<String>,
    /// Path of the cgroup
    pub cgroup: Option<String>,
    /// Unit of systemd's
    pub unit: Option<String>,
    /// The real user id, with --with-uid
    pub uid: Option<u32>,
    /// What speaks against it
    pub arguments: Vec<String>,
    /// How often, when and by whom
    pub seen: Times,
}

/// A reason that could only be allowed for everybody.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Everybody {
    /// Its id
    pub reason: String,
    /// Why
    pub why: String,
    /// How often, when and by whom
    pub seen: Times,
}

/// Requests that no exception can be made for.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Unnamed {
    /// The reason's id
    pub reason: String,
    /// The program, in words
    pub program: String,
    /// Why not
    pub why: String,
    /// How often, when and by whom
    pub seen: Times,
}

pub fn run(flags: &flags::PolicyLearn, json: bool) -> Result<Exit> {
    let base = match &flags.policy[..] {
        [] => None,
        named => Some(load(Where::Named(named), Trust::Any)?.policy),
    };
    let (auto, _) = base.as_ref().map_or(Ok((Level::None, None)), super::auto)?;
    let (record, booted) = match &flags.events {
        Some(events) => (super::record(events)?, flags.booted),
        None => (read_record("the buffer", &*watch::recorded()?)?, this_boot()),
    };
    let options =
        Options { base: base.as_ref(), auto, now: Timestamp::now(), booted, with_uid: flags.with_uid };
    let learned = learn::learn(&record, &options);
    if json {
        output::json(&report(&learned))?;
    } else {
        output::text(&learned.toml())?;
    }
    Ok(Exit::Done)
}

fn this_boot() -> Option<Timestamp> {
    let now = host::now();
    now.wall.checked_sub(SignedDuration::from_nanos(i64::try_from(now.boot_ns).ok()?)).ok()
}

fn report(learned: &Learned) -> Report {
    let seen = |tally: &_| Times::of(tally, learned.booted);
    let place = |place: &Option<Place>, unit: bool| {
        place.as_ref().filter(|place| matches!(place, Place::Unit(_)) == unit).map(ToString::to_string)
    };
    let suggestion = |s: &learn::Suggestion| Suggestion {
        name: s.name.clone(),
        reasons: s.reasons.iter().map(|(reason, _)| reason.id.into()).collect(),
        exe: s.subject.exe.clone(),
        cgroup: place(&s.place, false),
        unit: place(&s.place, true),
        uid: s.subject.uid,
        arguments: s.arguments.clone(),
        seen: seen(&s.tally),
    };
    let everybody = |e: &learn::Everybody| Everybody {
        reason: e.reason.id.into(),
        why: e.reason.subject_why.into(),
        seen: seen(&e.tally),
    };
    let unnamed = |u: &learn::Unnamed| Unnamed {
        reason: u.reason.clone(),
        program: u.program.clone(),
        why: u.why.clone(),
        seen: seen(&u.tally),
    };
    Report {
        events: learned.events,
        passed_already: learned.passed_already,
        exceptions: learned.exceptions.iter().map(suggestion).collect(),
        only_for_everybody: learned.everybody.iter().map(everybody).collect(),
        no_exception: learned.nobody.iter().map(unnamed).collect(),
        caveats: learned.caveats.clone(),
        policy: learned.toml(),
    }
}
