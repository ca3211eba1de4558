/*!
Runs the host's tools. Errors name the command, its answer, and where to get a missing tool.
*/
use std::{
    env, io,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Output, Stdio},
};

use anyhow::{Context, bail};

/// Returns the command for a tool of the host. The search path includes /usr/sbin and /sbin, where depmod is.
#[must_use]
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("PATH", format!("{}:/usr/sbin:/sbin", env::var("PATH").unwrap_or_default()));
    command.env("LC_ALL", "C").stdin(Stdio::null());
    command
}

/// Makes the process end with the thread that starts it, however that ends: a guest must not outlive a run that was killed.
pub fn end_with_this_thread(command: &mut Command) {
    let parent = std::process::id();
    // SAFETY: prctl and getppid are async-signal-safe, and the closure allocates nothing between fork and exec.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have ended before prctl: then no signal comes.
            if libc::getppid().cast_unsigned() != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
}

/// Runs a command to its end and returns its output. If it fails, the error has its error output.
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

/// Runs a command as [`output`] does, and returns its output as text.
pub fn text(command: &mut Command) -> anyhow::Result<String> {
    String::from_utf8(output(command)?).with_context(|| format!("{} did not print text", words(command)))
}

/// Runs a command to its end, whatever its exit status.
pub fn finish(command: &mut Command) -> anyhow::Result<Output> {
    command.output().map_err(|e| explain(&e, command))
}

/// Returns an error that says why a command could not be started.
#[must_use]
pub fn explain(error: &io::Error, command: &Command) -> anyhow::Error {
    if error.kind() == io::ErrorKind::NotFound {
        let program = command.get_program().to_string_lossy();
        return anyhow::anyhow!("{program} was not found; `cargo xtask setup` installs what the lab needs");
    }
    anyhow::anyhow!("{} could not be run: {error}", words(command))
}

/// Returns the content of a file, decompressed by the tool for its extension.
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

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt, thread};

    use super::{command, end_with_this_thread};

    #[test]
    fn a_tool_ends_with_the_thread_that_started_it() {
        let started = thread::spawn(|| {
            let mut sleep = command("sleep");
            end_with_this_thread(sleep.arg("600"));
            sleep.spawn().unwrap()
        });
        let mut child = started.join().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    }
}
