/*!
The report as SARIF: a rule for each text, a result for each finding, waivers as suppressions.
*/
use stockade_assess::Verdict;

use super::report::{Found, Report};
use crate::sarif::{Baseline, Finding, Kind, Level, Location, Log, Rule};

/// The log of one run.
pub fn log(report: &Report) -> Log {
    let findings: Vec<&Found> = report.findings().collect();
    let more = report.want_root().len();
    let unseen: Vec<String> = report
        .lacks
        .iter()
        .filter(|_| more > 0)
        .map(|lacks| format!("everything: there are findings of which root sees more ({more}); {lacks}"))
        .collect();
    let rules = findings.iter().map(|found| rule(found)).collect();
    Log::new(
        rules,
        findings.iter().enumerate().map(|(at, found)| result(report, at, found)).collect(),
        &unseen,
    )
}

fn rule(found: &Found) -> Rule {
    let about = &found.about;
    let help: Vec<String> = about
        .fix
        .each()
        .map(|(whose, fix)| if whose.is_empty() { fix.to_owned() } else { format!("{whose}:\n{fix}") })
        .collect();
    // What a rule's failing comes to is for the check to say; most of them warn or fail.
    Rule::new(found.id(), found.id(), Level::Warning, &about.title, &about.why, help.join("\n"))
        .at(about.links.first().map(String::as_str))
}

fn result(report: &Report, at: usize, found: &Found) -> Finding {
    let finding = &found.finding;
    let (kind, level) = match finding.verdict {
        Verdict::Fail => (Kind::Fail, Level::Error),
        Verdict::Warn => (Kind::Fail, Level::Warning),
        Verdict::Unknown => (Kind::Open, Level::None),
        Verdict::Pass => (Kind::Pass, Level::None),
        Verdict::NotApplicable => (Kind::NotApplicable, Level::None),
    };
    let mut message = format!("{} ({}).", finding.found, finding.how.word());
    for evidence in &finding.evidence {
        message += &format!("\n{}: {}", evidence.source, evidence.observed);
    }
    let file =
        finding.evidence.iter().map(|evidence| evidence.source.as_str()).find(|source| is_path(source));
    let place = file.map_or_else(Location::nowhere, |path| Location::file(path, None));
    let mut result =
        Finding::new((found.id(), at), level, message, place.about(&report.host, "machine")).of(kind);
    if let Some(change) = report.changes.as_ref().and_then(|changes| changes.of(found.id())) {
        result = result.since(if change.was.is_some() { Baseline::Updated } else { Baseline::New });
    }
    match &found.waived {
        Some(waived) => result.waived(&format!("{} (until {})", waived.reason, waived.expires)),
        None => result,
    }
}

/// Evidence is of files, of calls and of what children did.
fn is_path(source: &str) -> bool {
    source.starts_with('/') && !source.contains(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::assess::{compare, example};

    fn results(report: &Report) -> Vec<serde_json::Value> {
        let log = serde_json::to_value(log(report)).unwrap();
        log["runs"][0]["results"].as_array().unwrap().clone()
    }

    #[test]
    fn problems_have_a_level_and_all_else_a_kind() {
        for (result, found) in results(&example::report()).iter().zip(example::report().findings()) {
            let wanted = match found.finding.verdict {
                Verdict::Fail => ("fail", "error"),
                Verdict::Warn => ("fail", "warning"),
                Verdict::Unknown => ("open", "none"),
                Verdict::Pass => ("pass", "none"),
                Verdict::NotApplicable => ("notApplicable", "none"),
            };
            assert_eq!((result["kind"].as_str().unwrap(), result["level"].as_str().unwrap()), wanted);
            assert_eq!(result["suppressions"][0]["kind"] == "external", found.waived.is_some());
        }
    }

    #[test]
    fn with_a_baseline_the_state_is_told() {
        let (mut before, mut after) = (example::report(), example::report());
        before.retain(|found| found.id() != "nx.stack");
        after.findings_mut().filter(|found| found.id() == "nx.cpu").for_each(|found| {
            found.finding.verdict = Verdict::Fail;
        });
        compare::compare(&mut after, &before, |_| true);
        let states: Vec<_> = results(&after).iter().map(|r| r["baselineState"].clone()).collect();
        assert_eq!(states, ["updated", "new"]);
    }
}
