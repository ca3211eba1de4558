//! Changes in a running guest, one at a time, and the findings that flip with each.

use std::{fs, io::ErrorKind, path::Path};

use anyhow::{Context, Result, bail, ensure};

use super::{BEFORE, assess};
use crate::{
    boots::Boot,
    flips::{
        Answers, Flip,
        Verdict::{self, Fail, NotApplicable, Pass, Unknown, Warn},
        flip, judge,
    },
    guest::Guest,
    program::stockade,
    scenario::Skip,
    unsigned,
};

/// Undoes a change.
pub(super) type Undo = Box<dyn FnOnce() -> Result<()>>;

/// A change.
pub(super) struct Change {
    pub name: &'static str,
    pub boot: Boot,
    /// Makes the change. Returns none if only a reboot undoes it.
    pub make: fn() -> Result<Option<Undo>>,
    pub flips: &'static [Flip],
    pub also: &'static [&'static str],
}

const fn change(
    name: &'static str,
    make: fn() -> Result<Option<Undo>>,
    flips: &'static [Flip],
    also: &'static [&'static str],
) -> Change {
    Change { name, boot: Boot::Assessed, make, flips, also }
}

const fn for_good(
    name: &'static str,
    make: fn() -> Result<Option<Undo>>,
    flips: &'static [Flip],
    also: &'static [&'static str],
) -> Change {
    Change { name, boot: Boot::AssessedForGood, make, flips, also }
}

/// Makes a flip from pass to this verdict.
const fn spoils(finding: &'static str, to: Verdict) -> Flip {
    flip(finding, Pass, to, "")
}

/// Makes a flip from this verdict to pass.
const fn mends(finding: &'static str, from: Verdict) -> Flip {
    flip(finding, from, Pass, "")
}

/// The changes, in the order in which they are made. Those that only a reboot undoes are each made on top of the ones before.
pub(super) const ALL: &[Change] = &[
    change(
        "flips: KSM on",
        || write("/sys/kernel/mm/ksm/run", "1"),
        &[spoils("ksm.running", Warn)],
        &["ksm.opted-in"],
    ),
    change(
        "flips: numbers of processes are handed down",
        || cgroup("pids"),
        &[mends("cgroups.pids-limit", Unknown)],
        &[],
    ),
    change(
        "flips: memory is handed down",
        || cgroup("memory"),
        &[mends("cgroups.memory-limit", Unknown)],
        &[],
    ),
    change(
        "flips: kernel.kptr_restrict=1",
        || set("kernel.kptr_restrict", "1"),
        &[mends("aslr.pointers", Warn)],
        &[],
    ),
    change(
        "flips: kernel.dmesg_restrict=0",
        || set("kernel.dmesg_restrict", "0"),
        &[spoils("settings.dmesg-restrict", Fail)],
        &["aslr.leaks"],
    ),
    change(
        "flips: kernel.perf_event_paranoid=1",
        || set("kernel.perf_event_paranoid", "1"),
        &[
            spoils("settings.perf-event-paranoid", Fail),
            flip("aslr.pointers", Warn, Fail, "perf_event_paranoid"),
        ],
        &["aslr.leaks"],
    ),
    change(
        "flips: kernel.yama.ptrace_scope=1",
        || set("kernel.yama.ptrace_scope", "1"),
        &[mends("settings.ptrace-scope", Warn)],
        &[],
    ),
    change("flips: kernel.sysrq=1", || set("kernel.sysrq", "1"), &[spoils("settings.sysrq", Warn)], &[]),
    change(
        "flips: kernel.randomize_va_space=1",
        || set("kernel.randomize_va_space", "1"),
        &[spoils("aslr.enabled", Warn), spoils("aslr.heap", Fail)],
        &["aslr.compat"],
    ),
    change(
        "flips: kernel.randomize_va_space=0",
        || set("kernel.randomize_va_space", "0"),
        &[spoils("aslr.enabled", Fail), spoils("aslr.stack", Fail), spoils("aslr.mmap", Fail)],
        &["aslr.compat", "aslr.executable", "aslr.heap", "aslr.vdso"],
    ),
    change(
        "flips: fs.protected_symlinks=0",
        || set("fs.protected_symlinks", "0"),
        &[spoils("settings.protected-links", Fail)],
        &[],
    ),
    change(
        "flips: fs.protected_hardlinks=0",
        || set("fs.protected_hardlinks", "0"),
        &[spoils("settings.protected-links", Fail)],
        &[],
    ),
    change(
        "flips: fs.suid_dumpable=1",
        || set("fs.suid_dumpable", "1"),
        &[spoils("settings.suid-dumpable", Fail)],
        &[],
    ),
    change(
        "flips: vm.unprivileged_userfaultfd=1",
        || set("vm.unprivileged_userfaultfd", "1"),
        &[spoils("settings.userfaultfd", Fail)],
        &[],
    ),
    change(
        "flips: kernel.io_uring_disabled=2",
        || set("kernel.io_uring_disabled", "2"),
        &[mends("settings.io-uring", Warn)],
        &[],
    ),
    change(
        "flips: user.max_user_namespaces=0",
        || set("user.max_user_namespaces", "0"),
        &[mends("settings.user-namespaces", Warn)],
        &[],
    ),
    change(
        "flips: dev.tty.ldisc_autoload=0",
        || set("dev.tty.ldisc_autoload", "0"),
        &[mends("settings.ldisc-autoload", Warn)],
        &[],
    ),
    change(
        "flips: dev.tty.legacy_tiocsti=1",
        || set("dev.tty.legacy_tiocsti", "1"),
        &[spoils("cmdline.tiocsti", Warn)],
        &[],
    ),
    change(
        "flips: kernel.panic_on_oops=1",
        || set("kernel.panic_on_oops", "1"),
        &[mends("settings.oops", Warn)],
        &[],
    ),
    change(
        "flips: net.core.bpf_jit_harden=2",
        || set("net.core.bpf_jit_harden", "2"),
        &[mends("settings.bpf-jit-harden", Warn)],
        &[],
    ),
    change(
        "flips: a program in /tmp for dumps",
        || set("kernel.core_pattern", "|/tmp/x"),
        &[spoils("settings.core-pattern", Fail)],
        &[],
    ),
    change(
        "flips: a program in /tmp for modules",
        || set("kernel.modprobe", "/tmp/x"),
        &[spoils("settings.modprobe", Fail)],
        &[],
    ),
    change(
        "flips: kernel.ftrace_enabled=0",
        || set("kernel.ftrace_enabled", "0"),
        &[spoils("settings.ftrace", Fail)],
        &[],
    ),
    change(
        "flips: vm.mmap_min_addr=0",
        || set("vm.mmap_min_addr", "0"),
        &[spoils("settings.mmap-min-addr", Fail)],
        &[],
    ),
    change(
        "flips: kernel.unprivileged_bpf_disabled=0",
        || set("kernel.unprivileged_bpf_disabled", "0"),
        &[spoils("settings.unprivileged-bpf", Fail), flip("settings.bpf-jit-harden", Warn, Fail, "")],
        &[],
    ),
    change(
        "flips: stockade enforce integrity",
        || enforce("integrity"),
        &[
            flip("lockdown.level", Fail, Pass, "by Stockade"),
            mends("lockdown.doors", Fail),
            mends("modules.signature", Fail),
            mends("modules.kexec-signature", Fail),
            flip("lockdown.sealed", NotApplicable, Warn, ""),
        ],
        &["lockdown.residual"],
    ),
    change(
        "flips: stockade enforce confidentiality",
        || enforce("confidentiality"),
        &[
            mends("lockdown.confidentiality-doors", Warn),
            flip("lockdown.level", Fail, Pass, "confidentiality"),
        ],
        &[
            "lockdown.doors",
            "lockdown.residual",
            "lockdown.sealed",
            "modules.signature",
            "modules.kexec-signature",
        ],
    ),
    for_good(
        "flips: an unsigned module is loaded",
        unsigned_module,
        &[spoils("modules.unsigned-loaded", Fail)],
        &[],
    ),
    for_good(
        "flips: kernel.kexec_load_disabled=1",
        || for_ever("kernel.kexec_load_disabled", "1"),
        &[mends("modules.kexec-disabled", Warn), mends("modules.kexec-signature", Fail)],
        // kexec_load has no effect any more, so there is one door less.
        &["lockdown.doors"],
    ),
    for_good(
        "flips: kernel.modules_disabled=1",
        || for_ever("kernel.modules_disabled", "1"),
        &[mends("modules.disabled", Warn), mends("modules.signature", Fail)],
        &["modules.rare", "crypto-api.af-alg", "settings.ldisc-autoload"],
    ),
    for_good(
        "flips: native lockdown is raised",
        || write("/sys/kernel/security/lockdown", "integrity").map(|_| None),
        &[mends("lockdown.level", Fail), mends("lockdown.doors", Fail)],
        &["lockdown.residual", "lockdown.sealed"],
    ),
];

/// Plays the change that has the scenario's name.
pub(super) fn play(guest: &Guest) -> Result<()> {
    let change = super::all_changes().find(|change| Some(change.name) == guest.scenario());
    let change = change.context("no change has this scenario's name")?;
    let before = before()?;
    let undo = (change.make)()?;
    let after = assess();
    match undo {
        Some(undo) => undo()?,
        None => remember(after.as_ref().ok())?,
    }
    judge(change.flips, change.also, &before, &after?)
}

/// Returns the findings before the change. They are computed once, since every change is undone.
fn before() -> Result<Answers> {
    match fs::read(BEFORE) {
        Ok(text) => Ok(serde_json::from_slice(&text)?),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let answers = assess()?;
            remember(Some(&answers))?;
            Ok(answers)
        }
        Err(error) => Err(error).with_context(|| format!("reading {BEFORE}")),
    }
}

fn remember(answers: Option<&Answers>) -> Result<()> {
    match answers {
        Some(answers) => fs::write(BEFORE, serde_json::to_vec(answers)?),
        None => fs::remove_file(BEFORE),
    }
    .with_context(|| format!("keeping what was found in {BEFORE}"))
}

/// Writes a value to a file of the kernel, and returns the undo. The kernel may ignore the value without an error.
pub(super) fn write(path: &str, value: &str) -> Result<Option<Undo>> {
    if !Path::new(path).exists() {
        bail!(Skip(format!("this kernel has no {path}")));
    }
    let old = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    fs::write(path, value).with_context(|| format!("writing {value} to {path}"))?;
    let path = path.to_owned();
    Ok(Some(Box::new(move || fs::write(&path, old).with_context(|| format!("putting {path} back")))))
}

fn set(setting: &str, value: &str) -> Result<Option<Undo>> {
    let path = format!("/proc/sys/{}", setting.replace('.', "/"));
    let undo = write(&path, value)?;
    let is = fs::read_to_string(&path)?;
    ensure!(is.trim() == value, "{setting} is {is:?} and not {value}");
    Ok(undo)
}

fn for_ever(setting: &str, value: &str) -> Result<Option<Undo>> {
    set(setting, value).map(|_| None)
}

fn cgroup(controller: &'static str) -> Result<Option<Undo>> {
    const FILE: &str = "/sys/fs/cgroup/cgroup.subtree_control";
    fs::write(FILE, format!("+{controller}")).with_context(|| format!("handing {controller} down"))?;
    Ok(Some(Box::new(move || {
        fs::write(FILE, format!("-{controller}")).with_context(|| format!("taking {controller} back"))
    })))
}

pub(super) fn enforce(level: &str) -> Result<Option<Undo>> {
    stockade(&["enforce", level])?.exits(0)?;
    Ok(Some(Box::new(|| stockade(&["lift"])?.exits(0).map(drop))))
}

/// Unloads a module of the kernel's package and loads it again without its signature.
fn unsigned_module() -> Result<Option<Undo>> {
    const MODULE: &str = "/modules/msr.ko";
    let bytes = unsigned::module(fs::read(MODULE).with_context(|| format!("reading {MODULE}"))?)?;
    fs::write("/tmp/msr.ko", bytes)?;
    for line in [["rmmod", "msr"], ["insmod", "/tmp/msr.ko"]] {
        crate::program::run(std::process::Command::new("/bin/busybox").args(line))?.exits(0)?;
    }
    fs::remove_file("/tmp/msr.ko")?;
    Ok(None)
}
