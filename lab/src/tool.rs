/*!
Running the host's tools, with errors that say what was run, what it answered and where to get it.
*/
use std::{
    env, io,
    path::Path,
    process::{Command, Output, Stdio},
};

use anyhow::{Context, bail};

/// A tool of the host. Administrators' folders are searched too: depmod is not on everybody's path.
#[must_use]
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("PATH", format!("{}:/usr/sbin:/sbin", env::var("PATH").unwrap_or_default()));
    command.env("LC_ALL", "C").stdin(Stdio::null());
    command
}

/// Runs it to its end and returns what it printed; its complaints become the error.
pub fn output(command: &mut Command) -> anyhow::Result<Vec<u8>> {
    let output = finish(command)?;
    if !output.status.success() {
        bail!(
            "{} failed ({}): {}",
            words(command),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(output.stdout)
}

/// As [`output`], as text.
pub fn text(command: &mut Command) -> anyhow::Result<String> {
    String::from_utf8(output(command)?).with_context(|| format!("{} did not print text", words(command)))
}

/// Runs it to its end, whatever its status.
pub fn finish(command: &mut Command) -> anyhow::Result<Output> {
    command.output().map_err(|e| explain(&e, command))
}

/// Why a tool could not be run at all.
#[must_use]
pub fn explain(error: &io::Error, command: &Command) -> anyhow::Error {
    if error.kind() == io::ErrorKind::NotFound {
        let program = command.get_program().to_string_lossy();
        return anyhow::anyhow!("{program} was not found; `cargo xtask setup` installs what the lab needs");
    }
    anyhow::anyhow!("{} could not be run: {error}", words(command))
}

/// A compressed file, decompressed by the tool for its kind; any other file as it is.
pub fn decompress(file: &Path) -> anyhow::Result<Vec<u8>> {
    let tool = match file.extension().and_then(|e| e.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return std::fs::read(file).with_context(|| format!("reading {}", file.display())),
    };
    output(command(tool).arg("-dc").arg(file))
}

fn words(command: &Command) -> String {
    let arguments = command.get_args().map(|a| a.to_string_lossy());
    std::iter::once(command.get_program().to_string_lossy()).chain(arguments).collect::<Vec<_>>().join(" ")
}
