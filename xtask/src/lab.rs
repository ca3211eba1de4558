/*!
`cargo xtask lab`: the scenarios, on real kernels.
*/
use std::{collections::BTreeMap, path::PathBuf, time::Instant};

use anyhow::Context;
use clap::{Args, Subcommand};
use stockade_lab::{
    conformance::Matrix,
    kernels::{self, Kernel},
    plan::Extent,
    protocol::Listed,
    reboots,
    report::{Counts, Played, Session},
    scenario::{Boot, Depends},
};

use crate::{programs, setup, workspace};

/// The scenarios and kernels to play.
#[derive(Clone, Debug, Default, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Flags {
    /// Play on a kernel of your own: a bzImage or vmlinux (without modules)
    #[arg(long, value_name = "PATH", conflicts_with = "on")]
    pub kernel: Option<PathBuf>,
    /// Play on these kernels only
    #[arg(long, value_name = "KERNEL,…", value_delimiter = ',', value_parser = clap::builder::PossibleValuesParser::new(kernels::every_id()))]
    pub on: Vec<String>,
    /// Play only the scenarios whose name contains this
    #[arg(long, value_name = "NAME")]
    pub only: Option<String>,
    /// List the scenarios, with --only those that it names, and stop
    #[arg(long)]
    pub list: bool,
    /// Fetch kernels anew instead of taking them from the cache
    #[arg(long)]
    pub refresh: bool,
    /// Play every scenario on every kernel, also where its outcome cannot depend on the kernel
    #[arg(long)]
    pub everything: bool,
    /// Leave out kernels that the tests have no time for
    #[arg(skip)]
    pub for_tests: bool,
    /// Leave out scenarios that depend on more
    #[arg(skip)]
    pub depends: Option<Depends>,
    /// Something else than the scenarios
    #[command(subcommand)]
    pub other: Option<Other>,
}

/// The other commands of the lab.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Other {
    /// Hold Stockade against the kernel's own lockdown on every kernel, and write docs/conformance.md
    Conformance {
        /// Write nothing; fail when the document does not say what is
        #[arg(long)]
        check: bool,
    },
    /// Reboot a guest that seals itself at every boot
    Reboots {
        /// How often
        #[arg(long, value_name = "N", default_value_t = 3)]
        times: usize,
    },
}

/// Returns whether nothing failed.
pub fn run(flags: &Flags) -> anyhow::Result<bool> {
    match flags.other {
        Some(Other::Conformance { check }) => return conformance(check),
        Some(Other::Reboots { times }) => return reboots(flags, times),
        None => {}
    }
    if flags.list {
        programs::build()?;
        let only = flags.only.as_deref().unwrap_or_default();
        for scenario in programs::scenarios()?.iter().filter(|scenario| scenario.name.contains(only)) {
            println!("{:<22} {:<14} {}", scenario.boot, scenario.depends, scenario.name);
        }
        return Ok(true);
    }
    let played = play(flags)?;
    for (what, took) in played.durations.longest(10) {
        println!("{:>8.1} s of processor time  {what}", took.as_secs_f64());
    }
    println!("{}", played.counts);
    Ok(played.counts.failed == 0)
}

/// Returns whether every boot of every kernel was sealed and verified; on one kernel unless others are named.
pub fn reboots(flags: &Flags, times: usize) -> anyhow::Result<bool> {
    setup::need(&[setup::LAB])?;
    let programs = programs::build()?;
    let on = if flags.on.is_empty() { vec!["6.12-cloud".to_owned()] } else { flags.on.clone() };
    let mut all_well = true;
    for id in on {
        let kernel = kernels::get(&id, flags.refresh)?;
        let begin = Instant::now();
        match reboots::play(&kernel, &programs, &workspace::lab_folder()?, times) {
            Ok(boots) => {
                let mean =
                    |of: fn(&reboots::Sealed) -> u64| boots.iter().map(of).sum::<u64>() / boots.len() as u64;
                let longest = boots.iter().map(|boot| boot.seal_ms).max().unwrap_or_default();
                println!(
                    "ok   {id:<12} {times} reboots, {} boots sealed and verified in {} s; on the guest's clock verified {} ms after \
                     the kernel's start, stockade seal {} ms on average, {longest} ms at most",
                    boots.len(),
                    begin.elapsed().as_secs(),
                    mean(|boot| boot.verified_ms),
                    mean(|boot| boot.seal_ms),
                );
            }
            Err(error) => {
                println!("FAIL {id:<12} {error:#}");
                all_well = false;
            }
        }
    }
    Ok(all_well)
}

const DOCUMENT: &str = "docs/conformance.md";

/// Returns whether Stockade answers as native lockdown does and, with `check`, whether the document is up to date.
pub fn conformance(check: bool) -> anyhow::Result<bool> {
    setup::need(&[setup::LAB, setup::FIRMWARE])?;
    let programs = programs::build()?;
    let kernels: Vec<Kernel> =
        kernels::ids().iter().map(|id| kernels::get(id, false)).collect::<anyhow::Result<_>>()?;
    let begin = Instant::now();
    let matrix = Matrix::play(&kernels, &programs, &workspace::lab_folder()?)?;
    let differences = matrix.differences();
    for difference in &differences {
        println!("differs: {difference}");
    }
    println!(
        "{} answers compared with native lockdown's, {} differ; played in {} s",
        matrix.compared(),
        differences.len(),
        begin.elapsed().as_secs()
    );
    let file = workspace::root().join(DOCUMENT);
    let document = matrix.document();
    if !check {
        std::fs::write(&file, document).with_context(|| format!("writing {DOCUMENT}"))?;
        return Ok(differences.is_empty());
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    let gone = written.lines().filter(|line| !document.lines().any(|l| l == *line)).map(|l| ("-", l));
    let come = document.lines().filter(|line| !written.lines().any(|l| l == *line)).map(|l| ("+", l));
    let changes: Vec<_> = gone.chain(come).collect();
    for (sign, line) in &changes {
        println!("{DOCUMENT}: {sign} {line}");
    }
    if written != document {
        println!("{DOCUMENT} does not say what is; `cargo xtask lab conformance` writes it anew");
    }
    Ok(differences.is_empty() && written == document)
}

/// Plays the scenarios and counts the outcomes.
pub fn play(flags: &Flags) -> anyhow::Result<Played> {
    setup::need(&[setup::LAB, setup::FIRMWARE, setup::TPM])?;
    let programs = programs::build()?;
    let mut scenarios = programs::scenarios()?;
    if let Some(only) = &flags.only {
        scenarios.retain(|s| s.name.contains(only.as_str()));
        anyhow::ensure!(
            !scenarios.is_empty(),
            "no scenario's name contains {only}; `cargo xtask lab --list` lists them"
        );
    }
    if let Some(depends) = flags.depends {
        scenarios.retain(|s| s.depends <= depends);
    }
    let left_out = if flags.for_tests { left_out(&mut scenarios) } else { Counts::default() };
    let (kernels, missing) = find_kernels(flags)?;
    let mut played = Session {
        kernels: &kernels,
        scenarios: &scenarios,
        extent: if flags.everything || !flags.on.is_empty() { Extent::Everything } else { Extent::Dependent },
        programs: &programs,
        folder: &workspace::lab_folder()?,
    }
    .play()?;
    played.counts += missing;
    played.counts += left_out;
    Ok(played)
}

/// Removes the scenarios that only the full test plays, and prints their number.
fn left_out(scenarios: &mut Vec<Listed>) -> Counts {
    let mut of_boots: BTreeMap<Boot, usize> = BTreeMap::new();
    scenarios.retain(|scenario| {
        let stays = scenario.depends != Depends::FullTest;
        if !stays {
            *of_boots.entry(scenario.boot).or_default() += 1;
        }
        stays
    });
    for (boot, count) in &of_boots {
        println!(
            "skip {boot:<22} {count} scenarios\n     another scenario of these tests shows the same; `cargo xtask test --all` plays them"
        );
    }
    Counts { skipped: of_boots.values().sum(), ..Counts::default() }
}

/// The kernels of the tests: the oldest, the newest, and one between with the drivers of a cloud. The matrix
/// of conformance is compared on all of them. One more is too old, and every command has to say so there.
pub const IN_TESTS: [&str; 4] = ["5.10-generic", "6.1-generic", "6.12-cloud", "7-generic"];

/// Returns the kernels to play on. One that cannot be fetched is skipped unless it was named.
fn find_kernels(flags: &Flags) -> anyhow::Result<(Vec<Kernel>, Counts)> {
    let mut counts = Counts::default();
    if let Some(path) = &flags.kernel {
        return Ok((vec![kernels::given(path)?], counts));
    }
    if !flags.on.is_empty() {
        let found: anyhow::Result<_> = flags.on.iter().map(|id| kernels::get(id, flags.refresh)).collect();
        return Ok((found?, counts));
    }
    let wanted = if flags.for_tests {
        IN_TESTS.to_vec()
    } else if flags.everything {
        kernels::every_id()
    } else {
        kernels::ids()
    };
    let mut found = Vec::new();
    for id in wanted {
        match kernels::get(id, flags.refresh) {
            Ok(kernel) => found.push(kernel),
            Err(error) => {
                println!("skip {id:<12} this kernel could not be had: {error:#}");
                counts.skipped += 1;
            }
        }
    }
    anyhow::ensure!(!found.is_empty(), "no kernel could be had; --kernel PATH plays on one of your own");
    Ok((found, counts))
}
