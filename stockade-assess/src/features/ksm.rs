/*!
KSM, which merges equal pages of different processes: whoever shares a page can tell by the time a write takes, and flip its bits.
*/
use crate::{Feature, Finding, How, Report, System, Verdict};

pub(super) const FEATURE: Feature = Feature { id: "ksm", title: "KSM (page merging)", ..Feature::new(check) };

const RUN: &str = "/sys/kernel/mm/ksm/run";

fn check(system: &System, report: &mut Report) {
    running(system, report);
}

fn running(system: &System, report: &mut Report) {
    const ID: &str = "ksm.running";
    let finding = match system.number(RUN) {
        Ok(1) => Finding::new(ID, Verdict::Warn, How::Read, "pages are merged").seen(RUN, "1"),
        Ok(n) => Finding::new(ID, Verdict::Pass, How::Read, "no pages are merged").seen(RUN, n.to_string()),
        Err(unread) if unread.is_missing() && system.exists("/sys/kernel/mm") => {
            Finding::not_applicable(ID, How::Read, "this kernel has no KSM").seen(RUN, "not there")
        }
        Err(unread) => Finding::unknown(ID, How::Read, unread),
    };
    report.add(finding);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_is_warned_about() {
        let verdict = |files| FEATURE.findings(&System::fake(files))["ksm.running"].verdict;
        assert_eq!(verdict(&[(RUN, "1\n")]), Verdict::Warn);
        assert_eq!(verdict(&[(RUN, "0\n")]), Verdict::Pass);
        assert_eq!(verdict(&[("/sys/kernel/mm/", "")]), Verdict::NotApplicable);
        assert_eq!(verdict(&[]), Verdict::Unknown);
        assert_eq!(verdict(&[(RUN, "yes\n")]), Verdict::Unknown);
    }
}
