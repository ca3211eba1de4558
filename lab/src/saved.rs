/*!
States of guests, saved once and resumed often: QEMU writes the whole state of a halted machine to a file, and another QEMU with the same
machine resumes from it.

QEMU is controlled over its machine protocol (QMP), with a line of JSON for each command and answer.
*/
use std::{
    env, fs,
    io::{self, BufRead, BufReader, ErrorKind, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, bail};
use serde_json::{Value, json};

/// The QMP socket of a QEMU whose state is to be saved or was resumed.
#[derive(Debug)]
pub(crate) struct Control(PathBuf);

impl Control {
    pub(crate) fn new() -> anyhow::Result<Control> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        // The socket cannot be beside the console: its path has at most 107 bytes.
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let folder = env::temp_dir().join(format!("stockade-qmp-{}-{number}", process::id()));
        fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(Control(folder))
    }

    fn socket(&self) -> PathBuf {
        self.0.join("qmp")
    }

    pub(crate) fn attach(&self, qemu: &mut Command) {
        qemu.arg("-qmp").arg(format!("unix:{},server=on,wait=off", self.socket().display()));
    }

    /// Halts the machine and saves its state to a file, whole or not at all.
    pub(crate) fn save(&self, state: &Path) -> anyhow::Result<()> {
        let mut qmp = Qmp::connect(&self.socket())?;
        qmp.execute(&json!({"execute": "stop"}))?;
        let fresh = state.with_extension("new");
        let uri = format!("exec:cat > {}", shell_word(&fresh));
        // The bandwidth limit is raised, so that RAM is copied as fast as the file is written.
        qmp.execute(
            &json!({"execute": "migrate-set-parameters", "arguments": {"max-bandwidth": 1_u64 << 40}}),
        )?;
        qmp.execute(&json!({"execute": "migrate", "arguments": {"uri": uri}}))?;
        loop {
            let answer = qmp.execute(&json!({"execute": "query-migrate"}))?;
            match answer["status"].as_str() {
                Some("completed") => break,
                Some("failed" | "cancelled") => bail!("QEMU could not save the guest: {answer}"),
                _ => thread::sleep(Duration::from_millis(20)),
            }
        }
        fs::rename(&fresh, state)
            .with_context(|| format!("moving {} to {}", fresh.display(), state.display()))
    }
}

impl Control {
    /// Waits until a resumed machine runs.
    pub(crate) fn wait_until_running(&self) -> anyhow::Result<()> {
        let mut qmp = Qmp::connect(&self.socket())?;
        loop {
            let answer = qmp.execute(&json!({"execute": "query-status"}))?;
            match answer["status"].as_str() {
                Some("running") => return Ok(()),
                Some("inmigrate") => thread::sleep(Duration::from_millis(5)),
                // The machine was halted when it was saved.
                Some("paused" | "prelaunch") => drop(qmp.execute(&json!({"execute": "cont"}))?),
                _ => bail!("QEMU could not resume the guest: {answer}"),
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Makes QEMU start from a saved state.
pub(crate) fn resume_from(qemu: &mut Command, state: &Path) {
    qemu.arg("-incoming").arg(format!("exec:cat {}", shell_word(state)));
}

/// Quotes a path as one word of a shell's command line: QEMU passes the line to `/bin/sh`.
fn shell_word(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

/// A connection to QEMU.
struct Qmp {
    answers: BufReader<UnixStream>,
    commands: UnixStream,
}

impl Qmp {
    /// Connects, as soon as QEMU has created its socket.
    fn connect(socket: &Path) -> anyhow::Result<Qmp> {
        // QEMU creates it before anything else, and exits at once if it cannot.
        const TRIES: u32 = 3000;
        let connect = |tries: u32| {
            thread::sleep(Duration::from_millis(if tries == 0 { 0 } else { 10 }));
            UnixStream::connect(socket)
        };
        let commands = (0..TRIES)
            .map(connect)
            .find(|answer| {
                let absent =
                    |e: &io::Error| matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused);
                !answer.as_ref().is_err_and(absent)
            })
            .context("QEMU makes no socket for its machine protocol")?
            .context("connecting to QEMU")?;
        let answers = BufReader::new(commands.try_clone().context("connecting to QEMU")?);
        let mut qmp = Qmp { answers, commands };
        qmp.execute(&json!({"execute": "qmp_capabilities"}))?;
        Ok(qmp)
    }

    fn execute(&mut self, command: &Value) -> anyhow::Result<Value> {
        writeln!(self.commands, "{command}").context("writing to QEMU")?;
        loop {
            let mut line = String::new();
            if self.answers.read_line(&mut line).context("reading QEMU's answer")? == 0 {
                bail!("QEMU ended while it was asked {command}");
            }
            let mut answer: Value =
                serde_json::from_str(&line).with_context(|| format!("reading QEMU's answer {line}"))?;
            // The greeting and events have neither `error` nor `return`.
            if let Some(error) = answer.get("error") {
                bail!("QEMU refuses {command}: {}", error["desc"]);
            }
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn a_path_is_one_word_for_the_shell() {
        assert_eq!(super::shell_word(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
