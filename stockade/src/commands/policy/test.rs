/*!
`stockade policy test`: what a policy would have made of recorded events.
*/
use std::collections::BTreeMap;

use anyhow::Result;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use stockade_kernel::cgroups;
use stockade_policy::{
    model::Mode,
    recorded::Outcome,
    replay::{self, Answer, Decision, Replay},
    unit,
};

use super::Times;
use crate::{Exit, flags, output};

/// The output of `policy test --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Report {
    /// The files of the policy, later ones over earlier ones
    pub files: Vec<String>,
    /// refused: something would be; cannot-tell: nothing would be for certain; nothing-refused
    pub answer: String,
    /// How many events were replayed
    pub events: u64,
    /// How many would be refused
    pub refused: u64,
    /// Of how many the record does not tell enough
    pub cannot_tell: u64,
    /// Events of one program for one reason that are decided alike: refused ones first
    pub groups: Vec<Group>,
    /// What a reader has to know
    pub caveats: Vec<String>,
}

/// Events of one program for one reason that are decided alike.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Group {
    /// refused, cannot-tell, audited, excepted or allowed
    pub outcome: String,
    /// Which sentence of the policy decides: the exception's name, or in words; for cannot-tell what is not known
    pub by: String,
    /// The reason's id
    pub reason: String,
    /// The program, in words
    pub program: String,
    /// What became of how many when they were recorded: audited, refused, excepted or unknown
    pub recorded: BTreeMap<String, u64>,
    /// How often, when and by whom
    pub seen: Times,
}

pub fn run(flags: &flags::PolicyTest, json: bool) -> Result<Exit> {
    let loaded = super::read(&flags.files)?;
    let record = super::record(&flags.events)?;
    let policy = if flags.enforce { loaded.policy.clone().enforcing() } else { loaded.policy.clone() };
    let (auto, why) = super::auto(&policy)?;
    // A unit that is neither in the record nor known here asked for nothing that was recorded: any path of its own will do.
    let here = |unit: &str| cgroups::of_unit(unit).unwrap_or_else(|_| unit::usual(unit));
    let find = unit::finder(record.cgroups(), here);
    let mut replay = replay::replay(&record, &policy, auto, find, Timestamp::now());
    replay.caveats.extend(why.map(|why| format!("{why}; the record may be of another machine")));
    if policy.mode.value == Mode::Audit {
        replay
            .caveats
            .push("the policy says mode = \"audit\"; --enforce tells what would be refused without".into());
    }
    if json {
        output::json(&report(super::files(&loaded), &replay, flags.booted))?;
    } else {
        output::text(&replay.text(flags.booted))?;
    }
    Ok(match replay.answer() {
        Answer::Refused => Exit::No,
        Answer::CannotTell => Exit::Unknown,
        Answer::NothingRefused => Exit::Done,
    })
}

fn report(files: Vec<String>, replay: &Replay, booted: Option<Timestamp>) -> Report {
    let group = |g: &replay::Group| {
        let (outcome, by) = match &g.decision {
            Decision::Refused(by) => ("refused", by),
            Decision::CannotTell(why) => ("cannot-tell", why),
            Decision::Audited(by) => ("audited", by),
            Decision::Excepted(by) => ("excepted", by),
            Decision::Allowed(by) => ("allowed", by),
        };
        let word = |recorded: &Outcome| match recorded {
            Outcome::Audited => "audited",
            Outcome::Refused => "refused",
            Outcome::Excepted => "excepted",
            Outcome::Unknown => "unknown",
        };
        Group {
            outcome: outcome.into(),
            by: by.clone(),
            reason: g.reason.clone(),
            program: g.program.clone(),
            recorded: g.tally.recorded.iter().map(|(then, events)| (word(then).into(), *events)).collect(),
            seen: Times::of(&g.tally, booted),
        }
    };
    Report {
        files,
        answer: match replay.answer() {
            Answer::Refused => "refused",
            Answer::CannotTell => "cannot-tell",
            Answer::NothingRefused => "nothing-refused",
        }
        .into(),
        events: replay.events(|_| true),
        refused: replay.events(|decision| matches!(decision, Decision::Refused(_))),
        cannot_tell: replay.events(|decision| matches!(decision, Decision::CannotTell(_))),
        groups: replay.groups.iter().map(group).collect(),
        caveats: replay.caveats.clone(),
    }
}
