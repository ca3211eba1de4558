/*!
Mandatory access control: which of the kernel's security modules for it decides on this machine, and which it is set up for.

One at most decides. Where none does, the one that the machine is set up for is missed, and the others are not.
*/
use crate::{
    finding::{Finding, How, Verdict},
    system::{System, Unread},
};

/// The active security modules, in the kernel's order.
pub(crate) const LIST: &str = "/sys/kernel/security/lsm";

/// Files that exist for each active module.
const OTHERWISE: &str = "/sys/fs/selinux, /sys/module/apparmor/parameters/enabled, /sys/fs/smackfs";

/// A security module for mandatory access control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Module {
    SeLinux,
    AppArmor,
    Smack,
}

use Module::{AppArmor, SeLinux, Smack};

impl Module {
    const ALL: [Self; 3] = [SeLinux, AppArmor, Smack];

    pub(crate) fn title(self) -> &'static str {
        match self {
            SeLinux => "SELinux",
            AppArmor => "AppArmor",
            Smack => "Smack",
        }
    }

    /// Returns the name in the kernel's list.
    fn name(self) -> &'static str {
        match self {
            SeLinux => "selinux",
            AppArmor => "apparmor",
            Smack => "smack",
        }
    }

    /// Returns a file that distributions install for it alone.
    fn set_up_by(self) -> &'static str {
        match self {
            SeLinux => "/etc/selinux/config",
            AppArmor => "/etc/apparmor.d",
            Smack => "/etc/smack",
        }
    }
}

/// The names of the active security modules. Where securityfs is not mounted, those that show otherwise.
///
/// # Errors
/// [`Unread`] when neither is to be seen.
pub(crate) fn active(system: &System) -> Result<Vec<String>, Unread> {
    match system.text(LIST) {
        // That of a kernel with security modules begins with those that it cannot do without.
        Ok(list) if list.is_empty() => Err(Unread::not_understood(LIST, &list)),
        Ok(list) => Ok(list.split(',').map(str::to_owned).collect()),
        Err(unread) if unread.is_missing() && system.exists("/sys/fs") => {
            // The kernel makes these folders only for a module that is active.
            let mut names = Vec::new();
            if system.exists("/sys/fs/selinux") {
                names.push(SeLinux.name().to_owned());
            }
            if system.text("/sys/module/apparmor/parameters/enabled").is_ok_and(|enabled| enabled == "Y") {
                names.push(AppArmor.name().to_owned());
            }
            if system.exists("/sys/fs/smackfs") {
                names.push(Smack.name().to_owned());
            }
            Ok(names)
        }
        Err(unread) => Err(unread),
    }
}

/// Whether it is active: a finding about just that, and for the others what to say when it is not.
pub(crate) fn enabled(system: &System, module: Module, id: &'static str) -> (Finding, Option<Inactive>) {
    let title = module.title();
    let names = match active(system) {
        Ok(names) => names,
        Err(unread) => {
            let finding = Finding::unknown(id, How::Read, &unread);
            return (finding, Some(Inactive::Unknown(unread)));
        }
    };
    let (source, seen) = match system.exists(LIST) {
        true => (LIST, names.join(",")),
        false if names.is_empty() => (OTHERWISE, "none is active".to_owned()),
        false => (OTHERWISE, names.join(",")),
    };
    let has = |module: Module| names.iter().any(|name| name == module.name());
    let finding = if has(module) {
        let finding = Finding::new(id, Verdict::Pass, How::Read, format!("{title} is active"));
        return (finding.seen(source, seen), None);
    } else if let Some(other) = Module::ALL.into_iter().find(|other| has(*other)) {
        Finding::not_applicable(id, How::Read, format!("{} is what this machine uses", other.title()))
    } else if let Some(other) = Module::ALL
        .into_iter()
        .find(|other| *other != module && system.exists(other.set_up_by()))
        .filter(|_| !system.exists(module.set_up_by()))
    {
        let found = format!("{} is what this machine is set up for, though it is not active", other.title());
        Finding::not_applicable(id, How::Derived, found)
    } else {
        let found = "none of SELinux, AppArmor and Smack is active, of which one should be";
        Finding::new(id, Verdict::Fail, How::Read, found)
    };
    (finding.seen(source, seen), Some(Inactive::Off(title)))
}

/// Why nothing more can be said.
pub(crate) enum Inactive {
    /// It is not active.
    Off(&'static str),
    /// Nobody knows whether it is.
    Unknown(Unread),
}

impl Inactive {
    /// For one of the other findings.
    pub(crate) fn finding(&self, id: &'static str) -> Finding {
        match self {
            Self::Off(title) => Finding::not_applicable(id, How::Read, format!("{title} is not active")),
            Self::Unknown(unread) => Finding::unknown(id, How::Read, unread),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_that_the_machine_is_set_up_for_is_the_one_that_is_missed() {
        let verdict = |module, files: &[(&str, &str)]| {
            // Only the text's existence matters here.
            enabled(&System::fake(files), module, "ksm.running").0.verdict
        };
        let (list, none) = ((LIST, "capability,yama,apparmor"), (LIST, "capability,yama"));
        assert_eq!(verdict(AppArmor, &[list]), Verdict::Pass);
        assert_eq!(verdict(SeLinux, &[list]), Verdict::NotApplicable);
        let debian = [none, ("/etc/apparmor.d/x", "")];
        assert_eq!(verdict(AppArmor, &debian), Verdict::Fail);
        assert_eq!(verdict(SeLinux, &debian), Verdict::NotApplicable);
        let fedora = [none, ("/etc/selinux/config", "")];
        assert_eq!(verdict(SeLinux, &fedora), Verdict::Fail);
        assert_eq!(verdict(AppArmor, &fedora), Verdict::NotApplicable);
        assert_eq!((verdict(SeLinux, &[none]), verdict(AppArmor, &[none])), (Verdict::Fail, Verdict::Fail));
        assert_eq!(verdict(SeLinux, &[]), Verdict::Unknown);
        assert_eq!(verdict(SeLinux, &[(LIST, "\n")]), Verdict::Unknown);
    }

    #[test]
    fn without_securityfs_modules_show_otherwise() {
        let names = |files: &[(&str, &str)]| active(&System::fake(files)).unwrap();
        assert_eq!(names(&[("/sys/fs/selinux/enforce", "1")]), ["selinux"]);
        let apparmor = [("/sys/fs/x", ""), ("/sys/module/apparmor/parameters/enabled", "Y\n")];
        assert_eq!(names(&apparmor), ["apparmor"]);
        assert!(names(&[("/sys/fs/x", "")]).is_empty());
    }
}
