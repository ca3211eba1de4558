/*!
Secure Boot: whether the firmware lets only signed code boot, and whether that goes on down to modules.

| file | what it owns |
|---|---|
| `efi.rs` of the crate | the firmware's variables, as efivarfs shows them |
| `signatures.rs` | the lists of keys and digests in them |
| `shim.rs` | what the boot loader shim adds to the firmware's keys |
| `chain.rs` | the links from the firmware to a module, one by one |
*/
mod chain;
mod shim;
pub(crate) mod signatures;

use self::signatures::Lists;
use crate::{
    Feature, Finding, How, Report, System, Verdict,
    efi::{self, Firmware, Variable},
};

pub(super) const FEATURE: Feature =
    Feature { id: "secure-boot", title: "Secure Boot", ..Feature::new(check) };

/// Words in the certificates of keys whose private half everybody has: examples of makers of firmware, and Debian's for tests.
const EXAMPLES: [&[u8]; 3] = [b"DO NOT TRUST", b"DO NOT SHIP", b"SnakeOil"];

/// Counts the entries of the signature lists in a file of efivarfs, and returns the evidence that is shown for them.
///
/// # Errors
/// The reason for which the variable is not understood.
pub fn count_signatures(file: &[u8]) -> Result<(usize, String), String> {
    let value = efi::value(file).ok_or("shorter than its attributes")?;
    let lists = Lists::parse(value)?;
    Ok((lists.entries(), lists.in_words(value.len())))
}

fn check(system: &System, report: &mut Report) {
    let firmware = Firmware::of(system);
    report.add(enabled(&firmware));
    report.add(setup_mode(&firmware));
    report.add(keys(&firmware));
    report.add(current(&firmware));
    report.add(revocations(&firmware));
    report.add(shim::finding(&firmware));
    report.add(chain::finding(system, &firmware));
}

/// The firmware to ask, or what there is to say without one.
fn efi<'a>(id: &'static str, firmware: &'a Firmware<'_>) -> Result<&'a Firmware<'a>, Finding> {
    match firmware {
        Firmware::None => Err(Finding::not_applicable(id, How::Read, "this machine was booted without UEFI")
            .seen(efi::EFI, "not there")),
        Firmware::Hidden(why) => Err(Finding::unknown(id, How::Read, why)),
        Firmware::Variables(_) => Ok(firmware),
    }
}

fn enabled(firmware: &Firmware<'_>) -> Finding {
    const ID: &str = "secure-boot.enabled";
    match firmware {
        Firmware::None => Finding::new(
            ID,
            Verdict::Fail,
            How::Read,
            "no Secure Boot: this machine was booted without UEFI (by a BIOS or a hypervisor)",
        )
        .seen(efi::EFI, "not there"),
        Firmware::Hidden(why) => Finding::unknown(ID, How::Read, why),
        Firmware::Variables(_) => match firmware.flag(Variable::SECURE_BOOT) {
            Ok(Some(true)) => Finding::new(ID, Verdict::Pass, How::Read, "Secure Boot is on"),
            Ok(Some(false)) => Finding::new(
                ID,
                Verdict::Fail,
                How::Read,
                "Secure Boot is off: the firmware boots unsigned boot loaders",
            ),
            Ok(None) => Finding::new(
                ID,
                Verdict::Fail,
                How::Read,
                "this firmware has no Secure Boot: it boots unsigned boot loaders",
            ),
            Err(unread) => return Finding::unknown(ID, How::Read, unread),
        }
        .seen(Variable::SECURE_BOOT.path(), firmware.in_words(Variable::SECURE_BOOT)),
    }
}

fn setup_mode(firmware: &Firmware<'_>) -> Finding {
    const ID: &str = "secure-boot.setup-mode";
    let firmware = match efi(ID, firmware) {
        Ok(firmware) => firmware,
        Err(finding) => return finding,
    };
    let flags = [Variable::SETUP_MODE, Variable::AUDIT_MODE, Variable::DEPLOYED_MODE];
    let [setup, audit, deployed] = flags.map(|variable| firmware.flag(variable));
    let finding = match (setup, audit) {
        (Err(unread), _) | (_, Err(unread)) => return Finding::unknown(ID, How::Read, unread),
        (Ok(None), _) => {
            return Finding::not_applicable(ID, How::Read, "this firmware has no Secure Boot");
        }
        (_, Ok(Some(true))) => Finding::new(
            ID,
            Verdict::Fail,
            How::Read,
            "audit mode: a boot loader that fails the check is logged and booted",
        ),
        (Ok(Some(true)), _) => {
            Finding::new(ID, Verdict::Fail, How::Read, "setup mode: root can enrol keys into the firmware")
        }
        (Ok(Some(false)), _) => Finding::new(
            ID,
            Verdict::Pass,
            How::Read,
            if deployed == Ok(Some(true)) { "deployed mode" } else { "user mode" },
        ),
    };
    flags.into_iter().fold(finding, |finding, flag| finding.seen(flag.path(), firmware.in_words(flag)))
}

fn keys(firmware: &Firmware<'_>) -> Finding {
    const ID: &str = "secure-boot.keys";
    let firmware = match efi(ID, firmware) {
        Ok(firmware) => firmware,
        Err(finding) => return finding,
    };
    let names = [Variable::PK, Variable::KEK, Variable::DB];
    let mut seen = Vec::new();
    let (mut missing, mut examples) = (Vec::new(), Vec::new());
    for variable in names {
        let value = match firmware.value(variable) {
            Ok(value) => value.unwrap_or_default(),
            Err(unread) => return Finding::unknown(ID, How::Read, unread),
        };
        let lists = match Lists::parse(&value) {
            Ok(lists) => lists,
            Err(why) => {
                return Finding::unknown(
                    ID,
                    How::Read,
                    format!("{} is not understood: {why}", variable.path()),
                );
            }
        };
        if lists.entries() == 0 {
            missing.push(variable.name);
        }
        if EXAMPLES.iter().any(|words| contains(&value, words)) {
            examples.push(variable.name);
        }
        seen.push((variable.path(), lists.in_words(value.len())));
    }
    let finding = if !examples.is_empty() {
        Finding::new(
            ID,
            Verdict::Fail,
            How::Read,
            format!("a test key, whose private key is public, is in {}", examples.join(", ")),
        )
    } else if missing.is_empty() {
        Finding::new(ID, Verdict::Pass, How::Read, "PK, KEK and db hold keys, none of them a known test key")
    } else if firmware.flag(Variable::SECURE_BOOT) == Ok(None) {
        Finding::not_applicable(ID, How::Read, "this firmware has no Secure Boot")
    } else {
        Finding::new(ID, Verdict::Fail, How::Read, format!("no key in {}", missing.join(", ")))
    };
    seen.into_iter().fold(finding, |finding, (path, words)| finding.seen(path, words))
}

/// Whether the keys that sign today's boot loaders and revocations are enrolled. Microsoft signs shim for all distributions, and its keys of
/// 2011 have ended.
fn current(firmware: &Firmware<'_>) -> Finding {
    const ID: &str = "secure-boot.current-keys";
    /// The variable, the common name of the old certificate in it, and of the one that follows.
    const KEYS: [(Variable, &str, &str); 2] = [
        (Variable::KEK, "Microsoft Corporation KEK CA 2011", "Microsoft Corporation KEK 2K CA 2023"),
        (Variable::DB, "Microsoft Corporation UEFI CA 2011", "Microsoft UEFI CA 2023"),
    ];
    let firmware = match efi(ID, firmware) {
        Ok(firmware) => firmware,
        Err(finding) => return finding,
    };
    let (mut missing, mut seen) = (Vec::new(), Vec::new());
    for (variable, old, new) in KEYS {
        let value = match firmware.value(variable) {
            Ok(value) => value.unwrap_or_default(),
            Err(unread) => return Finding::unknown(ID, How::Read, unread),
        };
        let (has_old, has_new) = (contains(&value, old.as_bytes()), contains(&value, new.as_bytes()));
        if has_old && !has_new {
            missing.push(new);
        }
        let here = [(has_old, old), (has_new, new)].into_iter().filter(|(has, _)| *has).map(|(_, name)| name);
        let here: Vec<&str> = here.collect();
        if !here.is_empty() {
            seen.push((variable.path(), here.join(", ")));
        }
    }
    let finding = if !missing.is_empty() {
        let found =
            format!("boot loaders that are signed today do not boot: {} is missing", missing.join(" and "));
        Finding::new(ID, Verdict::Warn, How::Read, found)
    } else if seen.is_empty() {
        Finding::not_applicable(ID, How::Read, "no key of Microsoft is enrolled, so none has to be renewed")
    } else {
        Finding::new(ID, Verdict::Pass, How::Read, "Microsoft's keys of 2023 are enrolled")
    };
    seen.into_iter().fold(finding, |finding, (path, words)| finding.seen(path, words))
}

fn revocations(firmware: &Firmware<'_>) -> Finding {
    const ID: &str = "secure-boot.revocations";
    let firmware = match efi(ID, firmware) {
        Ok(firmware) => firmware,
        Err(finding) => return finding,
    };
    let value = match firmware.value(Variable::DBX) {
        Ok(None) if firmware.flag(Variable::SECURE_BOOT) == Ok(None) => {
            return Finding::not_applicable(ID, How::Read, "this firmware has no Secure Boot");
        }
        Ok(value) => value.unwrap_or_default(),
        Err(unread) => return Finding::unknown(ID, How::Read, unread),
    };
    let lists = match Lists::parse(&value) {
        Ok(lists) => lists,
        Err(why) => {
            return Finding::unknown(
                ID,
                How::Read,
                format!("{} is not understood: {why}", Variable::DBX.path()),
            );
        }
    };
    let entries = lists.entries();
    // Makers put in one digest that is nobody's, so that the variable is there.
    let finding = if entries > 1 {
        Finding::new(ID, Verdict::Pass, How::Read, format!("{entries} entries in dbx"))
    } else {
        let found = "dbx is empty: boot loaders with known vulnerabilities boot";
        Finding::new(ID, Verdict::Warn, How::Read, found)
    };
    #[expect(clippy::cast_precision_loss, reason = "a variable has no more than 8 MiB")]
    let finding = finding.measured("revoked", entries as f64, "entries", None);
    finding.seen(Variable::DBX.path(), lists.in_words(value.len()))
}

fn contains(bytes: &[u8], words: &[u8]) -> bool {
    memchr::memmem::find(bytes, words).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::efi::fake::{Boot, boot};

    fn verdicts(boot: &Boot<'_>, id: &str) -> Verdict {
        FEATURE.findings(&boot.system())[id].verdict
    }

    #[test]
    fn the_firmware_says_whether_it_verifies() {
        assert_eq!(verdicts(&boot(), "secure-boot.enabled"), Verdict::Pass);
        assert_eq!(verdicts(&boot().with("SecureBoot", &[0]), "secure-boot.enabled"), Verdict::Fail);
        assert_eq!(verdicts(&boot().without("SecureBoot"), "secure-boot.enabled"), Verdict::Fail);
        assert_eq!(verdicts(&boot().with("SecureBoot", &[]), "secure-boot.enabled"), Verdict::Unknown);
    }

    #[test]
    fn a_machine_without_efi_verifies_nothing() {
        let findings = FEATURE.findings(&System::fake(&[("/sys/firmware/acpi/", "")]));
        assert_eq!(findings.len(), 7);
        for finding in findings.values() {
            let expected =
                if finding.id == "secure-boot.enabled" { Verdict::Fail } else { Verdict::NotApplicable };
            assert_eq!(finding.verdict, expected, "{finding:?}");
        }
    }

    #[test]
    fn variables_that_are_not_shown_are_unknown() {
        let board = ("/sys/firmware/devicetree/base/compatible", "raspberrypi,4-model-b");
        let efi = ("/sys/firmware/efi/efivars/", "");
        for files in [&[][..], &[efi], &[("/sys/firmware/ipl/secure", "1")], &[board]] {
            for finding in FEATURE.findings(&System::fake(files)).values() {
                assert_eq!(finding.verdict, Verdict::Unknown, "{finding:?}");
            }
        }
    }

    #[test]
    fn whoever_may_enrol_keys_owns_the_firmware() {
        let id = "secure-boot.setup-mode";
        assert_eq!(verdicts(&boot(), id), Verdict::Pass);
        assert_eq!(verdicts(&boot().with("SetupMode", &[1]), id), Verdict::Fail);
        assert_eq!(verdicts(&boot().with("AuditMode", &[1]), id), Verdict::Fail);
        assert_eq!(verdicts(&boot().without("SetupMode"), id), Verdict::NotApplicable);
    }

    #[test]
    fn keys_must_be_there_and_nobody_elses() {
        let id = "secure-boot.keys";
        assert_eq!(verdicts(&boot(), id), Verdict::Pass);
        assert_eq!(verdicts(&boot().without("PK"), id), Verdict::Fail);
        assert_eq!(verdicts(&boot().with("KEK", b"garbage"), id), Verdict::Unknown);
        let example = signatures::list(&[b"CN=DO NOT TRUST - AMI Test PK"]);
        assert_eq!(verdicts(&boot().with("PK", &example), id), Verdict::Fail);
    }

    #[test]
    fn keys_that_have_ended_need_their_followers() {
        let id = "secure-boot.current-keys";
        let with = |keys: &[&[u8]]| {
            verdicts(
                &boot().with("db", &keys.iter().flat_map(|key| signatures::list(&[key])).collect::<Vec<_>>()),
                id,
            )
        };
        let (old, new): (&[u8], &[u8]) =
            (b"CN=Microsoft Corporation UEFI CA 2011", b"CN=Microsoft UEFI CA 2023");
        assert_eq!(with(&[b"CN=our own"]), Verdict::NotApplicable);
        assert_eq!(with(&[old]), Verdict::Warn);
        assert_eq!(with(&[old, new]), Verdict::Pass);
        assert_eq!(with(&[new]), Verdict::Pass);
    }

    #[test]
    fn a_list_of_revocations_must_have_some() {
        let id = "secure-boot.revocations";
        assert_eq!(verdicts(&boot(), id), Verdict::Pass);
        assert_eq!(verdicts(&boot().without("dbx"), id), Verdict::Warn);
        assert_eq!(verdicts(&boot().with("dbx", &signatures::list(&[b"one"])), id), Verdict::Warn);
    }
}
