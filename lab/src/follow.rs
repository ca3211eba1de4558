/*!
A running QEMU: the lines that its guest writes, the lines that the host sends, and the limit on the guest's work between two lines.

The limit counts the processor time that QEMU used, and a hang is a QEMU that neither runs nor waits for a processor. So the load of the
host fails no scenario.
*/
use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

use crate::tool;

/// The beginning of the last line of a guest that runs one program; the program's exit status follows.
pub const ENDED: &str = "stockade-guest: the program ended with status ";

/// The end of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The guest powered off, rebooted or crashed: its last lines show which.
    Off,
    /// The guest was ended: it had used the processor time of its limit without writing a line.
    Spun,
    /// The guest was ended: it had been idle for [`IDLE`].
    Hung,
    /// The guest was ended because the host needed nothing more from it.
    Enough,
}

impl End {
    /// Returns the end in words, to follow "the guest".
    #[must_use]
    pub fn words(self, limit: Duration) -> String {
        match self {
            End::Off | End::Enough => "ended early".to_owned(),
            End::Spun => format!("used {} s of processor time without a word and was ended", limit.as_secs()),
            End::Hung => format!("did nothing for {} s and was ended", IDLE.as_secs()),
        }
    }
}

/// A line of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// The text of the line.
    pub text: &'a str,
    /// The processor time that QEMU has used so far.
    pub used: Duration,
}

/// The next step of the host after a line of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Wait for the next line.
    Hear,
    /// Write this line to the guest, then wait.
    Say(String),
    /// End the guest.
    End,
}

/// A guest that is idle for this long hangs. No scenario sleeps longer.
pub const IDLE: Duration = Duration::from_mins(5);

/// A guest that uses less than one part in this many of the time is idle: its timers still tick.
const IDLE_PART: u32 = 20;

/// The time between two checks of the limits.
const LOOK: Duration = Duration::from_secs(1);

/// A QEMU process that was started.
#[derive(Debug)]
pub struct Running {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    reader: JoinHandle<()>,
    complaints: PathBuf,
}

impl Running {
    /// Starts QEMU, which ends with this thread. Its error output goes to the file `complaints`.
    pub fn start(mut qemu: Command, complaints: PathBuf) -> anyhow::Result<Running> {
        let log = File::create(&complaints).context("creating a log for QEMU")?;
        qemu.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        tool::end_with_this_thread(&mut qemu);
        let mut child = qemu.spawn().map_err(|e| tool::explain(&e, &qemu))?;
        let input = child.stdin.take().context("QEMU's input was piped")?;
        let stdout = child.stdout.take().context("QEMU's output was piped")?;
        let (sender, lines) = mpsc::channel();
        let reader = thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned()).is_err() {
                    break;
                }
            }
        });
        Ok(Running { child, input, lines, reader, complaints })
    }

    /// Reads the guest's lines until it ends, reaches a limit, or `heard` returns [`Next::End`]. In the last case it still runs.
    pub fn hear(&mut self, limit: Duration, mut heard: impl FnMut(Line<'_>) -> Next) -> anyhow::Result<End> {
        let mut since = Mark::now(self.child.id());
        let mut idle = since;
        loop {
            match self.lines.recv_timeout(LOOK) {
                Ok(text) => {
                    since = Mark::now(self.child.id());
                    idle = since;
                    match heard(Line { text: &text, used: since.used }) {
                        Next::Hear => {}
                        Next::Say(words) => self.say(&words)?,
                        Next::End => return Ok(End::Enough),
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(End::Off),
                Err(RecvTimeoutError::Timeout) => {
                    let now = Mark::now(self.child.id());
                    if now.used.saturating_sub(since.used) > limit {
                        return Ok(End::Spun);
                    }
                    let passed = now.at - idle.at;
                    if passed > IDLE {
                        if now.wanted().saturating_sub(idle.wanted()) < passed / IDLE_PART {
                            return Ok(End::Hung);
                        }
                        idle = now;
                    }
                }
            }
        }
    }

    /// Writes a line to the guest.
    pub fn say(&mut self, words: &str) -> anyhow::Result<()> {
        let line = format!("{words}\n");
        self.input
            .write_all(line.as_bytes())
            .and_then(|()| self.input.flush())
            .context("writing to the guest")
    }

    /// Waits for QEMU to end, and kills it first if it still runs. A failure of QEMU itself is an error.
    pub fn finish(mut self, end: End) -> anyhow::Result<()> {
        if end != End::Off {
            let _ = self.child.kill();
        }
        let status = self.child.wait().context("waiting for QEMU")?;
        drop(self.lines);
        let _ = self.reader.join();
        if end == End::Off && !status.success() {
            let said = fs::read_to_string(&self.complaints).unwrap_or_default();
            bail!("qemu-system-x86_64 failed ({status}): {}", said.trim());
        }
        let _ = fs::remove_file(&self.complaints);
        Ok(())
    }
}

/// A point in time, and the processor time that a process had used by then.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    /// Processor time of all threads of the process.
    used: Duration,
    /// The time that its threads waited on a run queue.
    stood: Duration,
}

impl Mark {
    fn now(process: u32) -> Mark {
        let (mut used, mut stood) = (0, 0);
        let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
        for task in tasks {
            // Nanoseconds on a processor, nanoseconds on a run queue, and a count (Documentation/scheduler/sched-stats.rst).
            let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            let mut numbers = text.split_whitespace().map_while(|word| word.parse::<u64>().ok());
            used += numbers.next().unwrap_or(0);
            stood += numbers.next().unwrap_or(0);
        }
        Mark { at: Instant::now(), used: Duration::from_nanos(used), stood: Duration::from_nanos(stood) }
    }

    /// Returns the processor time, with the time that its threads waited on a run queue.
    fn wanted(self) -> Duration {
        self.used + self.stood
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Running {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let complaints = std::env::temp_dir().join(format!("stockade-follow-{}", std::process::id()));
        Running::start(command, complaints.with_extension(script.len().to_string())).unwrap()
    }

    #[test]
    fn a_line_is_answered_and_an_end_is_an_end() {
        let mut guest = shell("echo ready; read answer; echo got $answer");
        let mut heard = Vec::new();
        let end = guest.hear(Duration::from_mins(1), |line| {
            heard.push(line.text.to_owned());
            if line.text == "ready" { Next::Say("an order".into()) } else { Next::Hear }
        });
        assert_eq!((end.unwrap(), heard.join("; ").as_str()), (End::Off, "ready; got an order"));
        guest.finish(End::Off).unwrap();
    }

    #[test]
    fn a_guest_that_spins_is_ended_by_its_processor_time() {
        let mut guest = shell("while :; do :; done");
        assert_eq!(guest.hear(Duration::from_millis(200), |_| Next::Hear).unwrap(), End::Spun);
        guest.finish(End::Spun).unwrap();
    }

    #[test]
    fn a_guest_that_sleeps_uses_no_processor_time() {
        let mut guest = shell("sleep 3; echo awake");
        let end = guest.hear(Duration::from_millis(200), |line| {
            assert_eq!(line.text, "awake");
            Next::End
        });
        assert_eq!(end.unwrap(), End::Enough);
        guest.finish(End::Enough).unwrap();
    }
}
