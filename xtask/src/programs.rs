/*!
The programs that are put into guests.
*/
use std::path::PathBuf;

use anyhow::Context;
use stockade_lab::{initrd::Program, protocol::Listed, tool};

use crate::workspace;

const PROGRAMS: [(&str, &str); 6] = [
    ("stockade-guest-init", "init"),
    ("stockade", "bin/stockade"),
    ("stockade-demo", "bin/stockade-demo"),
    ("stockade-bench", "bin/stockade-bench"),
    ("stockade-seal-at-boot", "bin/stockade-seal-at-boot"),
    ("stockade-conformance", "bin/stockade-conformance"),
];

fn folder() -> PathBuf {
    workspace::target_folder().join(workspace::TARGET).join("guest")
}

/// Builds them all.
pub fn build() -> anyhow::Result<Vec<Program>> {
    let mut cargo = workspace::cargo_static();
    cargo.args(["--quiet", "--profile", "guest", "-p", "stockade", "-p", "stockade-lab", "--bins"]);
    workspace::run("building the guests' programs", &mut cargo)?;
    let place =
        |(name, target): (&str, &str)| Program { source: folder().join(name), target: target.to_owned() };
    Ok(PROGRAMS.map(place).into())
}

/// The scenarios that were built, by the guest's own account.
pub fn scenarios() -> anyhow::Result<Vec<Listed>> {
    let init = folder().join("stockade-guest-init");
    let text = tool::text(tool::command(&init.to_string_lossy()).arg("--list"))?;
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("reading the scenario {line}")))
        .collect()
}
