/*!
The TPM: whether there is one, with which banks, and whether its registers hold what the firmware says to have measured.

Registers 0 to 7 are the firmware's and the boot loader's: nothing extends them once the kernel runs but systemd, by a separator that is
always the same, so that the firmware's log must explain them to the last bit. Those above are for the boot loader and the system, which
extend some of them later without a word in that log (IMA in 10, systemd in 11 to 15): what differs there proves nothing.
*/
mod eventlog;
mod registers;
mod secure_boot;

use std::ops::Range;

use self::{
    eventlog::{Bank, Log},
    registers::{DEVICE, Tpm, hex},
};
use crate::{Feature, Finding, How, Report, System, Unread, Verdict, few};

pub(super) const FEATURE: Feature =
    Feature { id: "tpm", title: "TPM (measured boot)", ..Feature::new(check) };

const PRESENT: &str = "tpm.present";
const BANKS: &str = "tpm.banks";
const EXTENDED: &str = "tpm.extended";
const EVENT_LOG: &str = "tpm.event-log";
const SECURE_BOOT: &str = "tpm.secure-boot";

const LOG: &str = "/sys/kernel/security/tpm0/binary_bios_measurements";

/// The registers that the firmware's log must explain.
const FIRMWARE: Range<u32> = 0..8;

/// Those that it may explain. What the system extends is left out.
const LATER: [u32; 3] = [8, 9, 14];

/// Replays a firmware event log: returns the name of each bank that it has and the values of the registers that it explains, and whether it
/// says that Secure Boot was on.
///
/// # Errors
/// The place at which the log is not understood.
#[expect(clippy::type_complexity, reason = "for fuzz targets only")]
pub fn replay_log(bytes: &[u8]) -> Result<(Vec<(&'static str, Vec<Vec<u8>>)>, Option<bool>), String> {
    let log = Log::read(bytes).map_err(|garbled| garbled.to_string())?;
    let registers = |bank: &Bank| FIRMWARE.chain(LATER).map(|register| log.replay(*bank, register)).collect();
    let banks = log.banks.iter().map(|bank| (bank.name(), registers(bank))).collect();
    Ok((banks, log.variable(Bank::Sha256, "SecureBoot").map(|variable| variable.value == [1])))
}

fn check(system: &System, report: &mut Report) {
    let tpm = match Tpm::find(system) {
        Ok(Some(tpm)) => tpm,
        Ok(None) => {
            report.add(absent(system));
            for id in [BANKS, EXTENDED, EVENT_LOG, SECURE_BOOT] {
                report.add(Finding::not_applicable(id, How::Derived, "there is no TPM"));
            }
            return;
        }
        Err(unread) => {
            for id in [PRESENT, BANKS, EXTENDED, EVENT_LOG, SECURE_BOOT] {
                report.add(Finding::unknown(id, How::Read, &unread));
            }
            return;
        }
    };
    report.add(present(&tpm));
    report.add(banks(&tpm));
    let bytes = system.bytes(LOG);
    let log = log_of(system, bytes.as_deref());
    let told = log.as_ref().map_or(&[][..], |log| &log.banks);
    // Of the banks that are active the best one that the log tells of.
    let Some(bank) = tpm.active.iter().find(|bank| told.contains(bank)).or(tpm.active.first()).copied()
    else {
        for id in [EXTENDED, EVENT_LOG, SECURE_BOOT] {
            report.add(Finding::unknown(id, How::Read, tpm.nothing_readable()));
        }
        return;
    };
    let registers: Result<Vec<Vec<u8>>, String> = FIRMWARE.map(|number| tpm.register(bank, number)).collect();
    report.add(match &registers {
        Ok(registers) => extended(bank, registers),
        Err(missing) => Finding::unknown(EXTENDED, How::Read, missing),
    });
    report.add(event_log(&tpm, log.as_ref(), bank, registers.as_deref()));
    report.add(secure_boot::finding(system, log.as_ref(), bank, registers.as_deref()));
}

fn absent(system: &System) -> Finding {
    let why = match system.config() {
        Ok(config) if !config.has("CONFIG_TCG_TPM") => "this kernel was built without support for TPMs",
        _ => "this machine has no TPM that its kernel knows: nothing records what was booted",
    };
    Finding::new(PRESENT, Verdict::Warn, How::Read, why).seen(registers::CLASS, "no tpm0")
}

fn present(tpm: &Tpm) -> Finding {
    let (verdict, found) = match tpm.version {
        Some(2) => (Verdict::Pass, "there is a TPM 2.0".to_owned()),
        Some(1) => (Verdict::Warn, "there is a TPM 1.2, which knows no hash but SHA-1".to_owned()),
        Some(version) => {
            (Verdict::Warn, format!("there is a TPM of version {version}, which is neither 1 nor 2"))
        }
        None => (Verdict::Unknown, "there is a TPM, but the kernel does not tell its version".to_owned()),
    };
    Finding::new(PRESENT, verdict, How::Read, found).seen(
        format!("{DEVICE}/tpm_version_major"),
        tpm.version.map_or_else(|| "not there".to_owned(), |version| version.to_string()),
    )
}

/// Which banks are active, and whether the firmware measured into each: into one that it left as it was, anybody can put what would make it
/// look like another boot.
fn banks(tpm: &Tpm) -> Finding {
    let names: Vec<&str> =
        tpm.active.iter().map(|bank| bank.name()).chain(tpm.others.iter().map(String::as_str)).collect();
    if names.is_empty() {
        return Finding::unknown(BANKS, How::Read, tpm.nothing_readable());
    }
    let mut empty = Vec::new();
    for name in &tpm.others {
        match tpm.is_untouched(name) {
            Ok(true) => empty.push(name.as_str()),
            Ok(false) => {}
            Err(missing) => return Finding::unknown(BANKS, How::Read, missing),
        }
    }
    for bank in &tpm.active {
        match tpm.register(*bank, 0) {
            Ok(value) if is_empty(*bank, &value) => empty.push(bank.name()),
            Ok(_) => {}
            Err(missing) => return Finding::unknown(BANKS, How::Read, missing),
        }
    }
    let (verdict, found) = if !empty.is_empty() {
        let found = format!("the firmware measured nothing into the bank {}, which is active", few(&empty));
        (Verdict::Fail, found)
    } else if names != ["sha1"] {
        (Verdict::Pass, format!("measured with {}", few(&names)))
    } else if tpm.version == Some(1) {
        (
            Verdict::Warn,
            "measured with SHA-1 alone, for which two contents with the same digest can be made".into(),
        )
    } else {
        let found = "measured with SHA-1 alone, for which two contents with the same digest can be made, though this \
                     TPM knows better ones";
        (Verdict::Fail, found.into())
    };
    Finding::new(BANKS, verdict, How::Read, found).seen(tpm.source(), format!("active: {}", few(&names)))
}

/// The firmware measures something into each of its registers, a separator at least. One that is empty can be filled by whoever comes later.
fn extended(bank: Bank, registers: &[Vec<u8>]) -> Finding {
    let empty: Vec<String> = FIRMWARE
        .zip(registers)
        .filter(|(_, value)| is_empty(bank, value))
        .map(|(number, _)| number.to_string())
        .collect();
    let (verdict, found) = if empty.is_empty() {
        (Verdict::Pass, "the firmware extended PCR 0 to 7".to_owned())
    } else {
        (Verdict::Fail, format!("nothing was measured into PCR {}", few(&empty)))
    };
    let mut finding = Finding::new(EXTENDED, verdict, How::Read, found);
    for (number, value) in
        FIRMWARE.zip(registers).filter(|(number, value)| *number == 0 || is_empty(bank, value))
    {
        finding = finding.seen(format!("PCR {number} ({})", bank.name()), hex(value));
    }
    finding
}

/// Reports whether a PCR has its value at power-on, or only the separator of the operating system. PCR 0 may begin with the locality from which the TPM was started.
fn is_empty(bank: Bank, value: &[u8]) -> bool {
    (0..=4).any(|locality| {
        let mut begin = vec![0; bank.size()];
        if let Some(last) = begin.last_mut() {
            *last = locality;
        }
        bank.separators(&begin, value).is_some()
    })
}

/// Why there is no log to replay.
enum NoLog {
    /// It could not be looked at.
    Unknown(String),
    /// There is none.
    Absent(&'static str),
}

fn log_of<'a>(system: &System, bytes: Result<&'a [u8], &Unread>) -> Result<Log<'a>, NoLog> {
    let mounted = || system.names("/sys/kernel/security").is_ok_and(|names| !names.is_empty());
    match bytes {
        Ok([]) => Err(NoLog::Absent("the firmware's event log is empty")),
        Ok(bytes) => Log::read(bytes).map_err(|garbled| {
            NoLog::Unknown(format!("the firmware's event log is not understood: {garbled}"))
        }),
        Err(unread) if unread.is_missing() && mounted() => {
            Err(NoLog::Absent("the firmware handed over no event log"))
        }
        Err(unread) if unread.is_missing() => {
            Err(NoLog::Unknown(format!("{unread}; is securityfs mounted at /sys/kernel/security?")))
        }
        Err(unread) => Err(NoLog::Unknown(unread.to_string())),
    }
}

fn event_log(
    tpm: &Tpm,
    log: Result<&Log, &NoLog>,
    bank: Bank,
    registers: Result<&[Vec<u8>], &String>,
) -> Finding {
    let log = match log {
        Ok(log) => log,
        Err(NoLog::Unknown(missing)) => return Finding::unknown(EVENT_LOG, How::Read, missing),
        Err(NoLog::Absent(why)) => {
            let found = format!("{why}: nobody can tell what the registers stand for");
            return Finding::new(EVENT_LOG, Verdict::Warn, How::Read, found).seen(LOG, "no event");
        }
    };
    let summary = format!("{} events", log.len());
    if !log.banks.contains(&bank) {
        let found = "the firmware's event log tells nothing of the banks that are active";
        let told: Vec<&str> = log.banks.iter().map(|bank| bank.name()).collect();
        return Finding::new(EVENT_LOG, Verdict::Warn, How::Read, found)
            .seen(LOG, format!("{summary}, for {}", few(&told)))
            .seen(tpm.source(), format!("active: {}", bank.name()));
    }
    let registers = match registers {
        Ok(registers) => registers,
        Err(missing) => return Finding::unknown(EVENT_LOG, How::Read, missing),
    };
    let wrong: Vec<(u32, &Vec<u8>, Vec<u8>)> = FIRMWARE
        .zip(registers)
        .map(|(number, value)| (number, value, log.replay(bank, number)))
        .filter(|(_, value, replayed)| bank.separators(replayed, value).is_none())
        .collect();
    let numbers: Vec<String> = wrong.iter().map(|(number, ..)| number.to_string()).collect();
    let (verdict, found) = if wrong.is_empty() {
        (Verdict::Pass, "the firmware's event log gives what PCR 0 to 7 hold".to_owned())
    } else {
        let found = format!(
            "PCR {} is not what the firmware's event log gives: the log is incomplete or was changed",
            few(&numbers)
        );
        (Verdict::Fail, found)
    };
    let mut finding = Finding::new(EVENT_LOG, verdict, How::Derived, found)
        .seen(LOG, format!("{summary}, replayed for {}", bank.name()));
    for (number, value, replayed) in wrong.iter().take(3) {
        finding = finding.seen(
            format!("PCR {number} ({})", bank.name()),
            format!("{}; the log gives {}", hex(value), hex(replayed)),
        );
    }
    if let Some(value) = registers.first()
        && bank.separators(&log.replay(bank, 0), value).is_some_and(|times| times > 0)
    {
        finding = finding.seen("after the log", "systemd's separator");
    }
    for number in LATER.into_iter().filter(|number| log.mentions(*number)) {
        if let Ok(value) = tpm.register(bank, number) {
            let same = bank.separators(&log.replay(bank, number), &value).is_some();
            let observed = if same { "what the log gives" } else { "extended after the log was written" };
            finding = finding.seen(format!("PCR {number} ({})", bank.name()), observed);
        }
    }
    finding
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, fs, path::Path};

    use sha2::Digest as _;

    use super::*;
    use crate::efi::Variable;

    const SEABIOS: &[u8] = include_bytes!("tpm/samples/seabios.log");
    const SEABIOS_PCRS: &str = include_str!("tpm/samples/seabios.pcrs");
    const OVMF: &[u8] = include_bytes!("tpm/samples/ovmf.log");
    const OVMF_PCRS: &str = include_str!("tpm/samples/ovmf.pcrs");

    fn put(root: &Path, path: &str, bytes: impl AsRef<[u8]>) {
        let at = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(at, bytes).unwrap();
    }

    /// A machine with a TPM 2.0, a log and registers, with something done to it.
    fn machine(log: &[u8], registers: &str, change: impl Fn(&Path)) -> HashMap<String, Finding> {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        put(root, "/sys/class/tpm/tpm0/tpm_version_major", "2\n");
        put(root, LOG, log);
        put(root, "/sys/firmware/x", "");
        for line in registers.lines() {
            let mut words = line.split(' ');
            let path = format!("{DEVICE}/pcr-{}/{}", words.next().unwrap(), words.next().unwrap());
            put(root, &path, words.next().unwrap());
        }
        change(root);
        FEATURE.findings(&System::below(root))
    }

    fn with_efi(root: &Path) {
        put(root, &Variable::SECURE_BOOT.path(), [6, 0, 0, 0, 1]);
    }

    fn verdict(findings: &HashMap<String, Finding>, id: &str) -> Verdict {
        findings[id].verdict
    }

    #[test]
    fn real_machines_pass() {
        let bios = machine(SEABIOS, SEABIOS_PCRS, |_| {});
        for id in [PRESENT, BANKS, EXTENDED, EVENT_LOG] {
            assert_eq!(verdict(&bios, id), Verdict::Pass, "{:?}", bios[id]);
        }
        assert_eq!(verdict(&bios, SECURE_BOOT), Verdict::NotApplicable);
        let efi = machine(OVMF, OVMF_PCRS, with_efi);
        for id in [PRESENT, BANKS, EXTENDED, EVENT_LOG, SECURE_BOOT] {
            assert_eq!(verdict(&efi, id), Verdict::Pass, "{:?}", efi[id]);
        }
        let observed: Vec<&str> = efi[EVENT_LOG].evidence.iter().map(|seen| seen.observed.as_str()).collect();
        assert_eq!(observed, ["22 events, replayed for sha256", "what the log gives"]);
    }

    #[test]
    fn the_systems_separator_changes_nothing() {
        let hash = |bytes: &[u8]| sha2::Sha256::digest(bytes).to_vec();
        let separated = |value: &[u8]| hex(&hash(&[value, &hash(b"os-separator")].concat()));
        let mut registers = String::new();
        for number in 0..8 {
            let value = Log::read(OVMF).unwrap().replay(Bank::Sha256, number);
            registers.push_str(&format!("sha256 {number} {}\n", separated(&value)));
        }
        let findings = machine(OVMF, &registers, with_efi);
        for id in [BANKS, EXTENDED, EVENT_LOG, SECURE_BOOT] {
            assert_eq!(verdict(&findings, id), Verdict::Pass, "{:?}", findings[id]);
        }
        // A register that nothing else was measured into is as good as empty.
        let empty = machine(OVMF, &registers, |root| {
            put(root, &format!("{DEVICE}/pcr-sha256/3"), separated(&[0; 32]));
        });
        assert_eq!(empty[EXTENDED].found, "nothing was measured into PCR 3");
        assert_eq!(verdict(&empty, EVENT_LOG), Verdict::Fail);
    }

    #[test]
    fn an_altered_log_fails() {
        let mut log = OVMF.to_vec();
        // Of the first record's first digest, which is SHA-1; then of its SHA-256.
        log[77 + 14] ^= 1;
        assert_eq!(verdict(&machine(&log, OVMF_PCRS, with_efi), EVENT_LOG), Verdict::Pass);
        log[77 + 12 + 22 + 2] ^= 1;
        let found = &machine(&log, OVMF_PCRS, with_efi)[EVENT_LOG];
        assert_eq!(found.verdict, Verdict::Fail);
        assert!(found.found.starts_with("PCR 0 is not"), "{}", found.found);
        // Its last event is left out.
        let short = &OVMF[..OVMF.len() - 12 - (2 + 20) - (2 + 32) - (2 + 48) - (2 + 64) - 4 - 40];
        assert!(machine(short, OVMF_PCRS, with_efi)[EVENT_LOG].found.starts_with("PCR 5 is not"));
    }

    #[test]
    fn a_log_that_is_missing_or_garbled_is_told_apart() {
        let cut = &machine(&OVMF[..300], OVMF_PCRS, with_efi);
        assert_eq!(verdict(cut, EVENT_LOG), Verdict::Unknown);
        assert!(cut[EVENT_LOG].found.contains("record "), "{}", cut[EVENT_LOG].found);
        assert_eq!(verdict(cut, SECURE_BOOT), Verdict::Unknown);
        assert_eq!(verdict(&machine(b"", OVMF_PCRS, with_efi), EVENT_LOG), Verdict::Warn);
        let none = |root: &Path| fs::remove_file(root.join(&LOG[1..])).unwrap();
        assert_eq!(verdict(&machine(OVMF, OVMF_PCRS, none), EVENT_LOG), Verdict::Warn);
        let unmounted = |root: &Path| fs::remove_dir_all(root.join("sys/kernel/security")).unwrap();
        assert_eq!(verdict(&machine(OVMF, OVMF_PCRS, unmounted), EVENT_LOG), Verdict::Unknown);
    }

    #[test]
    fn secure_boot_in_register_7_is_held_against_the_variable() {
        let off = |root: &Path| put(root, &Variable::SECURE_BOOT.path(), [6, 0, 0, 0, 0]);
        let found = &machine(OVMF, OVMF_PCRS, off)[SECURE_BOOT];
        assert_eq!(found.verdict, Verdict::Fail);
        assert_eq!(found.found, "Secure Boot was measured as on, and the firmware's variable says off");
        let name: Vec<u8> = "SecureBoot".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let at = OVMF.windows(name.len()).position(|window| window == name).unwrap() + name.len();
        let mut forged = OVMF.to_vec();
        forged[at] = 0;
        let found = &machine(&forged, OVMF_PCRS, off)[SECURE_BOOT];
        assert_eq!((found.verdict, found.found.contains("not what was measured")), (Verdict::Fail, true));
        let other = |root: &Path| {
            with_efi(root);
            put(root, "/sys/class/tpm/tpm0/pcr-sha256/7", "11".repeat(32));
        };
        assert_eq!(verdict(&machine(OVMF, OVMF_PCRS, other), SECURE_BOOT), Verdict::Fail);
        let unmounted = |root: &Path| put(root, "/sys/firmware/efi/x", "");
        assert_eq!(verdict(&machine(OVMF, OVMF_PCRS, unmounted), SECURE_BOOT), Verdict::Unknown);
        assert_eq!(verdict(&machine(SEABIOS, SEABIOS_PCRS, with_efi), SECURE_BOOT), Verdict::Warn);
    }

    #[test]
    fn banks_are_sha_256_and_measured_into() {
        let old = |root: &Path| fs::remove_dir_all(root.join("sys/class/tpm/tpm0/pcr-sha256")).unwrap();
        let sha1 = machine(SEABIOS, SEABIOS_PCRS, old);
        assert_eq!((verdict(&sha1, BANKS), verdict(&sha1, EVENT_LOG)), (Verdict::Fail, Verdict::Pass));
        let empty = machine(SEABIOS, SEABIOS_PCRS, |root| {
            for number in 0..8 {
                put(root, &format!("{DEVICE}/pcr-sha256/{number}"), "00".repeat(32));
            }
        });
        for id in [BANKS, EXTENDED, EVENT_LOG] {
            assert_eq!(verdict(&empty, id), Verdict::Fail, "{id}");
        }
        let one = machine(SEABIOS, SEABIOS_PCRS, |root| {
            put(root, &format!("{DEVICE}/pcr-sha256/6"), "00".repeat(32));
        });
        assert_eq!(one[EXTENDED].found, "nothing was measured into PCR 6");
        assert_eq!(verdict(&one, BANKS), Verdict::Pass);
        let other = |value: String| {
            let path = format!("{DEVICE}/pcr-sm3-256/0");
            verdict(&machine(SEABIOS, SEABIOS_PCRS, |root| put(root, &path, &value)), BANKS)
        };
        assert_eq!(other("5A".repeat(32)), Verdict::Pass);
        assert_eq!(other("00".repeat(31) + "03"), Verdict::Fail);
        assert_eq!(other("xyz".into()), Verdict::Unknown);
        let garbage =
            machine(SEABIOS, SEABIOS_PCRS, |root| put(root, &format!("{DEVICE}/pcr-sha256/0"), "xyz"));
        for id in [BANKS, EXTENDED, EVENT_LOG] {
            assert_eq!(verdict(&garbage, id), Verdict::Unknown, "{id}");
        }
    }

    #[test]
    fn a_tpm_1_2_is_read_from_its_one_file() {
        let mut pcrs = String::new();
        let mut log = Vec::new();
        for number in 0..8_u32 {
            log.extend([number.to_le_bytes(), 4_u32.to_le_bytes()].concat());
            log.extend([[0; 20].as_slice(), &[0; 4]].concat());
            // SHA-1 of forty zeros.
            let value = "B8 0D E5 D1 38 75 85 41 C5 F0 52 65 AD 14 4A B9 FA 86 D1 DB";
            pcrs.push_str(&format!("PCR-{number:02}: {value} \n"));
        }
        let findings = machine(&log, "", |root| {
            put(root, "/sys/class/tpm/tpm0/tpm_version_major", "1\n");
            put(root, "/sys/class/tpm/tpm0/pcrs", &pcrs);
        });
        for (id, expected) in [
            (PRESENT, Verdict::Warn),
            (BANKS, Verdict::Warn),
            (EXTENDED, Verdict::Pass),
            (EVENT_LOG, Verdict::Pass),
        ] {
            assert_eq!(verdict(&findings, id), expected, "{:?}", findings[id]);
        }
    }

    #[test]
    fn no_tpm_is_told_from_no_answer() {
        let verdict = |files, id: &str| FEATURE.findings(&System::fake(files))[id].verdict;
        assert_eq!(verdict(&[("/sys/class/tpm/", "")], PRESENT), Verdict::Warn);
        assert_eq!(verdict(&[("/sys/class/tty/", "")], PRESENT), Verdict::Warn);
        assert_eq!(verdict(&[("/sys/class/tty/", "")], BANKS), Verdict::NotApplicable);
        assert_eq!(verdict(&[], PRESENT), Verdict::Unknown);
        // An older kernel shows no registers, and this is not the running machine.
        let old: &[(&str, &str)] =
            &[("/sys/class/tpm/tpm0/dev", "10:224"), ("/sys/class/tpmrm/tpmrm0/dev", "x")];
        assert_eq!(verdict(old, PRESENT), Verdict::Pass);
        assert_eq!(verdict(old, BANKS), Verdict::Unknown);
    }
}
