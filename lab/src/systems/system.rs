/*!
A guest that runs a whole system, and the commands that the host has its agent run.

The guest's clock counts instructions (`-icount`): the load of the host changes no timeout of systemd, and an idle guest takes no time. A
guest hangs when it says nothing although its QEMU has used more processor time than any step needs, or when its QEMU has not run at all for
ten minutes; a slow host is waited for.
*/
use std::{
    fmt,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

use anyhow::{Context, bail, ensure};

use super::{packages::Repository, root::Root};
use crate::tool;

/// Words on the kernel's command line. Nobody sees the console, so a login prompt there would be a service without use, and nobody could
/// answer the questions of a first boot.
const CMDLINE: &str = "root=/dev/vda ro console=ttyS0 systemd.getty_auto=no systemd.firstboot=no quiet panic=-1 cryptomgr.notests no_timer_check";

/// The limit on the host's processor time until the guest writes its next line, in seconds. A boot takes some 50 s.
const PROCESSOR_SECONDS: f64 = 900.0;

/// The time between two checks of QEMU while its guest says nothing.
const LOOK: Duration = Duration::from_secs(2);

/// The number of checks in a row at which every thread of QEMU slept, before the guest counts as hung: ten minutes.
const IDLE_LOOKS: u32 = 300;

/// A guest with a system.
pub struct System<'a> {
    root: &'a Root,
    packages: &'a Repository,
    /// The copy of the root's disk that this guest writes to.
    disk: PathBuf,
    /// Whether the disk is another guest's, so that this guest's writes are discarded when it powers off.
    is_overlay: bool,
    console: PathBuf,
    running: Option<Running>,
    boots: Vec<String>,
    commands: u64,
    /// Processor seconds of earlier boots.
    spent: f64,
    /// Processor seconds of this boot, at the last check.
    last: f64,
}

/// The QEMU process of a guest that is on.
struct Running {
    qemu: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// The output of a command, and its exit status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Standard output and standard error.
    pub text: String,
    /// The exit status.
    pub status: i32,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit status {}: {}", self.status, self.text.trim_end())
    }
}

impl<'a> System<'a> {
    /// Creates a guest with a fresh copy of the root, powered off.
    pub fn new(root: &'a Root, packages: &'a Repository, folder: &Path) -> anyhow::Result<Self> {
        let id = root.release.id;
        let (disk, console) = (folder.join(format!("{id}.disk")), folder.join(format!("{id}.console")));
        tool::output(tool::command("cp").arg("--sparse=always").arg(&root.disk).arg(&disk))
            .with_context(|| format!("copying the root of {id}; a full disk is the usual cause"))?;
        Self::powered_off(root, packages, disk, false, console)
    }

    /// Creates another guest on the disk of this one, which is off. Its writes go to an overlay that is discarded when it powers off.
    pub fn overlay(&self, console: PathBuf) -> anyhow::Result<Self> {
        ensure!(self.running.is_none(), "the guest writes to its disk");
        Self::powered_off(self.root, self.packages, self.disk.clone(), true, console)
    }

    fn powered_off(
        root: &'a Root,
        packages: &'a Repository,
        disk: PathBuf,
        is_overlay: bool,
        console: PathBuf,
    ) -> anyhow::Result<Self> {
        File::create(&console).with_context(|| format!("creating {}", console.display()))?;
        Ok(Self {
            root,
            packages,
            disk,
            is_overlay,
            console,
            running: None,
            boots: Vec::new(),
            commands: 0,
            spent: 0.0,
            last: 0.0,
        })
    }

    /// Returns the processor seconds of the host that the guest has used so far.
    #[must_use]
    pub fn processor_seconds(&self) -> f64 {
        self.spent + self.running.as_ref().map_or(0.0, |running| processor_seconds(running.qemu.id()))
    }

    /// Returns the kernel's boot ids, one for each greeting of the agent.
    #[must_use]
    pub fn boots(&self) -> &[String] {
        &self.boots
    }

    /// Returns the file of the console.
    #[must_use]
    pub fn console(&self) -> &Path {
        &self.console
    }

    fn qemu(&self, cmdline: &str) -> Command {
        // A comma ends a value unless it is doubled.
        let value = |path: &Path| path.display().to_string().replace(',', ",,");
        let mut qemu = tool::command("qemu-system-x86_64");
        qemu.args(["-accel", "tcg", "-machine", "pc", "-cpu", "max", "-smp", "1", "-m", "1024"]);
        qemu.args(["-icount", "shift=0,sleep=off", "-nodefaults", "-no-user-config", "-display", "none"]);
        qemu.arg("-no-reboot").arg("-kernel").arg(&self.root.kernel).arg("-initrd").arg(&self.root.initrd);
        qemu.arg("-append").arg(format!("{CMDLINE} {cmdline}"));
        let snapshot = if self.is_overlay { "on" } else { "off" };
        let disk = value(&self.disk);
        qemu.arg("-drive").arg(format!("if=virtio,format=raw,cache=unsafe,snapshot={snapshot},file={disk}"));
        let packages = value(&self.packages.disk);
        qemu.arg("-drive").arg(format!("if=virtio,format=raw,readonly=on,file={packages}"));
        qemu.arg("-chardev").arg(format!("file,id=console,append=on,path={}", value(&self.console)));
        qemu.args(["-serial", "chardev:console", "-chardev", "stdio,id=agent,signal=off"]);
        qemu.args(["-serial", "chardev:agent"]);
        qemu
    }

    /// Powers the guest on with these words added to the kernel's command line, and waits until the agent greets.
    pub fn boot(&mut self, cmdline: &str) -> anyhow::Result<()> {
        ensure!(self.running.is_none(), "the guest is on already");
        let mut command = self.qemu(cmdline);
        let complaints =
            File::create(self.console.with_extension("qemu")).context("creating a log for QEMU")?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(complaints);
        tool::end_with_this_thread(&mut command);
        let mut qemu = command.spawn().map_err(|e| tool::explain(&e, &command))?;
        let input = qemu.stdin.take().context("QEMU's input was piped")?;
        let output = qemu.stdout.take().context("QEMU's output was piped")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned()).is_err() {
                    break;
                }
            }
        });
        self.running = Some(Running { qemu, input, lines });
        self.greeted().with_context(|| {
            format!(
                "booting {}, whose console is in {}; if its root is spoilt, `cargo xtask systems --refresh` makes it anew",
                self.root.release.id,
                self.console.display()
            )
        })
    }

    /// Waits for the agent's greeting.
    fn greeted(&mut self) -> anyhow::Result<()> {
        loop {
            let line = self.line("to boot")?;
            // The firmware may have written on the same line.
            if let Some((_, boot)) = line.split_once("hello ") {
                self.boots.push(boot.trim().to_owned());
                return Ok(());
            }
        }
    }

    /// Runs shell commands as root and returns their output, whatever their exit status.
    pub fn run(&mut self, commands: &str) -> anyhow::Result<Answer> {
        self.send(commands)?;
        let end = format!("= {} ", self.commands);
        let mut text = String::new();
        loop {
            let line = self.line(commands)?;
            if let Some(status) = line.strip_prefix(&end) {
                let status = status.trim().parse().with_context(|| format!("the agent said {line:?}"))?;
                return Ok(Answer { text, status });
            }
            ensure!(!line.starts_with("hello "), "the agent was started anew during: {commands}");
            if let Some(line) = line.strip_prefix("> ") {
                text += line;
                text.push('\n');
            }
        }
    }

    /// Runs shell commands as [`System::run`] does; an exit status other than 0 is an error.
    pub fn must(&mut self, commands: &str) -> anyhow::Result<String> {
        let answer = self.run(commands)?;
        ensure!(answer.status == 0, "`{commands}` ended with {answer}");
        Ok(answer.text)
    }

    fn send(&mut self, commands: &str) -> anyhow::Result<()> {
        let running = self.running.as_mut().context("the guest is off")?;
        self.commands += 1;
        let encoded = encode(commands.as_bytes());
        writeln!(running.input, "{} {encoded}", self.commands)
            .and_then(|()| running.input.flush())
            .context("writing to the guest's agent")
    }

    /// Powers the guest off by systemd, and on again.
    pub fn reboot(&mut self, cmdline: &str) -> anyhow::Result<()> {
        self.off()?;
        self.boot(cmdline)
    }

    /// Powers the guest off by systemd.
    pub fn off(&mut self) -> anyhow::Result<()> {
        self.send("systemctl --no-block poweroff")?;
        loop {
            match self.line("to power off") {
                Ok(_) => {}
                Err(error) if error.is::<Ended>() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Kills the guest.
    pub fn end(&mut self) {
        self.spent = self.processor_seconds();
        self.running = None;
    }

    /// Restarts user space only, and waits until the agent greets again.
    pub fn soft_reboot(&mut self) -> anyhow::Result<()> {
        self.send("systemctl --no-block soft-reboot")?;
        self.greeted()
    }

    /// Returns the next line that the guest writes. Ends a guest that hangs.
    fn line(&mut self, during: &str) -> anyhow::Result<String> {
        let running = self.running.as_mut().context("the guest is off")?;
        let process = running.qemu.id();
        let begin = processor_seconds(process);
        self.last = begin;
        let mut idle = 0;
        let complaint = loop {
            match running.lines.recv_timeout(LOOK) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Disconnected) => {
                    let status = running.qemu.wait().context("waiting for QEMU")?;
                    self.spent += self.last;
                    self.last = 0.0;
                    self.running = None;
                    if status.success() {
                        return Err(Ended.into());
                    }
                    let said = fs::read_to_string(self.console.with_extension("qemu")).unwrap_or_default();
                    bail!("qemu-system-x86_64 failed ({status}): {}", said.trim());
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.last = processor_seconds(process);
            let used = self.last - begin;
            if used > PROCESSOR_SECONDS {
                break format!("used {used:.0} processor seconds without an answer");
            }
            idle = if is_at_rest(process) { idle + 1 } else { 0 };
            if idle > IDLE_LOOKS {
                break "has not run for ten minutes and does not answer".to_owned();
            }
        };
        self.running = None;
        bail!("the guest {complaint}, during: {during}\n{}", self.console_tail());
    }

    /// Returns the last lines of its console.
    #[must_use]
    pub fn console_tail(&self) -> String {
        let bytes = fs::read(&self.console).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).replace('\r', "");
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for System<'_> {
    fn drop(&mut self) {
        self.running = None;
        if !self.is_overlay {
            let _ = fs::remove_file(&self.disk);
        }
    }
}

/// The error for a guest that is off: it powered off, or its kernel panicked.
#[derive(Debug)]
struct Ended;

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the guest went off: it powered off, or its kernel panicked")
    }
}

impl std::error::Error for Ended {}

/// Returns the user and system time of a process in seconds, 0 once it is gone.
fn processor_seconds(process: u32) -> f64 {
    let ticks = fs::read_to_string(format!("/proc/{process}/stat")).ok().and_then(|stat| ticks(&stat));
    // USER_HZ, the unit of this ABI, is 100 on every architecture that the lab has guests for.
    ticks.unwrap_or_default() / 100.0
}

fn ticks(stat: &str) -> Option<f64> {
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split_whitespace().collect();
    Some(fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?)
}

/// Reports whether no thread of a process runs, or waits for a processor or a disk.
fn is_at_rest(process: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { return true };
    threads.flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        !matches!(state, Some('R' | 'D'))
    })
}

/// Encodes bytes as base64.
fn encode(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let bits =
            chunk.iter().fold(0, |bits, byte| bits << 8 | usize::from(*byte)) << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let letter = char::from(LETTERS[bits >> (18 - 6 * at) & 63]);
            out.push(if at <= chunk.len() { letter } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{encode, is_at_rest, ticks};

    #[test]
    fn commands_are_encoded_as_base64_reads_them() {
        for (text, encoded) in
            [("", ""), ("a", "YQ=="), ("ab", "YWI="), ("abc", "YWJj"), ("\u{ff}~?", "w79+Pw==")]
        {
            assert_eq!(encode(text.as_bytes()), encoded);
        }
    }

    #[test]
    fn a_process_at_rest_is_told_from_one_that_runs() {
        let mut rests = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        // It sleeps only once it has started.
        while !is_at_rest(rests.id()) {
            std::thread::yield_now();
        }
        rests.kill().unwrap();
        rests.wait().unwrap();
        assert!(!is_at_rest(std::process::id()));
        let stat = "7 (a b) c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0";
        assert_eq!(ticks(stat), Some(300.0));
    }
}
