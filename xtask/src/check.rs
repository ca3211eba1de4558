/*!
`cargo xtask check`: format, clippy and unit tests of the crates that changed, in under a minute where the target folder is warm. It decides nothing:
`cargo xtask test` does.

```text
git diff, untracked files ─▶ changed crates ─▶ format, clippy, unit tests but for those in LONG
                                  └─▶ crates that need them ─▶ clippy
```
*/
mod hook;

use std::time::Instant;

use clap::Args;

use crate::{
    bpf,
    test::{
        changed::{self, Affected},
        times::minutes,
        unit_tests,
    },
    workspace,
};

/// Tests that take longer than all the others of their package, by a part of their names. `cargo xtask test` runs them.
const LONG: [(&str, &str); 3] = [
    ("stockade-assess", "garbage::no_check_falls_over_garbage"),
    ("stockade-kernel", "played::failing::"),
    ("stockade-kernel", "played::killed::"),
];

/// The commit to compare with, or the request for a hook.
#[derive(Debug, Args)]
pub struct Flags {
    /// Check what differs from this commit, with changes that are not committed and files that are not added
    #[arg(default_value = "HEAD")]
    commit: String,
    /// Install `cargo xtask check` as the pre-commit hook of this repository; refuses where another hook is
    #[arg(long, conflicts_with = "commit")]
    install_hook: bool,
}

/// Returns whether nothing failed.
pub fn run(flags: &Flags) -> anyhow::Result<bool> {
    if flags.install_hook {
        println!("{}", hook::install(workspace::root())?);
        return Ok(true);
    }
    let begin = Instant::now();
    let plan = Plan::new(&changed::affected(changed::files(&flags.commit)?, &changed::packages()?));
    if plan.is_empty() {
        println!("no crate differs from {}", flags.commit);
        return Ok(true);
    }
    println!("tested: {}; clippy only: {}", list(&plan.tested), list(&plan.compiled));
    let mut passed = true;
    if !plan.tested.is_empty() {
        passed &= step("format", || {
            let mut cargo = workspace::cargo();
            Ok(workspace::status(cargo.args(["fmt", "--check"]).args(arguments(&plan.tested)))?.success())
        });
    }
    if plan.object {
        passed &= step("bpf", bpf::is_committed);
    }
    passed &= step("clippy", || {
        let mut cargo = workspace::cargo();
        cargo.args(["clippy", "--quiet", "--all-targets"]);
        cargo.args(arguments(&plan.tested)).args(arguments(&plan.compiled));
        Ok(workspace::status(cargo.args(["--", "-D", "warnings"]))?.success())
    });
    if !plan.tested.is_empty() {
        passed &= step("unit tests", || {
            let counts = unit_tests(&arguments(&plan.tested), &plan.skipped)?;
            println!("{counts}");
            Ok(counts.failed == 0)
        });
    }
    if !plan.skipped.is_empty() {
        println!("left to `cargo xtask test`: {}", plan.skipped.join(", "));
    }
    println!("{} in {}", if passed { "passed" } else { "FAILED" }, minutes(begin.elapsed()));
    Ok(passed)
}

/// The crates to check.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    /// The changed crates, for which every step runs.
    tested: Vec<String>,
    /// The crates that need a changed one, which clippy compiles.
    compiled: Vec<String>,
    /// Tests in [`LONG`] of the changed crates.
    skipped: Vec<&'static str>,
    /// Whether the committed object may be stale.
    object: bool,
}

impl Plan {
    fn new(affected: &Affected) -> Self {
        let skipped = LONG.iter().filter(|(package, _)| affected.direct.contains(*package));
        Self {
            tested: affected.direct.iter().cloned().collect(),
            compiled: affected.packages.difference(&affected.direct).cloned().collect(),
            skipped: skipped.map(|(_, test)| *test).collect(),
            object: affected.object,
        }
    }

    fn is_empty(&self) -> bool {
        self.tested.is_empty() && self.compiled.is_empty() && !self.object
    }
}

fn arguments(packages: &[String]) -> Vec<String> {
    packages.iter().flat_map(|name| ["-p".to_owned(), name.clone()]).collect()
}

fn list(packages: &[String]) -> String {
    if packages.is_empty() { "none".to_owned() } else { packages.join(", ") }
}

/// Runs a step and prints how it ended and how long it took.
fn step(name: &str, step: impl FnOnce() -> anyhow::Result<bool>) -> bool {
    let begin = Instant::now();
    let result = step();
    let took = minutes(begin.elapsed());
    match &result {
        Ok(true) => println!("ok   {name} ({took})"),
        Ok(false) => println!("FAIL {name} ({took})"),
        Err(error) => println!("FAIL {name} ({took}): {error:#}"),
    }
    result.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{LONG, Plan};
    use crate::{
        test::changed::{affected, packages},
        workspace,
    };

    fn plan(files: &[&str]) -> Plan {
        Plan::new(&affected(files.iter().map(ToString::to_string).collect(), &packages().unwrap()))
    }

    #[test]
    fn a_changed_crate_is_tested_and_those_that_need_it_are_compiled() {
        let plan = plan(&["stockade-policy/src/diff.rs"]);
        assert_eq!(plan.tested, ["stockade-policy"]);
        for needs in ["stockade", "stockade-assess", "stockade-kernel", "stockade-lab"] {
            assert!(plan.compiled.iter().any(|name| name == needs), "{needs} is not in {plan:?}");
        }
        assert!(!plan.compiled.iter().any(|name| name == "stockade-reasons"));
        assert!(plan.skipped.is_empty() && !plan.object);
    }

    #[test]
    fn long_tests_are_skipped_in_their_own_crate_only() {
        assert_eq!(plan(&["stockade-assess/src/lib.rs"]).skipped, ["garbage::no_check_falls_over_garbage"]);
        assert_eq!(plan(&["stockade-kernel/src/host.rs"]).skipped, ["played::failing::", "played::killed::"]);
    }

    #[test]
    fn other_dependencies_are_compiled_and_the_kernel_side_is_held_against_its_object() {
        let lock = plan(&["Cargo.lock"]);
        assert!(lock.tested.is_empty() && lock.compiled.len() == packages().unwrap().len());
        assert!(plan(&["stockade-ebpf/src/decide.rs"]).object);
        assert!(plan(&[".gitignore"]).is_empty());
    }

    #[test]
    fn the_long_tests_exist() {
        for (package, test) in LONG {
            let word = test.trim_end_matches("::").rsplit("::").next().unwrap();
            let definition = [format!("mod {word};"), format!("fn {word}()")];
            let mut folders = vec![workspace::root().join(package).join("src")];
            let mut found = false;
            while let Some(folder) = folders.pop() {
                for entry in fs::read_dir(folder).unwrap() {
                    let path = entry.unwrap().path();
                    if path.is_dir() {
                        folders.push(path);
                    } else if path.extension().is_some_and(|extension| extension == "rs") {
                        let text = fs::read_to_string(path).unwrap();
                        found |= definition.iter().any(|words| text.contains(words));
                    }
                }
            }
            assert!(found, "{package} has no {test}");
        }
    }
}
