/*!
The plan of a run: which scenarios are played on which kernels, in which guests, and in which order.

```text
scenarios × kernels ─ Depends ─▶ jobs: one guest each ─ durations of the last run ─▶ longest first
```
*/
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::PathBuf,
    time::Duration,
};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::{
    boot::Clock,
    cache, firmware,
    kernels::{self, Kernel},
    protocol::Listed,
    scenario::{Boot, Depends},
};

/// On how many kernels each scenario is played.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Extent {
    /// Each scenario on the kernels that its outcome depends on.
    #[default]
    Dependent,
    /// Each scenario on every kernel on which its boot is possible.
    Everything,
}

/// One guest, and the scenarios that it plays.
#[derive(Clone, Debug)]
pub struct Job<'a> {
    /// The kernel.
    pub kernel: &'a Kernel,
    /// The boot.
    pub boot: Boot,
    /// The names of the scenarios.
    pub names: Vec<&'a str>,
    /// The expected processor time of the host.
    pub expected: Duration,
}

/// Scenarios that are not played on a kernel, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut<'a> {
    /// The kernel's name.
    pub kernel: &'a str,
    /// The scenarios' boot.
    pub boot: Boot,
    /// The number of scenarios.
    pub scenarios: usize,
    /// Why they are not played.
    pub reason: &'static str,
}

/// The guests of a run, longest first, and the scenarios that it leaves out.
#[derive(Debug, Default)]
pub struct Plan<'a> {
    /// The guests.
    pub jobs: Vec<Job<'a>>,
    /// Scenarios that no guest with a kernel of that series plays.
    pub left_out: Vec<LeftOut<'a>>,
}

impl<'a> Plan<'a> {
    /// Chooses the kernels that play each scenario.
    #[must_use]
    pub fn new(
        kernels: &'a [Kernel],
        scenarios: &'a [Listed],
        extent: Extent,
        durations: &Durations,
    ) -> Self {
        let mut plan = Plan::default();
        let mut names: BTreeMap<(usize, Boot), Vec<&str>> = BTreeMap::new();
        let mut left_out: BTreeMap<(usize, Boot), usize> = BTreeMap::new();
        for scenario in scenarios {
            let able = |kernel: &Kernel| {
                scenario.boot.is_played_on(kernels::role(&kernel.id))
                    && (!scenario.boot.facts().generic || firmware::suits(kernel))
            };
            let depends = if extent == Extent::Everything { Depends::Flavour } else { scenario.depends };
            let chosen = chosen(kernels, depends, &able);
            for (at, kernel) in kernels.iter().enumerate() {
                if chosen.contains(&at) {
                    names.entry((at, scenario.boot)).or_default().push(&scenario.name);
                } else if scenario.boot.is_played_on(kernels::role(&kernel.id))
                    && depends > Depends::NewestSeries
                    && !same_series(kernels, &chosen, kernel)
                {
                    *left_out.entry((at, scenario.boot)).or_default() += 1;
                }
            }
        }
        for ((at, boot), names) in names {
            let kernel = &kernels[at];
            let expected = durations.of_job(kernel, boot, &names);
            plan.jobs.push(Job { kernel, boot, names, expected });
        }
        plan.jobs.sort_by_key(|job| std::cmp::Reverse(job.expected));
        plan.left_out = left_out
            .into_iter()
            .map(|((at, boot), scenarios)| LeftOut {
                kernel: &kernels[at].id,
                boot,
                scenarios,
                reason: if boot.facts().generic {
                    "only generic kernels have the drivers for it, and this run has none of this series"
                } else {
                    "the generic kernels of this run play it; `cargo xtask test --all` plays it on every kernel"
                },
            })
            .collect();
        plan
    }
}

/// Returns the kernels that play a scenario, by index.
fn chosen(kernels: &[Kernel], depends: Depends, able: &dyn Fn(&Kernel) -> bool) -> Vec<usize> {
    let able: Vec<usize> = (0..kernels.len()).filter(|at| able(&kernels[*at])).collect();
    match depends {
        Depends::Flavour => able,
        Depends::Series => {
            let mut of_series: BTreeMap<&str, usize> = BTreeMap::new();
            let generic: Vec<usize> =
                able.iter().copied().filter(|at| firmware::suits(&kernels[*at])).collect();
            for at in if generic.is_empty() { able } else { generic } {
                of_series.entry(kernels[at].series()).or_insert(at);
            }
            of_series.into_values().collect()
        }
        // Kernels are listed oldest first.
        Depends::NewestSeries | Depends::FullTest => {
            let generic = able.iter().rev().find(|at| firmware::suits(&kernels[**at]));
            generic.or(able.last()).copied().into_iter().collect()
        }
        // The cloud flavours boot faster, and the newest kernel is the likeliest to break a scenario.
        Depends::UserSide => {
            let cloud = able.iter().rev().find(|at| !firmware::suits(&kernels[**at]));
            cloud.or(able.last()).copied().into_iter().collect()
        }
    }
}

/// Reports whether a kernel of the same series was chosen.
fn same_series(kernels: &[Kernel], chosen: &[usize], kernel: &Kernel) -> bool {
    chosen.iter().any(|at| kernels[*at].series() == kernel.series())
}

/// Returns the key of a scenario on a kernel in the file of durations.
fn key(kernel: &str, boot: Boot, name: &str) -> String {
    format!("{kernel} {boot} {name}")
}

/// The times that scenarios and guests took when they were last played, in milliseconds of processor time of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Durations(HashMap<String, u64>);

/// The name for a guest's own time: boot, power-off and the time between scenarios.
pub const GUEST: &str = "(guest)";

impl Durations {
    fn file() -> anyhow::Result<PathBuf> {
        Ok(cache::folder()?.join("durations.json"))
    }

    /// Reads those of earlier runs; none if there are none or the file cannot be parsed.
    #[must_use]
    pub fn load() -> Self {
        let text = Self::file().ok().and_then(|file| fs::read(file).ok());
        text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    /// Saves them for the next run. Entries of scenarios that this run did not play stay.
    pub fn save(&self) -> anyhow::Result<()> {
        let mut all = Self::load();
        all.0.extend(self.0.clone());
        cache::write(&Self::file()?, &serde_json::to_vec(&all).context("writing durations as JSON")?)
    }

    /// Adds one.
    pub fn note(&mut self, kernel: &str, boot: Boot, name: &str, took: Duration) {
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.0.insert(key(kernel, boot, name), ms);
    }

    /// Returns the longest, with their times.
    #[must_use]
    pub fn longest(&self, many: usize) -> Vec<(&str, Duration)> {
        let mut all: Vec<_> =
            self.0.iter().map(|(name, ms)| (name.as_str(), Duration::from_millis(*ms))).collect();
        all.sort_by_key(|(name, took)| (std::cmp::Reverse(*took), *name));
        all.truncate(many);
        all
    }

    /// Returns their sum.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_millis(self.0.values().sum())
    }

    fn of_job(&self, kernel: &Kernel, boot: Boot, names: &[&str]) -> Duration {
        // Estimates for a scenario that was never timed, and for a boot, in milliseconds.
        const UNKNOWN: u64 = 700;
        const BOOT: u64 = 3000;
        let of = |name: &str, unknown| *self.0.get(&key(&kernel.id, boot, name)).unwrap_or(&unknown);
        Duration::from_millis(of(GUEST, BOOT) + names.iter().map(|name| of(name, UNKNOWN)).sum::<u64>())
    }
}

/// Returns the clock for a boot's guest.
#[must_use]
pub fn clock(boot: Boot) -> Clock {
    let facts = boot.facts();
    if facts.hardware.processors > 1 {
        Clock::Host
    } else if facts.userland || facts.hardware.scratch || facts.tpm || facts.firmware.is_some() {
        Clock::InstructionsAndIdleTime
    } else {
        Clock::Instructions(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(id: &str) -> Kernel {
        Kernel { id: id.into(), release: String::new(), image: PathBuf::new(), folder: PathBuf::new() }
    }

    fn listed(name: &str, boot: Boot, depends: Depends) -> Listed {
        Listed { name: name.into(), boot, depends }
    }

    fn played(kernels: &[Kernel], scenario: Listed, extent: Extent) -> Vec<String> {
        let scenarios = [scenario];
        let plan = Plan::new(kernels, &scenarios, extent, &Durations::default());
        let mut played: Vec<_> = plan.jobs.iter().map(|job| job.kernel.id.clone()).collect();
        played.sort();
        played
    }

    #[test]
    fn each_scenario_is_played_where_its_outcome_may_differ() {
        let kernels = ["6.1-cloud", "6.1-generic", "6.12-cloud", "7-cloud", "7-generic"].map(kernel);
        let play = |boot, depends| played(&kernels, listed("x", boot, depends), Extent::Dependent);
        assert_eq!(play(Boot::Plain, Depends::Flavour).len(), 5);
        assert_eq!(play(Boot::Plain, Depends::Series), ["6.1-generic", "7-generic"]);
        assert_eq!(play(Boot::Plain, Depends::UserSide), ["7-cloud"]);
        assert_eq!(play(Boot::SealAttacked, Depends::Series), ["6.1-generic", "7-generic"]);
        assert_eq!(play(Boot::Programs, Depends::UserSide), ["7-generic"]);
        assert_eq!(play(Boot::PinsAttacked, Depends::NewestSeries), ["7-generic"]);
        let everything = listed("x", Boot::Plain, Depends::UserSide);
        assert_eq!(played(&kernels, everything, Extent::Everything).len(), 5);
    }

    #[test]
    fn what_no_kernel_of_a_series_can_play_is_told() {
        let kernels = ["6.1-cloud", "7-generic"].map(kernel);
        let scenarios =
            [listed("x", Boot::Programs, Depends::Series), listed("y", Boot::Programs, Depends::UserSide)];
        let plan = Plan::new(&kernels, &scenarios, Extent::Dependent, &Durations::default());
        let told: Vec<_> = plan.left_out.iter().map(|left| (left.kernel, left.scenarios)).collect();
        assert_eq!(told, [("6.1-cloud", 1)]);
    }

    #[test]
    fn the_longest_guest_comes_first() {
        let kernels = [kernel("7-generic")];
        let scenarios =
            [listed("short", Boot::Plain, Depends::Series), listed("long", Boot::Sealed, Depends::Series)];
        let mut durations = Durations::default();
        durations.note("7-generic", Boot::Sealed, "long", Duration::from_secs(9));
        let plan = Plan::new(&kernels, &scenarios, Extent::Dependent, &durations);
        assert_eq!(plan.jobs[0].names, ["long"]);
        assert_eq!(durations.longest(3), [("7-generic sealed long", Duration::from_secs(9))]);
    }
}
