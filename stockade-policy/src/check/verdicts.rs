/*!
What becomes of each reason of the table, on the host and in each scope, if the policy is applied.
*/
use std::collections::{BTreeMap, BTreeSet};

use stockade_reasons::{Level, Reason};

use super::machine::Machine;
use crate::model::{LevelChoice, Mode, Policy, Reasons, Verdict};

/// The verdict of each reason at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdicts(BTreeMap<&'static str, Verdict>);

impl Verdicts {
    /// Outside all scopes. `mode` replaces that of the policy where it is given.
    pub fn of_host(policy: &Policy, machine: &Machine<'_>, mode: Option<Mode>) -> Self {
        let level = settled(policy.level.value, machine);
        let mode = mode.unwrap_or(policy.mode.value);
        Self::from(|reason| said(&policy.reasons, reason).unwrap_or_else(|| by_level(level, mode, reason)))
    }

    fn from(verdict: impl Fn(&'static Reason) -> Verdict) -> Self {
        Self(stockade_reasons::all().iter().map(|reason| (reason.id, verdict(reason))).collect())
    }

    pub fn of(&self, id: &str) -> Verdict {
        self.0.get(id).copied().unwrap_or(Verdict::Allow)
    }

    pub fn denies(&self, id: &str) -> bool {
        self.of(id) == Verdict::Deny
    }

    /// Ids of the reasons that are treated so or more strictly.
    pub fn at_least(&self, least: Verdict) -> BTreeSet<&'static str> {
        self.0.iter().filter(|(_, verdict)| **verdict >= least).map(|(id, _)| *id).collect()
    }

    pub fn all_allow(&self) -> bool {
        self.0.values().all(|verdict| *verdict == Verdict::Allow)
    }

    /// Ids of the reasons whose verdict is lower here than there, in the table's order.
    pub fn laxer_than(&self, other: &Self) -> Vec<&'static str> {
        let lower = |reason: &&Reason| self.of(reason.id) < other.of(reason.id);
        stockade_reasons::all().iter().filter(lower).map(|reason| reason.id).collect()
    }
}

/// What a scope makes of each reason.
#[derive(Clone, Debug)]
pub(super) struct InScope {
    /// What surrounds it.
    pub around: Verdicts,
    /// What it says, laxer or not.
    pub asked: Verdicts,
    /// What becomes of that.
    pub effective: Verdicts,
    /// The level it or the nearest around it says.
    pub level: Level,
}

impl InScope {
    /// By the scope and those around it, the nearest first.
    pub fn of(policy: &Policy, chain: &[usize], machine: &Machine<'_>, mode: Option<Mode>) -> Self {
        let host = Verdicts::of_host(policy, machine, mode);
        let mut level = settled(policy.level.value, machine);
        let mut own_mode = policy.mode.value;
        let mut here = Self { around: host.clone(), asked: host.clone(), effective: host, level };
        for scope in chain.iter().rev().map(|scope| &policy.scopes[*scope]) {
            level = scope.level.as_ref().map_or(level, |said| settled(said.value, machine));
            own_mode = scope.mode.as_ref().map_or(own_mode, |said| said.value);
            let around = here.effective;
            let own = scope.level.is_some() || scope.mode.is_some();
            let asked = Verdicts::from(|reason| {
                said(&scope.reasons, reason).unwrap_or_else(|| {
                    if own { by_level(level, mode.unwrap_or(own_mode), reason) } else { around.of(reason.id) }
                })
            });
            let effective = if scope.loosen.value {
                asked.clone()
            } else {
                Verdicts::from(|reason| asked.of(reason.id).max(around.of(reason.id)))
            };
            here = Self { around, asked, effective, level };
        }
        here
    }
}

/// The level; `auto` is argued about as integrity where nobody knows, since that is where it bites.
pub(super) fn settled(level: LevelChoice, machine: &Machine<'_>) -> Level {
    level.settled(machine.auto.unwrap_or(Level::Integrity))
}

fn said(reasons: &Reasons, reason: &Reason) -> Option<Verdict> {
    reasons.get(reason.id).map(|said| said.value)
}

fn by_level(level: Level, mode: Mode, reason: &Reason) -> Verdict {
    match mode {
        _ if level < reason.level => Verdict::Allow,
        Mode::Enforce => Verdict::Deny,
        Mode::Audit => Verdict::Audit,
    }
}
