//! Settings that a seal holds: sysctls, and files by which root turns other security modules off.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::Path,
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
        depends: Depends::Series,
        run: held_open,
    },
    // From here on sealed.
    Scenario {
        name: "seal: settings and files of other modules are held",
        boot: Boot::SealedSettings,
        depends: Depends::Series,
        run: holds,
    },
];

const POLICY: &str =
    "level = \"integrity\"\n[settings]\nfreeze = [\"apparmor.policy_removal\", \"kernel.sysrq\"]\n";
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
    apply(POLICY)?.says("apparmor.policy_removal is held by a seal alone")?;
    // Nothing holds it yet, and nothing says so.
    let status = stockade(&["status", "--json"])?.exits(0)?.json()?;
    ensure!(texts(&status["stockade"]["settings"]["frozen"]) == ["kernel.sysrq"], "{status:#}");
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
    apply(POLICY)?;
    let sysrq = fs::read_to_string(SYSRQ)?;
    ensure!(for_writing(format!("{FOLDER}/.remove")).is_ok(), "it is refused before the seal");
    stockade(&["seal"])?.exits(0)?;
    let status = verified(1)?;
    let frozen = texts(&status["stockade"]["settings"]["frozen"]);
    ensure!(
        frozen == ["kernel.ftrace_enabled", "kernel.sysrq"]
            && texts(&status["stockade"]["settings"]["name_only"]) == ["apparmor.policy_removal"],
        "held is something else: {status:#}"
    );
    // Both doors, by every path, and no other.
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
    // What was there may be written again.
    fs::write(SYSRQ, &sysrq)?;
    let told = watching::events(&stockade(&["watch", "--no-follow", "--json"])?.exits(0)?.out)?;
    let of_file = told.iter().filter(|event| event["setting"] == "apparmor.policy_removal").count();
    ensure!(of_file == 3, "{of_file} refusals of the file are told: {told:?}");
    // A policy that holds fewer is not added.
    stockade(&["enforce", "confidentiality"])?
        .exits(2)?
        .says("settings that it does not hold as well: apparmor.policy_removal, kernel.sysrq")?;
    verified(1).map(drop)
}
