/*!
The checkout: its folders, and how cargo is run in it.
*/
use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
};

use anyhow::{Context, bail};
use stockade_lab::tool;

/// The one target that is built for guests and releases.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Returns the checkout's folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate xtask is a folder of the workspace")
}

/// Returns cargo's target folder.
pub fn target_folder() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |folder| root().join(folder))
}

/// Makes and returns the folder for files that the lab makes from built programs.
pub fn lab_folder() -> anyhow::Result<PathBuf> {
    let folder = target_folder().join("lab");
    std::fs::create_dir_all(&folder).with_context(|| format!("making the folder {}", folder.display()))?;
    Ok(folder)
}

/// Returns a command for the cargo that runs xtask, in the checkout's folder.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    // Variables about xtask's own package must not reach the cargo that is started.
    for (name, _) in env::vars_os().filter(|(n, _)| n.to_string_lossy().starts_with("CARGO_PKG_")) {
        command.env_remove(name);
    }
    command.env_remove("CARGO_MANIFEST_DIR").env_remove("CARGO_MANIFEST_PATH");
    command
}

/// Returns the folder where cargo keeps the sources of dependencies.
pub fn cargo_home() -> anyhow::Result<PathBuf> {
    env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))
        .context("neither CARGO_HOME nor HOME is set")
}

/// Runs a command with its output shown.
pub fn status(command: &mut Command) -> anyhow::Result<ExitStatus> {
    command.status().map_err(|e| tool::explain(&e, command))
}

/// Runs a command with its output shown; any status but 0 is an error.
pub fn run(what: &str, command: &mut Command) -> anyhow::Result<()> {
    let status = status(command)?;
    if !status.success() {
        bail!("{what} failed ({status})");
    }
    Ok(())
}
