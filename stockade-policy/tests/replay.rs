//! What a policy would have made of a record.

use jiff::Timestamp;
use stockade_policy::{
    Record, Source,
    model::{LevelChoice, Policy},
    read, read_record, replay,
    replay::{Answer, Replay},
    unit,
};
use stockade_reasons::Level;

fn line(reason: &str, exe: &str, cgroup: &str) -> String {
    let or_null = |text: &str| if text.is_empty() { "null".into() } else { format!("{text:?}") };
    format!(
        r#"{{"type":"event","boot_ns":60000000000,"by":"stockade","verdict":"audited","reason":"{reason}","comm":"c","uid":0,"exe":{},"cgroup":{}}}"#,
        or_null(exe),
        or_null(cgroup)
    )
}

fn record(lines: &[String]) -> Record {
    read_record("events", lines.join("\n").as_bytes()).expect("a record")
}

fn policy(level: LevelChoice, text: &str) -> Policy {
    let document = read(&Source::new("p", text)).unwrap_or_else(|p| panic!("{}", p.render(false)));
    let mut policy = Policy::level(level, "p");
    (policy.scopes, policy.exceptions, policy.reasons) =
        (document.scopes, document.exceptions, document.reasons);
    policy
}

fn played(lines: &[String], level: LevelChoice, text: &str) -> Replay {
    let record = record(lines);
    let now = "2026-01-01T00:00:00Z".parse::<Timestamp>().expect("a time");
    replay(&record, &policy(level, text), Level::None, unit::finder(record.cgroups(), unit::usual), now)
}

const EXCEPTION: &str = "[[exception]]\nname = \"tool\"\nreasons = [\"msr\"]\nexe = \"/usr/bin/tool\"\n";

#[test]
fn what_would_be_refused_comes_first_with_who_and_how_often() {
    let replay = played(
        &[
            line("msr", "/usr/bin/tool", "/system.slice/a.service"),
            line("msr", "/usr/bin/other", ""),
            line("msr", "/usr/bin/other", "/system.slice/a.service"),
            line("kcore", "/usr/bin/other", "/system.slice/a.service"),
        ],
        LevelChoice::Integrity,
        &format!("[reasons]\nkcore = \"audit\"\n{EXCEPTION}"),
    );
    assert_eq!(replay.answer(), Answer::Refused);
    let text = replay.text(None);
    assert!(text.starts_with("Would be refused:\n  msr /usr/bin/other: 2 events by the level; when recorded audited, last 1 min 0 s after boot\n"), "{text}");
    assert!(
        text.contains("Let through and reported:\n  kcore /usr/bin/other: 1 event by [reasons]"),
        "{text}"
    );
    assert!(
        text.contains("Let through by an exception:\n  msr /usr/bin/tool: 1 event by \"tool\""),
        "{text}"
    );
    assert!(text.contains("LD_PRELOAD") && text.contains("2 of 4 events would be refused. "), "{text}");
}

#[test]
fn what_the_record_does_not_tell_is_not_guessed() {
    let gone = [line("msr", "", "/system.slice/a.service")];
    let replay = played(&gone, LevelChoice::Integrity, EXCEPTION);
    assert_eq!(replay.answer(), Answer::CannotTell);
    let text = replay.text(None);
    assert!(
        text.contains(
            "msr c, a process that was gone: 1 event cannot be told whether exception \"tool\" fits"
        ),
        "{text}"
    );
    assert_eq!(
        played(&gone, LevelChoice::Integrity, "").answer(),
        Answer::Refused,
        "whatever program it was"
    );
    assert_eq!(played(&gone, LevelChoice::None, EXCEPTION).answer(), Answer::NothingRefused);
    let other = [line("msr", "", "/system.slice/a.service"), line("msr", "/x", "/system.slice/a.service")];
    assert_eq!(played(&other, LevelChoice::Integrity, EXCEPTION).answer(), Answer::Refused);
}

#[test]
fn an_unknown_cgroup_matters_where_scopes_differ() {
    let scope = "[[scope]]\nname = \"pods\"\ncgroup = \"/pods/*\"\nlevel = \"confidentiality\"\n";
    let gone = [line("kcore", "/x", "")];
    assert_eq!(played(&gone, LevelChoice::Integrity, scope).answer(), Answer::CannotTell);
    assert_eq!(played(&gone, LevelChoice::Confidentiality, scope).answer(), Answer::Refused);
    assert_eq!(played(&[line("msr", "/x", "")], LevelChoice::Integrity, scope).answer(), Answer::Refused);
    let by_exe = EXCEPTION.replace("msr", "kcore").replace("/usr/bin/tool", "/x");
    let both = format!("{scope}{by_exe}");
    assert_eq!(played(&gone, LevelChoice::Integrity, &both).answer(), Answer::NothingRefused);
}

#[test]
fn units_are_where_the_record_saw_them() {
    let by_unit = "[[exception]]\nname = \"t\"\nreasons = [\"msr\"]\nunit = \"t.service\"\n";
    for path in ["/odd.slice/t.service/x", "/system.slice/t.service"] {
        let replay = played(&[line("msr", "", path)], LevelChoice::Integrity, by_unit);
        assert_eq!(replay.answer(), Answer::NothingRefused, "{path}");
        assert!(replay.caveats.is_empty());
    }
    assert_eq!(
        played(&[line("msr", "", "/u.service")], LevelChoice::Integrity, by_unit).answer(),
        Answer::Refused
    );
}

#[test]
fn a_containers_program_does_not_pass_as_the_hosts() {
    let cgroup = "/docker/0123456789abcdef0123456789abcdef";
    let replay = played(&[line("msr", "/usr/bin/tool", cgroup)], LevelChoice::Integrity, EXCEPTION);
    assert_eq!(replay.answer(), Answer::Refused);
    assert!(replay.text(None).contains("/usr/bin/tool, no file of the host"), "{}", replay.text(None));
}

#[test]
fn an_exception_that_has_ended_lets_nobody_through() {
    let ended = format!("{EXCEPTION}expires = 2025-01-01T00:00:00Z\n");
    let lines = [line("msr", "/usr/bin/tool", "/system.slice/a.service")];
    assert_eq!(played(&lines, LevelChoice::Integrity, &ended).answer(), Answer::Refused);
}

#[test]
fn a_reason_that_the_table_lacks_hangs_on_its_level() {
    let lines = [line("LOCKDOWN_NEW", "/x", "/a")];
    assert_eq!(played(&lines, LevelChoice::Integrity, "").answer(), Answer::CannotTell);
    assert_eq!(played(&lines, LevelChoice::Confidentiality, "").answer(), Answer::Refused);
    assert_eq!(played(&lines, LevelChoice::None, "").answer(), Answer::NothingRefused);
}

#[test]
fn an_empty_record_refuses_nothing_and_says_so() {
    let replay = played(&[], LevelChoice::Integrity, "");
    assert_eq!(replay.answer(), Answer::NothingRefused);
    assert_eq!(replay.text(None), "The record has no events that a policy decides.\n");
}
