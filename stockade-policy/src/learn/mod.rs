/*!
From what happened to the smallest exceptions that would have let it pass, for somebody to review. Nothing here
applies anything.

```text
Record ─ gather ─▶ requests ─ one subject each ─▶ subjects with reasons ─ thin out ─▶ exceptions ─ write ─▶ TOML
                                   └─ none: said, with the reason why
```

A subject is the program where its path is known, since the kernel knows a program and root can fake the rest;
for an interpreter, which runs whatever it is given, the program in its unit; else the unit or cgroup. Thinning
out takes from an exception each reason that others let all of its requests through for.

| file | what it owns |
|---|---|
| `subject.rs` | who an exception is for |
| `thin.rs` | leaving out what others cover |
| `argue.rs` | what speaks against an exception |
| `name.rs` | what it is called |
| `write.rs` | the file |
*/
mod argue;
mod name;
mod subject;
mod thin;
mod write;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use stockade_reasons::{Level, Reason};

pub use subject::Subject;

use crate::{
    model::{Place, Policy},
    recorded::{Outcome, Record, count},
    replay::decide,
    requester::{Asked, Tally, gather},
    unit,
};
use subject::Nobody;

/// The policy and the level to learn by.
#[derive(Clone, Copy, Debug)]
pub struct Options<'p> {
    /// A policy whose allowed requests are left out.
    pub base: Option<&'p Policy>,
    /// The level that `auto` stands for in it.
    pub auto: Level,
    /// Exceptions in it that have ended by now let nobody through.
    pub now: Timestamp,
    /// When the host of the record was booted, where that is known.
    pub booted: Option<Timestamp>,
    /// Whether an exception is for the users alone that were seen.
    pub with_uid: bool,
}

/// The learned exceptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learned {
    /// How many events it was made from: those that were audited or refused.
    pub events: u64,
    /// How many of them the policy that was given lets through already.
    pub passed_already: u64,
    /// The exceptions, in the order of their subjects.
    pub exceptions: Vec<Suggestion>,
    /// Reasons whose requester cannot be told, so that they could only be allowed for everybody.
    pub everybody: Vec<Everybody>,
    /// Requests that no exception can be made for.
    pub nobody: Vec<Unnamed>,
    /// Caveats about the record.
    pub caveats: Vec<String>,
    /// When the host was booted, where that is known.
    pub booted: Option<Timestamp>,
}

/// An exception to review.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suggestion {
    /// Unique, also among those of the policy that was given.
    pub name: String,
    /// The subject.
    pub subject: Subject,
    /// The unit or cgroup, as a policy has it.
    pub place: Option<Place>,
    /// For what, and how many events asked for it. In the table's order.
    pub reasons: Vec<(&'static Reason, u64)>,
    /// How often, when and by whom.
    pub tally: Tally,
    /// The one unit that all of it came from, where naming it too would make the exception smaller.
    pub narrower: Option<Place>,
    /// Arguments against it.
    pub arguments: Vec<String>,
}

/// A reason that could only be allowed for everybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Everybody {
    /// Which.
    pub reason: &'static Reason,
    /// How often, when and by whom.
    pub tally: Tally,
}

/// Requests that no exception can be made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unnamed {
    /// Id of the reason.
    pub reason: String,
    /// The program, as it is told.
    pub program: String,
    /// Why not.
    pub why: String,
    /// How often, when and by whom.
    pub tally: Tally,
}

/// Learns.
#[must_use]
pub fn learn(record: &Record, options: &Options<'_>) -> Learned {
    let find = unit::finder(record.cgroups(), unit::usual);
    let base = options.base.map(|policy| policy.clone().with_units(&find));
    let wanted = gather(record, |event| matches!(event.verdict, Outcome::Audited | Outcome::Refused));
    let mut learned = Learned {
        events: wanted.values().map(|tally| tally.events).sum(),
        passed_already: 0,
        exceptions: Vec::new(),
        everybody: Vec::new(),
        nobody: Vec::new(),
        caveats: record.missing.caveats(),
        booted: options.booted,
    };
    let excepted = record.events.iter().filter(|event| event.verdict == Outcome::Excepted).count() as u64;
    if excepted > 0 {
        learned.caveats.push(format!(
            "{} let through by exceptions or grants that were in force: this file is an addition to those",
            count(excepted, "other event was", "other events were")
        ));
    }
    let mut everybody: BTreeMap<&'static str, Everybody> = BTreeMap::new();
    let mut nobody: BTreeMap<(String, String, String), Tally> = BTreeMap::new();
    let mut requests: Vec<(Asked, Tally, Subject)> = Vec::new();
    for (asked, tally) in wanted {
        if base.as_ref().is_some_and(|policy| decide(policy, options.auto, &asked, options.now).passes()) {
            learned.passed_already += tally.events;
            continue;
        }
        match Subject::of(&asked, options.with_uid) {
            Ok(subject) => requests.push((asked, tally, subject)),
            Err(Nobody::Everybody(reason)) => everybody
                .entry(reason.id)
                .or_insert_with(|| Everybody { reason, tally: Tally::default() })
                .tally
                .merge(&tally),
            Err(Nobody::Because(why)) => {
                let reason = stockade_text::harmless(asked.reason.id());
                nobody.entry((reason, asked.exe.told(), why)).or_default().merge(&tally);
            }
        }
    }
    learned.exceptions = suggestions(&requests, options, &find);
    learned.everybody = everybody.into_values().collect();
    let unnamed = |((reason, program, why), tally)| Unnamed { reason, program, why, tally };
    learned.nobody = nobody.into_iter().map(unnamed).collect();
    learned
}

/// The requests that one exception covers.
#[derive(Default)]
struct Share {
    reasons: BTreeMap<&'static str, u64>,
    tally: Tally,
}

fn suggestions(
    requests: &[(Asked, Tally, Subject)],
    options: &Options<'_>,
    find: &impl Fn(&str) -> String,
) -> Vec<Suggestion> {
    let kept = thin::thin(requests.iter().map(|(asked, _, subject)| (asked, subject)), options.with_uid);
    let mut shares: BTreeMap<&Subject, Share> = BTreeMap::new();
    for (asked, tally, own) in requests {
        let by = kept.covering(asked, own);
        let share = shares.entry(by).or_default();
        let id = asked.reason.known().expect("only reasons of the table have a subject").id;
        *share.reasons.entry(id).or_default() += tally.events;
        share.tally.merge(tally);
    }
    let taken = options.base.into_iter().flat_map(|policy| &policy.exceptions);
    let mut taken: BTreeSet<String> = taken.map(|exception| exception.name.value.clone()).collect();
    let suggest = |(subject, share): (&Subject, Share)| {
        let events = |reason: &'static Reason| share.reasons.get(reason.id).map(|events| (reason, *events));
        let reasons: Vec<_> = stockade_reasons::all().iter().filter_map(events).collect();
        Suggestion {
            name: name::unique(subject, &mut taken),
            place: subject.place(find),
            narrower: subject.narrower(&share.tally, find),
            arguments: argue::arguments(subject, &reasons, &share.tally),
            subject: subject.clone(),
            reasons,
            tally: share.tally,
        }
    };
    shares.into_iter().map(suggest).collect()
}
