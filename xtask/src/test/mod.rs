/*!
`cargo xtask test`: everything that decides whether a change may land, and one line that counts it.

| | plays |
|---|---|
| `cargo xtask test` | every check once; each scenario of the lab on the kernels that its outcome depends on |
| `--changed` | every step that the difference from a commit can affect |
| `--all` | everything, on every kernel, and what takes long: before a release. Its result is kept in docs/full-test.md |
*/
pub mod changed;
mod played;
mod record;
pub mod times;

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Instant,
};

use anyhow::Context;
use clap::Args;
use stockade_lab::{
    protocol::Outcome,
    report::{Counts, Played},
    scenario::Depends,
    tool,
};

use crate::{bench, bpf, dist, docs, fuzz, html, lab, package, setup, systems, workspace};
use changed::{Affected, Lab};
use played::Steps;
use times::Times;

/// The whole system that every run of the tests plays: the one whose systemd loads BPF programs of its own.
const IN_TESTS: &str = "debian-13";

/// The extent of the run.
#[derive(Clone, Debug, Default, Args)]
pub struct Flags {
    /// Everything on every kernel, with what takes long: before a release. Writes docs/full-test.md
    #[arg(long, conflicts_with = "changed")]
    all: bool,
    /// What the difference from a commit can affect: from the last one, unless another is named
    #[arg(long, value_name = "COMMIT", num_args = 0..=1, default_missing_value = "HEAD")]
    changed: Option<String>,
    /// Play in guests also what has passed here before with the very programs that are built now
    #[arg(long)]
    afresh: bool,
}

/// Returns whether nothing failed. A step that could not be carried out is a failure.
pub fn run(flags: &Flags) -> anyhow::Result<bool> {
    let affected = match &flags.changed {
        Some(base) => Some(changed::affected(changed::files(base)?, &changed::packages()?)),
        None => None,
    };
    if let Some(affected) = &affected {
        if affected.files.is_empty() {
            println!("nothing differs");
        }
        let packages: Vec<&str> = affected.packages.iter().map(String::as_str).collect();
        println!(
            "{} files differ; tested: {}; lab: {:?}",
            affected.files.len(),
            packages.join(", "),
            affected.lab
        );
    }
    let passed = Steps::load();
    let mut run = Run {
        flags,
        affected,
        counts: Counts::default(),
        times: Times::default(),
        played: None,
        passed,
        last: Counts::default(),
    };
    run.need()?;
    run.steps();
    print!("{}", run.times.report());
    if flags.all {
        record::write(&run)?;
    }
    println!("{}", run.counts);
    Ok(run.counts.failed == 0)
}

/// A run of the tests.
struct Run<'a> {
    flags: &'a Flags,
    affected: Option<Affected>,
    counts: Counts,
    times: Times,
    /// The outcomes of the lab.
    played: Option<Played>,
    /// The steps that passed in earlier runs here.
    passed: Steps,
    /// The outcome of the last step that is one test.
    last: Counts,
}

impl Run<'_> {
    /// Reports whether the change can affect this; a run without `--changed` plays everything.
    fn affects(&self, of: impl Fn(&Affected) -> bool) -> bool {
        self.affected.as_ref().is_none_or(of)
    }

    fn need(&self) -> anyhow::Result<()> {
        let mut needed = Vec::new();
        if self.affects(|change| change.lab != Lab::Nothing) {
            needed.extend([setup::LAB, setup::FIRMWARE, setup::TPM]);
        }
        if self.affects(|change| change.lab == Lab::Everything || change.package) {
            needed.push(setup::SYSTEMS);
        }
        if self.affects(|change| change.page) {
            needed.push(setup::BROWSER);
        }
        if self.flags.all {
            needed.extend([setup::BPF, setup::FUZZ, setup::PACKAGE]);
        }
        setup::need(&needed)
    }

    fn steps(&mut self) {
        self.step("format", || status(workspace::cargo().args(["fmt", "--all", "--check"])));
        let packages = self.packages();
        self.step("clippy", || {
            let mut cargo = workspace::cargo();
            cargo.args(["clippy", "--quiet", "--all-targets"]).args(&packages);
            status(cargo.args(["--", "-D", "warnings"]))
        });
        if self.affects(|change| !change.packages.is_empty()) {
            self.step("rustdoc", docs::of_crates);
        }
        self.counted("unit tests", || unit_tests(&packages, &[]));
        if self.affects(|change| change.dependencies) {
            self.step("deny", deny);
        }
        if self.affects(|change| change.page) {
            self.step("html", || html::run(&html::Flags::check()));
        }
        if self.affects(|change| change.documents) {
            self.step("docs", docs::run);
        }
        let all = self.flags.all;
        self.step("bpf", || if all { bpf::run(&bpf::Flags { check: true }) } else { bpf::is_committed() });
        self.guests();
        if all {
            self.step("package", package::check);
            self.step("dist --reproducible", dist::reproducible);
            self.step("fuzz", || fuzz::run(&fuzz::Flags::a_minute()));
            self.step("reboots", || lab::reboots(&lab::Flags::default(), 20));
            self.step("boots of a system", || {
                let boots = systems::boots(&systems::Flags::default(), &package::deb()?, 3)?;
                println!("{boots}");
                Ok(boots.are_sealed())
            });
        }
    }

    /// Plays the steps in guests. A whole system takes one processor for minutes, so the others play beside it.
    fn guests(&mut self) {
        let on = if self.flags.all { Vec::new() } else { vec![IN_TESTS.to_owned()] };
        let flags = systems::Flags { on, ..systems::Flags::default() };
        let wanted = self.affects(|change| change.lab == Lab::Everything || change.package);
        let package = wanted.then(|| self.times.of("package", package::deb));
        let of_package = package.as_ref().and_then(|package| package.as_ref().ok()).cloned();
        let saw_package = of_package.and_then(|package| self.has_changed("systems", &[&package]));
        let root = workspace::root();
        let documents = ["docs/conformance.md", "SPECIFICATION.md"].map(|name| root.join(name));
        let guests = self.affects(|change| change.lab == Lab::Everything);
        let [conformance, bench] = [("conformance", &documents[0]), ("bench", &documents[1])]
            .map(|(step, document)| guests.then(|| self.has_changed(step, &[document])).flatten());
        thread::scope(|scope| {
            let systems =
                package.filter(|package| saw_package.is_some() || package.is_err()).map(|package| {
                    scope.spawn(move || {
                        let begin = Instant::now();
                        (package.and_then(|package| systems::play(&flags, &package)), begin.elapsed())
                    })
                });
            self.lab();
            if let Some(saw) = conformance {
                self.step("conformance", || lab::conformance(true));
                self.has_played("conformance", &saw, self.last);
            }
            if let Some(saw) = bench {
                self.step("bench", || bench::run(&bench::Flags::check()));
                self.has_played("bench", &saw, self.last);
            }
            if let Some(systems) = systems {
                let (played, took) = systems.join().expect("a system's failure is an error");
                self.times.beside("systems", took);
                let counts = played.unwrap_or_else(|error| could_not("systems", &error));
                self.counts += counts;
                self.has_played("systems", &saw_package.unwrap_or_default(), counts);
            }
        });
    }

    /// Returns the digest of the files that a step depends on; `None` if the step has passed with the same digest, which is printed.
    fn has_changed(&mut self, step: &str, more: &[&Path]) -> Option<String> {
        // Where these files cannot be read, the step itself reports the error.
        let Ok(saw) = played::seen(more) else { return Some(String::new()) };
        if self.flags.all || self.flags.afresh {
            return Some(saw);
        }
        let Some(passed) = self.passed.passed(step, &saw) else { return Some(saw) };
        println!(
            "skip {step}: {} passed on {} with these very programs and kernels; --afresh plays them again",
            if passed.tests == 1 { "it".to_owned() } else { format!("{} tests", passed.tests) },
            passed.when
        );
        self.counts.skipped += passed.tests;
        None
    }

    fn has_played(&mut self, step: &str, saw: &str, counts: Counts) {
        if let Err(error) = self.passed.note(step, saw, counts) {
            eprintln!("that {step} was played could not be noted, so the next run plays it again: {error:#}");
        }
    }

    /// Returns the tested packages as cargo's arguments.
    fn packages(&self) -> Vec<String> {
        match &self.affected {
            Some(affected) if !affected.packages.is_empty() => {
                affected.packages.iter().flat_map(|name| ["-p".to_owned(), name.clone()]).collect()
            }
            _ => vec!["--workspace".to_owned()],
        }
    }

    fn lab(&mut self) {
        let lab = self.affected.as_ref().map_or(Lab::Everything, |change| change.lab);
        let flags = lab::Flags {
            for_tests: !self.flags.all,
            everything: self.flags.all,
            depends: (lab == Lab::UserSide).then_some(Depends::UserSide),
            ..lab::Flags::default()
        };
        if lab == Lab::Nothing {
            return;
        }
        let step = if lab == Lab::UserSide { "lab (user side)" } else { "lab" };
        let Some(saw) = self.has_changed(step, &[]) else { return };
        match self.times.of("lab", || lab::play(&flags)) {
            Ok(played) => {
                self.has_played(step, &saw, played.counts);
                self.counts += played.counts;
                self.times.scenarios(played.durations.clone());
                self.played = Some(played);
            }
            Err(error) => self.counts += could_not("lab", &error),
        }
    }

    /// Runs a step that is one test.
    fn step(&mut self, name: &str, step: impl FnOnce() -> anyhow::Result<bool>) {
        let result = self.times.of(name, step);
        let outcome = match result {
            Ok(true) => {
                println!("ok   {name}");
                Outcome::Passed
            }
            Ok(false) => {
                println!("FAIL {name}");
                Outcome::Failed
            }
            Err(error) => {
                println!("FAIL {name}: {error:#}");
                Outcome::Failed
            }
        };
        self.last = Counts::default();
        self.last.add(outcome);
        self.counts.add(outcome);
    }

    /// Runs a step that counts its own tests.
    fn counted(&mut self, name: &str, step: impl FnOnce() -> anyhow::Result<Counts>) {
        let result = self.times.of(name, step);
        self.counts += result.unwrap_or_else(|error| could_not(name, &error));
    }
}

fn status(command: &mut Command) -> anyhow::Result<bool> {
    Ok(workspace::status(command)?.success())
}

fn could_not(name: &str, error: &anyhow::Error) -> Counts {
    println!("FAIL {name}: {error:#}");
    Counts { failed: 1, ..Counts::default() }
}

/// Checks licences, sources and versions of the dependencies. Fetches only the tool.
fn deny() -> anyhow::Result<bool> {
    let mut deny = Command::new(setup::cargo_deny()?);
    deny.args(["check", "--hide-inclusion-graph", "bans", "licenses", "sources"]);
    status(deny.current_dir(workspace::root()))
}

/// Runs the unit tests and doc tests of these packages, given as cargo's arguments, without the tests whose names contain a word of `skip`. Shows
/// them as they run and counts them by their summaries.
pub fn unit_tests(packages: &[String], skip: &[&str]) -> anyhow::Result<Counts> {
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--quiet", "--no-fail-fast"]).args(packages).stdout(Stdio::piped());
    if !skip.is_empty() {
        cargo.arg("--").args(skip.iter().flat_map(|word| ["--skip", word]));
    }
    let mut child = cargo.spawn().map_err(|e| tool::explain(&e, &cargo))?;
    let mut counts = Counts::default();
    for line in BufReader::new(child.stdout.take().context("the tests' output was piped")?).lines() {
        let line = line.context("reading what the tests print")?;
        println!("{line}");
        if line.contains("... ignored") {
            println!("skip {}", line.trim());
        }
        if let Some(found) = summary(&line) {
            counts += found;
        }
    }
    // Tests that do not compile are in no summary.
    if !child.wait().context("waiting for the tests")?.success() && counts.failed == 0 {
        println!("FAIL tests: they did not run to their end");
        counts.failed += 1;
    }
    Ok(counts)
}

/// Reads `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
fn summary(line: &str) -> Option<Counts> {
    let (_, numbers) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut counts = Counts::default();
    for part in numbers.split("; ") {
        match part.split_once(' ') {
            Some((n, "passed")) => counts.passed = n.parse().ok()?,
            Some((n, "failed")) => counts.failed = n.parse().ok()?,
            Some((n, "ignored")) => counts.skipped = n.parse().ok()?,
            _ => {}
        }
    }
    Some(counts)
}

#[cfg(test)]
mod tests {
    use stockade_lab::report::Counts;

    #[test]
    fn a_summary_is_counted() {
        let line = "test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(super::summary(line), Some(Counts { passed: 3, failed: 1, skipped: 2 }));
        assert_eq!(super::summary("running 3 tests"), None);
    }
}
