/*!
The report as JUnit's XML: a suite for each feature, a case for each finding. A case fails when it makes the exit status 1.
*/
use std::fmt::Write;

use anyhow::{Context, Result};
use quick_junit::{NonSuccessKind, Report as Document, TestCase, TestCaseStatus, TestSuite};
use stockade_assess::Verdict;

use super::report::{Found, Report, State};

/// The document. `counts` says whether a finding decides.
pub fn document(report: &Report, counts: impl Fn(&Found) -> bool) -> Result<String> {
    let mut document = Document::new("stockade assess");
    for feature in &report.features {
        let mut suite = TestSuite::new(&feature.id);
        for found in &feature.findings {
            let mut case = TestCase::new(found.id(), status(found, counts(found)));
            case.set_classname(format!("stockade.{}", feature.id)).set_system_out(said(found));
            suite.add_test_case(case);
        }
        document.add_test_suite(suite);
    }
    let text = document.to_string().context("write the report as XML")?;
    // Two characters that XML has not and the writer lets through; control characters it leaves out itself.
    Ok(text.replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}"))
}

fn status(found: &Found, counts: bool) -> TestCaseStatus {
    let words = found.finding.found.as_str();
    if counts {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
        status.set_type(found.finding.verdict.word()).set_message(words).set_description(todo(found));
        return status;
    }
    let why = match found.state() {
        State::Waived => {
            let waived = found.waived.as_ref();
            let reason = waived.map(|waived| format!(" until {}: {}", waived.expires, waived.reason));
            format!("waived{}", reason.unwrap_or_default())
        }
        State::Is(Verdict::Unknown) => format!("unknown: {words}"),
        State::Is(Verdict::NotApplicable) => format!("not applicable: {words}"),
        State::Is(Verdict::Pass | Verdict::Warn | Verdict::Fail) => return TestCaseStatus::success(),
    };
    let mut status = TestCaseStatus::skipped();
    status.set_message(why);
    status
}

fn said(found: &Found) -> String {
    let finding = &found.finding;
    let mut out = format!("{}: {} ({})\n", finding.verdict, finding.found, finding.how.word());
    for evidence in &finding.evidence {
        let _ = writeln!(out, "{}: {}", evidence.source, evidence.observed);
    }
    out
}

fn todo(found: &Found) -> String {
    let mut out = format!("{}\n", found.about.why);
    for (whose, fix) in found.about.fix.each() {
        let _ = write!(out, "\n{whose}{}{fix}\n", if whose.is_empty() { "" } else { ":\n" });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        commands::assess::{self, example},
        flags::FailOn,
    };

    #[test]
    fn what_decides_fails_and_what_is_not_known_is_skipped() {
        let report = example::report();
        let counts = report.counts;
        for (fail_on, failures) in [
            (FailOn::Never, 0),
            (FailOn::Fail, counts.fail),
            (FailOn::Warn, counts.fail + counts.warn),
            (FailOn::Unknown, counts.fail + counts.warn + counts.unknown),
        ] {
            let xml = document(&report, |found| assess::counts(&report, found, fail_on)).unwrap();
            assert_eq!(xml.matches("<failure ").count(), failures, "{fail_on:?}");
            let unknown = if fail_on == FailOn::Unknown { 0 } else { counts.unknown };
            assert_eq!(xml.matches("<skipped ").count(), unknown + counts.not_applicable + counts.waived);
        }
    }

    #[test]
    fn what_a_process_chose_is_only_text() {
        let mut report = example::report();
        for found in report.findings_mut() {
            found.finding.found = "]]></failure><x a=\"\u{1}\u{0}\u{fffe}\">&".into();
            found.about.why = "\u{ffff}".into();
        }
        let xml = document(&report, |_| true).unwrap();
        assert!(!xml.contains("<x a") && !xml.contains(['\u{0}', '\u{1}', '\u{fffe}', '\u{ffff}']), "{xml}");
        assert!(xml.contains("&lt;x a=&quot;"));
    }
}
