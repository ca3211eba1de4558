/*!
How many of the running services have a filter: what systemd's `SystemCallFilter=` and its like come to.
*/
use std::collections::BTreeMap;

use super::SERVICES;
use crate::{
    Finding, How, System, Verdict, few,
    processes::{field, is_kernels, unseen},
};

/// The seccomp state of all processes of a service.
#[derive(Clone, Copy)]
struct Service {
    filtered: bool,
    no_new_privileges: bool,
}

/// Of the services of the machine, not of its users: how many filter every process.
pub(super) fn filtered(system: &System) -> Finding {
    let processes = match system.processes() {
        Ok(processes) => processes,
        Err(unread) => return Finding::unknown(SERVICES, How::Read, unread),
    };
    if let Some(why) = unseen(system) {
        return Finding::unknown(SERVICES, How::Read, why);
    }
    let mut services: BTreeMap<String, Service> = BTreeMap::new();
    let mut seen = 0;
    for pid in processes {
        let Ok(cgroups) = system.text(&format!("/proc/{pid}/cgroup")) else { continue };
        seen += 1;
        let Some(name) = service(&cgroups) else { continue };
        let Ok(status) = system.text(&format!("/proc/{pid}/status")) else { continue };
        if is_kernels(system, pid) {
            continue;
        }
        // Without CONFIG_SECCOMP there is no such line, and no filter.
        let mode = field(&status, "Seccomp").unwrap_or("0");
        let service =
            services.entry(name.to_owned()).or_insert(Service { filtered: true, no_new_privileges: true });
        // 1 is the strict mode, which leaves four calls.
        service.filtered &= matches!(mode, "1" | "2");
        service.no_new_privileges &= field(&status, "NoNewPrivs") == Some("1");
    }
    if seen == 0 {
        return Finding::unknown(SERVICES, How::Read, "/proc shows no process with its cgroup");
    }
    let all = services.len();
    if all == 0 {
        return Finding::not_applicable(SERVICES, How::Read, "no services of systemd run here")
            .seen("/proc/PID/cgroup", format!("{seen} processes, none in a service"));
    }
    let without: Vec<&str> =
        services.iter().filter(|(_, service)| !service.filtered).map(|(name, _)| name.as_str()).collect();
    let with = all - without.len();
    let kept = services.values().filter(|service| service.no_new_privileges).count();
    let verdict = if without.is_empty() { Verdict::Pass } else { Verdict::Warn };
    let share = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    let finding = Finding::new(
        SERVICES,
        verdict,
        How::Read,
        format!("{with} of {all} running services filter the system calls of every process"),
    )
    .seen("/proc/PID/status, NoNewPrivs", format!("{kept} of {all} services cannot gain privileges"))
    .measured("filtered", 100.0 * share(with) / share(all), "%", Some(100.0));
    if without.is_empty() { finding } else { finding.seen("/proc/PID/status, Seccomp: 0", few(&without)) }
}

/// The service whose cgroup this is: the unit in systemd's own tree of version 1, or in that of version 2. Lines are
/// `number:controllers:path`, and a path may hold anything.
fn service(cgroups: &str) -> Option<&str> {
    let path = cgroups.lines().find_map(|line| {
        let (number, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        (controllers == "name=systemd" || number == "0" && controllers.is_empty()).then_some(path)
    })?;
    if path.split('/').any(|part| part == "user.slice") {
        return None;
    }
    // A service may have cgroups of its own below.
    path.split('/').find(|part| part.ends_with(".service"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BARE: &str = "Name:\tx\nNoNewPrivs:\t0\nSeccomp:\t0\n";
    const FILTERED: &str = "Name:\tx\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\n";

    #[test]
    fn a_service_counts_when_all_its_processes_filter() {
        let with = |status| {
            let system = System::fake(&[
                ("/proc/1/cgroup", "0::/init.scope\n"),
                ("/proc/1/status", BARE),
                ("/proc/7/cgroup", "0::/system.slice/a.service\n"),
                ("/proc/7/status", FILTERED),
                ("/proc/8/cgroup", "0::/system.slice/a.service/worker\n"),
                ("/proc/8/status", status),
                ("/proc/9/cgroup", "0::/user.slice/user-0.slice/user@0.service/b.service\n"),
                ("/proc/9/status", BARE),
            ]);
            filtered(&system)
        };
        let (bad, good) = (with(BARE), with(FILTERED));
        assert_eq!((bad.verdict, good.verdict), (Verdict::Warn, Verdict::Pass));
        assert!(bad.evidence.iter().any(|evidence| evidence.observed == "a.service"));
        assert_eq!(good.found, "1 of 1 running services filter the system calls of every process");
    }

    #[test]
    fn a_kernel_without_seccomp_filters_nothing() {
        let files = [
            ("/proc/7/cgroup", "0::/system.slice/a.service\n"),
            ("/proc/7/status", "Name:\tx\nNoNewPrivs:\t0\n"),
        ];
        assert_eq!(filtered(&System::fake(&files)).verdict, Verdict::Warn);
    }

    #[test]
    fn services_that_are_hidden_are_not_said_to_be_none() {
        let files = [("/proc/7/cgroup", "0::/user.slice/user-1000.slice\n"), ("/proc/7/status", BARE)];
        assert_eq!(filtered(&System::fake(&files)).verdict, Verdict::NotApplicable);
        assert_eq!(filtered(&System::fake(&files).not_root()).verdict, Verdict::Unknown);
    }

    #[test]
    fn no_services_are_nothing_to_defend() {
        let files = [("/proc/1/cgroup", "8:pids:/\n1:name=systemd:/\n0::/\n"), ("/proc/1/status", BARE)];
        assert_eq!(filtered(&System::fake(&files)).verdict, Verdict::NotApplicable);
        assert_eq!(filtered(&System::fake(&[("/proc/1/comm", "x")])).verdict, Verdict::Unknown);
        assert_eq!(
            service("3:cpu:/x.service\n1:name=systemd:/system.slice/y.service\n0::/"),
            Some("y.service")
        );
        assert_eq!(service("4:memory:/a0::/user.slice\n0::/system.slice/y.service"), Some("y.service"));
    }
}
