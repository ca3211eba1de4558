/*!
`cargo xtask systems`: the package in whole Debian systems, with their own systemd, kernel and AppArmor.
*/
use std::path::{Path, PathBuf};

use clap::Args;
use stockade_lab::{
    report::Counts,
    systems::{self, RELEASES, play::Session},
};

use crate::{setup, workspace};

/// What to play, and where.
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
    let counts = match &flags.package {
        Some(package) => play(flags, package)?,
        None => play(flags, &workspace::target_folder().join(made))?,
    };
    println!("{counts}");
    Ok(counts.failed == 0)
}

/// The names of the steps that are asked for.
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

/// Plays this package and counts.
pub fn play(flags: &Flags, package: &Path) -> anyhow::Result<Counts> {
    named(flags)?;
    anyhow::ensure!(
        package.is_file(),
        "there is no package {}; `cargo xtask package` makes it, and --package names another",
        package.display()
    );
    setup::need(&[setup::LAB, setup::SYSTEMS])?;
    let named = |id: &str| flags.on.is_empty() || flags.on.iter().any(|on| on == id);
    let releases: Vec<_> = RELEASES.into_iter().filter(|release| named(release.id)).collect();
    let folder = workspace::lab_folder()?.join("systems");
    Session { releases: &releases, only: flags.only.as_deref(), package, refresh: flags.refresh, folder }
        .play()
}
