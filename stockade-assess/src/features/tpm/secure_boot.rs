/*!
Whether what was measured of Secure Boot is what the firmware says of it now.
*/
use super::{
    LOG, NoLog, SECURE_BOOT,
    eventlog::{Bank, Log},
    registers::hex,
};
use crate::{
    Finding, How, System, Verdict,
    efi::{EFI, Variable},
};

pub(super) fn finding(
    system: &System,
    log: Result<&Log, &NoLog>,
    bank: Bank,
    registers: Result<&[Vec<u8>], &String>,
) -> Finding {
    if !system.exists(EFI) {
        return if system.exists("/sys/firmware") {
            Finding::not_applicable(SECURE_BOOT, How::Read, "this machine was not booted by EFI firmware")
        } else {
            Finding::unknown(SECURE_BOOT, How::Read, "/sys/firmware is not there")
        };
    }
    let log = match log {
        Ok(log) => log,
        Err(NoLog::Unknown(missing)) => return Finding::unknown(SECURE_BOOT, How::Read, missing),
        Err(NoLog::Absent(why)) => return Finding::unknown(SECURE_BOOT, How::Read, *why),
    };
    let Some(measured) = log.variable(bank, "SecureBoot") else {
        let found = "the firmware did not measure whether Secure Boot is on: PCR 7 says nothing of it";
        return Finding::new(SECURE_BOOT, Verdict::Warn, How::Read, found)
            .seen(LOG, "no SecureBoot in PCR 7");
    };
    let register = match registers {
        Ok(registers) => registers.last().map_or(&[][..], Vec::as_slice),
        Err(missing) => return Finding::unknown(SECURE_BOOT, How::Read, missing),
    };
    // Four bytes of attributes are before the value.
    let variable = match system.bytes(&Variable::SECURE_BOOT.path()) {
        Ok(bytes) => bytes.get(4..).unwrap_or_default().to_vec(),
        Err(unread) if unread.is_missing() => {
            return Finding::unknown(SECURE_BOOT, How::Read, format!("{unread}; is efivarfs mounted?"));
        }
        Err(unread) => return Finding::unknown(SECURE_BOOT, How::Read, unread),
    };
    let said = state(measured.value);
    let (verdict, found) = if !log.banks.contains(&bank) {
        return Finding::unknown(
            SECURE_BOOT,
            How::Derived,
            "the log tells nothing of the banks that are active",
        );
    } else if !measured.measured {
        (Verdict::Fail, format!("the log says that Secure Boot was {said}, which is not what was measured"))
    } else if bank.separators(&log.replay(bank, 7), register).is_none() {
        (
            Verdict::Fail,
            "PCR 7 is not what the log gives: what it says of Secure Boot proves nothing".to_owned(),
        )
    } else if measured.value == variable.as_slice() {
        (Verdict::Pass, format!("PCR 7 and the firmware's variable agree that Secure Boot is {said}"))
    } else {
        let now = state(&variable);
        (Verdict::Fail, format!("Secure Boot was measured as {said}, and the firmware's variable says {now}"))
    };
    Finding::new(SECURE_BOOT, verdict, How::Derived, found)
        .seen(format!("{LOG}: SecureBoot"), hex(measured.value))
        .seen(Variable::SECURE_BOOT.path(), hex(&variable))
}

fn state(value: &[u8]) -> &'static str {
    match value {
        [1] => "on",
        [0] => "off",
        _ => "neither on nor off",
    }
}
