/*!
KSM, which merges equal pages of different processes: a process that shares a page can detect it by the time of a write, and attack it by Rowhammer.

A process offers a range of its memory with madvise(2), or all of it with prctl(2), which its children inherit.
*/
use crate::{
    Feature, Finding, How, Report, System, Verdict, few,
    processes::{field, name, unseen},
    system::Why,
};

pub(super) const FEATURE: Feature = Feature { id: "ksm", title: "KSM (page merging)", ..Feature::new(check) };

const FOLDER: &str = "/sys/kernel/mm/ksm";
const RUN: &str = "/sys/kernel/mm/ksm/run";
const SHARING: &str = "/sys/kernel/mm/ksm/pages_sharing";

const RUNNING: &str = "ksm.running";
const SHARED: &str = "ksm.shared";
const OPTED_IN: &str = "ksm.opted-in";

fn check(system: &System, report: &mut Report) {
    if !system.exists(FOLDER) && system.exists("/sys/kernel/mm") {
        for id in [RUNNING, SHARED, OPTED_IN] {
            let finding = Finding::not_applicable(id, How::Read, "this kernel has no KSM");
            report.add(finding.seen(FOLDER, "not there"));
        }
        return;
    }
    report.add(running(system));
    report.add(shared(system));
    report.add(opted_in(system));
}

/// Reports whether ksmd merges: `KSM_RUN_MERGE`; another flag is set while memory goes offline (`KSM_RUN_OFFLINE`).
fn merges(run: i64) -> bool {
    run & 1 != 0
}

fn running(system: &System) -> Finding {
    match system.number(RUN) {
        Ok(n) => {
            let (verdict, found) = if merges(n) {
                (Verdict::Warn, "KSM on: equal pages of different processes are merged")
            } else {
                (Verdict::Pass, "KSM off: no pages are being merged")
            };
            Finding::new(RUNNING, verdict, How::Read, found).seen(RUN, n.to_string())
        }
        Err(unread) => Finding::unknown(RUNNING, How::Read, unread),
    }
}

/// Judges the number of merged pages, which stay merged when KSM is only stopped.
fn shared(system: &System) -> Finding {
    match system.number(SHARING) {
        Ok(n) => {
            let (verdict, found) = match n {
                0 => (Verdict::Pass, "no page is merged by KSM".to_owned()),
                n => {
                    (Verdict::Warn, format!("{n} merged pages are left, which leak their content by timing"))
                }
            };
            let pages = u32::try_from(n).unwrap_or(u32::MAX);
            Finding::new(SHARED, verdict, How::Read, found).seen(SHARING, n.to_string()).measured(
                "shared",
                f64::from(pages),
                "pages",
                None,
            )
        }
        Err(unread) => Finding::unknown(SHARED, How::Read, unread),
    }
}

/// The processes that offer memory to KSM.
#[derive(Default)]
struct Offers {
    /// Processes that offer all of their memory, with prctl(2).
    all: Vec<String>,
    /// Processes that offer some of their memory, with madvise(2).
    some: Vec<String>,
    /// Processes whose pages KSM scans or has merged; this kernel does not show how they were offered.
    merged: Vec<String>,
    /// Whether the kernel shows which processes offer memory, since Linux 6.14.
    shown: bool,
    /// Whether the kernel counts the pages that ksmd has scanned, since Linux 6.1.
    counted: bool,
    /// The number of processes whose file could be read.
    read: usize,
    /// The number of processes whose file may not be read.
    hidden: usize,
}

impl Offers {
    fn read(system: &System, processes: &[u32]) -> Self {
        let mut offers = Self::default();
        for &pid in processes {
            // ksm_stat since Linux 6.1, ksm_merging_pages since 5.19.
            let text = [format!("/proc/{pid}/ksm_stat"), format!("/proc/{pid}/ksm_merging_pages")]
                .iter()
                .map(|path| system.text(path))
                .find(|text| !text.as_ref().is_err_and(crate::Unread::is_missing));
            match text {
                // Kernel threads have no memory of their own: their file is empty.
                Some(Ok(text)) if text.is_empty() => {}
                Some(Ok(text)) => {
                    offers.read += 1;
                    offers.take(&text, || name(system, pid));
                }
                Some(Err(unread)) if unread.why == Why::NotAllowed => offers.hidden += 1,
                _ => {}
            }
        }
        offers
    }

    fn take(&mut self, text: &str, name: impl FnOnce() -> String) {
        let says = |key| field(text, key) == Some("yes");
        let counts = |key: &str| {
            text.lines().any(|line| {
                line.strip_prefix(key).is_some_and(|n| n.trim().parse::<u64>().is_ok_and(|n| n > 0))
            })
        };
        self.shown |= field(text, "ksm_mergeable").is_some();
        self.counted |= text.lines().any(|line| line.starts_with("ksm_rmap_items "));
        if says("ksm_merge_any") {
            self.all.push(name());
        } else if says("ksm_mergeable") {
            self.some.push(name());
        } else if counts("") || counts("ksm_rmap_items ") || counts("ksm_merging_pages ") {
            self.merged.push(name());
        }
    }
}

fn opted_in(system: &System) -> Finding {
    const SOURCE: &str = "/proc/PID/ksm_stat of every process";
    let processes = match system.processes() {
        Ok(processes) => processes,
        Err(unread) => return Finding::unknown(OPTED_IN, How::Read, unread),
    };
    let run = match system.number(RUN) {
        Ok(run) => run,
        Err(unread) => return Finding::unknown(OPTED_IN, How::Read, unread),
    };
    let offers = Offers::read(system, &processes);
    let count = offers.all.len() + offers.some.len() + offers.merged.len();
    let lacks = system.lacks_root().unwrap_or("the kernel hides them from this process");
    let more = match offers.hidden {
        0 => String::new(),
        n => format!("; {n} more cannot be read: {lacks}"),
    };
    let finding = if count > 0 {
        let (verdict, effect) = if merges(run) {
            (Verdict::Warn, "")
        } else {
            (Verdict::Pass, ", without effect while KSM is off")
        };
        let found = match count {
            1 => format!("1 process offers its memory to KSM{effect}{more}"),
            n => format!("{n} processes offer their memory to KSM{effect}{more}"),
        };
        Finding::new(OPTED_IN, verdict, How::Read, found)
    } else if offers.hidden > 0 {
        let found = format!("none of {} processes offers memory to KSM{more}", offers.read);
        Finding::unknown(OPTED_IN, How::Read, found)
    } else if let Some(why) = unseen(system) {
        Finding::unknown(OPTED_IN, How::Read, why)
    } else if offers.shown {
        Finding::new(OPTED_IN, Verdict::Pass, How::Read, "no process offers its memory to KSM")
    } else if !merges(run) {
        Finding::not_applicable(
            OPTED_IN,
            How::Derived,
            "KSM is off; which processes would offer memory is shown since Linux 6.14",
        )
        .seen(RUN, run.to_string())
    } else if offers.counted {
        // While KSM runs, it scans all memory that is offered.
        Finding::new(OPTED_IN, Verdict::Pass, How::Derived, "KSM runs, but no process offers memory to it")
    } else {
        let missing = "this kernel does not show which processes KSM scans (Linux 6.1 and later do)";
        return Finding::unknown(OPTED_IN, How::Read, missing);
    };
    let groups = [("all", &offers.all), ("parts", &offers.some), ("scanned or merged", &offers.merged)];
    let seen: Vec<String> = groups
        .into_iter()
        .filter(|(_, who)| !who.is_empty())
        .map(|(what, who)| format!("{what}: {}", few(who)))
        .collect();
    let seen = match seen.join("; ") {
        none if none.is_empty() => format!("nothing offered in {} processes", offers.read),
        some => some,
    };
    finding.seen(SOURCE, seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(id: &str, files: &[(&str, &str)]) -> Finding {
        FEATURE.findings(&System::fake(files))[id].clone()
    }

    const NO: &str = "ksm_rmap_items 0\nksm_merging_pages 0\nksm_merge_any: no\nksm_mergeable: no\n";
    const ALL: &str = "ksm_rmap_items 9\nksm_merging_pages 0\nksm_merge_any: yes\nksm_mergeable: yes\n";
    const OLD: &str = "ksm_rmap_items 0\nzero_pages_sharing 0\nksm_merging_pages 0\nksm_process_profit 0\n";

    #[test]
    fn running_is_warned_about() {
        let verdict = |files| finding(RUNNING, files).verdict;
        assert_eq!(verdict(&[(RUN, "1\n")]), Verdict::Warn);
        assert_eq!(verdict(&[(RUN, "0\n")]), Verdict::Pass);
        assert_eq!(verdict(&[(RUN, "2\n")]), Verdict::Pass);
        // While memory goes offline.
        assert_eq!([verdict(&[(RUN, "5\n")]), verdict(&[(RUN, "4\n")])], [Verdict::Warn, Verdict::Pass]);
        assert_eq!(verdict(&[("/sys/kernel/mm/", "")]), Verdict::NotApplicable);
        assert_eq!(verdict(&[]), Verdict::Unknown);
        assert_eq!(verdict(&[(RUN, "yes\n")]), Verdict::Unknown);
    }

    #[test]
    fn what_is_still_merged_is_warned_about_also_when_merging_was_stopped() {
        let finding = |pages| finding(SHARED, &[(RUN, "0\n"), (SHARING, pages)]);
        assert_eq!(finding("0\n").verdict, Verdict::Pass);
        assert_eq!(finding("12\n").verdict, Verdict::Warn);
        assert_eq!(finding("12\n").measures[0].value.to_bits(), 12f64.to_bits());
        assert_eq!(finding("many").verdict, Verdict::Unknown);
    }

    #[test]
    fn who_offers_memory_is_named() {
        let with = |run, stat| {
            finding(
                OPTED_IN,
                &[(RUN, run), ("/proc/1/ksm_stat", NO), ("/proc/7/comm", "qemu"), ("/proc/7/ksm_stat", stat)],
            )
        };
        let offered = with("1", ALL);
        assert_eq!(offered.verdict, Verdict::Warn);
        assert_eq!(offered.evidence[0].observed, "all: qemu (7)");
        assert_eq!(with("0", ALL).verdict, Verdict::Pass);
        assert!(with("0", ALL).found.contains("without effect"));
        assert_eq!(with("1", NO).verdict, Verdict::Pass);
        let parts = with("1", "ksm_merge_any: no\nksm_mergeable: yes\n");
        assert_eq!(parts.evidence[0].observed, "parts: qemu (7)");
    }

    #[test]
    fn an_older_kernel_is_taken_at_what_it_tells() {
        let with =
            |run, stat| finding(OPTED_IN, &[(RUN, run), ("/proc/1/ksm_stat", stat), ("/proc/2/comm", "x")]);
        assert_eq!(with("0", OLD).verdict, Verdict::NotApplicable);
        assert_eq!(with("1", OLD).verdict, Verdict::Pass);
        assert_eq!(with("1", "ksm_rmap_items 3\nksm_merging_pages 0\n").verdict, Verdict::Warn);
        assert_eq!(finding(OPTED_IN, &[(RUN, "1"), ("/proc/1/comm", "x")]).verdict, Verdict::Unknown);
        let oldest = [(RUN, "1"), ("/proc/1/ksm_merging_pages", "5\n")];
        assert_eq!(finding(OPTED_IN, &oldest).verdict, Verdict::Warn);
        // Memory may be offered without an equal page.
        let nothing = [(RUN, "1"), ("/proc/1/ksm_merging_pages", "0\n")];
        assert_eq!(finding(OPTED_IN, &nothing).verdict, Verdict::Unknown);
    }

    #[test]
    fn processes_that_are_out_of_sight_are_not_said_to_offer_nothing() {
        let files = [(RUN, "1"), ("/proc/7/ksm_stat", NO), ("/proc/8/ksm_stat", "")];
        let root = finding(OPTED_IN, &files);
        assert_eq!(
            (root.verdict, root.evidence[0].observed.as_str()),
            (Verdict::Pass, "nothing offered in 1 processes")
        );
        let user = FEATURE.findings(&System::fake(&files).not_root())[OPTED_IN].clone();
        assert_eq!(user.verdict, Verdict::Unknown);
    }
}
