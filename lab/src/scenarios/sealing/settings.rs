//! Settings that a seal holds: sysctls, and files by which root could disable other security modules.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, ensure};

use super::{BUSYBOX, as_before, enforced_unsealed, lift_all, policy::apply, texts, verified, watching};
use crate::{
    guest::Guest,
    program::{run, stockade},
    scenario::{Boot, Depends, Scenario, Skip},
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "seal: whoever has a file open that it would keep is named",
        boot: Boot::SealedSettings,
        depends: Depends::NewestSeries,
        run: held_open,
    },
    // From here on the guest is sealed.
    Scenario {
        name: "seal: settings and files of other modules are held",
        boot: Boot::SealedSettings,
        depends: Depends::Series,
        run: holds,
    },
    Scenario {
        name: "seal: no other way leads to a frozen setting",
        boot: Boot::SealedSettings,
        depends: Depends::Series,
        run: other_ways,
    },
];

/// Settings that can be changed only by writes to their files, which are refused.
const FROZEN: [&str; 15] = [
    "fs.protected_symlinks",
    "fs.suid_dumpable",
    "kernel.core_pattern",
    "kernel.dmesg_restrict",
    "kernel.kptr_restrict",
    "kernel.modprobe",
    "kernel.oops_limit",
    "kernel.panic_on_oops",
    "kernel.perf_event_paranoid",
    "kernel.randomize_va_space",
    "kernel.sysrq",
    "kernel.unprivileged_bpf_disabled",
    "net.core.bpf_jit_harden",
    "user.max_user_namespaces",
    "vm.mmap_min_addr",
];

fn policy() -> String {
    format!(
        "level = \"integrity\"\n[settings]\nfreeze = [\"apparmor.policy_removal\", \"{}\"]\n",
        FROZEN.join("\", \"")
    )
}
const FOLDER: &str = "/sys/kernel/security/apparmor";
const SYSRQ: &str = "/proc/sys/kernel/sysrq";

fn for_writing(path: impl AsRef<Path>) -> io::Result<File> {
    OpenOptions::new().write(true).open(path)
}

fn is_refused<T>(answer: io::Result<T>) -> bool {
    answer.is_err_and(|error| error.raw_os_error() == Some(libc::EPERM))
}

fn needs_apparmor() -> Result<()> {
    let active = fs::read_to_string("/sys/kernel/security/lsm")?;
    if active.split(',').any(|module| module == "apparmor") {
        return Ok(());
    }
    Err(Skip(format!("AppArmor is not active ({active})")).into())
}

fn held_open(_: &Guest) -> Result<()> {
    needs_apparmor()?;
    lift_all()?;
    apply(&policy())?.says("apparmor.policy_removal is held by a seal alone")?;
    // The setting is not held before the seal, and `status` does not list it.
    let status = stockade(&["status", "--json"])?.exits(0)?.json()?;
    ensure!(texts(&status["stockade"]["settings"]["frozen"]) == FROZEN, "{status:#}");
    let open = for_writing(format!("{FOLDER}/.remove"))?;
    stockade(&["seal"])?
        .exits(2)?
        .says(&format!("({}) has {FOLDER}/.remove open for writing", std::process::id()))?;
    drop(open);
    enforced_unsealed()?;
    as_before()
}

fn holds(_: &Guest) -> Result<()> {
    needs_apparmor()?;
    lift_all()?;
    apply(&policy())?;
    let sysrq = fs::read_to_string(SYSRQ)?;
    ensure!(for_writing(format!("{FOLDER}/.remove")).is_ok(), "it is refused before the seal");
    stockade(&["seal"])?.exits(0)?;
    let status = verified(1)?;
    let frozen = texts(&status["stockade"]["settings"]["frozen"]);
    ensure!(
        FROZEN.iter().chain([&"kernel.ftrace_enabled"]).all(|name| frozen.iter().any(|held| held == name))
            && frozen.len() == FROZEN.len() + 1
            && texts(&status["stockade"]["settings"]["name_only"]) == ["apparmor.policy_removal"],
        "held is something else: {status:#}"
    );
    // Both files are refused by every path, and no other file is.
    fs::create_dir_all("/tmp/securityfs")?;
    let mut mount = Command::new(BUSYBOX);
    run(mount.args(["mount", "-t", "securityfs", "none", "/tmp/securityfs"]))?.exits(0)?;
    for path in [
        format!("{FOLDER}/.remove"),
        format!("{FOLDER}/policy/.remove"),
        "/tmp/securityfs/apparmor/.remove".into(),
    ] {
        ensure!(is_refused(for_writing(&path)), "{path} opens for writing");
    }
    ensure!(for_writing(format!("{FOLDER}/.replace")).is_ok(), "another file is refused");
    ensure!(is_refused(fs::write(SYSRQ, "1")) && fs::read_to_string(SYSRQ)? == sysrq, "sysrq was changed");
    ensure!(is_refused(fs::write("/proc/sys/kernel/ftrace_enabled", "0")), "the switch was turned");
    // A write of the current value succeeds.
    fs::write(SYSRQ, &sysrq)?;
    let told = watching::events(&stockade(&["watch", "--no-follow", "--json"])?.exits(0)?.out)?;
    let of_file = told.iter().filter(|event| event["setting"] == "apparmor.policy_removal").count();
    ensure!(of_file == 3, "{of_file} refusals of the file are told: {told:?}");
    // A policy that holds fewer settings cannot be added.
    stockade(&["enforce", "confidentiality"])?
        .exits(2)?
        .says("settings that it does not hold as well: apparmor.policy_removal, fs.protected_symlinks, ")?;
    verified(1).map(drop)
}

fn file_of(setting: &str) -> String {
    format!("/proc/sys/{}", setting.replace('.', "/"))
}

/// Returns the values of the frozen settings that this kernel has.
fn values() -> Vec<(&'static str, String)> {
    let value = |name| Some((name, fs::read_to_string(file_of(name)).ok()?));
    FROZEN.into_iter().chain(["kernel.ftrace_enabled"]).filter_map(value).collect()
}

/// Returns the files in /sys/module and /sys/kernel with the name of one of these settings, since the kernel has second names of sysctls there.
fn second_names(settings: &[&str]) -> Vec<PathBuf> {
    let lasts: Vec<_> = settings.iter().filter_map(|name| name.rsplit('.').next()).collect();
    let modules = fs::read_dir("/sys/module").into_iter().flatten().flatten();
    let folders = modules.map(|module| module.path().join("parameters")).chain(["/sys/kernel".into()]);
    let files = folders.flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
    let same = |file: &PathBuf| file.file_name().is_some_and(|name| lasts.iter().any(|last| name == *last));
    files.map(|file| file.path()).filter(same).collect()
}

/// Root tries the ways by which other settings can be changed: a second name, a system call, another mount, new namespaces.
fn other_ways(_: &Guest) -> Result<()> {
    needs_apparmor()?;
    if stockade(&["status", "--json"])?.json()?["stockade"]["sealed"].is_null() {
        lift_all()?;
        apply(&policy())?;
        stockade(&["seal"])?.exits(0)?;
    }
    verified(1)?;
    let before = values();
    ensure!(before.len() > 12, "this kernel has few of the settings: {before:?}");
    // The search finds a known second name, so it would find others.
    ensure!(!second_names(&["kernel.panic"]).is_empty(), "the search for second names finds none");
    for file in second_names(&FROZEN) {
        for value in ["0", "1", "2"] {
            let _ = fs::write(&file, value);
        }
        ensure!(values() == before, "{} is a second name of a frozen setting", file.display());
    }
    let hostname = fs::read_to_string("/proc/sys/kernel/hostname")?;
    // SAFETY: the strings have the lengths that are passed; prctl and syslog take numbers here.
    unsafe {
        libc::sethostname(c"lab".as_ptr(), 3);
        libc::sethostname(hostname.trim().as_ptr().cast(), hostname.trim().len());
        libc::prctl(libc::PR_SET_DUMPABLE, 1);
        // SYSLOG_ACTION_CONSOLE_LEVEL.
        libc::syscall(libc::SYS_syslog, 8, 0, 7);
    }
    ensure!(values() == before, "a system call changed a frozen setting");
    fs::create_dir_all("/tmp/proc-doors")?;
    run(Command::new(BUSYBOX).args(["mount", "-t", "proc", "none", "/tmp/proc-doors"]))?.exits(0)?;
    let files: Vec<_> = before.iter().map(|(name, _)| file_of(name)).collect();
    for file in &files {
        let elsewhere = file.replacen("/proc/", "/tmp/proc-doors/", 1);
        ensure!(is_refused(fs::write(&elsewhere, "7")), "{elsewhere} is written");
    }
    run(Command::new(BUSYBOX).args(["umount", "/tmp/proc-doors"]))?.exits(0)?;
    // As root in new namespaces of the kinds that settings may belong to.
    let script =
        format!("for f in {}; do for v in 0 1 2 7; do echo $v > $f; done; done; true", files.join(" "));
    for namespaces in
        [&["-n"][..], &["-u"], &["-i"], &["-p", "-f"], &["-U", "-r"], &["-U", "-r", "-n", "-i", "-u"]]
    {
        let mut command = Command::new(BUSYBOX);
        command.arg("unshare").args(namespaces).args([BUSYBOX, "sh", "-c", &script]);
        run(&mut command)?;
        ensure!(values() == before, "changed in namespaces of {namespaces:?}: {:?}", values());
    }
    verified(1).map(drop)
}
