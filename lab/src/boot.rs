/*!
One guest, from start to power-off.

Always emulated (`-accel tcg`): with KVM on some hosts, the lab would give other results there.
*/
use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};

use crate::follow::ENDED;
pub use crate::follow::{End, Line, Next};
use crate::{firmware, follow, kernels::Kernel, saved, tool, tpm::Tpm};

const ALWAYS: &str = "console=ttyS0 panic=-1 quiet cryptomgr.notests tsc=reliable no_timer_check";

/// The configuration of a guest.
#[derive(Clone, Debug)]
pub struct Machine<'a> {
    /// The kernel to boot.
    pub kernel: &'a Kernel,
    /// The initrd, see [`crate::initrd`].
    pub initrd: &'a Path,
    /// A read-only disk, see [`crate::userland`].
    pub disk: Option<&'a Path>,
    /// Words added to the kernel's command line.
    pub cmdline: String,
    /// The hardware of the guest.
    pub hardware: Hardware,
    /// The file for the kernel's console.
    pub console: PathBuf,
    /// The unit of the guest's clock.
    pub clock: Clock,
    /// A guest whose QEMU uses this much processor time without a line on ttyS1 is ended. It is more than any scenario needs.
    pub limit: Duration,
}

/// The unit of a guest's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Clock {
    /// Instructions, each of which takes 2 to this power nanoseconds. An idle guest's clock jumps to its next timer, so a sleep costs
    /// nothing, and no limit in the guest depends on the load of the host. Not for guests that wait for the host, as with a disk or a TPM:
    /// their clock would jump while the host works.
    Instructions(u8),
    /// Instructions, 4 ns each, while the guest is busy; the host's time while it is idle.
    InstructionsAndIdleTime,
    /// The host's time. Two processors run concurrently only with this clock.
    Host,
}

impl Clock {
    /// Returns QEMU's option for it.
    fn option(self) -> Option<String> {
        match self {
            Clock::Instructions(shift) => Some(format!("shift={shift},sleep=off")),
            Clock::InstructionsAndIdleTime => Some("shift=2,sleep=on".to_owned()),
            Clock::Host => None,
        }
    }
}

/// The hardware of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hardware {
    /// The number of processors. Emulated ones share the host's few, so one is the rule.
    pub processors: u32,
    /// The processor model, by QEMU's name.
    pub cpu: &'static str,
    /// The board, by QEMU's name; a boot by EFI firmware overrides it.
    pub board: &'static str,
    /// Devices, by QEMU's names.
    pub devices: &'static [&'static str],
    /// Whether there is a writable disk: the last disk, empty at every start.
    pub scratch: bool,
}

/// The size of the writable disk in bytes.
const SCRATCH: u64 = 64 << 20;

impl Hardware {
    /// The default hardware. No driver uses the registers of `edu`, so scenarios may map them.
    pub const USUAL: Hardware =
        Hardware { processors: 1, cpu: "max", board: "pc", devices: &["edu"], scratch: false };

    /// [`Hardware::USUAL`] with two processors.
    pub const TWO_PROCESSORS: Hardware = Hardware { processors: 2, ..Hardware::USUAL };
}

impl Machine<'_> {
    /// Returns the kernel's command line.
    #[must_use]
    pub fn kernel_cmdline(&self) -> String {
        format!("{ALWAYS} {}", self.cmdline)
    }

    /// Returns the command for a guest whose kernel QEMU loads itself.
    fn qemu(&self) -> Command {
        self.qemu_with(&self.kernel.image)
    }

    fn qemu_with(&self, kernel: &Path) -> Command {
        let mut qemu = self.qemu_rebooting(kernel);
        qemu.arg("-no-reboot");
        qemu
    }

    /// Returns the command for a guest that reboots inside its QEMU process; without `-no-reboot` a reboot does not end it.
    fn qemu_rebooting(&self, kernel: &Path) -> Command {
        let mut qemu = self.qemu_machine(self.hardware.board);
        qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(self.initrd);
        qemu.arg("-append").arg(self.kernel_cmdline());
        qemu
    }

    /// Returns the path of the writable disk.
    fn scratch(&self) -> PathBuf {
        self.console.with_extension("scratch")
    }

    /// Returns the command for the hardware, without kernel or firmware.
    fn qemu_machine(&self, kind: &str) -> Command {
        let mut qemu = tool::command("qemu-system-x86_64");
        qemu.args(["-accel", "tcg", "-machine", kind, "-cpu", self.hardware.cpu, "-m", "512"]);
        qemu.arg("-smp").arg(self.hardware.processors.to_string());
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none"]);
        for device in self.hardware.devices {
            qemu.args(["-device", device]);
        }
        if let Some(clock) = self.clock.option() {
            qemu.arg("-icount").arg(clock);
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

    /// Runs the guest to its end. `heard` gets each line that the guest writes to ttyS1; its answer may be a line for the guest.
    pub fn run(&self, heard: impl FnMut(Line<'_>) -> Next) -> anyhow::Result<End> {
        self.follow(self.qemu(), heard)
    }

    /// Runs a guest whose BIOS boots the packaged bzImage, with a TPM if asked for; see [`Machine::run`].
    pub fn run_packaged(&self, tpm: bool, heard: impl FnMut(Line<'_>) -> Next) -> anyhow::Result<End> {
        let tpm = if tpm { Some(Tpm::start(&self.console.with_extension("swtpm"))?) } else { None };
        let mut qemu = self.qemu_packaged();
        if let Some(tpm) = &tpm {
            tpm.attach(&mut qemu);
        }
        self.follow(qemu, heard)
    }

    fn qemu_packaged(&self) -> Command {
        self.qemu_with(&self.kernel.bzimage().unwrap_or_else(|| self.kernel.image.clone()))
    }

    /// Runs the guest until `ready` returns [`Next::End`], then saves the guest's state to a file. With `packaged`, the BIOS boots the
    /// packaged bzImage.
    pub fn save(
        &self,
        packaged: bool,
        state: &Path,
        ready: impl FnMut(Line<'_>) -> Next,
    ) -> anyhow::Result<()> {
        let mut qemu = if packaged { self.qemu_packaged() } else { self.qemu() };
        let control = saved::Control::new()?;
        control.attach(&mut qemu);
        let mut guest = self.start(qemu)?;
        let end = guest.hear(self.limit, ready)?;
        if end != End::Enough {
            bail!(
                "the guest {} before it could be saved. Its console:\n{}",
                end.words(self.limit),
                self.console_tail()
            );
        }
        let saved = control.save(state);
        guest.finish(End::Enough)?;
        saved
    }

    /// Runs the guest from a state that [`Machine::save`] wrote for the same machine. Sends the guest this line first.
    pub fn resume(
        &self,
        packaged: bool,
        state: &Path,
        order: &str,
        heard: impl FnMut(Line<'_>) -> Next,
    ) -> anyhow::Result<End> {
        let mut qemu = if packaged { self.qemu_packaged() } else { self.qemu() };
        let control = saved::Control::new()?;
        control.attach(&mut qemu);
        saved::resume_from(&mut qemu, state);
        let mut guest = self.start(qemu)?;
        // A serial port whose state is not loaded yet would lose the line.
        let end = control
            .wait_until_running()
            .and_then(|()| guest.say(order))
            .and_then(|()| guest.hear(self.limit, heard));
        guest.finish(*end.as_ref().unwrap_or(&End::Enough))?;
        let _ = fs::remove_file(self.scratch());
        end
    }

    /// Runs a guest that runs one program. `heard` gets each line of its output. An exit status other than 0 is an error.
    pub fn run_program(&self, mut heard: impl FnMut(&str)) -> anyhow::Result<()> {
        let mut status = None;
        let end = self.run(|line| {
            match line.text.strip_prefix(ENDED) {
                Some(said) => status = Some(said.to_owned()),
                None => heard(line.text),
            }
            Next::Hear
        })?;
        let complaint = match (end, status.as_deref()) {
            (End::Off | End::Enough, Some("0")) => return Ok(()),
            (End::Off | End::Enough, Some(status)) => {
                format!("ran a program that ended with status {status}")
            }
            (end, _) => end.words(self.limit),
        };
        bail!("the guest on {} {complaint}. Its console:\n{}", self.kernel.id, self.console_tail())
    }

    /// Runs a guest that EFI firmware boots from a disk, with the kernel, initrd and command line on it, until `heard`
    /// returns [`Next::End`]. The firmware writes to every serial port, ttyS1 included.
    pub fn run_firmware(
        &self,
        disk: &firmware::Disk,
        heard: impl FnMut(Line<'_>) -> Next,
    ) -> anyhow::Result<End> {
        let mut qemu = self.qemu_machine("q35,smm=on");
        qemu.arg("-no-reboot");
        disk.attach(&mut qemu);
        self.follow(qemu, heard)
    }

    /// Runs a guest that boots again when it reboots, until `heard` returns [`Next::End`].
    pub fn run_rebooting(&self, heard: impl FnMut(Line<'_>) -> Next) -> anyhow::Result<End> {
        self.follow(self.qemu_rebooting(&self.kernel.image), heard)
    }

    fn follow(&self, qemu: Command, heard: impl FnMut(Line<'_>) -> Next) -> anyhow::Result<End> {
        let mut guest = self.start(qemu)?;
        let end = guest.hear(self.limit, heard)?;
        guest.finish(end)?;
        let _ = fs::remove_file(self.scratch());
        Ok(end)
    }

    fn start(&self, mut qemu: Command) -> anyhow::Result<follow::Running> {
        // ttyS2 exists and has no user: scenarios may change its settings.
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
        follow::Running::start(qemu, self.console.with_extension("qemu"))
    }

    /// Runs the guest with ttyS2 connected to this terminal.
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

    /// Returns the last lines of the kernel's console.
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

/// Escapes a path for one of QEMU's options, where a comma ends a value unless it is doubled.
fn option_value(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}
