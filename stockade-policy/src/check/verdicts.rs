/*!
The verdict of each reason of the table, on the host and in each scope, if the policy is applied. Asks [`crate::interpret`].
*/
use std::collections::{BTreeMap, BTreeSet};

use stockade_reasons::{Level, Reason};

use super::machine::Machine;
use crate::{
    interpret::{Descent, KernelReason, host},
    model::{LevelChoice, Mode, Policy, Verdict},
};

/// The verdict of each reason at one place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdicts(BTreeMap<&'static str, Verdict>);

impl Verdicts {
    /// Outside all scopes.
    pub fn of_host(policy: &Policy, machine: &Machine<'_>) -> Self {
        let verdict = |reason: &'static Reason| {
            (reason.id, host(policy, auto(machine), &KernelReason::from(reason)).verdict)
        };
        Self(stockade_reasons::all().iter().map(verdict).collect())
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

/// The verdicts in a scope.
#[derive(Clone, Debug)]
pub(super) struct InScope {
    /// Those around it.
    pub around: Verdicts,
    /// Those that it says itself, laxer or not; where it says none, those around it.
    pub asked: Verdicts,
    /// Those that decide in it.
    pub effective: Verdicts,
    /// The level that it or the nearest around it says.
    pub level: Level,
}

impl InScope {
    /// By the scope and those around it, the nearest first.
    pub fn of(policy: &Policy, chain: &[usize], machine: &Machine<'_>) -> Self {
        let level = settled(policy.level.value, machine);
        let (around, asked, effective) = Default::default();
        let mut here = Self { around, asked, effective, level };
        for reason in stockade_reasons::all() {
            let kernel_reason = KernelReason::from(reason);
            let mut descent = Descent::new(policy, auto(machine), &kernel_reason);
            let mut around = descent.ruling.verdict;
            let mut asked = around;
            for scope in chain.iter().rev().map(|scope| &policy.scopes[*scope]) {
                around = descent.ruling.verdict;
                asked = descent.enter(scope).unwrap_or(around);
            }
            here.around.0.insert(reason.id, around);
            here.asked.0.insert(reason.id, asked);
            here.effective.0.insert(reason.id, descent.ruling.verdict);
            here.level = descent.level();
        }
        here
    }
}

/// The policy with every mode set to enforce: what it is meant to come to.
pub(super) fn enforcing(policy: &Policy) -> Policy {
    let mut policy = policy.clone();
    policy.mode.value = Mode::Enforce;
    for mode in policy.scopes.iter_mut().filter_map(|scope| scope.mode.as_mut()) {
        mode.value = Mode::Enforce;
    }
    policy
}

/// The level that `auto` stands for. Integrity where that is not known, since `auto` refuses something only there.
fn auto(machine: &Machine<'_>) -> Level {
    machine.auto.unwrap_or(Level::Integrity)
}

/// The level that a choice stands for.
pub(super) fn settled(level: LevelChoice, machine: &Machine<'_>) -> Level {
    level.settled(auto(machine))
}
