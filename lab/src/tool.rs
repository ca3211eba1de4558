/*!
Running the host's tools, with errors that say what was run, what it answered and where to get it.
*/
use std::{
    env, io,
    os::unix::process::CommandExt,
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

/// Has it end with the thread that starts it, however that ends: a guest must not outlive a run that was killed.
pub fn end_with_this_thread(command: &mut Command) {
    let parent = std::process::id();
    // SAFETY: prctl and getppid are safe between fork and exec, and nothing is allocated there.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have ended before.
            if libc::getppid().cast_unsigned() != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
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
