/*!
Runs the checks: each in a child of its own, several at once, what is measured one after the other at the end.

```text
assess ── fork ──▶ child: check(&System, &mut Report)
   ▲                        │ one line of JSON for each finding, as soon as it is known
   └────── pipe ────────────┘
```

A child that goes beyond its limit is killed with everything it started. What it had reported until then counts; the rest is unknown.
*/
use std::{
    collections::HashMap,
    io::Write,
    time::{Duration, Instant},
};

use schemars::JsonSchema;
use serde::Serialize;
use stockade_probe::limit::Limit;

use crate::{
    child::{self, Child, End},
    finding::{Finding, How},
    system::System,
    text::Text,
};

/// How much a check may use. The slowest uses a hundredth of it; a virtual processor that its host runs late counts that time as used.
/// A trial of its own may hang for half as long before the check says so.
const LIMIT: Limit = Limit { processor: Duration::from_secs(30), idle: Duration::from_mins(1) };

/// So often it is said what is being looked at.
const TELL: Duration = Duration::from_millis(100);

/// A defence of the kernel and how it is checked.
#[derive(Clone, Copy, Debug)]
pub struct Feature {
    /// Its id, which its findings' ids begin with.
    pub id: &'static str,
    /// Its name for people.
    pub title: &'static str,
    /// Finds out everything that takes an instant.
    pub check: fn(&System, &mut Report),
    /// Finds out what has to be measured. Called when the machine is [measured](System::measures), after all checks, while nothing else runs;
    /// otherwise `check` says about the same findings what can be said without.
    pub measure: Option<fn(&System, &mut Report)>,
    /// How much each of them may use.
    pub limit: Limit,
    /// Removes what a check that was killed may have left.
    pub clean_up: Option<fn()>,
}

impl Feature {
    /// One that only has a check, without a name yet: for the constants in `features/`.
    pub(crate) const fn new(check: fn(&System, &mut Report)) -> Self {
        Self { id: "", title: "", check, measure: None, limit: LIMIT, clean_up: None }
    }

    /// Runs the check in this process and returns its findings.
    #[cfg(test)]
    pub(crate) fn findings(&self, system: &System) -> HashMap<String, Finding> {
        let mut report = Report::default();
        (self.check)(system, &mut report);
        let mut findings = HashMap::new();
        for finding in report.findings {
            let twice = findings.insert(finding.id.to_string(), finding);
            assert!(twice.is_none(), "reported twice: {twice:?}");
        }
        findings
    }
}

/// Where a check reports its findings.
#[derive(Default)]
pub struct Report<'a> {
    findings: Vec<Finding>,
    out: Option<&'a mut dyn Write>,
}

impl<'a> Report<'a> {
    /// One that writes each finding as a line of JSON.
    pub(crate) fn to(out: &'a mut dyn Write) -> Self {
        Self { findings: Vec::new(), out: Some(out) }
    }

    /// Returns the findings of a report that writes none, for tests and fuzz targets of a check's parts.
    pub(crate) fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Reports one. Each of a feature's findings is reported once.
    ///
    /// # Panics
    /// In builds for tests, if there is no text for it.
    pub fn add(&mut self, finding: Finding) {
        debug_assert!(Text::of(&finding.id).is_some(), "findings/ has no text for {}", finding.id);
        match &mut self.out {
            Some(out) => {
                // A parent that has gone has ended this process as well.
                let mut line = serde_json::to_vec(&finding).unwrap_or_default();
                line.push(b'\n');
                let _ = out.write_all(&line);
            }
            None => self.findings.push(finding),
        }
    }
}

/// Everything that was found out about a machine.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Assessment {
    /// The kernel's release
    pub kernel: String,
    /// What the caller would have had to do to see and try everything; missing for root
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lacks: Option<String>,
    /// Whether what takes longer than an instant was measured
    pub measured: bool,
    /// How long it took, in milliseconds
    pub ms: u64,
    /// Feature by feature
    pub features: Vec<Assessed>,
}

/// What was found out about a feature.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Assessed {
    /// Its id
    pub id: String,
    /// Its name
    pub title: String,
    /// How long its checks took, in milliseconds
    pub ms: u64,
    /// Its findings, in order of ids
    pub findings: Vec<Finding>,
}

/// Assesses these features, at most `at_once` of them at the same time. `progress` is told, several times a second, the name of
/// a feature that is done or being looked at, and how many are done of how many.
///
/// From then on this process hears of the end of its children (SIGCHLD has its default action).
///
/// ```
/// use stockade_assess::{System, Verdict, assess, features};
///
/// let empty = tempfile::tempdir()?;
/// let assessment = assess(&System::below(empty.path()), &features::ALL[..2], 2, |_, _, _| {});
/// let mut findings = assessment.features.iter().flat_map(|feature| &feature.findings);
/// assert!(findings.all(|finding| finding.verdict != Verdict::Pass));
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use]
pub fn assess(
    system: &System,
    wanted: &[Feature],
    at_once: usize,
    mut progress: impl FnMut(&str, usize, usize),
) -> Assessment {
    // Who started this may have left SIGCHLD ignored. The kernel then takes children away as they end, and nobody can tell how they did.
    // SAFETY: the default action is no function that could be wrong.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    let begin = Instant::now();
    let measured: Vec<&Feature> =
        wanted.iter().filter(|f| system.measures() && f.measure.is_some()).collect();
    let of = wanted.len() + measured.len();
    let mut done = 0;
    let mut told = |title: &str, ended: bool| {
        done += usize::from(ended);
        progress(title, done, of);
    };
    let mut results: Vec<Collected> = wanted.iter().map(|_| Collected::default()).collect();
    run(system, wanted, at_once.max(1), Phase::Check, &mut results, &mut told);
    if system.measures() {
        run(system, wanted, 1, Phase::Measure, &mut results, &mut told);
    }
    Assessment {
        kernel: system.release().unwrap_or_else(|_| "unknown".into()),
        lacks: system.lacks_root().map(str::to_owned),
        measured: system.measures(),
        ms: milliseconds(begin.elapsed()),
        features: wanted.iter().zip(results).map(|(feature, result)| result.complete(feature)).collect(),
    }
}

#[derive(Clone, Copy)]
enum Phase {
    Check,
    Measure,
}

impl Phase {
    fn duty(self, feature: &Feature) -> Option<fn(&System, &mut Report)> {
        match self {
            Phase::Check => Some(feature.check),
            Phase::Measure => feature.measure,
        }
    }
}

/// The results of a feature's children.
#[derive(Default)]
struct Collected {
    findings: Vec<Finding>,
    took: Duration,
    /// Why something may be missing.
    trouble: Option<String>,
}

impl Collected {
    fn take(&mut self, end: End, said: &[u8]) {
        let mut words = "";
        let said = String::from_utf8_lossy(said);
        for line in said.lines().filter(|line| !line.is_empty()) {
            match serde_json::from_str::<Finding>(line) {
                Ok(finding) => self.findings.push(finding),
                // What a panic says may be of several lines: the place and the words.
                Err(_) if words.is_empty() => words = line,
                Err(_) => {}
            }
        }
        self.trouble = match end {
            End::Exited(0) => self.trouble.take(),
            End::Exited(child::PANICKED) => {
                Some(format!("the check went wrong, which is a mistake in Stockade: {words}"))
            }
            End::Exited(status) => Some(format!("the check ended early with status {status}")),
            End::Signal(signal) => Some(format!("the check was ended by signal {signal}")),
            End::TooLong(_) | End::TooMuch => Some(format!("the check {end}; it was ended")),
            End::Unseen => Some(format!("the check {end}")),
        };
    }

    /// Every finding of the feature once.
    fn complete(self, feature: &Feature) -> Assessed {
        let missing = self.trouble.as_deref().unwrap_or("the check did not say");
        let mut reported: HashMap<String, Finding> =
            self.findings.into_iter().map(|finding| (finding.id.to_string(), finding)).collect();
        let findings = Text::of_feature(feature.id).map(|text| {
            reported.remove(text.id).unwrap_or_else(|| Finding::unknown(text.id, How::Tried, missing))
        });
        Assessed {
            id: feature.id.into(),
            title: feature.title.into(),
            ms: milliseconds(self.took),
            findings: findings.collect(),
        }
    }
}

/// One phase of all features.
fn run(
    system: &System,
    wanted: &[Feature],
    at_once: usize,
    phase: Phase,
    results: &mut [Collected],
    told: &mut dyn FnMut(&str, bool),
) {
    let mut waiting = wanted.iter().enumerate().filter_map(|(at, f)| Some((at, f, phase.duty(f)?)));
    let mut running: Vec<(usize, Instant, Child)> = Vec::new();
    loop {
        while running.len() < at_once {
            let Some((at, feature, duty)) = waiting.next() else { break };
            let begin = Instant::now();
            let child = Child::start(feature.limit, |out| {
                duty(system, &mut Report::to(out));
            });
            match child {
                Ok(child) => running.push((at, begin, child)),
                Err(error) => {
                    results[at].trouble = Some(format!("the check could not be started: {error}"));
                    told(feature.title, true);
                }
            }
        }
        if running.is_empty() {
            return;
        }
        running.retain_mut(|(at, begin, child)| {
            let Some(end) = child.look() else { return true };
            let feature = &wanted[*at];
            if end != End::Exited(0)
                && let Some(clean_up) = feature.clean_up
            {
                clean_up();
            }
            results[*at].take(end, child.said());
            results[*at].took += begin.elapsed();
            told(feature.title, true);
            false
        });
        let descriptors: Vec<_> = running.iter().flat_map(|(_, _, child)| child.descriptors()).collect();
        if let Some(first) = running.iter().map(|(_, _, child)| child.look_again_in()).min() {
            child::wait_for(&descriptors, Instant::now() + first.min(TELL));
        }
        if let Some((at, ..)) = running.first() {
            told(wanted[*at].title, false);
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Verdict, features};

    fn only(check: fn(&System, &mut Report), limit: Limit) -> Finding {
        let feature = Feature { id: "ksm", title: "KSM", limit, ..Feature::new(check) };
        let assessment = assess(&System::fake(&[]), &[feature], 2, |_, _, _| {});
        let findings = &assessment.features[0].findings;
        assert_eq!(findings.len(), Text::of_feature("ksm").count());
        findings.iter().find(|finding| finding.id == "ksm.running").unwrap().clone()
    }

    fn finding() -> Finding {
        Finding::new("ksm.running", Verdict::Pass, How::Tried, "as it should be").seen("here", "this")
    }

    #[test]
    fn what_a_child_reports_arrives() {
        assert_eq!(only(|_, report| report.add(finding()), LIMIT), finding());
    }

    #[test]
    fn what_a_child_does_not_say_is_unknown_with_the_reason() {
        let silent = only(|_, _| {}, LIMIT);
        assert_eq!((silent.verdict, silent.found.as_str()), (Verdict::Unknown, "the check did not say"));
        let panicked = only(|_, _| panic!("seven"), LIMIT);
        assert_eq!(panicked.verdict, Verdict::Unknown);
        assert!(panicked.found.contains("a mistake in Stockade"), "{}", panicked.found);
        let short = Duration::from_millis(100);
        let slow = only(|_, _| std::thread::sleep(Duration::from_hours(1)), Limit { idle: short, ..LIMIT });
        assert!(slow.found.starts_with("the check did not answer for 0."), "{}", slow.found);
        assert!(slow.found.ends_with("it hangs; it was ended"), "{}", slow.found);
        let busy = |_: &System, _: &mut Report| loop {
            std::hint::spin_loop();
        };
        let busy = only(busy, Limit { processor: short, ..LIMIT });
        assert!(busy.found.contains("of processor time without an answer; it was ended"), "{}", busy.found);
    }

    #[test]
    fn what_was_said_before_the_end_counts() {
        let killed = only(
            |_, report| {
                report.add(finding());
                loop {
                    std::hint::spin_loop();
                }
            },
            Limit { processor: Duration::from_millis(300), ..LIMIT },
        );
        assert_eq!(killed, finding());
    }

    #[test]
    fn a_caller_that_ignores_the_end_of_its_children_does_not_spoil_the_answers() {
        // In a child, since what a signal does is the whole process's.
        let (end, said) = child::run(LIMIT, |out| {
            // SAFETY: the process only starts children and ends.
            unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
            let found = only(|_, report| report.add(finding()), LIMIT);
            let ended = only(|_, _| {}, LIMIT);
            write!(out, "{}; {}", found.found, ended.found).unwrap();
        })
        .unwrap();
        let said = String::from_utf8(said).unwrap();
        assert_eq!((end, said.as_str()), (End::Exited(0), "as it should be; the check did not say"));
    }

    #[test]
    fn nothing_reported_on_this_machine_or_an_empty_one_is_left_to_the_runner() {
        for system in [System::live(false), System::live(true), System::fake(&[])] {
            for feature in assess(&system, features::ALL, 4, |_, _, _| {}).features {
                for finding in feature.findings {
                    assert!(!finding.found.contains("the check "), "{}: {}", finding.id, finding.found);
                }
            }
        }
    }
}
