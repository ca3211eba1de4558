/*!
`cargo xtask systems`: the package in whole Debian systems, with their own systemd, kernel and AppArmor.
*/
use std::path::{Path, PathBuf};

use clap::Args;
use stockade_lab::{
    report::Counts,
    systems::{self, RELEASES, Release, boots::Boots, play::Session},
};

use crate::{setup, workspace};

/// The steps and systems to play.
#[derive(Clone, Debug, Default, Args)]
pub struct Flags {
    /// Play in these systems only
    #[arg(long, value_name = "SYSTEM,…", value_delimiter = ',', value_parser = clap::builder::PossibleValuesParser::new(systems::ids()))]
    pub on: Vec<String>,
    /// Play only the steps whose name contains this, and those they need
    #[arg(long, value_name = "NAME")]
    pub only: Option<String>,
    /// Install this package [default: the .deb in target/package]
    #[arg(long, value_name = "DEB")]
    pub package: Option<PathBuf>,
    /// Make the roots anew instead of taking them from the cache
    #[arg(long)]
    pub refresh: bool,
    /// Boot a system so many times that is sealed by its unit, and count the boots that end sealed, in place of the steps; in
    /// debian-13 unless --on says otherwise
    #[arg(long, value_name = "N", conflicts_with_all = ["only", "list"], value_parser = clap::value_parser!(u64).range(1..))]
    pub boots: Option<u64>,
    /// List the steps, with --only those that it names, and stop
    #[arg(long)]
    pub list: bool,
}

/// Returns whether nothing failed.
pub fn run(flags: &Flags) -> anyhow::Result<bool> {
    if flags.list {
        for name in named(flags)? {
            println!("{name}");
        }
        return Ok(true);
    }
    let made = concat!("package/stockade_", env!("CARGO_PKG_VERSION"), "_amd64.deb");
    let made = workspace::target_folder().join(made);
    let package = flags.package.as_ref().unwrap_or(&made);
    if let Some(times) = flags.boots {
        let boots = boots(flags, package, usize::try_from(times)?)?;
        println!("{boots}");
        return Ok(boots.are_sealed());
    }
    let counts = play(flags, package)?;
    println!("{counts}");
    Ok(counts.failed == 0)
}

/// Returns the names of the steps that are asked for.
fn named(flags: &Flags) -> anyhow::Result<Vec<&'static str>> {
    let only = flags.only.as_deref().unwrap_or_default();
    let mut names = systems::play::names();
    names.retain(|name| name.contains(only));
    anyhow::ensure!(
        !names.is_empty(),
        "no step's name contains {only}; `cargo xtask systems --list` lists them"
    );
    Ok(names)
}

/// Plays the steps with this package and counts the outcomes.
pub fn play(flags: &Flags, package: &Path) -> anyhow::Result<Counts> {
    named(flags)?;
    let releases = needed(flags, package, "")?;
    session(flags, package, &releases)?.play()
}

/// Boots systems with this package so many times, and counts their outcomes.
pub fn boots(flags: &Flags, package: &Path, times: usize) -> anyhow::Result<Boots> {
    let releases = needed(flags, package, BOOTED)?;
    session(flags, package, &releases)?.boots(times)
}

/// The system that is booted many times where none is named.
const BOOTED: &str = "debian-13";

/// Installs the packages that every run needs, and returns the releases that are asked for: all, or the usual one, where none is named.
fn needed(flags: &Flags, package: &Path, usual: &str) -> anyhow::Result<Vec<Release>> {
    anyhow::ensure!(
        package.is_file(),
        "there is no package {}; `cargo xtask package` makes it, and --package names another",
        package.display()
    );
    setup::need(&[setup::LAB, setup::SYSTEMS])?;
    let named = |id: &str| {
        if flags.on.is_empty() { usual.is_empty() || usual == id } else { flags.on.iter().any(|on| on == id) }
    };
    Ok(RELEASES.into_iter().filter(|release| named(release.id)).collect())
}

fn session<'a>(flags: &'a Flags, package: &'a Path, releases: &'a [Release]) -> anyhow::Result<Session<'a>> {
    let folder = workspace::lab_folder()?.join("systems");
    Ok(Session { releases, only: flags.only.as_deref(), package, refresh: flags.refresh, folder })
}
