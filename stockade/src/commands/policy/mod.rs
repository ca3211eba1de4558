/*!
`stockade policy`: one file per command, as above. Which policy is meant is read here, once for all of them.
*/
use anyhow::Result;
use schemars::JsonSchema;
use serde::Serialize;
use stockade_policy::{
    Loaded, load,
    load::{Trust, Where},
};

use crate::{
    Exit,
    flags::{Policy, PolicyCommand, PolicyFiles},
};

pub mod check;
pub mod diff;
pub mod show;

pub fn run(flags: &Policy, json: bool) -> Result<Exit> {
    match &flags.command {
        PolicyCommand::Check(f) => check::run(f, json),
        PolicyCommand::Show(f) => show::run(f, json),
        PolicyCommand::Diff(f) => diff::run(f, json),
    }
}

/// The policy that is meant. To look at it, whoever may write it.
pub fn read(files: &PolicyFiles) -> Result<Loaded> {
    let place =
        if files.policy.is_empty() { Where::System(&files.root) } else { Where::Named(&files.policy) };
    Ok(load(place, Trust::Any)?)
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
