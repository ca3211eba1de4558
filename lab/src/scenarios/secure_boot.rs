//! Guests booted by EFI firmware: the effect of Secure Boot, and the level that `auto` derives from it.
//!
//! efi-test is not played: no Debian kernel has the module for /dev/efi_test.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::fd::AsRawFd,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use stockade_reasons::Level;

use super::{Mounted, enforcement::expect, lift_all};
use crate::{
    guest::Guest,
    program::stockade,
    scenario::{Boot, Depends, Scenario},
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "the firmware refuses an image without a signature",
        boot: Boot::Unsigned,
        depends: Depends::NewestSeries,
        run: must_not_boot,
    },
    Scenario {
        name: "the firmware refuses a signed image with one bit changed",
        boot: Boot::Altered,
        depends: Depends::FullTest,
        run: must_not_boot,
    },
    Scenario {
        name: "the image that is refused unsigned boots with Secure Boot off",
        boot: Boot::Efi,
        depends: Depends::NewestSeries,
        run: boots_without,
    },
    Scenario {
        name: "with Secure Boot off auto is none",
        boot: Boot::Efi,
        depends: Depends::NewestSeries,
        run: auto_is_none,
    },
    Scenario {
        name: "integrity shuts its doors on an EFI machine too",
        boot: Boot::Efi,
        depends: Depends::NewestSeries,
        run: integrity,
    },
    Scenario {
        name: "under Secure Boot auto is integrity",
        boot: Boot::SecureBoot,
        depends: Depends::NewestSeries,
        run: auto_is_integrity,
    },
    Scenario {
        name: "under Secure Boot probe tells native, Stockade and others apart",
        boot: Boot::SecureBoot,
        depends: Depends::NewestSeries,
        run: who,
    },
    Scenario {
        name: "an exception that native lockdown overrules is told",
        boot: Boot::SecureBoot,
        depends: Depends::UserSide,
        run: exception,
    },
    Scenario {
        name: "under Secure Boot assess leaves what IMA measured as it is",
        boot: Boot::SecureBoot,
        depends: Depends::NewestSeries,
        run: nothing_measured,
    },
    Scenario {
        name: "where the firmware's variables cannot be read auto refuses to guess",
        boot: Boot::SecureBoot,
        depends: Depends::NewestSeries,
        run: unreadable,
    },
];

const LOCKDOWN: &str = "/sys/kernel/security/lockdown";
const VARIABLES: &str = "/sys/firmware/efi/efivars";
const SECURE_BOOT: &str = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// Fails when it is played: the host expects that the firmware refuses to boot this guest.
fn must_not_boot(_: &Guest) -> Result<()> {
    bail!("the firmware booted an image that it has no good signature for, though keys are enrolled")
}

/// Returns the EFI variable SecureBoot. In its file, four bytes of attributes precede the value.
fn secure_boot() -> Result<Option<u8>> {
    let path = format!("{VARIABLES}/{SECURE_BOOT}");
    Ok(fs::read(&path).with_context(|| format!("read {path}"))?.get(4).copied())
}

fn boots_without(_: &Guest) -> Result<()> {
    ensure!(secure_boot()? == Some(0), "the firmware says {:?}", secure_boot()?);
    ensure!(fs::read_to_string(LOCKDOWN)?.contains("[none]"), "the kernel locked itself down");
    Ok(())
}

fn auto_is_none(_: &Guest) -> Result<()> {
    lift_all()?;
    stockade(&["check-host"])?.exits(0)?.says("off: level auto is none")?;
    stockade(&["enforce", "auto"])?.exits(0)?.says("auto is none: EFI Secure Boot is off")?;
    expect(|_, _| false)
}

fn integrity(_: &Guest) -> Result<()> {
    lift_all()?;
    stockade(&["enforce", "integrity"])?.exits(0)?;
    expect(|_, integrity| integrity)
}

fn auto_is_integrity(_: &Guest) -> Result<()> {
    lift_all()?;
    ensure!(secure_boot()? == Some(1), "the firmware says {:?}", secure_boot()?);
    ensure!(fs::read_to_string(LOCKDOWN)?.contains("[integrity]"), "the kernel did not lock itself down");
    stockade(&["check-host"])?.exits(0)?.says("on: level auto is integrity")?;
    let status = stockade(&["status", "--json"])?.exits(1)?.json()?;
    ensure!(status["native_lockdown"] == "integrity" && status["stockade"].is_null(), "{status}");
    stockade(&["enforce", "auto"])?
        .exits(0)?
        .says("In force: integrity")?
        .says("auto is integrity: EFI Secure Boot is on")?
        .says("the kernel's own lockdown is at integrity")?;
    let status = stockade(&["status", "--json"])?.exits(0)?.json()?;
    ensure!(status["native_lockdown"] == "integrity", "{status}");
    ensure!(status["stockade"]["level"] == "integrity", "{status}");
    stockade(&["lift"])?.exits(0)?.says("stays at integrity")?;
    Ok(())
}

/// Returns the answers of `probe` for the doors that this guest has, by reason.
fn probe() -> Result<BTreeMap<String, Vec<Value>>> {
    let report = stockade(&["probe", "--json"])?.json()?;
    let mut doors: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for door in report["doors"].as_array().into_iter().flatten() {
        if door["answer"] != "not-present" && door["answer"] != "never-tried" {
            doors.entry(door["reason"].as_str().unwrap_or_default().into()).or_default().push(door.clone());
        }
    }
    Ok(doors)
}

/// `assess` causes no IMA measurement. At the end a kexec that is refused shows that IMA measures kernels here.
fn nothing_measured(_: &Guest) -> Result<()> {
    const LOG: &str = "/sys/kernel/security/ima/ascii_runtime_measurements";
    const NO_INITRAMFS: libc::c_ulong = 4;
    let log = || fs::read_to_string(LOG).with_context(|| format!("reading {LOG}"));
    let before = log()?;
    let report = stockade(&["assess", "--quick", "--json", "--fail-on=never"])?.exits(0)?.json()?;
    ensure!(log()? == before, "IMA measured:\n{}", log()?);
    let features = report["features"].as_array().context("there are no features")?;
    let mut findings = features.iter().flat_map(|f| f["findings"].as_array().into_iter().flatten());
    let kexec =
        findings.find(|finding| finding["id"] == "modules.kexec-signature").context("no such finding")?;
    ensure!(kexec["verdict"] == "pass" && kexec["how"] == "derived", "{kexec}");

    let kernel = File::open("/bin/busybox")?;
    let (fd, none) = (kernel.as_raw_fd(), -1);
    // SAFETY: the command line is one byte long, and the descriptor is open for the call.
    let answer =
        unsafe { libc::syscall(libc::SYS_kexec_file_load, fd, none, 1_usize, c"x".as_ptr(), NO_INITRAMFS) };
    ensure!(answer < 0, "a program was taken for a kernel");
    ensure!(log()? != before, "IMA measures no kernels here, so that nothing was shown");
    Ok(())
}

/// At two doors Debian's kernel refuses before it asks lockdown: IMA requires signatures of kernels, and makes the module loader require them of
/// modules.
fn who(_: &Guest) -> Result<()> {
    lift_all()?;
    let earlier = BTreeMap::from([("kexec", libc::EACCES), ("module-signature", libc::EKEYREJECTED)]);
    for (enforced, above) in [("none", "free"), ("confidentiality", "refused-by-stockade")] {
        stockade(&["enforce", enforced])?.exits(0)?;
        let (mut native, mut ours) = (0, 0);
        for (reason, doors) in probe()? {
            let level = stockade_reasons::by_id(&reason).context("doors carry ids of the table")?.level;
            for door in doors {
                if let Some(errno) = earlier.get(reason.as_str()) {
                    ensure!(door["answer"] == "refused-by-other" && door["errno"] == *errno, "{door}");
                    let detail = door["detail"].as_str().unwrap_or_default();
                    ensure!(detail.contains("IMA"), "{door} does not say who refuses");
                } else if level == Level::Integrity {
                    ensure!(door["answer"] == "refused-by-native", "{door}");
                    native += 1;
                } else {
                    ensure!(door["answer"] == above, "under {enforced}: {door}");
                    ours += 1;
                }
            }
        }
        ensure!(native >= 8 && ours >= 4, "only {native} and {ours} doors could be tried");
    }
    Ok(())
}

fn exception(_: &Guest) -> Result<()> {
    lift_all()?;
    let words = "hibernation stays refused: the kernel's own lockdown is at integrity";
    stockade(&["enforce", "integrity", "--allow", "hibernation"])?.exits(0)?.says(words)?;
    stockade(&["enforce", "integrity", "--audit-reason", "hibernation"])?.exits(0)?.says(words)?;
    ensure!(answer("hibernation")? == "refused-by-native", "{}", answer("hibernation")?);
    let overruled = "an exception in Stockade has no effect on that";
    stockade(&["check-host"])?.exits(0)?.says(overruled)?;
    stockade(&["probe"])?.says(overruled)?;
    // An exception from a reason above the level of native lockdown works, and `enforce` prints no warning.
    let answer_to = stockade(&["enforce", "confidentiality", "--allow", "kcore"])?.exits(0)?;
    ensure!(!answer_to.out.contains("stays refused"), "{}", answer_to.out);
    ensure!(answer("kcore")? == "free", "{}", answer("kcore")?);
    Ok(())
}

fn answer(reason: &str) -> Result<String> {
    let doors = probe()?;
    let door = doors.get(reason).and_then(|doors| doors.first()).context("no such door")?;
    Ok(door["answer"].as_str().unwrap_or_default().to_owned())
}

fn unreadable(_: &Guest) -> Result<()> {
    lift_all()?;
    let _covered = Mounted::tmpfs(VARIABLES)?;
    let refuses = |why: &str| -> Result<()> {
        let mount = "mount -t efivarfs efivarfs /sys/firmware/efi/efivars";
        stockade(&["enforce", "auto"])?.exits(2)?.says(why)?.says(mount)?.says("name a level instead")?;
        stockade(&["check-host"])?.exits(0)?.says(why)?.says(mount)?;
        stockade(&["status"])?.exits(1)?.says("enforces nothing")?;
        Ok(())
    };
    refuses("No such file")?;
    // Files on another file system are not taken for variables of the firmware.
    fs::write(format!("{VARIABLES}/BootOrder"), b"1234")?;
    refuses("No such file")?;
    fs::write(format!("{VARIABLES}/{SECURE_BOOT}"), b"12")?;
    refuses("too short")?;
    stockade(&["enforce", "integrity"])?.exits(0)?.says("In force: integrity")?;
    Ok(())
}
