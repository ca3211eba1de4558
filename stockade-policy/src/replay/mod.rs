/*!
What a policy would have made of what happened: the answer to "what breaks if I enforce".

Nothing is guessed. Where the verdict hangs on a program or cgroup that the record does not tell, since its process
was gone too soon, that is what is said.

| file | what it owns |
|---|---|
| `decide.rs` | one request |
| `text.rs` | the answer, for a person |
*/
mod decide;
mod text;

use std::collections::BTreeMap;

use jiff::Timestamp;
use stockade_reasons::Level;

pub use decide::{Decision, decide};

use crate::{
    model::Policy,
    recorded::Record,
    requester::{Tally, gather},
};

/// The decisions about a whole record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Refused requests first, then undecided, audited, excepted and allowed ones.
    pub groups: Vec<Group>,
    /// Caveats.
    pub caveats: Vec<String>,
}

/// Requests of one program for one reason that are decided alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// How the policy decides.
    pub decision: Decision,
    /// Id of the reason.
    pub reason: String,
    /// The program, as it is told.
    pub program: String,
    /// How often, when, by whom, and what came of it when it was recorded.
    pub tally: Tally,
}

/// The answer in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Something would be refused.
    Refused,
    /// Nothing would be refused for certain, and not everything can be told.
    CannotTell,
    /// Nothing would be refused.
    NothingRefused,
}

/// Replays a record. `auto` is what the level `auto` stands for; `find` tells the cgroups of units, see
/// [`crate::unit::finder`]; exceptions that have ended by `now` let nobody through.
#[must_use]
pub fn replay(
    record: &Record,
    policy: &Policy,
    auto: Level,
    find: impl Fn(&str) -> String,
    now: Timestamp,
) -> Replay {
    let policy = policy.clone().with_units(find);
    let mut groups: BTreeMap<(Decision, String, String), Tally> = BTreeMap::new();
    let mut by_program = false;
    for (asked, tally) in gather(record, |_| true) {
        let decision = decide(&policy, auto, &asked, now);
        by_program |= matches!(&decision, Decision::Excepted(name)
            if policy.exceptions.iter().any(|e| e.exe.is_some() && e.name.value == *name));
        let key = (decision, stockade_text::harmless(asked.reason.id()), asked.exe.told());
        groups.entry(key).or_default().merge(&tally);
    }
    let mut caveats = record.missing.caveats();
    if by_program {
        // All of that takes the exception from a process, and none of it is in an event.
        caveats.push(
            "an exception by program does not hold for a program that was started with LD_PRELOAD and the like, is traced, \
             was replaced on disk, or was not started from its file but forked; a record does not tell which were"
                .into(),
        );
    }
    let group = |((decision, reason, program), tally)| Group { decision, reason, program, tally };
    Replay { groups: groups.into_iter().map(group).collect(), caveats }
}

impl Replay {
    /// The answer in a word.
    #[must_use]
    pub fn answer(&self) -> Answer {
        let any = |which: fn(&Decision) -> bool| self.groups.iter().any(|group| which(&group.decision));
        if any(|decision| matches!(decision, Decision::Refused(_))) {
            Answer::Refused
        } else if any(|decision| matches!(decision, Decision::CannotTell(_))) {
            Answer::CannotTell
        } else {
            Answer::NothingRefused
        }
    }

    /// How many events fare so.
    #[must_use]
    pub fn events(&self, which: impl Fn(&Decision) -> bool) -> u64 {
        self.groups.iter().filter(|group| which(&group.decision)).map(|group| group.tally.events).sum()
    }
}
