/*!
Shim, the boot loader that most distributions start first: it verifies what it starts against the firmware's keys and its own, the
machine owner's (MOK).
*/
use super::{efi, signatures::Lists};
use crate::{
    Finding, How, Unread, Verdict,
    efi::{Firmware, Variable},
};

const ID: &str = "secure-boot.shim";

/// Whether shim started this machine: it then leaves its variables.
pub(super) fn is_used(firmware: &Firmware<'_>) -> Result<bool, Unread> {
    let mut hidden = None;
    for variable in [Variable::MOK_LIST, Variable::SBAT_LEVEL, Variable::MOK_TRUSTED] {
        match firmware.value(variable) {
            Ok(Some(_)) => return Ok(true),
            Ok(None) => {}
            Err(unread) => hidden = Some(unread),
        }
    }
    hidden.map_or(Ok(false), Err)
}

/// Whether it was told not to verify, by `mokutil --disable-validation`.
pub(super) fn is_told_not_to_verify(firmware: &Firmware<'_>) -> Result<bool, Unread> {
    Ok(firmware.flag(Variable::MOK_STATE)? == Some(true))
}

pub(super) fn finding(firmware: &Firmware<'_>) -> Finding {
    let firmware = match efi(ID, firmware) {
        Ok(firmware) => firmware,
        Err(finding) => return finding,
    };
    let read = || -> Result<_, Unread> {
        Ok((is_told_not_to_verify(firmware)?, is_used(firmware)?, firmware.flag(Variable::SECURE_BOOT)?))
    };
    let (off, used, secure) = match read() {
        Ok(read) => read,
        Err(unread) => return Finding::unknown(ID, How::Read, unread),
    };
    let finding = if off {
        let found =
            "MokSBState disables validation: shim verifies nothing, and the kernel treats Secure Boot as off";
        Finding::new(ID, Verdict::Fail, How::Read, found)
    } else if !used {
        let found = "this machine was not booted by shim";
        return Finding::not_applicable(ID, How::Read, found).seen(Variable::MOK_LIST.path(), "not there");
    } else if secure == Some(true) {
        Finding::new(ID, Verdict::Pass, How::Read, "shim verifies signatures (MokSBState)")
    } else {
        let found = "shim verifies nothing while Secure Boot is off, see secure-boot.enabled";
        return Finding::not_applicable(ID, How::Read, found)
            .seen(Variable::SECURE_BOOT.path(), firmware.in_words(Variable::SECURE_BOOT));
    };
    let state = firmware.in_words(Variable::MOK_STATE);
    let mut finding = finding.seen(Variable::MOK_STATE.path(), state);
    if let Ok(Some(value)) = firmware.value(Variable::MOK_LIST) {
        let words = Lists::parse(&value).map_or_else(|why| why, |lists| lists.in_words(value.len()));
        finding = finding.seen(Variable::MOK_LIST.path(), words);
    }
    if let Ok(Some(value)) = firmware.value(Variable::SBAT_LEVEL) {
        let words = String::from_utf8_lossy(&value);
        let lines: Vec<&str> = words.trim_matches('\0').lines().collect();
        finding = finding.seen(Variable::SBAT_LEVEL.path(), crate::few(&lines));
    }
    let trusted = firmware.in_words(Variable::MOK_TRUSTED);
    finding.seen(
        Variable::MOK_TRUSTED.path(),
        format!("{trusted} (1: the kernel may trust these keys for modules)"),
    )
}

#[cfg(test)]
mod tests {
    use super::{
        super::{FEATURE, signatures},
        *,
    };
    use crate::efi::fake::{Boot, boot};

    fn verdict(boot: &Boot<'_>) -> Verdict {
        FEATURE.findings(&boot.system())[ID].verdict
    }

    #[test]
    fn shim_that_verifies_nothing_fails() {
        assert_eq!(verdict(&boot()), Verdict::NotApplicable);
        let shim = || {
            boot()
                .with("MokListRT", &signatures::list(&[b"key"]))
                .with("SbatLevelRT", b"sbat,1,2024010900\nshim,4\n")
                .with("MokListTrustedRT", &[1])
        };
        assert_eq!(verdict(&shim()), Verdict::Pass);
        assert_eq!(verdict(&shim().with("MokSBStateRT", &[1])), Verdict::Fail);
        assert_eq!(verdict(&shim().with("MokSBStateRT", &[0])), Verdict::Pass);
        assert_eq!(verdict(&shim().with("MokSBStateRT", b"long")), Verdict::Unknown);
        assert_eq!(verdict(&shim().with("SecureBoot", &[0])), Verdict::NotApplicable);
    }
}
