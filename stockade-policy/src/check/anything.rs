/*!
Policies that nobody would write: whatever can be read can be argued about, in time, and the same way twice.
*/
use std::time::{Duration, Instant};

use proptest::{collection::vec, option, prelude::*, sample::select};

use super::{
    Report, check,
    scene::{found, machine, policy},
};

const REASONS: &[&str] = &["msr", "dev-mem", "perf", "kcore", "efi-test", "bpf-write-user", "tiocsserial"];
const PLACES: &[&str] = &[
    "cgroup = \"/\"",
    "cgroup = \"/a\"",
    "cgroup = \"/a/web-1.service\"",
    "cgroup = \"/a/web-*\"",
    "cgroup = \"/a/*-1.service\"",
    "cgroup = \"/a/web-1.service/web-*\"",
    "unit = \"web-1.service\"",
    "unit = \"a.slice\"",
    "unit = \"a-b.slice\"",
];
const EXES: &[&str] = &[
    "/usr/bin/python3.13",
    "/opt/vendor/bin/tool",
    "/usr/libexec/fwupd/fwupd",
    "/gone",
    "/usr",
    "/tmp/of-user",
];
const VERDICTS: &[&str] = &["allow", "audit", "deny"];
const LEVELS: &[&str] = &["none", "integrity", "confidentiality", "auto"];
const MODES: &[&str] = &["enforce", "audit"];

fn reasons() -> impl Strategy<Value = String> {
    vec((select(REASONS), select(VERDICTS)), 0..3).prop_map(|said| {
        let mut said = said;
        said.sort_unstable();
        said.dedup_by_key(|(reason, _)| *reason);
        let said: Vec<_> = said.iter().map(|(reason, verdict)| format!("{reason} = \"{verdict}\"")).collect();
        format!("reasons = {{ {} }}\n", said.join(", "))
    })
}

fn line(key: &'static str, values: &'static [&'static str]) -> impl Strategy<Value = String> {
    option::of(select(values))
        .prop_map(move |value| value.map_or(String::new(), |value| format!("{key} = \"{value}\"\n")))
}

fn top() -> impl Strategy<Value = String> {
    let unknown = line("unknown-reasons", &["level", "allow", "audit", "deny"]);
    (line("level", LEVELS), line("mode", MODES), unknown, reasons()).prop_map(|(a, b, c, d)| a + &b + &c + &d)
}

fn scope() -> impl Strategy<Value = String> {
    (select(PLACES), line("level", LEVELS), line("mode", MODES), reasons(), any::<bool>()).prop_map(
        |(place, level, mode, reasons, loosen)| format!("{place}\n{level}{mode}{reasons}loosen = {loosen}\n"),
    )
}

fn exception() -> impl Strategy<Value = String> {
    let expires =
        option::of(select(&["2020-01-01T00:00:00Z", "2026-11-03T00:00:00Z", "2099-01-01T00:00:00Z"][..]));
    let subject = (option::of(select(EXES)), option::of(select(PLACES)), any::<bool>());
    (select(REASONS), subject, option::of(0..9_u32), expires).prop_map(
        |(reason, (exe, place, inherit), uid, expires)| {
            let mut text = format!("reasons = [\"{reason}\"]\n");
            let exe = exe.or(place.is_none().then_some("/usr/bin/perf"));
            if let Some(exe) = exe {
                text.push_str(&format!("exe = \"{exe}\"\ninherit = {inherit}\n"));
            }
            text.push_str(&place.map_or(String::new(), |place| format!("{place}\n")));
            text.push_str(&uid.map_or(String::new(), |uid| format!("uid = {uid}\n")));
            text.push_str(&expires.map_or(String::new(), |expires| format!("expires = {expires}\n")));
            text
        },
    )
}

fn anything() -> impl Strategy<Value = String> {
    (top(), vec(scope(), 0..5), vec(exception(), 0..5)).prop_map(|(mut text, mut scopes, exceptions)| {
        // One scope for each place, as reading demands.
        scopes.sort_unstable();
        scopes.dedup_by(|a, b| a.lines().next() == b.lines().next());
        for (n, scope) in scopes.iter().enumerate() {
            text.push_str(&format!("[[scope]]\nname = \"s{n}\"\n{scope}"));
        }
        for (n, exception) in exceptions.iter().enumerate() {
            text.push_str(&format!("[[exception]]\nname = \"e{n}\"\n{exception}"));
        }
        text
    })
}

fn told(report: &Report) -> Vec<String> {
    report
        .findings
        .iter()
        .map(|f| format!("{} {} {} {}", f.code.id, f.severity, f.origin, f.message))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_can_be_read_can_be_argued_about(text in anything()) {
        let report = found(&text);
        for finding in &report.findings {
            prop_assert!(finding.severity <= finding.code.severity, "{}", finding.code.id);
            prop_assert!(!finding.message.is_empty() && !finding.why.is_empty() && !finding.remedy.is_empty());
            prop_assert!(!finding.message.contains('\n') && !finding.label.contains('\n'));
        }
        prop_assert_eq!(told(&report), told(&found(&text)));
        let mut accepted = policy(&text);
        accepted.accepted = super::codes().iter().map(|code| crate::model::Accepted {
            code: crate::model::Said::at(code.id.into(), "test"),
            about: None,
            why: crate::model::Said::at("all of it".into(), "test"),
        }).collect();
        let left = check(&accepted, &machine());
        prop_assert_eq!(left.accepted(), report.findings.len());
    }
}

#[test]
fn a_large_policy_is_argued_about_in_time() {
    let mut text = String::from("level = \"confidentiality\"\n");
    for n in 0..1000 {
        let loosen = if n % 7 == 0 { "loosen = true\nlevel = \"none\"\n" } else { "" };
        text.push_str(&format!(
            "[[scope]]\nname = \"s{n}\"\ncgroup = \"/a{}/b{n}\"\nreasons = {{ perf = \"audit\" }}\n{loosen}",
            n % 10
        ));
    }
    for n in 0..10_000 {
        text.push_str(&format!("[[exception]]\nname = \"e{n}\"\nreasons = [\"bpf-write-user\", \"msr\"]\nexe = \"/usr/bin/tool-{n}\"\n"));
    }
    let policy = policy(&text);
    let start = Instant::now();
    let report = check(&policy, &machine());
    assert!(report.findings.len() > 30_000, "{}", report.findings.len());
    // Three seconds unoptimised, more where others work too; what is quadratic takes many minutes.
    assert!(start.elapsed() < Duration::from_mins(2), "{:?}", start.elapsed());
}
