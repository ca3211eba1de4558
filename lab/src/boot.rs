/*!
One guest, from start to power-off.

Always emulated (`-accel tcg`): a lab that behaves differently where KVM happens to work is two labs.
*/
use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use anyhow::{Context, bail};

use crate::{firmware, kernels::Kernel, protocol::ENDED, tool, tpm::Tpm};

const ALWAYS: &str = "console=ttyS0 panic=-1 quiet cryptomgr.notests tsc=reliable no_timer_check";

/// What a guest is started with.
#[derive(Clone, Debug)]
pub struct Machine<'a> {
    /// The kernel to boot.
    pub kernel: &'a Kernel,
    /// The RAM disk, see [`crate::initrd`].
    pub initrd: &'a Path,
    /// A read-only disk, see [`crate::userland`].
    pub disk: Option<&'a Path>,
    /// Added to the kernel's command line.
    pub cmdline: String,
    /// What it is made of.
    pub hardware: Hardware,
    /// Where the kernel's console is written to.
    pub console: PathBuf,
    /// Guest time counts instructions, so that figures repeat.
    pub count_instructions: bool,
    /// A guest that says nothing on ttyS1 for so long is ended. Longer than any scenario may take.
    pub patience: Duration,
}

/// What a guest's machine is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hardware {
    /// Processors. Emulated ones take turns with the host's few, so one is the rule.
    pub processors: u32,
    /// Their model, as QEMU calls it.
    pub cpu: &'static str,
    /// The board, as QEMU calls it; firmware brings its own.
    pub board: &'static str,
    /// Devices, as QEMU calls them.
    pub devices: &'static [&'static str],
    /// Whether there is a disk to write on, empty at every start; the last one.
    pub scratch: bool,
}

/// How large such a disk is, in bytes.
const SCRATCH: u64 = 64 << 20;

impl Hardware {
    /// What is used where nothing else is asked for. The registers of `edu` are nobody's: scenarios may map them.
    pub const USUAL: Hardware =
        Hardware { processors: 1, cpu: "max", board: "pc", devices: &["edu"], scratch: false };

    /// The same with two processors.
    pub const TWO_PROCESSORS: Hardware = Hardware { processors: 2, ..Hardware::USUAL };
}

/// How a guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It powered off or rebooted, or crashed: what it said before tells.
    Off,
    /// It was ended after having said nothing for too long.
    Silent,
    /// It was ended since nothing more was wanted from it.
    Enough,
}

impl Machine<'_> {
    /// The kernel's command line.
    #[must_use]
    pub fn kernel_cmdline(&self) -> String {
        format!("{ALWAYS} {}", self.cmdline)
    }

    /// QEMU loads the kernel by itself.
    fn qemu(&self) -> Command {
        self.qemu_with(&self.kernel.image)
    }

    fn qemu_with(&self, kernel: &Path) -> Command {
        let mut qemu = self.qemu_rebooting(kernel);
        qemu.arg("-no-reboot");
        qemu
    }

    /// The same, and a reboot is none of the process.
    fn qemu_rebooting(&self, kernel: &Path) -> Command {
        let mut qemu = self.qemu_machine(self.hardware.board);
        qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(self.initrd);
        qemu.arg("-append").arg(self.kernel_cmdline());
        qemu
    }

    /// Where the disk to write on is.
    fn scratch(&self) -> PathBuf {
        self.console.with_extension("scratch")
    }

    /// The machine alone.
    fn qemu_machine(&self, kind: &str) -> Command {
        let mut qemu = tool::command("qemu-system-x86_64");
        qemu.args(["-accel", "tcg", "-machine", kind, "-cpu", self.hardware.cpu, "-m", "512"]);
        qemu.arg("-smp").arg(self.hardware.processors.to_string());
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none"]);
        for device in self.hardware.devices {
            qemu.args(["-device", device]);
        }
        if self.count_instructions {
            // An idle guest's clock goes on to the next timer: waiting takes what the guest waits for, not what a
            // busy host makes of it.
            qemu.args(["-icount", "shift=0,sleep=off"]);
        }
        if let Some(disk) = self.disk {
            let path = option_value(disk);
            qemu.arg("-drive").arg(format!("if=virtio,format=raw,readonly=on,file={path}"));
        }
        if self.hardware.scratch {
            let path = option_value(&self.scratch());
            qemu.arg("-drive").arg(format!("if=virtio,format=raw,cache=unsafe,file={path}"));
        }
        qemu.arg("-chardev").arg(format!("file,id=console,path={}", option_value(&self.console)));
        qemu.args(["-serial", "chardev:console"]);
        qemu
    }

    /// Runs the guest to its end. Each line it says on ttyS1 goes to `heard`.
    pub fn run(&self, mut heard: impl FnMut(&str)) -> anyhow::Result<End> {
        self.follow(self.qemu(), |line| {
            heard(line);
            ControlFlow::Continue(())
        })
    }

    /// As [`Machine::run`], from the image as it is packaged, by the BIOS; with a TPM where one is asked for.
    pub fn run_packaged(&self, tpm: bool, mut heard: impl FnMut(&str)) -> anyhow::Result<End> {
        let tpm = if tpm { Some(Tpm::start(&self.console.with_extension("swtpm"))?) } else { None };
        let mut qemu = self.qemu_with(&self.kernel.bzimage().unwrap_or_else(|| self.kernel.image.clone()));
        if let Some(tpm) = &tpm {
            tpm.attach(&mut qemu);
        }
        self.follow(qemu, |line| {
            heard(line);
            ControlFlow::Continue(())
        })
    }

    /// Runs a guest that runs one program. Each line the program says goes to `heard`; that it does not end with
    /// status 0 is an error.
    pub fn run_program(&self, mut heard: impl FnMut(&str)) -> anyhow::Result<()> {
        let mut status = None;
        let end = self.run(|line| match line.strip_prefix(ENDED) {
            Some(said) => status = Some(said.to_owned()),
            None => heard(line),
        })?;
        let complaint = match (end, status.as_deref()) {
            (End::Silent, _) => format!("said nothing for {} s", self.patience.as_secs()),
            (End::Off | End::Enough, None) => "ended early".to_owned(),
            (End::Off | End::Enough, Some("0")) => return Ok(()),
            (End::Off | End::Enough, Some(status)) => {
                format!("ran a program that ended with status {status}")
            }
        };
        bail!("the guest on {} {complaint}. Its console:\n{}", self.kernel.id, self.console_tail())
    }

    /// As [`Machine::run`], with firmware that boots from a disk, until `heard` has heard enough. The kernel, its
    /// RAM disk and its command line are those on the disk. The firmware writes to every serial port, ttyS1
    /// included.
    pub fn run_firmware(
        &self,
        disk: &firmware::Disk,
        heard: impl FnMut(&str) -> ControlFlow<()>,
    ) -> anyhow::Result<End> {
        let mut qemu = self.qemu_machine("q35,smm=on");
        qemu.arg("-no-reboot");
        disk.attach(&mut qemu);
        self.follow(qemu, heard)
    }

    /// As [`Machine::run`], with a guest that boots anew when it reboots, until `heard` has heard enough.
    pub fn run_rebooting(&self, heard: impl FnMut(&str) -> ControlFlow<()>) -> anyhow::Result<End> {
        self.follow(self.qemu_rebooting(&self.kernel.image), heard)
    }

    fn follow(
        &self,
        mut qemu: Command,
        mut heard: impl FnMut(&str) -> ControlFlow<()>,
    ) -> anyhow::Result<End> {
        // ttyS2 exists and is nobody's: scenarios may do to it what they like.
        qemu.args([
            "-chardev",
            "stdio,id=results,signal=off",
            "-serial",
            "chardev:results",
            "-serial",
            "null",
        ]);
        if self.hardware.scratch {
            let disk = File::create(self.scratch()).and_then(|disk| disk.set_len(SCRATCH));
            disk.context("making the disk to write on")?;
        }
        let complaints = self.console.with_extension("qemu");
        qemu.stdout(Stdio::piped()).stderr(File::create(&complaints).context("creating a log for QEMU")?);
        let mut child = qemu.spawn().map_err(|e| tool::explain(&e, &qemu))?;
        let stdout = child.stdout.take().context("QEMU's output was piped")?;
        let (sender, lines) = mpsc::channel();
        let reader = thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned()).is_err() {
                    break;
                }
            }
        });
        let end = loop {
            match lines.recv_timeout(self.patience) {
                Ok(line) => {
                    if heard(&line).is_break() {
                        child.kill().context("ending QEMU")?;
                        break End::Enough;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break End::Off,
                Err(RecvTimeoutError::Timeout) => {
                    child.kill().context("ending QEMU")?;
                    break End::Silent;
                }
            }
        };
        let status = child.wait().context("waiting for QEMU")?;
        let _ = reader.join();
        if end == End::Off && !status.success() {
            let said = fs::read_to_string(&complaints).unwrap_or_default();
            bail!("qemu-system-x86_64 failed ({status}): {}", said.trim());
        }
        let _ = fs::remove_file(&complaints);
        let _ = fs::remove_file(self.scratch());
        Ok(end)
    }

    /// Runs the guest with ttyS2 on this terminal.
    pub fn run_on_terminal(&self) -> anyhow::Result<()> {
        let mut qemu = self.qemu();
        qemu.args(["-serial", "null", "-chardev", "stdio,id=shell,signal=off", "-serial", "chardev:shell"]);
        qemu.stdin(Stdio::inherit());
        let status = qemu.status().map_err(|e| tool::explain(&e, &qemu))?;
        if !status.success() {
            bail!("qemu-system-x86_64 failed ({status})");
        }
        Ok(())
    }

    /// The last lines of the kernel's console.
    #[must_use]
    pub fn console_tail(&self) -> String {
        let mut bytes = Vec::new();
        if let Ok(mut file) = File::open(&self.console) {
            let _ = file.read_to_end(&mut bytes);
        }
        let text = String::from_utf8_lossy(&bytes).replace('\r', "");
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

/// A path inside one of QEMU's options, where a comma ends a value unless it is doubled.
fn option_value(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}
