/*!
AppArmor: whether it is active and enforced, the profiles and their modes, and which processes are unconfined.
*/
use std::collections::BTreeMap;

use crate::{
    Feature, Finding, How, Report, System, Unread, Verdict, few,
    mandatory::{self, Module},
};

mod attachment;
mod confined;
mod listening;
mod processes;
mod sources;

pub(super) const FEATURE: Feature = Feature { id: "apparmor", title: "AppArmor", ..Feature::new(check) };

const ENABLED: &str = "apparmor.enabled";
const PROFILES: &str = "apparmor.profiles";
const CONFINEMENT: &str = "apparmor.confinement";
const UNCONFINED: &str = "apparmor.unconfined";
const LISTENING: &str = "apparmor.listening";
const NAMESPACES: &str = "apparmor.user-namespaces";

const FILE: &str = "/sys/kernel/security/apparmor/profiles";
const RESTRICTION: &str = "kernel.apparmor_restrict_unprivileged_userns";
/// With a value other than 0, the restriction is only logged.
const COMPLAIN: &str = "kernel.apparmor_restrict_unprivileged_userns_complain";
/// If one of these is 0, unprivileged programs get no user namespaces at all.
const DISABLED_BY: [&str; 2] = ["kernel.unprivileged_userns_clone", "user.max_user_namespaces"];

fn check(system: &System, report: &mut Report) {
    let (enabled, inactive) = mandatory::enabled(system, Module::AppArmor, ENABLED);
    report.add(enabled);
    if let Some(inactive) = inactive {
        for id in [PROFILES, CONFINEMENT, UNCONFINED, LISTENING, NAMESPACES] {
            report.add(inactive.finding(id));
        }
        return;
    }
    let profiles = Profiles::read(system);
    report.add(match &profiles {
        Ok(profiles) => profiles.finding(),
        Err(unread) => Finding::unknown(PROFILES, How::Read, unread),
    });
    report.add(namespaces(system));
    report.add(match &profiles {
        Ok(profiles) => confined::confinement(system, profiles),
        Err(unread) => Finding::unknown(CONFINEMENT, How::Tried, unread),
    });
    match processes::find_unconfined(system) {
        Ok(without) => {
            report.add(attachment::unconfined(system, &without));
            report.add(listening::listening(system, &without));
        }
        Err(missing) => {
            for id in [UNCONFINED, LISTENING] {
                report.add(Finding::unknown(id, How::Read, &missing));
            }
        }
    }
}

/// The names of the loaded profiles, by mode.
struct Profiles(BTreeMap<String, Vec<String>>);

impl Profiles {
    fn read(system: &System) -> Result<Self, Unread> {
        let mut profiles: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in system.text(FILE)?.lines() {
            let (name, mode) = line
                .strip_suffix(')')
                .and_then(|line| line.rsplit_once(" ("))
                .ok_or_else(|| Unread::not_understood(FILE, line))?;
            profiles.entry(mode.to_owned()).or_default().push(name.to_owned());
        }
        Ok(Self(profiles))
    }

    /// Returns the names of the profiles in a mode.
    fn in_mode(&self, mode: &str) -> &[String] {
        self.0.get(mode).map_or(&[], Vec::as_slice)
    }

    fn finding(&self) -> Finding {
        let (enforced, complaining) =
            (self.in_mode("enforce").len() + self.in_mode("kill").len(), self.in_mode("complain"));
        let (verdict, found) = if self.0.is_empty() {
            (Verdict::Fail, "no profile is loaded: nothing is confined".to_owned())
        } else if enforced == 0 {
            (Verdict::Fail, "no loaded profile is in enforce mode".to_owned())
        } else if !complaining.is_empty() {
            let found = format!(
                "{} profiles in complain mode deny nothing ({enforced} in enforce mode)",
                complaining.len()
            );
            (Verdict::Warn, found)
        } else {
            (Verdict::Pass, format!("{enforced} profiles in enforce mode, none in complain mode"))
        };
        let modes: Vec<String> =
            self.0.iter().map(|(mode, names)| format!("{mode} {}", names.len())).collect();
        let finding = Finding::new(PROFILES, verdict, How::Read, found)
            .seen(FILE, if modes.is_empty() { "empty".into() } else { few(&modes) });
        if complaining.is_empty() {
            finding
        } else {
            finding.seen("profiles in complain mode", few(complaining))
        }
    }
}

/// Ubuntu's restriction: an unconfined program gets no capabilities in its own user namespace.
fn namespaces(system: &System) -> Finding {
    let restricted = match system.setting(RESTRICTION) {
        Ok(value) => value,
        Err(unread) if unread.is_missing() => {
            let found = "this kernel has no kernel.apparmor_restrict_unprivileged_userns, which only Ubuntu's kernels have";
            return Finding::not_applicable(NAMESPACES, How::Read, found);
        }
        Err(unread) => return Finding::unknown(NAMESPACES, How::Read, unread),
    };
    let none = DISABLED_BY.iter().find(|name| system.setting(name).is_ok_and(|value| value == "0"));
    let only_logs = system.setting(COMPLAIN).is_ok_and(|value| value != "0");
    let (verdict, found) = match (restricted.as_str(), none) {
        ("0", Some(_)) => {
            (Verdict::NotApplicable, "unprivileged programs cannot create user namespaces at all")
        }
        ("0", None) => (
            Verdict::Warn,
            "kernel.apparmor_restrict_unprivileged_userns = 0 (should be 1): every program gets capabilities in a user namespace",
        ),
        ("1", _) if only_logs => (
            Verdict::Warn,
            "kernel.apparmor_restrict_unprivileged_userns_complain = 1 (should be 0): the restriction is only logged",
        ),
        ("1", _) => {
            (Verdict::Pass, "only programs whose profile allows it get capabilities in a user namespace")
        }
        (other, _) => {
            let missing = format!("{RESTRICTION} is {other:?}, neither 0 nor 1");
            return Finding::unknown(NAMESPACES, How::Read, missing);
        }
    };
    let finding = Finding::new(NAMESPACES, verdict, How::Read, found).seen(RESTRICTION, restricted);
    let finding = if only_logs { finding.seen(COMPLAIN, "on") } else { finding };
    none.iter().fold(finding, |finding, name| finding.seen(**name, "0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACTIVE: (&str, &str) = (mandatory::LIST, "capability,apparmor");

    fn verdict(id: &str, files: &[(&str, &str)]) -> Verdict {
        FEATURE.findings(&System::fake(files))[id].verdict
    }

    #[test]
    fn profiles_that_only_log_are_warned_about_and_none_at_all_are_a_failure() {
        let with = |list| verdict(PROFILES, &[ACTIVE, (FILE, list)]);
        assert_eq!(with("/usr/bin/man (enforce)\nfire fox (x) (unconfined)\n"), Verdict::Pass);
        assert_eq!(with("/usr/bin/man (enforce)\nb (complain)\n"), Verdict::Warn);
        assert_eq!(with("b (complain)\n"), Verdict::Fail);
        assert_eq!(with(""), Verdict::Fail);
        assert_eq!(with("garbage"), Verdict::Unknown);
        assert_eq!(verdict(PROFILES, &[ACTIVE]), Verdict::Unknown);
        assert_eq!(verdict(PROFILES, &[(mandatory::LIST, "selinux")]), Verdict::NotApplicable);
        // Nothing can be tried with files.
        assert_eq!(verdict(CONFINEMENT, &[ACTIVE, (FILE, "a (enforce)\n")]), Verdict::Unknown);
    }

    #[test]
    fn ubuntus_restriction_is_read_where_there_is_one() {
        let path = crate::system::setting_path(RESTRICTION);
        let with = |value| verdict(NAMESPACES, &[ACTIVE, (path.as_str(), value)]);
        assert_eq!((with("1\n"), with("0\n"), with("x")), (Verdict::Pass, Verdict::Warn, Verdict::Unknown));
        let beside = |value, name, other| {
            let other = (crate::system::setting_path(name), other);
            verdict(NAMESPACES, &[ACTIVE, (path.as_str(), value), (other.0.as_str(), other.1)])
        };
        assert_eq!(beside("1", COMPLAIN, "0"), Verdict::Pass);
        assert_eq!(beside("1", COMPLAIN, "1"), Verdict::Warn);
        assert_eq!(beside("0", "user.max_user_namespaces", "0"), Verdict::NotApplicable);
        assert_eq!(beside("0", "kernel.unprivileged_userns_clone", "1"), Verdict::Warn);
        assert_eq!(verdict(NAMESPACES, &[ACTIVE]), Verdict::NotApplicable);
    }
}
