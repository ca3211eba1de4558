/*!
Shim, the boot loader that most distributions start first: it verifies what it starts against the firmware's keys and its own, the
machine owner's (MOK).
*/
use super::{
    efi,
    signatures::Lists,
    variables::{Firmware, Variable},
};
use crate::{Finding, How, Verdict};

const ID: &str = "secure-boot.shim";

/// Whether shim started this machine: it then leaves its variables.
pub(super) fn is_used(firmware: &Firmware<'_>) -> bool {
    let left = [Variable::MOK_LIST, Variable::SBAT_LEVEL, Variable::MOK_TRUSTED];
    left.into_iter().any(|variable| !matches!(firmware.value(variable), Ok(None)))
}

/// Whether it was told not to verify, by `mokutil --disable-validation`.
pub(super) fn is_told_not_to_verify(firmware: &Firmware<'_>) -> Result<bool, crate::Unread> {
    Ok(firmware.flag(Variable::MOK_STATE)? == Some(true))
}

pub(super) fn finding(firmware: &Firmware<'_>) -> Finding {
    let firmware = match efi(ID, firmware) {
        Ok(firmware) => firmware,
        Err(finding) => return finding,
    };
    let off = match is_told_not_to_verify(firmware) {
        Ok(off) => off,
        Err(unread) => return Finding::unknown(ID, How::Read, unread),
    };
    let finding = if off {
        let found = "shim was told not to verify what it starts, and the kernel takes Secure Boot as off";
        Finding::new(ID, Verdict::Fail, How::Read, found)
    } else if is_used(firmware) {
        Finding::new(ID, Verdict::Pass, How::Read, "shim verifies what it starts")
    } else {
        let found = "this machine was not started by shim: the firmware itself verifies the kernel, or whatever starts it";
        return Finding::not_applicable(ID, How::Read, found).seen(Variable::MOK_LIST.path(), "not there");
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
        super::{
            FEATURE, signatures,
            variables::fake::{Boot, boot},
        },
        *,
    };

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
    }
}
