/*!
SELinux: whether it is active and enforces, what policy it has, whom that leaves alone, and what it answers.
*/
use crate::{
    Feature, Finding, How, Report, System, Unread, Verdict, few,
    mandatory::{self, Inactive, Module},
};

use policy::Policy;

mod asked;
mod contexts;
mod policy;

pub(super) const FEATURE: Feature = Feature { id: "selinux", title: "SELinux", ..Feature::new(check) };

const ENABLED: &str = "selinux.enabled";
const ENFORCING: &str = "selinux.enforcing";
const POLICY: &str = "selinux.policy";
const PERMISSIVE: &str = "selinux.permissive-domains";
const BOOLEANS: &str = "selinux.booleans";
const UNCONFINED: &str = "selinux.unconfined";
const DENIAL: &str = "selinux.denial";

const FOLDER: &str = "/sys/fs/selinux";
const NOT_MOUNTED: &str = "selinuxfs is not mounted at /sys/fs/selinux";
const LOADED: &str = "/sys/fs/selinux/policy";
const SWITCHES: &str = "/sys/fs/selinux/booleans";
const CONFIG: &str = "/etc/selinux/config";

fn check(system: &System, report: &mut Report) {
    let (enabled, inactive) = mandatory::enabled(system, Module::SeLinux, ENABLED);
    report.add(enabled);
    if let Some(inactive) = inactive {
        leave_out(&inactive, report);
        return;
    }
    let enforces = system.number(&format!("{FOLDER}/enforce"));
    match has_policy(system) {
        Ok(true) => report.add(enforcing(&enforces)),
        Ok(false) => {
            let found = "no policy is loaded, so that nothing is denied";
            report.add(Finding::new(POLICY, Verdict::Fail, How::Read, found));
            for id in [ENFORCING, PERMISSIVE, BOOLEANS, UNCONFINED, DENIAL] {
                report.add(Finding::not_applicable(id, How::Read, "no policy is loaded"));
            }
            return;
        }
        Err(unread) => {
            let missing = if unread.is_missing() { NOT_MOUNTED.to_owned() } else { unread.to_string() };
            report.add(enforcing(&enforces));
            for id in [POLICY, PERMISSIVE, BOOLEANS, UNCONFINED, DENIAL] {
                report.add(Finding::unknown(id, How::Read, &missing));
            }
            return;
        }
    }
    let loaded = system.bytes(LOADED).map(|bytes| Policy::read(&bytes));
    report.add(policy(system, loaded.as_ref().ok().and_then(Option::as_ref)));
    report.add(match loaded {
        Ok(Some(policy)) => permissive(&policy),
        Ok(None) => Finding::unknown(PERMISSIVE, How::Read, format!("{LOADED} is not understood")),
        Err(unread) => Finding::unknown(PERMISSIVE, How::Read, unread),
    });
    report.add(booleans(system));
    report.add(contexts::unconfined(system));
    report.add(asked::denial(system, enforces.ok()));
}

/// Whether a policy is loaded. Without one there are no classes. Where the configuration says SELINUX=disabled, the first program unmounts
/// selinuxfs and loads none; then each process tells the one context that the kernel knows by itself, a word.
fn has_policy(system: &System) -> Result<bool, Unread> {
    const CONTEXT: &str = "/proc/self/attr/current";
    match system.names(&format!("{FOLDER}/class")) {
        Ok(classes) => Ok(!classes.is_empty()),
        Err(_) if system.text(CONTEXT).is_ok_and(|context| context.trim_end_matches('\0') == "kernel") => {
            Ok(false)
        }
        Err(unread) => Err(unread),
    }
}

fn leave_out(inactive: &Inactive, report: &mut Report) {
    for id in [ENFORCING, POLICY, PERMISSIVE, BOOLEANS, UNCONFINED, DENIAL] {
        report.add(inactive.finding(id));
    }
}

fn enforcing(enforces: &Result<i64, Unread>) -> Finding {
    let (verdict, found) = match enforces {
        Ok(1) => (Verdict::Pass, "what the policy denies is refused"),
        Ok(_) => (Verdict::Fail, "what the policy denies is only logged"),
        Err(unread) if unread.is_missing() => return Finding::unknown(ENFORCING, How::Read, NOT_MOUNTED),
        Err(unread) => return Finding::unknown(ENFORCING, How::Read, unread),
    };
    let observed = enforces.as_ref().map(i64::to_string).unwrap_or_default();
    Finding::new(ENFORCING, verdict, How::Read, found).seen(format!("{FOLDER}/enforce"), observed)
}

fn policy(system: &System, loaded: Option<&Policy>) -> Finding {
    let setting = |name: &str| system.text(&format!("{FOLDER}/{name}"));
    let protection = setting("checkreqprot");
    let (verdict, found) = match &protection {
        Ok(value) if value != "0" => {
            (Verdict::Warn, "the policy is asked for the protection a program wants, not for the one it gets")
        }
        _ => (Verdict::Pass, "a policy is loaded"),
    };
    let mut finding = Finding::new(POLICY, verdict, How::Read, found);
    if let Some(policy) = loaded {
        finding = finding.seen(LOADED, format!("version {}", policy.version));
    }
    for name in ["policyvers", "mls", "deny_unknown", "reject_unknown", "checkreqprot"] {
        if let Ok(value) = setting(name) {
            finding = finding.seen(format!("{FOLDER}/{name}"), value);
        }
    }
    finding
}

fn permissive(policy: &Policy) -> Finding {
    let names = policy.permissive();
    let finding = match names.len() {
        0 => Finding::new(PERMISSIVE, Verdict::Pass, How::Read, "no domain is permissive"),
        1 => Finding::new(PERMISSIVE, Verdict::Warn, How::Read, "one domain is permissive"),
        n => Finding::new(PERMISSIVE, Verdict::Warn, How::Read, format!("{n} domains are permissive")),
    };
    finding.seen(LOADED, if names.is_empty() { "none".into() } else { few(&names) })
}

/// Booleans that are not what they will be after the next boot, or after the next commit.
fn booleans(system: &System) -> Finding {
    let names = match system.names(SWITCHES) {
        Ok(names) => names,
        Err(unread) => return Finding::unknown(BOOLEANS, How::Read, unread),
    };
    let file = installed(system);
    let installed = match &file {
        Ok(file) => match system.bytes(file).map(|bytes| Policy::read(&bytes)) {
            Ok(Some(policy)) => {
                policy.booleans().cloned().ok_or(format!("{file} is of a version that is not known here"))
            }
            Ok(None) => Err(format!("{file} is no policy")),
            Err(unread) => Err(unread.to_string()),
        },
        Err(missing) => Err(missing.clone()),
    };
    let (mut pending, mut differ, mut unread) = (Vec::new(), Vec::new(), Vec::new());
    for name in &names {
        let text = system.text(&format!("{SWITCHES}/{name}")).unwrap_or_default();
        let mut values = text.split_whitespace().map(|value| value == "1");
        let (Some(now), Some(then)) = (values.next(), values.next()) else {
            unread.push(name.as_str());
            continue;
        };
        if now != then {
            pending.push(name.as_str());
        }
        if let Ok(installed) = &installed
            && installed.get(name).is_some_and(|installed| *installed != now)
        {
            differ.push(format!("{name} is {}", if now { "on" } else { "off" }));
        }
    }
    let were = |n: usize, is: &str, are: &str| match n {
        1 => format!("one boolean {is}"),
        n => format!("{n} booleans {are}"),
    };
    let (verdict, found) = match &installed {
        _ if !pending.is_empty() => {
            (Verdict::Warn, were(pending.len(), "was", "were") + " changed and not committed")
        }
        _ if !differ.is_empty() => {
            (Verdict::Warn, were(differ.len(), "is", "are") + " not what the installed policy says")
        }
        Err(missing) => (Verdict::Unknown, format!("nothing to compare booleans with: {missing}")),
        Ok(_) if !unread.is_empty() => {
            (Verdict::Unknown, format!("what these booleans are could not be read: {}", few(&unread)))
        }
        Ok(_) => (Verdict::Pass, format!("all {} booleans are what the installed policy says", names.len())),
    };
    let finding = Finding::new(BOOLEANS, verdict, How::Read, found);
    let finding = if pending.is_empty() { finding } else { finding.seen(SWITCHES, few(&pending)) };
    match (&file, &installed) {
        (Ok(file), Ok(_)) if differ.is_empty() => finding.seen(file, "the same"),
        (Ok(file), Ok(_)) => finding.seen(format!("{SWITCHES} and {file}"), few(&differ)),
        _ => finding,
    }
}

/// The file of the policy that the next boot loads: the newest. One that is newer than the kernel knows is rewritten while it is loaded
/// (`selinux_mkload_policy` in libselinux).
fn installed(system: &System) -> Result<String, String> {
    let config = system.text(CONFIG).map_err(|unread| unread.to_string())?;
    let kind = config.lines().find_map(|line| line.trim().strip_prefix("SELINUXTYPE=")).map(str::trim);
    let kind = kind
        .filter(|kind| !kind.is_empty() && !kind.contains('/'))
        .ok_or(format!("{CONFIG} has no SELINUXTYPE="))?;
    let folder = format!("/etc/selinux/{kind}/policy");
    let names = system.names(&folder).map_err(|unread| unread.to_string())?;
    let versions = names.iter().filter_map(|name| name.strip_prefix("policy.")?.parse::<u32>().ok());
    versions
        .max()
        .map(|version| format!("{folder}/policy.{version}"))
        .ok_or(format!("{folder} has no policy"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACTIVE: (&str, &str) = (mandatory::LIST, "capability,selinux");
    const CLASS: (&str, &str) = ("/sys/fs/selinux/class/process/index", "2");
    const ENFORCE: &str = "/sys/fs/selinux/enforce";

    fn verdict(id: &str, files: &[(&str, &str)]) -> Verdict {
        FEATURE.findings(&System::fake(files))[id].verdict
    }

    #[test]
    fn permissive_is_a_failure_and_so_is_no_policy() {
        assert_eq!(verdict(ENFORCING, &[ACTIVE, CLASS, (ENFORCE, "1")]), Verdict::Pass);
        assert_eq!(verdict(ENFORCING, &[ACTIVE, CLASS, (ENFORCE, "0")]), Verdict::Fail);
        assert_eq!(verdict(ENFORCING, &[ACTIVE]), Verdict::Unknown);
        assert_eq!(verdict(ENFORCING, &[(mandatory::LIST, "capability,apparmor")]), Verdict::NotApplicable);
        assert_eq!(verdict(POLICY, &[ACTIVE, CLASS]), Verdict::Pass);
        assert_eq!(verdict(POLICY, &[ACTIVE, ("/sys/fs/selinux/class/", "")]), Verdict::Fail);
        assert_eq!(verdict(POLICY, &[ACTIVE, CLASS, ("/sys/fs/selinux/checkreqprot", "1")]), Verdict::Warn);
        assert_eq!(verdict(POLICY, &[ACTIVE]), Verdict::Unknown);
    }

    #[test]
    fn without_a_policy_nothing_is_enforced_whether_selinuxfs_is_mounted_or_not() {
        let both = |files: &[(&str, &str)]| (verdict(ENFORCING, files), verdict(POLICY, files));
        let none = (Verdict::NotApplicable, Verdict::Fail);
        assert_eq!(both(&[ACTIVE, ("/sys/fs/selinux/class/", ""), (ENFORCE, "1")]), none);
        assert_eq!(both(&[ACTIVE, ("/proc/self/attr/current", "kernel\0")]), none);
        let context = ("/proc/self/attr/current", "u:r:kernel_t:s0\0");
        assert_eq!(both(&[ACTIVE, context]), (Verdict::Unknown, Verdict::Unknown));
    }

    #[test]
    fn permissive_domains_are_named() {
        let with = |permissive: &[u32]| {
            let policy = policy::tests::made(33, permissive, ("x", true));
            let system = System::fake(&[ACTIVE, CLASS]).with(LOADED, &policy);
            FEATURE.findings(&system)[PERMISSIVE].clone()
        };
        assert_eq!(with(&[]).verdict, Verdict::Pass);
        assert_eq!((with(&[2]).verdict, with(&[2]).evidence[0].observed.as_str()), (Verdict::Warn, "b_t"));
        assert_eq!(verdict(PERMISSIVE, &[ACTIVE, CLASS, (LOADED, "garbage")]), Verdict::Unknown);
        assert_eq!(verdict(PERMISSIVE, &[ACTIVE, CLASS]), Verdict::Unknown);
    }

    #[test]
    fn booleans_are_compared_with_what_is_pending_and_what_is_installed() {
        let with = |installed, boolean| {
            let policy = policy::tests::made(33, &[], ("x", installed));
            let files = [
                ACTIVE,
                CLASS,
                ("/sys/fs/selinux/booleans/x", boolean),
                ("/sys/fs/selinux/policyvers", "31"),
                (CONFIG, "# SELINUXTYPE=none\nSELINUX=enforcing\nSELINUXTYPE=targeted\n"),
                ("/etc/selinux/targeted/policy/policy.32", "left behind"),
            ];
            let system = System::fake(&files).with("/etc/selinux/targeted/policy/policy.33", &policy);
            FEATURE.findings(&system)[BOOLEANS].verdict
        };
        assert_eq!(with(true, "1 1"), Verdict::Pass);
        assert_eq!(with(true, "0 0"), Verdict::Warn);
        assert_eq!(with(true, "1 0"), Verdict::Warn);
        assert_eq!(with(true, ""), Verdict::Unknown);
        assert_eq!(
            verdict(BOOLEANS, &[ACTIVE, CLASS, ("/sys/fs/selinux/booleans/x", "1 1")]),
            Verdict::Unknown
        );
    }
}
