//! The record of a seal: the PCR of the TPM has the value that a replay of the log gives, and that no altered log gives.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use stockade_kernel::host;
use stockade_policy::{
    model::{LevelChoice, Policy, Said, Seal},
    show::canonical,
};
use stockade_reasons::Level;
use stockade_record::{
    Digest, Error, LOG, Recorded, Sealed, prepare,
    tpm::{self, Tpm},
};

use crate::{
    guest::Guest,
    program::{Answer, run, stockade},
    scenario::{Boot, Depends, Scenario},
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "the TPM holds what the records of two seals give",
        boot: Boot::Tpm,
        depends: Depends::UserSide,
        run: replayed,
    },
    Scenario {
        name: "a seal's record that was altered gives another value",
        boot: Boot::Tpm,
        depends: Depends::UserSide,
        run: altered,
    },
    Scenario {
        name: "who else measures into a seal's register is noticed",
        boot: Boot::Tpm,
        depends: Depends::UserSide,
        run: shared,
    },
    Scenario {
        name: "a TPM refuses a seal's record in words for a register that is not ours",
        boot: Boot::Tpm,
        depends: Depends::UserSide,
        run: refused,
    },
    // Last: a seal lasts until reboot.
    Scenario {
        name: "stockade seal measures its record into the TPM",
        boot: Boot::Tpm,
        depends: Depends::UserSide,
        run: sealed,
    },
    Scenario {
        name: "without a TPM a seal that requires one is refused beforehand",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: required,
    },
];

fn seal(pcr: u8, require: bool) -> Seal {
    Seal { pcr: Some(Said::at(pcr, "test")), require_tpm: Said::at(require, "test"), ..Seal::unsaid("test") }
}

/// Records a seal of this policy, without sealing.
fn record(policy: &Policy) -> Result<Recorded> {
    let prepared = prepare(&policy.seal)?;
    let sealed = Sealed {
        policy,
        auto: Level::None,
        object: Digest(stockade_kernel::object_digest()),
        left_open: vec!["foreign-program 7".into()],
        at: host::now(),
    };
    let recorded = prepared.commit(&sealed)?;
    ensure!(recorded.problems.is_empty(), "{:?}", recorded.problems);
    Ok(recorded)
}

fn policy(level: LevelChoice, pcr: u8) -> Policy {
    Policy { seal: seal(pcr, true), ..Policy::level(level, "test") }
}

/// Returns the value of a PCR in this bank, as the kernel reports it.
fn held(bank: &str, pcr: u8) -> Result<String> {
    let path = format!("/sys/class/tpm/tpm0/pcr-{bank}/{pcr}");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    Ok(text.trim().to_lowercase())
}

fn no_records() {
    let _ = fs::remove_file(LOG);
}

/// Runs `seal-record` on a file with these records.
fn replay(log: &str, arguments: &[&str]) -> Result<Answer> {
    fs::write("/tmp/records", log)?;
    let mut command = Command::new("/bin/stockade");
    command.args(["seal-record", "/tmp/records"]).args(arguments).stdin(Stdio::null());
    run(&mut command)
}

fn replayed(_: &Guest) -> Result<()> {
    const PCR: u8 = 13;
    no_records();
    stockade(&["seal-record"])?.exits(1)?.says("Nothing was sealed")?;
    let before = held("sha256", PCR)?;
    ensure!(before == Digest::default().hex(), "the firmware used it: {before}");
    run(Command::new("/bin/busybox").args(["dmesg", "-c"]))?;

    let first = record(&policy(LevelChoice::Integrity, PCR))?;
    let second = record(&policy(LevelChoice::Confidentiality, PCR))?;
    ensure!(second.record.previous == Some(first.digest), "{second:?}");
    let measured = second.measured.as_ref().context("it was not measured")?;

    // Every bank that the kernel knows was extended, and no other PCR.
    let mut banks = Vec::new();
    for entry in fs::read_dir("/sys/class/tpm/tpm0")?.flatten() {
        if let Some(bank) = entry.file_name().to_string_lossy().strip_prefix("pcr-") {
            banks.push(bank.to_owned());
            let value = held(bank, PCR)?;
            ensure!(value.bytes().any(|digit| digit != b'0'), "{bank} was not extended");
            ensure!(held(bank, PCR - 1)?.bytes().all(|digit| digit == b'0'), "{bank}: another was extended");
        }
    }
    banks.sort();
    ensure!(banks == measured.banks && banks.iter().any(|b| b == "sha256"), "{banks:?}, {measured:?}");

    let value = held("sha256", PCR)?;
    ensure!(value == measured.value.hex(), "the TPM holds {value}, not {}", measured.value);
    ensure!(Tpm::open(Path::new(tpm::DEVICE))?.read(PCR)?.hex() == value, "the device says otherwise");
    let told = stockade(&["seal-record", "--json"])?.exits(0)?.json()?;
    ensure!(told["registers"][0]["pcr"] == PCR && told["registers"][0]["sha256"] == value, "{told:#}");
    let text = stockade(&["seal-record"])?.exits(0)?;
    text.says(&format!("PCR {PCR} must be {value}"))?.says("left open foreign-program 7")?;

    // The PCR computed without Stockade: busybox hashes the lines.
    let script = format!(
        "p=$(printf '%064d' 0); while read -r l; do d=$(printf %s \"$l\" | sha256sum | cut -c1-64); \
         e=$(printf %s $d | xxd -r -p | sha256sum | cut -c1-64); p=$(printf %s $p$e | xxd -r -p | sha256sum | cut -c1-64); \
         done < {LOG}; echo $p"
    );
    let by_hand = run(Command::new("/bin/busybox").args(["sh", "-c", &script]).env("PATH", "/bin"))?;
    ensure!(by_hand.out.trim() == value, "{}{}", by_hand.out, by_hand.err);

    // The kernel log has the same lines.
    let log = fs::read_to_string(LOG)?;
    let kernel = run(Command::new("/bin/busybox").args(["dmesg"]))?.out;
    for line in log.lines() {
        ensure!(kernel.contains(&format!("stockade: sealed {line}")), "{kernel}");
    }

    // The digest of the program is that of its file; the digest of the policy is that of `policy show --canonical`.
    let text = "level = \"confidentiality\"\n[seal]\npcr = 13\nrequire-tpm = true\n";
    fs::write("/tmp/policy.toml", text)?;
    let shown = stockade(&["policy", "show", "--canonical", "--policy", "/tmp/policy.toml"])?.exits(0)?.out;
    ensure!(shown == canonical(&policy(LevelChoice::Confidentiality, PCR)), "{shown}");
    ensure!(second.record.policy == Digest::of(shown.as_bytes()), "{:?}", second.record);
    ensure!(second.record.program == Digest::of(&fs::read("/proc/self/exe")?), "{:?}", second.record);
    Ok(())
}

fn altered(_: &Guest) -> Result<()> {
    const PCR: u8 = 14;
    no_records();
    record(&policy(LevelChoice::Integrity, PCR))?;
    let second = record(&policy(LevelChoice::Integrity, PCR))?;
    let value = held("sha256", PCR)?;
    let log = fs::read_to_string(LOG)?;
    replay(&log, &[])?.exits(0)?.says(&value)?;
    // With an altered last line the chain is valid and gives another value; an altered earlier line breaks the chain.
    let last = second.record.line()?;
    let changed =
        log.replace(&last, &last.replace("\"left_open\":[\"foreign-program 7\"]", "\"left_open\":[]"));
    ensure!(changed != log, "nothing was altered");
    let answer = replay(&changed, &[])?.exits(0)?;
    ensure!(answer.out.contains("PCR 14 must be") && !answer.out.contains(&value), "{}", answer.out);
    replay(&log.replacen("integrity", "none", 1), &[])?.exits(1)?.says("do not fit together")?;
    let without_last = log.lines().next().context("two lines")?;
    let answer = replay(without_last, &[])?.exits(0)?;
    ensure!(!answer.out.contains(&value), "{}", answer.out);
    replay("nonsense\n", &[])?.exits(1)?.says("line 1")?;
    Ok(())
}

fn shared(_: &Guest) -> Result<()> {
    const PCR: u8 = 15;
    no_records();
    let mut somebody = Tpm::open(Path::new(tpm::DEVICE))?;
    somebody.event(PCR, b"before")?;
    let from = held("sha256", PCR)?;
    record(&policy(LevelChoice::Integrity, PCR))?;
    let log = fs::read_to_string(LOG)?;
    replay(&log, &[])?.exits(1)?.says("something else was measured into it")?;
    let value = held("sha256", PCR)?;
    replay(&log, &["--from", &from])?.exits(0)?.says(&value)?;
    // Another program extends the PCR between two records.
    somebody.event(PCR, b"between")?;
    record(&policy(LevelChoice::Integrity, PCR))?;
    replay(&fs::read_to_string(LOG)?, &["--from", &from])?.exits(1)?.says("line 2")?;
    replay(&log, &["--from", "zero"])?.exits(2)?.says("64 hexadecimal digits")?;
    Ok(())
}

/// A seal and a stricter policy added to it are both measured.
fn sealed(_: &Guest) -> Result<()> {
    const PCR: u8 = 13;
    const TAIL: &str = "[seal]\npcr = 13\nrequire-tpm = true\n";
    no_records();
    let before = held("sha256", PCR)?;
    let apply = |level: &str| -> Result<Answer> {
        fs::create_dir_all("/etc/stockade")?;
        fs::write("/etc/stockade/policy.toml", format!("level = \"{level}\"\n{TAIL}"))?;
        stockade(&["enforce"])?.exits(0)
    };
    apply("integrity")?;
    ensure!(held("sha256", PCR)? == before, "something was measured before the seal");
    stockade(&["seal"])?.exits(0)?;
    for (level, records) in [("integrity", 1), ("confidentiality", 2)] {
        if records == 2 {
            apply(level)?;
        }
        let shown = stockade(&["policy", "show", "--canonical"])?.exits(0)?.out;
        let told = stockade(&["seal-record", "--json", "--from", &before])?.exits(0)?.json()?;
        let list = told["records"].as_array().context("no records")?;
        let newest = list.last().context("no record")?;
        ensure!(list.len() == records && newest["level"] == level && newest["mode"] == "enforce", "{told:#}");
        ensure!(newest["policy"] == Digest::of(shown.as_bytes()).to_string(), "{newest:#}\n{shown}");
        ensure!(newest["program"] == Digest::of(&fs::read("/bin/stockade")?).to_string(), "{newest:#}");
        let value = held("sha256", PCR)?;
        ensure!(told["registers"][0]["sha256"] == value, "the TPM holds {value}: {told:#}");
    }
    Ok(())
}

/// PCR 17, which no policy can name: the TPM refuses to extend it from this locality.
fn refused(_: &Guest) -> Result<()> {
    no_records();
    match record(&policy(LevelChoice::Integrity, 17)).map_err(anyhow::Error::downcast::<Error>) {
        Err(Ok(Error::NotMeasured { pcr: 17, source, recorded })) => {
            ensure!(source.to_string().contains("TPM_RC_LOCALITY"), "{source}");
            ensure!(recorded.record.pcr.is_none() && recorded.measured.is_none(), "{recorded:?}");
        }
        other => bail!("{other:?}"),
    }
    // `seal-record` reports that the seal was not measured.
    stockade(&["seal-record"])?.exits(0)?.says("measured  nowhere")?;
    Ok(())
}

fn required(_: &Guest) -> Result<()> {
    no_records();
    ensure!(!Path::new(tpm::DEVICE).exists(), "this guest has a TPM");
    match prepare(&seal(13, true)) {
        Err(error @ Error::TpmRequired { .. }) => {
            ensure!(error.to_string().contains("has no TPM 2.0"), "{error}");
        }
        other => bail!("{other:?}"),
    }
    ensure!(!Path::new(LOG).exists(), "something was recorded");
    let lax = Policy { seal: seal(13, false), ..Policy::level(LevelChoice::Integrity, "test") };
    let prepared = prepare(&lax.seal)?;
    ensure!(prepared.notice().is_some_and(|n| n.contains("not recorded in PCR 13")), "{prepared:?}");
    stockade(&["seal-record"])?.exits(1)?.says("Nothing was sealed")?;
    Ok(())
}
