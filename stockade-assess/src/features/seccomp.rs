/*!
seccomp, by which a process gives up system calls: filters tried, actions, who uses it, and what speculation it can switch off.
*/
use crate::{Feature, Finding, How, Report, System, Unread, Verdict};

mod services;
mod tried;

pub(super) const FEATURE: Feature =
    Feature { id: "seccomp", title: "Seccomp (system call filters)", ..Feature::new(check) };

const FILTER: &str = "seccomp.filter";
const ACTIONS: &str = "seccomp.actions";
const SERVICES: &str = "seccomp.services";
const SPECULATION: &str = "seccomp.speculation";

const AVAILABLE: &str = "/proc/sys/kernel/seccomp/actions_avail";
const LOGGED: &str = "/proc/sys/kernel/seccomp/actions_logged";

/// Actions that sandboxes use. All exist since Linux 5.0.
const WANTED: [&str; 6] = ["kill_process", "trap", "errno", "user_notif", "log", "allow"];

/// There where the kernel has auditing (CONFIG_AUDIT), which is what logs.
const AUDIT: &str = "/proc/self/loginuid";

/// Ends of processes that an administrator wants to hear of.
const ENDS: [&str; 2] = ["kill_process", "kill_thread"];

fn check(system: &System, report: &mut Report) {
    report.add(tried::filter(system));
    report.add(actions(system));
    report.add(services::filtered(system));
    report.add(tried::speculation(system));
}

fn actions(system: &System) -> Finding {
    let available = match system.text(AVAILABLE) {
        Ok(available) => available,
        Err(unread) => return no_filters(system, ACTIONS, &unread),
    };
    let logged = match system.text(LOGGED) {
        Ok(logged) => logged,
        Err(unread) => return Finding::unknown(ACTIONS, How::Read, unread),
    };
    let lacks = |list: &str, wanted: &[&str]| {
        let lacking = wanted.iter().filter(|action| !list.split_whitespace().any(|has| has == **action));
        lacking.copied().collect::<Vec<_>>().join(", ")
    };
    let audit = match system.parameter("audit") {
        Ok(audit) => audit.filter(|value| value == "0" || value.eq_ignore_ascii_case("off")),
        Err(unread) => return Finding::unknown(ACTIONS, How::Read, unread),
    };
    let (unavailable, unlogged) = (lacks(&available, &WANTED), lacks(&logged, &ENDS));
    let (verdict, found) = if !unavailable.is_empty() {
        (Verdict::Warn, format!("this kernel cannot {unavailable}"))
    } else if !unlogged.is_empty() {
        (Verdict::Warn, format!("nothing is logged when a filter ends a process by {unlogged}"))
    } else if audit.is_some() || !system.exists(AUDIT) {
        (Verdict::Warn, "nothing is logged when a filter ends a process: the kernel's auditing is off".into())
    } else {
        (
            Verdict::Pass,
            "filters can do all that sandboxes want, and the processes they end are logged".into(),
        )
    };
    let finding =
        Finding::new(ACTIONS, verdict, How::Read, found).seen(AVAILABLE, available).seen(LOGGED, logged);
    match audit {
        Some(value) => finding.seen("the kernel's command line", format!("audit={value}")),
        None if !system.exists(AUDIT) => finding.seen(AUDIT, "not there: built without CONFIG_AUDIT"),
        None => finding,
    }
}

/// Without its settings, seccomp is not there, unless no settings are.
fn no_filters(system: &System, id: &'static str, unread: &Unread) -> Finding {
    if unread.is_missing() && system.exists("/proc/sys/kernel") {
        let missing = "this kernel has no seccomp filters";
        Finding::new(id, Verdict::Fail, How::Read, missing).seen(&unread.path, "not there")
    } else {
        Finding::unknown(id, How::Read, unread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_those_that_sandboxes_need() {
        const ALL: &str = "kill_process kill_thread trap errno user_notif trace log allow\n";
        const USUAL: &str = "kill_process kill_thread trap errno user_notif trace log\n";
        let on = |line, files: &[(&str, &str)]| {
            let files = [files, &[(AUDIT, "4294967295"), ("/proc/cmdline", line)]].concat();
            FEATURE.findings(&System::fake(&files))[ACTIONS].clone()
        };
        let with = |files| on("quiet", files);
        let good = [(AVAILABLE, ALL), (LOGGED, USUAL)];
        assert_eq!(with(&good).verdict, Verdict::Pass);
        assert_eq!(on("audit=0", &good).verdict, Verdict::Warn);
        assert_eq!(on("audit=off audit=1", &good).verdict, Verdict::Pass);
        let unaudited = [AVAILABLE, LOGGED, "/proc/cmdline"]
            .map(|path| (path, if path == AVAILABLE { ALL } else { USUAL }));
        assert_eq!(FEATURE.findings(&System::fake(&unaudited))[ACTIONS].verdict, Verdict::Warn);
        let old =
            with(&[(AVAILABLE, "kill_process kill_thread trap errno trace log allow"), (LOGGED, USUAL)]);
        assert_eq!((old.verdict, old.found.as_str()), (Verdict::Warn, "this kernel cannot user_notif"));
        let silent = with(&[(AVAILABLE, ALL), (LOGGED, "kill_thread")]);
        assert_eq!(silent.verdict, Verdict::Warn);
        assert!(silent.found.ends_with("by kill_process"));
        assert_eq!(with(&[("/proc/sys/kernel/x", "")]).verdict, Verdict::Fail);
        assert_eq!(FEATURE.findings(&System::fake(&[]))[ACTIONS].verdict, Verdict::Unknown);
    }
}
