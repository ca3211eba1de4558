/*!
`stockade policy`: one file per command, as above. Which policy is meant is read here, once for all of them.
*/
use std::{
    fs::File,
    io::{self, BufReader},
    path::Path,
};

use anyhow::{Context, Result};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use stockade_policy::{
    Loaded, Record, load,
    load::{Trust, Where},
    read_record,
    requester::Tally,
    when,
};
use stockade_reasons::Level;

use crate::{
    Exit,
    flags::{Policy, PolicyCommand, PolicyFiles},
};

pub mod check;
pub mod diff;
pub mod learn;
pub mod show;
pub mod test;

pub fn run(flags: &Policy, json: bool) -> Result<Exit> {
    match &flags.command {
        PolicyCommand::Check(f) => check::run(f, json),
        PolicyCommand::Show(f) => show::run(f, json),
        PolicyCommand::Diff(f) => diff::run(f, json),
        PolicyCommand::Learn(f) => learn::run(f, json),
        PolicyCommand::Test(f) => test::run(f, json),
    }
}

/// The policy that is meant. To look at it, whoever may write it.
pub fn read(files: &PolicyFiles) -> Result<Loaded> {
    let place =
        if files.policy.is_empty() { Where::System(&files.root) } else { Where::Named(&files.policy) };
    Ok(load(place, Trust::Any)?)
}

/// The events in a file, or on standard input where it is `-`.
fn record(events: &Path) -> Result<Record> {
    if events == Path::new("-") {
        return Ok(read_record("standard input", io::stdin().lock())?);
    }
    let name = events.display().to_string();
    let file = File::open(events)
        .with_context(|| format!("open {name}, to read events that `stockade watch --json` wrote"))?;
    Ok(read_record(&name, BufReader::new(file))?)
}

/// Returns the level that `auto` of a policy stands for here, and the cause.
fn auto(policy: &stockade_policy::model::Policy) -> Result<(Level, Option<&'static str>)> {
    if policy.says_auto() { super::enforce::auto() } else { Ok((Level::None, None)) }
}

/// How often, when and by whom.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Times {
    /// How many events
    pub events: u64,
    /// Nanoseconds from boot to the first one
    pub first_boot_ns: u64,
    /// Nanoseconds from boot to the last one
    pub last_boot_ns: u64,
    /// When the first one was, in UTC; null where the time of boot is not known
    pub first: Option<String>,
    /// When the last one was, in UTC; null where the time of boot is not known
    pub last: Option<String>,
    /// User ids
    pub users: Vec<u32>,
    /// Paths of cgroups, as far as they are known
    pub cgroups: Vec<String>,
    /// Names of threads, which processes choose themselves
    pub names: Vec<String>,
}

impl Times {
    fn of(tally: &Tally, booted: Option<Timestamp>) -> Self {
        let at = |ns| booted.and_then(|booted| when::at(ns, booted)).map(|at| at.to_string());
        Self {
            events: tally.events,
            first_boot_ns: tally.first_ns,
            last_boot_ns: tally.last_ns,
            first: at(tally.first_ns),
            last: at(tally.last_ns),
            users: tally.users.iter().copied().collect(),
            cgroups: tally.cgroups.iter().cloned().collect(),
            names: tally.names.iter().cloned().collect(),
        }
    }
}

/// A file that was there and not read.
#[derive(Debug, Serialize, JsonSchema)]
pub struct NotRead {
    /// Which
    pub file: String,
    /// Why
    pub why: String,
}

/// The files that were read, in their order.
fn files(loaded: &Loaded) -> Vec<String> {
    loaded.sources.iter().map(|source| source.name().to_owned()).collect()
}
