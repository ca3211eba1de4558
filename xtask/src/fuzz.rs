/*!
`cargo xtask fuzz`: inputs made by chance and by what they reach, for everything that reads what others wrote.

Without a sanitizer, so stable Rust will do: what is fuzzed has no unsafe code, and a panic needs no sanitizer to be seen.
Without traced comparisons, which take two thirds of the time: the dictionary has the words they would find.
*/
use std::{fs, process::Command};

use anyhow::Context;
use clap::Args;

use crate::{setup, workspace};

/// The targets in fuzz/fuzz_targets, and the seeds each begins with.
const TARGETS: [(&str, &str); 3] = [("read", "read"), ("argue", "read"), ("waivers", "waivers")];

/// How long.
#[derive(Debug, Args)]
pub struct Flags {
    /// Seconds for each target
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

impl Flags {
    /// A minute for all targets together, as part of the tests.
    pub fn a_minute() -> Self {
        Self { seconds: 20 }
    }
}

/// Returns whether nothing was found. What is found is in fuzz/artifacts, one file for each input.
pub fn run(flags: &Flags) -> anyhow::Result<bool> {
    setup::need(&[setup::FUZZ])?;
    let program = setup::cargo_fuzz()?;
    let fuzz = workspace::root().join("fuzz");
    let mut clean = true;
    for (target, seeds) in TARGETS {
        // What was reached in earlier runs is kept, and is where the next one begins.
        let (corpus, seeds) = (fuzz.join("corpus").join(target), fuzz.join("seeds").join(seeds));
        fs::create_dir_all(&corpus).with_context(|| format!("making the folder {}", corpus.display()))?;
        let mut command = Command::new(&program);
        command.current_dir(workspace::root()).args(["run", "--sanitizer", "none", "--no-trace-compares"]);
        command.arg("--target-dir").arg(workspace::target_folder().join("fuzz")).arg(target);
        command.arg(corpus).arg(seeds).arg("--");
        command.arg(format!("-dict={}", fuzz.join("policy.dict").display()));
        command.args([
            &format!("-max_total_time={}", flags.seconds),
            "-max_len=2048",
            "-print_final_stats=1",
        ]);
        clean &= workspace::status(&mut command)?.success();
    }
    Ok(clean)
}
