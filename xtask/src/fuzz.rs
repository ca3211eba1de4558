/*!
`cargo xtask fuzz`: inputs that libFuzzer makes, guided by coverage, for each reader of bytes that others wrote.

No sanitizer, so that stable Rust builds the targets: the readers have no unsafe code, and a panic is seen without one.
No traced comparisons, which take two thirds of the time: the dictionary and the seeds have the words that they would find.
*/
use std::{fs, process::Command};

use anyhow::{Context, ensure};
use clap::Args;

use crate::{setup, workspace};

/// A target in fuzz/fuzz_targets.
struct Target {
    name: &'static str,
    /// The folder of its seeds below fuzz/seeds.
    seeds: &'static str,
    /// The file below fuzz/ with words that its inputs are made of.
    dictionary: Option<&'static str>,
    /// The greatest length of an input in bytes.
    length: u32,
}

const TARGETS: [Target; 7] = [
    Target { name: "read", seeds: "read", dictionary: Some("policy.dict"), length: 2048 },
    Target { name: "argue", seeds: "read", dictionary: Some("policy.dict"), length: 2048 },
    Target { name: "waivers", seeds: "waivers", dictionary: Some("policy.dict"), length: 2048 },
    Target { name: "btf", seeds: "btf", dictionary: None, length: 8192 },
    Target { name: "event-log", seeds: "event-log", dictionary: None, length: 8192 },
    Target { name: "signatures", seeds: "signatures", dictionary: None, length: 4096 },
    Target { name: "xfrm", seeds: "xfrm", dictionary: None, length: 4096 },
];

/// The targets and how long each runs.
#[derive(Debug, Args)]
pub struct Flags {
    /// Seconds for each target
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Only this target: a name in fuzz/fuzz_targets
    #[arg(long, value_name = "TARGET")]
    only: Option<String>,
}

impl Flags {
    /// A minute for all targets together, as part of the tests.
    pub fn a_minute() -> Self {
        Self { seconds: 9, only: None }
    }
}

/// Returns whether nothing was found. Each input that was found is a file in fuzz/artifacts.
pub fn run(flags: &Flags) -> anyhow::Result<bool> {
    let wanted = |target: &&Target| flags.only.as_ref().is_none_or(|only| only == target.name);
    let targets: Vec<&Target> = TARGETS.iter().filter(wanted).collect();
    ensure!(!targets.is_empty(), "--only: fuzz/fuzz_targets has no target of this name");
    setup::need(&[setup::FUZZ])?;
    let program = setup::cargo_fuzz()?;
    let fuzz = workspace::root().join("fuzz");
    let mut clean = true;
    for target in targets {
        // Inputs that earlier runs reached are kept; the next run begins with them.
        let corpus = fuzz.join("corpus").join(target.name);
        fs::create_dir_all(&corpus).with_context(|| format!("making the folder {}", corpus.display()))?;
        let mut command = Command::new(&program);
        command.current_dir(workspace::root()).args(["run", "--sanitizer", "none", "--no-trace-compares"]);
        command.arg("--target-dir").arg(workspace::target_folder().join("fuzz")).arg(target.name);
        command.arg(corpus).arg(fuzz.join("seeds").join(target.seeds)).arg("--");
        if let Some(dictionary) = target.dictionary {
            command.arg(format!("-dict={}", fuzz.join(dictionary).display()));
        }
        command.args([
            &format!("-max_total_time={}", flags.seconds),
            &format!("-max_len={}", target.length),
            // An input that takes this many seconds is a finding too.
            "-timeout=10",
            "-print_final_stats=1",
        ]);
        clean &= workspace::status(&mut command)?.success();
    }
    Ok(clean)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use super::TARGETS;
    use crate::workspace;

    #[test]
    fn every_target_is_run_with_its_seeds() {
        let fuzz = workspace::root().join("fuzz");
        let files = fs::read_dir(fuzz.join("fuzz_targets")).unwrap();
        let names: BTreeSet<String> = files
            .map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(names, TARGETS.iter().map(|target| target.name.to_owned()).collect());
        let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
        for target in TARGETS {
            assert!(manifest.contains(&format!("name = \"{}\"", target.name)), "{}", target.name);
            assert!(fs::read_dir(fuzz.join("seeds").join(target.seeds)).unwrap().count() > 0);
            assert!(target.dictionary.is_none_or(|file| fuzz.join(file).exists()));
        }
    }
}
