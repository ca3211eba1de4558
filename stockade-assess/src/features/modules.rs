/*!
What code gets into the kernel: modules, and another kernel by kexec.

| file | what it owns |
|---|---|
| `signature.rs` | whether an unsigned module is accepted, tried |
| `loaded.rs` | what is loaded already, and the kernel's taint |
| `rare.rs` | modules that hardly anybody needs and that load by themselves |
| `kexec.rs` | another kernel: whether one can be loaded, and is |
| `ima.rs` | whether IMA would keep what kexec is offered |
*/
mod ima;
mod kexec;
mod loaded;
mod rare;
mod signature;

use stockade_reasons::Level;

pub(super) use self::{
    kexec::{files_are_covered, try_unsigned as try_unsigned_kernel},
    signature::{Answer, try_unsigned as try_unsigned_module},
};
use super::lockdown::native;
use crate::{
    Feature, Finding, How, Report, System, Verdict,
    modprobe::{DISABLED, has_no_modules},
};

pub(super) const FEATURE: Feature =
    Feature { id: "modules", title: "Kernel modules and kexec", ..Feature::new(check) };

fn check(system: &System, report: &mut Report) {
    report.add(disabled(system));
    report.add(signature::finding(system));
    report.add(loaded::unsigned(system));
    report.add(loaded::foreign(system));
    report.add(rare::finding(system));
    report.add(kexec::disabled(system));
    report.add(kexec::signature(system));
    report.add(kexec::loaded(system));
}

/// Why nothing can be tried here.
fn why_not(system: &System) -> Option<&str> {
    if system.is_live() {
        system.lacks_root()
    } else {
        Some("not tried: these are files, not the running machine")
    }
}

fn without_modules(id: &'static str) -> Finding {
    Finding::not_applicable(id, How::Read, "this kernel was built without loadable modules")
        .seen("/proc/modules", "not there")
}

/// The kernel's own level, if it refuses what is unsigned.
fn locked_down(system: &System) -> Option<Level> {
    native(system).ok().filter(|level| *level > Level::None)
}

fn disabled(system: &System) -> Finding {
    const ID: &str = "modules.disabled";
    match system.number(DISABLED) {
        _ if has_no_modules(system) => without_modules(ID),
        Ok(0) => {
            Finding::new(ID, Verdict::Warn, How::Read, "root can load modules (kernel.modules_disabled = 0)")
                .seen(DISABLED, "0")
        }
        Ok(value) => {
            Finding::new(ID, Verdict::Pass, How::Read, "no module can be loaded before the next boot")
                .seen(DISABLED, value.to_string())
        }
        Err(unread) => Finding::unknown(ID, How::Read, unread),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turning_modules_off_is_seen() {
        let of = |files: &[(&str, &str)]| FEATURE.findings(&System::fake(files))["modules.disabled"].verdict;
        assert_eq!(of(&[(DISABLED, "1\n")]), Verdict::Pass);
        assert_eq!(of(&[(DISABLED, "0\n")]), Verdict::Warn);
        assert_eq!(of(&[("/proc/sys/kernel/osrelease", "6.12")]), Verdict::NotApplicable);
        assert_eq!(of(&[]), Verdict::Unknown);
    }

    #[test]
    fn a_kernel_without_modules_has_nothing_to_defend_there() {
        let findings = FEATURE.findings(&System::fake(&[("/proc/sys/kernel/osrelease", "6.12")]));
        assert_eq!(findings.len(), 8);
        for finding in findings.values() {
            assert_eq!(finding.verdict, Verdict::NotApplicable, "{finding:?}");
        }
    }

    #[test]
    fn a_machine_of_which_nothing_is_known_is_unknown() {
        for finding in FEATURE.findings(&System::fake(&[])).values() {
            assert_eq!(finding.verdict, Verdict::Unknown, "{finding:?}");
        }
    }
}
