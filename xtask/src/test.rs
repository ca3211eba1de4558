/*!
`cargo xtask test`: everything CI checks, and one line that counts it.
*/
use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use anyhow::Context;
use stockade_lab::{protocol::Outcome, report::Counts, tool};

use crate::{bench, bpf, fuzz, html, lab, setup, workspace};

/// Returns whether nothing failed. A step that could not be carried out is a failure.
pub fn run() -> anyhow::Result<bool> {
    setup::need(&[setup::LAB, setup::FIRMWARE, setup::TPM, setup::BPF, setup::BROWSER])?;
    let mut total = Counts::default();
    total.add(step("format", workspace::cargo().args(["fmt", "--all", "--check"])));
    total.add(step(
        "clippy",
        workspace::cargo().args([
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]),
    ));
    total += unit_tests().unwrap_or_else(|error| could_not("tests", &error));
    if workspace::root().join("deny.toml").exists() {
        total.add(match setup::cargo_deny() {
            Ok(deny) => step(
                "deny",
                Command::new(deny)
                    .args(["check", "--hide-inclusion-graph", "bans", "licenses", "sources"])
                    .current_dir(workspace::root()),
            ),
            Err(error) => said("deny", &Err(error)),
        });
    } else {
        println!("skip deny: there is no deny.toml");
        total.add(Outcome::Skipped);
    }
    total.add(said("fuzz", &fuzz::run(&fuzz::Flags::a_minute())));
    total.add(said("html", &html::run(&html::Flags::check())));
    total.add(said("bpf", &bpf::run(&bpf::Flags { check: true })));
    total += lab::play(&lab::Flags { for_tests: true, ..lab::Flags::default() })
        .unwrap_or_else(|error| could_not("lab", &error));
    total.add(said("conformance", &lab::conformance(true)));
    // Instructions are counted, so other load changes no figure; the guest takes some ten seconds.
    total.add(said("bench", &bench::run(&bench::Flags::check())));
    println!("{total}");
    Ok(total.failed == 0)
}

fn step(name: &str, command: &mut Command) -> Outcome {
    said(name, &workspace::status(command).map(|status| status.success()))
}

fn said(name: &str, result: &anyhow::Result<bool>) -> Outcome {
    match result {
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
    }
}

fn could_not(name: &str, error: &anyhow::Error) -> Counts {
    println!("FAIL {name}: {error:#}");
    Counts { failed: 1, ..Counts::default() }
}

/// The workspace's own tests, shown as they run and counted by their summaries.
fn unit_tests() -> anyhow::Result<Counts> {
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--quiet", "--workspace", "--no-fail-fast"]).stdout(Stdio::piped());
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
    // Tests that do not compile are in nobody's summary.
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
