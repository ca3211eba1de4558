/*!
What every user may ask of the kernel: what is set, and what came of trying it without rights.
*/
use super::trials::{self, Tried, What};
use crate::{Finding, How, Report, System, Verdict, processes, system::setting_path};

/// Whether a value closes a door.
type Closes = fn(i64) -> bool;

/// Something that users should not get.
struct Door {
    id: &'static str,
    what: What,
    /// The settings that close it. Any of them is enough; kernels lack some.
    settings: &'static [(&'static str, Closes)],
    /// The verdict where it is open.
    open: Verdict,
    /// The values for people: if unprivileged users are refused, and if they are not.
    told: [&'static str; 2],
}

const DOORS: &[Door] = &[
    Door {
        id: "settings.unprivileged-bpf",
        what: What::Bpf,
        settings: &[("kernel.unprivileged_bpf_disabled", |value| value == 1 || value == 2)],
        open: Verdict::Fail,
        told: ["users cannot load BPF programs", "every user can load BPF programs"],
    },
    Door {
        id: "settings.userfaultfd",
        what: What::Userfaultfd,
        settings: &[("vm.unprivileged_userfaultfd", |value| value == 0)],
        open: Verdict::Fail,
        told: [
            "unprivileged users cannot suspend the kernel by userfaultfd",
            "every user can suspend the kernel in the middle of a memory access by userfaultfd",
        ],
    },
    Door {
        id: "settings.io-uring",
        what: What::IoUring,
        settings: &[("kernel.io_uring_disabled", |value| value >= 1)],
        open: Verdict::Warn,
        told: ["users cannot use io_uring", "every user can use io_uring"],
    },
    Door {
        id: "settings.user-namespaces",
        what: What::UserNamespace,
        settings: &[
            ("kernel.unprivileged_userns_clone", |value| value == 0),
            ("kernel.apparmor_restrict_unprivileged_userns", |value| value == 1),
            ("user.max_user_namespaces", |value| value == 0),
        ],
        open: Verdict::Warn,
        told: [
            "unprivileged users cannot create user namespaces",
            "every user can create user namespaces and be root in them",
        ],
    },
    Door {
        id: "settings.perf-event-paranoid",
        what: What::PerfEvent,
        settings: &[("kernel.perf_event_paranoid", |value| value >= 2)],
        open: Verdict::Fail,
        told: ["users cannot profile the kernel", "every user can profile the kernel"],
    },
    Door {
        id: "settings.dmesg-restrict",
        what: What::Log,
        settings: &[("kernel.dmesg_restrict", |value| value == 1)],
        open: Verdict::Fail,
        told: [
            "kernel.dmesg_restrict = 1: unprivileged users cannot read the kernel log",
            "every user can read the kernel log",
        ],
    },
    Door {
        id: "settings.ptrace-scope",
        what: What::Ptrace,
        settings: &[("kernel.yama.ptrace_scope", |value| value >= 1)],
        open: Verdict::Warn,
        told: [
            "a process cannot attach to other processes of the same user (ptrace)",
            "every process can attach to other processes of the same user (ptrace)",
        ],
    },
    Door {
        id: "settings.mmap-min-addr",
        what: What::LowMemory,
        settings: &[("vm.mmap_min_addr", |value| value >= 4096)],
        open: Verdict::Fail,
        told: [
            "vm.mmap_min_addr > 0: users cannot map the page at address 0",
            "users can map the page at address 0, where null pointers of the kernel point to",
        ],
    },
];

/// A filter of system calls refuses in the kernel's place.
const FILTERED: &str = "this process has a seccomp filter, so that a refusal says nothing about the kernel";

pub(super) fn check(system: &System, report: &mut Report) {
    let filtered = processes::is_filtered(system);
    let tried = if system.is_live() {
        trials::run()
    } else {
        Err("not tried: this is not the running machine".into())
    };
    for door in DOORS {
        let tried = tried.as_ref().map(|tried| tried.of(door.what)).map_err(String::as_str);
        report.add(door.finding(system, tried.and_then(|tried| weighed(tried, filtered))));
    }
}

/// Discards a refusal if this process has a seccomp filter: then only success proves something.
fn weighed(tried: Option<Tried>, filtered: bool) -> Result<Option<Tried>, &'static str> {
    match tried {
        Some(Tried::Refused(_) | Tried::NotThere) if filtered => Err(FILTERED),
        tried => Ok(tried),
    }
}

/// The state by the settings.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Set {
    Closed,
    Open,
    NotTold,
}

impl Door {
    fn finding(&self, system: &System, tried: Result<Option<Tried>, &str>) -> Finding {
        let mut set = Set::NotTold;
        let mut seen = Vec::new();
        let mut missing = None;
        for (name, closes) in self.settings {
            match system.number(&setting_path(name)) {
                Ok(value) => {
                    set = if closes(value) || set == Set::Closed { Set::Closed } else { Set::Open };
                    seen.push((*name, value.to_string()));
                }
                Err(unread) => {
                    missing.get_or_insert(unread);
                }
            }
        }
        let told =
            |verdict, how, closed: bool| Finding::new(self.id, verdict, how, self.told[usize::from(!closed)]);
        let finding = match (tried, set) {
            (Ok(Some(Tried::Allowed)), _) => told(self.open, How::Tried, false),
            (Ok(Some(Tried::NotThere)), _) => {
                Finding::not_applicable(self.id, How::Tried, "this kernel does not have it")
            }
            (Ok(Some(Tried::Refused(_))), Set::Closed | Set::NotTold) => {
                told(Verdict::Pass, How::Tried, true)
            }
            (Ok(Some(Tried::Refused(_))), Set::Open) => {
                let missing = "the setting permits it, and something else refuses it to this process";
                Finding::unknown(self.id, How::Tried, missing)
            }
            (_, Set::Closed) => told(Verdict::Pass, How::Read, true),
            (_, Set::Open) => told(self.open, How::Read, false),
            (why, Set::NotTold) => {
                let why = match (why, missing) {
                    (Err(why), Some(unread)) => format!("{unread}; {why}"),
                    (Ok(_), Some(unread)) => unread.to_string(),
                    (Err(why), None) => why.to_owned(),
                    (Ok(_), None) => "the trial came to nothing".into(),
                };
                Finding::unknown(self.id, How::Read, why)
            }
        };
        let finding = seen.iter().fold(finding, |finding, (name, value)| finding.seen(*name, value));
        match tried {
            Ok(Some(tried)) => {
                finding.seen(format!("a child without rights: {}", self.what.name()), tried.words())
            }
            _ => finding,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_and_a_trial_are_weighed() {
        use Verdict::{Fail, NotApplicable, Pass, Unknown};
        let door = &DOORS[0];
        let file = "/proc/sys/kernel/unprivileged_bpf_disabled";
        let of = |value: Option<&str>, tried| {
            let files: Vec<_> = value.map(|value| (file, value)).into_iter().collect();
            door.finding(&System::fake(&files), tried).verdict
        };
        let refused = Ok(Some(Tried::Refused(libc::EPERM)));
        assert_eq!(of(Some("2"), refused), Pass);
        assert_eq!(of(None, refused), Pass);
        assert_eq!(of(Some("0"), refused), Unknown);
        assert_eq!(of(Some("2"), Ok(Some(Tried::Allowed))), Fail);
        assert_eq!(of(Some("0"), Ok(Some(Tried::Allowed))), Fail);
        assert_eq!(of(None, Ok(Some(Tried::NotThere))), NotApplicable);
        assert_eq!(of(Some("1"), Ok(None)), Pass);
        assert_eq!(of(Some("0"), Err("x")), Fail);
        assert_eq!(of(None, Err("x")), Unknown);
    }

    #[test]
    fn under_a_filter_only_what_is_allowed_counts() {
        let refused = Some(Tried::Refused(libc::EPERM));
        assert_eq!(weighed(refused, false), Ok(refused));
        assert_eq!(weighed(refused, true), Err(FILTERED));
        assert_eq!(weighed(Some(Tried::NotThere), true), Err(FILTERED));
        assert_eq!(weighed(Some(Tried::Allowed), true), Ok(Some(Tried::Allowed)));
        assert_eq!(DOORS[2].finding(&System::fake(&[]), Err(FILTERED)).verdict, Verdict::Unknown);
    }

    #[test]
    fn each_setting_flips() {
        for door in DOORS {
            for (name, closes) in door.settings {
                let of = |value: i64| {
                    let path = setting_path(name);
                    let system = System::fake(&[(path.as_str(), value.to_string().as_str())]);
                    door.finding(&system, Err("not tried")).verdict
                };
                let closed = [0, 1, 2, 4096].into_iter().find(|value| closes(*value)).unwrap();
                let open = [0, 1, 4095].into_iter().find(|value| !closes(*value)).unwrap();
                assert_eq!((of(closed), of(open)), (Verdict::Pass, door.open), "{name}");
            }
        }
    }
}
