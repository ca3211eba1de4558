/*!
Programs from Debian's archive: their output and exit status under Stockade are those under native lockdown at the same level.

They are played in one boot, in this order, since native lockdown cannot be lowered: nothing enforced, audit, Stockade at both levels, native
lockdown at both levels. Each state is a scenario and keeps its results for the later ones.
*/
use std::{collections::BTreeMap, fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use stockade_reasons::Level;

use super::lift_all;
use crate::{
    guest::Guest,
    program::{Answer, run, stockade},
    scenario::{Boot, Depends, Scenario, Skip},
    unsigned, userland,
};

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario("Debian's programs work while nothing is enforced", nothing),
    scenario("audit changes nothing for Debian's programs", audit),
    scenario("Stockade's integrity refuses Debian's programs", integrity),
    scenario("Stockade's confidentiality refuses Debian's programs", confidentiality),
    scenario("native integrity treats Debian's programs as Stockade does", native_integrity),
    scenario("native confidentiality treats Debian's programs as Stockade does", native_confidentiality),
    scenario("all of Debian's programs could be run", all_ran),
];

const fn scenario(name: &'static str, run: fn(&Guest) -> Result<()>) -> Scenario {
    Scenario { name, boot: Boot::Programs, depends: Depends::NewestSeries, run }
}

/// A program, and the effect of lockdown on it.
struct Program {
    /// The shell command.
    line: &'static str,
    /// The path that it requires.
    needs: &'static str,
    /// The shell command that undoes it, run also after a failure.
    undo: &'static str,
    /// The exit status while nothing is refused.
    works: i32,
    /// The level from which on lockdown changes its behaviour; none if no level does.
    hit: Level,
    /// Whether it reads the level of native lockdown itself, so that its output differs: it must fail under both or under neither.
    looks: bool,
    /// Whether it takes seconds in an emulated guest: it is then left out at integrity, which does not change its behaviour.
    slow: bool,
}

const UNCONCERNED: Program =
    Program { line: "", needs: "/bin/sh", undo: "", works: 0, hit: Level::None, looks: false, slow: false };
const INTEGRITY: Program = Program { hit: Level::Integrity, ..UNCONCERNED };
const CONFIDENTIALITY: Program = Program { hit: Level::Confidentiality, ..UNCONCERNED };

const PROGRAMS: &[Program] = &[
    Program {
        line: "kexec --kexec-syscall -l /tmp/vmlinuz --command-line=quiet",
        needs: "/tmp/vmlinuz",
        undo: "kexec --kexec-syscall -u",
        ..INTEGRITY
    },
    Program {
        line: "kexec --kexec-file-syscall -l /tmp/vmlinuz --command-line=quiet",
        needs: "/tmp/vmlinuz",
        undo: "kexec --kexec-file-syscall -u",
        ..INTEGRITY
    },
    // MSR_TSC_AUX has the number of the processor, which is 0 already.
    Program { line: "wrmsr -p 0 0xc0000103 0", needs: "/dev/cpu/0/msr", ..INTEGRITY },
    Program { line: "rdmsr -p 0 0xc0000103", needs: "/dev/cpu/0/msr", ..UNCONCERNED },
    Program { line: "setpci -v -s 00:00.0 3c.b=0", ..INTEGRITY },
    Program { line: "lspci -n -xxx -s 00:00.0", ..UNCONCERNED },
    Program { line: "insmod /tmp/unsigned.ko", needs: "/tmp/unsigned.ko", undo: "rmmod dummy", ..INTEGRITY },
    Program { line: "modprobe -d /tmp dummy", needs: "/tmp/unsigned.ko", undo: "rmmod dummy", ..INTEGRITY },
    Program {
        line: "setserial -v /dev/ttyS2 irq 5",
        needs: "/dev/ttyS2",
        undo: "setserial /dev/ttyS2 irq 3",
        ..INTEGRITY
    },
    Program { line: "dmidecode --no-sysfs -s bios-vendor", needs: "/dev/mem", ..INTEGRITY },
    // The emulated machine has no flash chip that it knows, so it always fails; its output shows the cause.
    Program { line: "flashrom -p internal", works: 1, ..INTEGRITY },
    // It only asks whether the kernel can hibernate; a guest must not hibernate.
    Program { line: "pm-is-supported --hibernate", ..INTEGRITY },
    Program {
        line: "bpftrace -e 'kprobe:vfs_fsync {} interval:ms:1 { exit(); }'",
        looks: true,
        slow: true,
        ..CONFIDENTIALITY
    },
    Program {
        line: "perf record -q -B -N --no-bpf-event -e cpu-clock --intr-regs=ax -o /tmp/perf.data true",
        slow: true,
        ..CONFIDENTIALITY
    },
    // It reads until it is killed.
    Program {
        line: "timeout -s KILL 2 bpftool prog tracelog",
        needs: "/debian/usr/sbin/bpftool",
        works: 137,
        ..CONFIDENTIALITY
    },
    Program { line: "ip xfrm state", ..CONFIDENTIALITY },
];

/// The result of a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Heard {
    code: i32,
    text: String,
}

/// The results by command line.
type Record = BTreeMap<String, Heard>;

/// Requires that the disk with Debian's programs is mounted. Skips the scenario if the kernel came without the modules to read it.
pub(super) fn mounted() -> Result<()> {
    if Path::new(userland::MOUNTED).join("usr/bin").exists() {
        return Ok(());
    }
    let modules = fs::read_to_string(userland::ORDER).context("this guest has no disk")?;
    ensure!(modules.is_empty(), "the disk with Debian's programs is not mounted");
    Err(Skip("this kernel came without modules to read the disk with Debian's programs".into()).into())
}

/// Runs a shell command in the root of Debian's programs.
pub(super) fn debian(line: &str) -> Result<Answer> {
    mounted()?;
    let mut command = Command::new("/bin/busybox");
    command.args(["chroot", userland::MOUNTED, "/bin/sh", "-c", line]);
    run(command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C"))
}

impl Program {
    /// Returns the reason why the program cannot run here.
    fn missing(&self) -> Option<String> {
        let program = self.line.split(' ').next().unwrap_or_default();
        let folders = ["usr/sbin", "usr/bin", "sbin", "bin"];
        // Some programs are absolute symlinks, which are relative to the root of Debian's programs.
        let found =
            |folder| fs::symlink_metadata(Path::new(userland::MOUNTED).join(folder).join(program)).is_ok();
        if !folders.into_iter().any(found) {
            return Some(format!("{}: the disk has no {program}", self.line));
        }
        let here = Path::new(self.needs).exists();
        (!here).then(|| format!("{}: this guest has no {}", self.line, self.needs))
    }

    fn run(&self) -> Result<Heard> {
        let answer = debian(self.line)?;
        if !self.undo.is_empty() {
            debian(self.undo)?;
        }
        Ok(Heard { code: answer.code, text: without_addresses(&(answer.out + &answer.err)) })
    }
}

/// Returns a text with addresses of the process replaced, since each run has others.
fn without_addresses(text: &str) -> String {
    let mut parts = text.split("0x");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(part.len());
        // Shorter numbers come from the kernel or the hardware, and must be equal.
        if digits == 12 {
            out += "0xADDRESS";
        } else {
            out += "0x";
            out += &part[..digits];
        }
        out += &part[digits..];
    }
    out
}

fn present() -> impl Iterator<Item = &'static Program> {
    PROGRAMS.iter().filter(|program| program.missing().is_none())
}

/// Runs the programs that are not left out at this level.
fn run_all(level: Level) -> Result<Record> {
    mounted()?;
    let worth = |program: &&Program| !program.slow || level != Level::Integrity;
    present().filter(worth).map(|program| Ok((program.line.to_owned(), program.run()?))).collect()
}

/// Returns the programs that are in both records, with both results.
fn compare<'a>(
    record: &'a Record,
    other: &'a Record,
) -> impl Iterator<Item = (&'static Program, &'a Heard, &'a Heard)> {
    PROGRAMS.iter().filter_map(|p| Some((p, record.get(p.line)?, other.get(p.line)?)))
}

fn file_of(state: &str) -> String {
    format!("/run/programs-{state}")
}

fn keep(state: &str, record: &Record) -> Result<()> {
    Ok(fs::write(file_of(state), serde_json::to_vec(record)?)?)
}

fn kept(state: &str) -> Result<Record> {
    mounted()?;
    let bytes = fs::read(file_of(state))
        .with_context(|| format!("nothing is known of the state {state}: play these scenarios together"))?;
    Ok(serde_json::from_slice(&bytes)?)
}

fn nothing(_: &Guest) -> Result<()> {
    lift_all()?;
    prepare()?;
    let record = run_all(Level::None)?;
    keep("nothing", &record)?;
    let broken: Vec<_> = present()
        .filter(|program| record[program.line].code != program.works)
        .map(|program| format!("{}: {:?}", program.line, record[program.line]))
        .collect();
    ensure!(broken.is_empty(), "these do not work even now:\n{}", broken.join("\n"));
    Ok(())
}

/// Writes the files that the programs use.
fn prepare() -> Result<()> {
    if Path::new(userland::KERNEL_IMAGE).exists() {
        fs::write("/tmp/vmlinuz", unsigned::image(fs::read(userland::KERNEL_IMAGE)?)?)?;
    }
    if Path::new(userland::SPARE_MODULE).exists() {
        let module = unsigned::module(fs::read(userland::SPARE_MODULE)?)?;
        fs::write("/tmp/unsigned.ko", &module)?;
        let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let folder = format!("/tmp/lib/modules/{}", release.trim_end());
        fs::create_dir_all(&folder)?;
        fs::write(format!("{folder}/dummy.ko"), &module)?;
        debian(&format!("depmod -b /tmp {release}"))?.exits(0)?;
    }
    let key = "0x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    let ends = "src 10.0.0.1 dst 10.0.0.2 proto ah spi 0x100";
    debian(&format!(
        "ip xfrm state flush; ip xfrm state add {ends} mode transport auth 'hmac(sha256)' {key}"
    ))?
    .exits(0)?;
    Ok(())
}

fn audit(_: &Guest) -> Result<()> {
    under_stockade("audit", &["confidentiality", "--audit"], Level::None)
}

fn integrity(_: &Guest) -> Result<()> {
    under_stockade("integrity", &["integrity"], Level::Integrity)
}

fn confidentiality(_: &Guest) -> Result<()> {
    under_stockade("confidentiality", &["confidentiality"], Level::Confidentiality)
}

fn under_stockade(state: &str, arguments: &[&str], level: Level) -> Result<()> {
    lift_all()?;
    stockade(&[&["enforce"], arguments].concat())?.exits(0)?;
    let record = run_all(level);
    lift_all()?;
    let record = record?;
    keep(state, &record)?;
    let before = kept("nothing")?;
    let wrong: Vec<_> = compare(&record, &before)
        .filter(|(program, now, before)| {
            let concerned = program.hit != Level::None && program.hit <= level;
            (now != before) != concerned
        })
        .map(|(program, now, before)| told(program, "nothing", before, state, now))
        .collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

fn native_integrity(_: &Guest) -> Result<()> {
    under_native("integrity", Level::Integrity)
}

fn native_confidentiality(_: &Guest) -> Result<()> {
    under_native("confidentiality", Level::Confidentiality)
}

fn under_native(state: &str, level: Level) -> Result<()> {
    let ours = kept(state)?;
    lift_all()?;
    fs::write("/sys/kernel/security/lockdown", state).with_context(|| format!("raise native to {state}"))?;
    let native = run_all(level)?;
    ensure!(native.len() == ours.len(), "{} programs, {} under Stockade", native.len(), ours.len());
    let wrong: Vec<_> = compare(&ours, &native)
        .filter(|(program, ours, native)| {
            let works = |heard: &Heard| heard.code == program.works;
            if program.looks { works(ours) != works(native) } else { ours != native }
        })
        .map(|(program, ours, native)| told(program, "Stockade", ours, "native", native))
        .collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

fn told(program: &Program, one: &str, first: &Heard, other: &str, second: &Heard) -> String {
    format!("{}\n  {one}: {first:?}\n  {other}: {second:?}", program.line)
}

fn all_ran(_: &Guest) -> Result<()> {
    mounted()?;
    let missing: Vec<_> = PROGRAMS.iter().filter_map(Program::missing).collect();
    if missing.is_empty() { Ok(()) } else { Err(Skip(missing.join("\n")).into()) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn addresses_go_and_other_numbers_stay() {
        let text = "buf = 0x555874fc81e0\nmem = 0x100000 flags=0x";
        assert_eq!(super::without_addresses(text), "buf = 0xADDRESS\nmem = 0x100000 flags=0x");
    }
}
