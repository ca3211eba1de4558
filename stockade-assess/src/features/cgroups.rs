/*!
cgroups, which limit the memory and processes of a service: the mounted hierarchies, their controllers, and whether limits are enforced.
*/
use crate::{Feature, Finding, How, Report, System, Verdict};

use hierarchy::Hierarchies;

mod hierarchy;
mod made;
mod tried;

pub(super) const FEATURE: Feature = Feature {
    id: "cgroups",
    title: "Control groups (limits on resources)",
    clean_up: Some(tried::clean_up),
    ..Feature::new(check)
};

const VERSION: &str = "cgroups.version";
const CONTROLLERS: &str = "cgroups.controllers";
const PIDS: &str = "cgroups.pids-limit";
const MEMORY: &str = "cgroups.memory-limit";

/// The mounts that a process sees.
const MOUNTS: &str = "/proc/self/mountinfo";

/// The initial cgroup namespace (`PROC_CGROUP_INIT_INO`).
const INITIAL_NAMESPACE: &str = "cgroup:[4026531835]";

fn check(system: &System, report: &mut Report) {
    let hierarchies = match Hierarchies::read(system) {
        Ok(hierarchies) => hierarchies,
        Err(unread) => {
            for (id, how) in
                [(VERSION, How::Read), (CONTROLLERS, How::Read), (PIDS, How::Tried), (MEMORY, How::Tried)]
            {
                report.add(Finding::unknown(id, how, &unread));
            }
            return;
        }
    };
    report.add(version(system, &hierarchies));
    report.add(controllers(system, &hierarchies));
    report.add(tried::pids(system, &hierarchies));
    report.add(tried::memory(system, &hierarchies));
}

fn version(system: &System, hierarchies: &Hierarchies) -> Finding {
    let (old, new) = (hierarchies.of_version_1(), hierarchies.of_version_2());
    let finding = match (old.is_empty(), new.is_some()) {
        (true, true) => Finding::new(VERSION, Verdict::Pass, How::Read, "cgroup version 2 only"),
        (false, true) => Finding::new(
            VERSION,
            Verdict::Warn,
            How::Read,
            "cgroup version 1 is mounted beside version 2 (should be version 2 only)",
        ),
        (false, false) => {
            Finding::new(VERSION, Verdict::Warn, How::Read, "cgroup version 1 only (should be version 2)")
        }
        (true, false) if is_whole_machine(system) => {
            return Finding::new(VERSION, Verdict::Fail, How::Read, "no cgroup file system is mounted")
                .seen(MOUNTS, "no cgroup, no cgroup2");
        }
        (true, false) => {
            let missing = "no cgroup file system is mounted in this container; run this on the host";
            return Finding::unknown(VERSION, How::Read, missing);
        }
    };
    hierarchies.all.iter().fold(finding, |finding, hierarchy| {
        let kind = match hierarchy.version {
            2 => "cgroup2".to_owned(),
            _ if hierarchy.controllers.is_empty() => "cgroup without controllers".to_owned(),
            _ => format!("cgroup with {}", hierarchy.controllers.join(", ")),
        };
        finding.seen(MOUNTS, format!("{}: {kind}", hierarchy.mount))
    })
}

/// The controllers that limits of services need, by their version 2 names, with the verdict where one is missing.
const WANTED: [(&str, Verdict); 4] =
    [("memory", Verdict::Fail), ("pids", Verdict::Fail), ("cpu", Verdict::Warn), ("io", Verdict::Warn)];

fn controllers(system: &System, hierarchies: &Hierarchies) -> Finding {
    if hierarchies.all.is_empty() {
        return Finding::unknown(CONTROLLERS, How::Read, "no cgroup file system is mounted");
    }
    let missing: Vec<_> = WANTED.into_iter().filter(|(name, _)| hierarchies.with(name).is_none()).collect();
    let names: Vec<_> = missing.iter().map(|(name, _)| *name).collect();
    let finding = match missing.iter().map(|(_, verdict)| *verdict).min() {
        None => Finding::new(
            CONTROLLERS,
            Verdict::Pass,
            How::Read,
            "the controllers memory, pids, cpu and io are available",
        ),
        Some(_) if !is_whole_machine(system) => {
            let found =
                format!("this container has no controller {}; run this on the host", names.join(", "));
            Finding::unknown(CONTROLLERS, How::Read, found)
        }
        Some(_) if let Some(unread) = &hierarchies.unread => Finding::unknown(CONTROLLERS, How::Read, unread),
        Some(verdict) => {
            let found = format!("cgroup controllers missing: {}", names.join(", "));
            Finding::new(CONTROLLERS, verdict, How::Read, found)
        }
    };
    hierarchies
        .all
        .iter()
        .filter(|hierarchy| !hierarchy.controllers.is_empty())
        .fold(finding, |finding, hierarchy| finding.seen(&hierarchy.mount, hierarchy.controllers.join(", ")))
}

/// Reports whether this process is in the initial cgroup namespace, and not in a container.
fn is_whole_machine(system: &System) -> bool {
    system.link("/proc/self/ns/cgroup").map_or(true, |namespace| namespace == INITIAL_NAMESPACE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const OLD: &str = "31 23 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                       32 23 0:29 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
                       33 23 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
                       34 23 0:31 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio\n";
    const CGROUP: (&str, &str) = ("/proc/self/cgroup", "0::/\n");

    fn verdict(id: &str, mounts: &str, controllers: &str) -> Verdict {
        let files = [CGROUP, (MOUNTS, mounts), ("/sys/fs/cgroup/cgroup.controllers", controllers)];
        FEATURE.findings(&System::fake(&files))[id].verdict
    }

    #[test]
    fn version_1_is_warned_about_and_nothing_is_a_failure() {
        assert_eq!(verdict(VERSION, NEW, ""), Verdict::Pass);
        assert_eq!(verdict(VERSION, OLD, ""), Verdict::Warn);
        assert_eq!(verdict(VERSION, &format!("{NEW}{OLD}"), ""), Verdict::Warn);
        assert_eq!(verdict(VERSION, "1 1 0:1 / / rw - ext4 /dev/vda rw\n", ""), Verdict::Fail);
        assert_eq!(FEATURE.findings(&System::fake(&[]))[VERSION].verdict, Verdict::Unknown);
        let container =
            [CGROUP, (MOUNTS, "1 1 0:1 / / rw - ext4 x rw\n"), ("/proc/self/ns/cgroup", "-> cgroup:[7]")];
        assert_eq!(FEATURE.findings(&System::fake(&container))[VERSION].verdict, Verdict::Unknown);
    }

    #[test]
    fn a_machine_without_a_controller_for_memory_fails() {
        assert_eq!(verdict(CONTROLLERS, NEW, "cpuset cpu io memory hugetlb pids\n"), Verdict::Pass);
        assert_eq!(verdict(CONTROLLERS, NEW, "cpuset cpu io pids\n"), Verdict::Fail);
        assert_eq!(verdict(CONTROLLERS, NEW, "cpu memory pids\n"), Verdict::Warn);
        assert_eq!(verdict(CONTROLLERS, OLD, ""), Verdict::Pass);
        assert_eq!(verdict(CONTROLLERS, "", ""), Verdict::Unknown);
        let container = [CGROUP, (MOUNTS, NEW), ("/proc/self/ns/cgroup", "-> cgroup:[7]")];
        assert_eq!(FEATURE.findings(&System::fake(&container))[CONTROLLERS].verdict, Verdict::Unknown);
    }

    #[test]
    fn controllers_that_cannot_be_read_are_not_missing() {
        let findings = FEATURE.findings(&System::fake(&[CGROUP, (MOUNTS, NEW)]));
        for id in [CONTROLLERS, PIDS, MEMORY] {
            assert_eq!(findings[id].verdict, Verdict::Unknown, "{id}");
        }
    }

    #[test]
    fn a_limit_that_nobody_can_set_is_a_failure_and_one_that_is_not_handed_down_is_unknown() {
        assert_eq!(verdict(PIDS, NEW, "cpu io memory"), Verdict::Fail);
        assert_eq!(verdict(MEMORY, NEW, "cpu io pids"), Verdict::Fail);
        // Nothing can be tried with files.
        assert_eq!(verdict(PIDS, NEW, "cpu io memory pids"), Verdict::Unknown);
        assert_eq!(verdict(MEMORY, OLD, ""), Verdict::Unknown);
    }
}
