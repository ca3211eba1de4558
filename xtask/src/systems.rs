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
    /// Install this package
    #[arg(long, value_name = "DEB", default_value = "target/package/stockade_0.1.0_amd64.deb")]
    pub package: PathBuf,
    /// Make the roots anew instead of taking them from the cache
    #[arg(long)]
    pub refresh: bool,
    /// List the steps and stop
    #[arg(long)]
    pub list: bool,
}

/// Returns whether nothing failed.
pub fn run(flags: &Flags) -> anyhow::Result<bool> {
    if flags.list {
        for name in systems::play::names() {
            println!("{name}");
        }
        return Ok(true);
    }
    let counts = play(flags, &workspace::root().join(&flags.package))?;
    println!("{counts}");
    Ok(counts.failed == 0)
}

/// Plays this package and counts.
pub fn play(flags: &Flags, package: &Path) -> anyhow::Result<Counts> {
    setup::need(&[setup::LAB, setup::SYSTEMS])?;
    if let Some(only) = &flags.only {
        anyhow::ensure!(
            systems::play::names().iter().any(|name| name.contains(only.as_str())),
            "no step's name contains {only}; `cargo xtask systems --list` lists them"
        );
    }
    let named = |id: &str| flags.on.is_empty() || flags.on.iter().any(|on| on == id);
    let releases: Vec<_> = RELEASES.into_iter().filter(|release| named(release.id)).collect();
    let folder = workspace::lab_folder()?.join("systems");
    Session { releases: &releases, only: flags.only.as_deref(), package, refresh: flags.refresh, folder }
        .play()
}
