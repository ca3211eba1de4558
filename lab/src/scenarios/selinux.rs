/*!
SELinux beside Stockade, with Debian's policy enforced: each module still refuses its own operations.
*/
use std::{
    ffi::CString,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::Command,
    ptr,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{enforcement::doors, lift_all, programs::mounted};
use crate::{
    guest::Guest,
    program::{run, stockade},
    scenario::{Boot, Depends, Scenario},
    userland,
};

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario("with SELinux enforcing, Stockade refuses and lifts as without", lockdown),
    scenario("SELinux and Stockade each refuse their own", both),
    scenario("what SELinux refuses is not called Stockade's", attributed),
];

const fn scenario(name: &'static str, run: fn(&Guest) -> Result<()>) -> Scenario {
    Scenario { name, boot: Boot::Selinux, depends: Depends::UserSide, run }
}

const SELINUXFS: &str = "/sys/fs/selinux";

/// A domain that the policy does not let kernel_t, the domain of the guest's init, enter.
const DOMAIN: &str = "system_u:system_r:ping_t:s0";

/// Loads the policy, unless an earlier scenario did.
pub(super) fn load_policy() -> Result<()> {
    mounted()?;
    if !Path::new(SELINUXFS).join("load").exists() {
        mount_selinuxfs()?;
    }
    if fs::read_dir(Path::new(SELINUXFS).join("class"))?.next().is_none() {
        let folder = Path::new(userland::MOUNTED).join("etc/selinux/default/policy");
        let policy = fs::read_dir(&folder)?.next().context("the disk has no policy")??.path();
        fs::write(Path::new(SELINUXFS).join("load"), fs::read(policy)?).context("loading the policy")?;
    }
    let enforcing = fs::read_to_string(Path::new(SELINUXFS).join("enforce"))?;
    ensure!(enforcing.trim() == "1", "SELinux does not enforce");
    Ok(())
}

pub(super) fn mount_selinuxfs() -> Result<()> {
    let (kind, path) = (c"selinuxfs", CString::new(SELINUXFS)?);
    // SAFETY: the strings outlive the call; no data is passed.
    let answer = unsafe { libc::mount(kind.as_ptr(), path.as_ptr(), kind.as_ptr(), 0, ptr::null()) };
    ensure!(answer == 0, "mount selinuxfs at {SELINUXFS}: {}", io::Error::last_os_error());
    Ok(())
}

fn lockdown(_: &Guest) -> Result<()> {
    load_policy()?;
    lift_all()?;
    stockade(&["check-host"])?.exits(0)?;
    log()?;
    let all = |wanted: &str| -> Result<()> {
        let doors = doors()?;
        let other: Vec<_> = doors.iter().filter(|(_, (answer, _))| answer != wanted).collect();
        ensure!(other.is_empty(), "not {wanted}: {other:?}");
        Ok(())
    };
    all("free")?;
    stockade(&["enforce", "confidentiality"])?.exits(0)?.says("proven")?;
    all("refused-by-stockade")?;
    stockade(&["status"])?.exits(0)?;
    stockade(&["watch", "--no-follow"])?.exits(0)?.says("refused")?;
    stockade(&["lift"])?.exits(0)?;
    all("free")?;
    let denied = denials(&log()?);
    ensure!(denied.is_empty(), "SELinux denied something meanwhile: {denied:?}");
    Ok(())
}

/// Tries to run a program in the domain, and returns the errno.
fn enter_domain() -> Option<i32> {
    let mut command = Command::new("/bin/busybox");
    command.arg("true");
    let ask = || OpenOptions::new().write(true).open("/proc/self/attr/exec")?.write_all(DOMAIN.as_bytes());
    // SAFETY: a scenario's process has one thread, so the child may allocate; it opens and writes one file.
    unsafe { command.pre_exec(ask) };
    command.status().err().and_then(|error| error.raw_os_error())
}

fn both(_: &Guest) -> Result<()> {
    const VERBOSE: &str = "/sys/kernel/debug/sched/verbose";
    load_policy()?;
    lift_all()?;
    let read = || run(Command::new("/bin/busybox").args(["cat", VERBOSE]));
    read()?.exits(0)?;
    denied_alone()?;
    stockade(&["enforce", "integrity"])?.exits(0)?;
    stockade(&["watch", "--no-follow"])?.exits(0)?;
    denied_alone()?;
    ensure!(events()?.is_empty(), "what SELinux refused is shown as Stockade's");
    read()?.exits(1)?.says("Operation not permitted")?;
    ensure!(events()? == ["debugfs"], "Stockade's one refusal is not shown");
    let denied = denials(&log()?);
    ensure!(denied.is_empty(), "what Stockade refused is logged as SELinux': {denied:?}");
    lift_all()?;
    read()?.exits(0)?;
    denied_alone()
}

/// The boolean secure_mode_insmod of Debian's policy denies module loading to every domain. The kernel checks that permission before it asks
/// lockdown.
fn attributed(_: &Guest) -> Result<()> {
    load_policy()?;
    lift_all()?;
    stockade(&["enforce", "integrity"])?.exits(0)?;
    ensure!(module_doors()? == "refused-by-stockade", "{}", module_doors()?);
    ensure!(events()?.iter().any(|reason| reason == "module-signature"), "watch does not show it");
    ensure!(with_the_switch()? == "refused-by-other", "SELinux' refusal is called another's");
    ensure!(events()?.is_empty(), "watch shows what SELinux refused");
    lift_all()?;
    ensure!(module_doors()? == "free", "{}", module_doors()?);
    ensure!(with_the_switch()? == "refused-by-other", "SELinux does not refuse alone");
    Ok(())
}

/// Returns the door's answer while the boolean is on. The policy does not audit this denial.
fn with_the_switch() -> Result<String> {
    switch("secure_mode_insmod", true)?;
    let answer = module_doors();
    switch("secure_mode_insmod", false)?;
    answer
}

/// Returns the answer of the door for unsigned modules.
fn module_doors() -> Result<String> {
    let report = stockade(&["probe", "module-signature", "--json"])?.json()?;
    Ok(report["doors"][0]["answer"].as_str().unwrap_or_default().to_owned())
}

/// Sets a boolean of the policy.
fn switch(name: &str, on: bool) -> Result<()> {
    let value = if on { "1" } else { "0" };
    for (file, value) in [(format!("booleans/{name}"), value), ("commit_pending_bools".to_owned(), "1")] {
        let path = Path::new(SELINUXFS).join(file);
        OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| file.write_all(value.as_bytes()))
            .with_context(|| format!("writing {value} to {}", path.display()))?;
    }
    Ok(())
}

/// Requires that SELinux refuses the transition to the domain, and denies nothing else meanwhile.
fn denied_alone() -> Result<()> {
    log()?;
    let errno = enter_domain();
    let denied = denials(&log()?);
    ensure!(errno == Some(libc::EACCES), "entering the domain was answered with {errno:?}");
    ensure!(denied.len() == 1 && denied[0].contains("{ transition }"), "SELinux denied {denied:?}");
    Ok(())
}

/// Returns the reasons of the events that `watch` shows now.
fn events() -> Result<Vec<String>> {
    let answer = stockade(&["watch", "--no-follow", "--json"])?.exits(0)?;
    let reason = |line: &str| -> Result<String> {
        let event: Value = serde_json::from_str(line)?;
        Ok(event["reason"].as_str().unwrap_or_default().to_owned())
    };
    answer.out.lines().map(reason).collect()
}

/// Returns the kernel log since the last call, with rate limiting off.
fn log() -> Result<String> {
    fs::write("/proc/sys/kernel/printk_ratelimit", "0")?;
    Ok(run(Command::new("/bin/busybox").args(["dmesg", "-c"]))?.out)
}

/// Returns SELinux's denials in a log, without those of CAP_CHECKPOINT_RESTORE: a read of a link in map_files checks it first, which the policy
/// denies with an audit line, and then CAP_SYS_ADMIN, which the policy grants.
fn denials(log: &str) -> Vec<String> {
    log.lines()
        .filter(|line| line.contains("avc:") && line.contains("denied"))
        .filter(|line| !line.contains("{ checkpoint_restore }"))
        .map(str::to_owned)
        .collect()
}
