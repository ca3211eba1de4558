/*!
The programs that are put into guests: the release program as it is shipped, and the lab's own beside it.
*/
use std::path::PathBuf;

use anyhow::Context;
use stockade_lab::{
    initrd::{self, Program},
    protocol::Listed,
    tool,
};

use crate::dist::{self, With};

/// The lab's programs, all in one file.
const GUEST: &str = "stockade-guest";

/// Builds the programs, and prints a line about the release program.
pub fn build() -> anyhow::Result<Vec<Program>> {
    let release = dist::build(With::LabPrograms)?;
    println!("program: {release}");
    let program = |source: PathBuf, target: &str| Program { source, target: target.to_owned() };
    Ok(vec![program(release.place, "bin/stockade"), program(dist::built(GUEST), initrd::INIT)])
}

/// Asks the built guest program for its scenarios.
pub fn scenarios() -> anyhow::Result<Vec<Listed>> {
    let init = dist::built(GUEST);
    let text = tool::text(tool::command(&init.to_string_lossy()).arg("--list"))?;
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("reading the scenario {line}")))
        .collect()
}
