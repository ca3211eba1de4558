/*!
Whether IMA would measure what kexec is offered: then it is not offered anything, since what was measured stays, in IMA's log and in a
register of the TPM, and who attests both would find a kernel that nobody knows.
*/
use crate::{
    System,
    efi::{EFI, Variable},
    mandatory,
};

/// The folder of IMA in securityfs: Documentation/ABI/testing/ima_policy, since Linux 2.6.30.
const FOLDER: &str = "/sys/kernel/security/ima";
const POLICY: &str = "/sys/kernel/security/ima/policy";
const COUNT: &str = "/sys/kernel/security/ima/runtime_measurements_count";

/// The policy that systemd loads at boot.
const FROM_SYSTEMD: &str = "/etc/ima/ima-policy";

/// Why a file may be measured. None where it is not.
pub(super) fn would_measure(system: &System) -> Option<String> {
    let is_there = system.exists(FOLDER);
    if !is_there && (system.exists(mandatory::LIST) || is_not_built(system)) {
        return None;
    }
    if let Ok(policy) = system.text(POLICY) {
        return measures(&policy).then(|| format!("IMA's policy measures kernels ({POLICY})"));
    }
    // Most kernels do not show the policy. It measured something beyond the boot, if it is one.
    if let Ok(count) = system.number(COUNT)
        && count > 1
    {
        return Some(format!("IMA measures, {count} things up to now ({COUNT}), and may measure kernels"));
    }
    if system.text(FROM_SYSTEMD).is_ok_and(|policy| measures(&policy)) {
        return Some(format!("{FROM_SYSTEMD} has IMA measure kernels"));
    }
    // Rules of the architecture, on x86 for Secure Boot: arch_get_ima_policy().
    if may_be_secure_boot(system)
        && system.config().map_or(true, |config| config.has("CONFIG_IMA_ARCH_POLICY"))
    {
        return Some("IMA measures kernels under Secure Boot (CONFIG_IMA_ARCH_POLICY)".into());
    }
    if is_there {
        None
    } else {
        Some("whether IMA measures kernels is not known: securityfs is not mounted".into())
    }
}

fn is_not_built(system: &System) -> bool {
    system.config().is_ok_and(|config| !config.has("CONFIG_IMA"))
}

/// Whether one of the rules measures kernels for kexec.
fn measures(policy: &str) -> bool {
    policy.lines().any(|rule| {
        let mut words = rule.split_whitespace();
        words.next() == Some("measure") && words.any(|word| word == "func=KEXEC_KERNEL_CHECK")
    })
}

/// Unless the firmware says no.
fn may_be_secure_boot(system: &System) -> bool {
    // Four bytes of attributes, then the value.
    system.exists(EFI)
        && !system.bytes(&Variable::SECURE_BOOT.path()).is_ok_and(|bytes| bytes.get(4) == Some(&0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELEASE: (&str, &str) = ("/proc/sys/kernel/osrelease", "6.12");
    const CONFIG: &str = "/boot/config-6.12";
    const ARCH: &str = "CONFIG_IMA=y\nCONFIG_IMA_ARCH_POLICY=y\n";
    const BOOT_ONLY: (&str, &str) = (COUNT, "1\n");

    fn of(files: &[(&str, &str)]) -> bool {
        would_measure(&System::fake(files)).is_some()
    }

    #[test]
    fn without_ima_nothing_is_measured() {
        assert!(!of(&[(mandatory::LIST, "lockdown,yama")]));
        assert!(!of(&[RELEASE, (CONFIG, "CONFIG_SECURITY=y\n")]));
    }

    #[test]
    fn what_is_not_known_counts_as_measured() {
        assert!(of(&[]));
        assert!(of(&[RELEASE, (CONFIG, ARCH)]));
    }

    #[test]
    fn a_policy_that_is_shown_tells() {
        let measured = "dont_measure fsmagic=0x9fa0\nmeasure func=KEXEC_KERNEL_CHECK \n";
        assert!(of(&[BOOT_ONLY, (POLICY, measured)]));
        let others = "measure func=BPRM_CHECK\nappraise func=KEXEC_KERNEL_CHECK appraise_type=imasig\n";
        assert!(!of(&[(COUNT, "512\n"), (POLICY, others)]));
    }

    #[test]
    fn a_policy_that_is_hidden_is_told_by_what_it_did() {
        assert!(!of(&[BOOT_ONLY]));
        assert!(of(&[(COUNT, "2\n")]));
        assert!(of(&[BOOT_ONLY, (FROM_SYSTEMD, "measure func=KEXEC_KERNEL_CHECK\n")]));
    }

    #[test]
    fn under_secure_boot_the_architecture_has_rules() {
        let firmware = |value: &[u8]| {
            System::fake(&[BOOT_ONLY, RELEASE, (CONFIG, ARCH)])
                .with(&Variable::SECURE_BOOT.path(), &[&[6, 0, 0, 0], value].concat())
        };
        assert!(would_measure(&firmware(&[1])).is_some());
        assert!(would_measure(&firmware(&[])).is_some());
        assert_eq!(would_measure(&firmware(&[0])), None);
        let files = [BOOT_ONLY, RELEASE, (CONFIG, "CONFIG_IMA=y\n")];
        assert_eq!(
            would_measure(&System::fake(&files).with(&Variable::SECURE_BOOT.path(), &[6, 0, 0, 0, 1])),
            None
        );
    }
}
