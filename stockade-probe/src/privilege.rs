//! Privileges that the caller lacks for a probe.
//!
//! A missing capability and a refusal by lockdown both read EPERM, so a probe is not even started where
//! the caller lacks the right: the answer would be misread.

use std::fs;
use std::path::Path;

/// A capability, by its number in `linux/capability.h`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Capability {
    number: u32,
    name: &'static str,
}

pub(crate) const NET_ADMIN: Capability = Capability { number: 12, name: "CAP_NET_ADMIN" };
pub(crate) const SYS_MODULE: Capability = Capability { number: 16, name: "CAP_SYS_MODULE" };
pub(crate) const SYS_RAWIO: Capability = Capability { number: 17, name: "CAP_SYS_RAWIO" };
pub(crate) const SYS_ADMIN: Capability = Capability { number: 21, name: "CAP_SYS_ADMIN" };
pub(crate) const SYS_BOOT: Capability = Capability { number: 22, name: "CAP_SYS_BOOT" };

/// Returns the privilege that the caller lacks: root, the machine's own user namespace, or the capability. Where /proc cannot
/// be read, root is taken to hold everything.
pub(crate) fn lacking(needs: Option<Capability>) -> Option<String> {
    // SAFETY: geteuid has no precondition and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return Some("run as root".into());
    }
    if fs::read_link("/proc/self/ns/user").is_ok_and(|namespace| !is_initial(&namespace)) {
        return Some("run in the machine's own user namespace, not as root of a container".into());
    }
    let needs = needs?;
    let status = fs::read_to_string("/proc/self/status").ok()?;
    (!holds(&status, needs)?).then(|| format!("{} is missing", needs.name))
}

/// Whether this is the machine's own user namespace, by the number it has since Linux 3.8
/// (`PROC_USER_INIT_INO`). Its uid map would not tell: root can give a new namespace the very same one.
fn is_initial(namespace: &Path) -> bool {
    namespace == Path::new("user:[4026531837]")
}

/// Whether /proc/PID/status shows a capability as effective; none if it does not say.
fn holds(status: &str, capability: Capability) -> Option<bool> {
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let set = u64::from_str_radix(set.trim(), 16).ok()?;
    Some(set & (1 << capability.number) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_from_the_effective_set() {
        let status = "Name:\tx\nCapPrm:\t000001ffffffffff\nCapEff:\t0000000000020000\nCapBnd:\t0\n";
        assert_eq!(holds(status, SYS_RAWIO), Some(true));
        assert_eq!(holds(status, SYS_MODULE), Some(false));
        assert_eq!(holds("Name:\tx\n", SYS_RAWIO), None);
    }

    #[test]
    fn the_initial_user_namespace_is_told_from_another() {
        assert!(is_initial(Path::new("user:[4026531837]")));
        assert!(!is_initial(Path::new("user:[4026532241]")));
    }
}
