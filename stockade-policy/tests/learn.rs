//! What is learned from a record: that the reader accepts it, that it says what has to be said, and that it is
//! neither too small nor too large.

use jiff::Timestamp;
use proptest::prelude::*;
use stockade_policy::{
    Document, Record, Source, learn,
    learn::{Learned, Options},
    model::{LevelChoice, Policy},
    read, read_record,
    replay::{Decision, decide},
    requester::{Asked, Program, Wanted},
    unit,
};
use stockade_reasons::{Level, Subject};

fn event(rest: &str) -> String {
    format!(r#"{{"type":"event","boot_ns":60000000000,"by":"stockade",{rest}}}"#)
}

fn asked(reason: &str, exe: &str, cgroup: &str) -> String {
    let or_null = |text: &str| if text.is_empty() { "null".into() } else { format!("{text:?}") };
    event(&format!(
        r#""verdict":"audited","reason":"{reason}","comm":"c","uid":0,"exe":{},"cgroup":{}"#,
        or_null(exe),
        or_null(cgroup)
    ))
}

fn record(lines: &[String]) -> Record {
    read_record("events", lines.join("\n").as_bytes()).expect("a record")
}

fn options() -> Options<'static> {
    Options { base: None, auto: Level::None, now: Timestamp::UNIX_EPOCH, booted: None, with_uid: false }
}

fn learned(lines: &[String]) -> Learned {
    learn(&record(lines), &options())
}

/// The learned file, read back.
#[track_caller]
fn read_back(learned: &Learned) -> Document {
    let text = learned.toml();
    read(&Source::new("learned.toml", text.clone()))
        .unwrap_or_else(|problems| panic!("{}\n{text}", problems.render(false)))
}

/// Subjects and reasons, one line each.
fn lines(learned: &Learned) -> Vec<String> {
    let document = read_back(learned);
    let line = |e: &stockade_policy::model::Exception| {
        let reasons: Vec<_> = e.reasons.iter().map(|said| said.value.as_str()).collect();
        let exe = e.exe.as_ref().map(|exe| format!(" exe {}", exe.value.display())).unwrap_or_default();
        let place = e.place.as_ref().map(|place| format!(" in {}", place.value)).unwrap_or_default();
        let uid = e.uid.as_ref().map(|uid| format!(" uid {}", uid.value)).unwrap_or_default();
        format!("{}: {}{exe}{place}{uid}", e.name.value, reasons.join(","))
    };
    document.exceptions.iter().map(line).collect()
}

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[test]
fn a_program_is_excepted_by_its_path_wherever_it_ran() {
    let learned = learned(&[
        asked("msr", "/usr/sbin/wrmsr", "/system.slice/tune.service"),
        asked("dev-mem", "/usr/sbin/wrmsr", "/user.slice/user-0.slice/session-3.scope"),
        asked("msr", "/usr/sbin/wrmsr", ""),
    ]);
    assert_eq!(lines(&learned), ["wrmsr: dev-mem,msr exe /usr/sbin/wrmsr"]);
    let text = learned.toml();
    assert!(
        text.contains("3 events: first 1 min 0 s after boot") && text.contains("By reason: dev-mem 1, msr 2")
    );
    assert!(text.contains("dev-mem gives it everything that the level refuses"), "{text}");
    assert!(!text.contains("unit ="), "it came from two places");
}

#[test]
fn one_unit_is_offered_to_make_it_smaller() {
    let learned = learned(&[asked("msr", "/usr/sbin/wrmsr", "/system.slice/tune.service/worker")]);
    assert!(learned.toml().contains("\n# unit = \"tune.service\"\n"), "{}", learned.toml());
    let uncommented = learned.toml().replace("\n# unit", "\nunit");
    let document = read(&Source::new("learned.toml", uncommented)).unwrap();
    assert_eq!(document.exceptions[0].place.as_ref().unwrap().value.to_string(), "tune.service");
}

#[test]
fn a_program_that_was_gone_is_excepted_by_its_unit() {
    let learned = learned(&[
        asked("msr", "", "/system.slice/tune.service/worker"),
        asked("perf", "", "/user.slice/user-1000.slice/user@1000.service/app.slice/profile.service"),
        asked("kcore", "", "/user.slice/user-1000.slice/session-3.scope"),
    ]);
    assert_eq!(
        lines(&learned),
        [
            "tune: msr in tune.service",
            "session-3-scope: kcore in session-3.scope",
            "profile: perf in /user.slice/user-1000.slice/user@1000.service/app.slice/profile.service",
        ]
    );
    let text = learned.toml();
    assert!(text.contains("\n# What asked called itself c\n"), "{text}");
    assert!(text.replace("\n#   ", " ").contains("session-3.scope will not come again"), "{text}");
    assert!(text.replace("\n#   ", " ").contains("every program in tune.service"), "{text}");
}

#[test]
fn an_interpreter_is_excepted_in_its_unit_and_named_as_one() {
    let learned = learned(&[
        asked("msr", "/usr/bin/python3.13", "/system.slice/tune.service"),
        asked("msr", "/usr/bin/python3.13", "/system.slice/other.service"),
        asked("perf", "/usr/bin/bash", "/user.slice/user-0.slice/session-3.scope"),
    ]);
    assert_eq!(
        lines(&learned),
        [
            "bash: perf exe /usr/bin/bash",
            "python3-13: msr exe /usr/bin/python3.13 in other.service",
            "python3-13-2: msr exe /usr/bin/python3.13 in tune.service",
        ]
    );
    assert!(learned.toml().replace("\n#   ", " ").contains("the exception is for every script and program"));
}

#[test]
fn a_containers_program_is_no_file_of_the_host() {
    let scope = format!("/system.slice/docker-{ID}.scope");
    let learned = learned(&[asked("msr", "/usr/bin/tool", &format!("{scope}/x"))]);
    assert_eq!(lines(&learned), [format!("docker-{ID}-scope: msr in {scope}")]);
    assert!(
        learned.toml().replace("\n#   ", " ").contains("a [[scope]] for the cgroup"),
        "{}",
        learned.toml()
    );
}

#[test]
fn what_another_exception_covers_is_left_out() {
    let learned = learned(&[
        asked("msr", "/usr/sbin/wrmsr", "/system.slice/tune.service"),
        asked("msr", "", "/system.slice/tune.service"),
        asked("dev-mem", "/usr/sbin/wrmsr", "/system.slice/tune.service"),
    ]);
    assert_eq!(lines(&learned), ["tune: msr in tune.service", "wrmsr: dev-mem exe /usr/sbin/wrmsr"]);
    let events: u64 = learned.exceptions.iter().map(|e| e.tally.events).sum();
    assert_eq!(events, 3, "each event is told once");
}

#[test]
fn who_cannot_be_told_is_no_subject() {
    let learned = learned(&[
        asked("xfrm-secret", "/usr/sbin/ip", "/system.slice/a.service"),
        asked("LOCKDOWN_NEW", "/usr/sbin/new", "/system.slice/a.service"),
        asked("msr", "", ""),
        asked("msr", "/memfd:x (deleted)", "/"),
    ]);
    let text = learned.toml();
    assert!(read_back(&learned).exceptions.is_empty() && read_back(&learned).reasons.is_empty());
    assert!(text.contains("\n# [reasons]\n# xfrm-secret = \"allow\"\n"), "{text}");
    assert!(text.replace("\n# ", " ").contains("Listings are produced in pieces"), "the table's words");
    let why: Vec<_> = learned.nobody.iter().map(|unnamed| unnamed.why.as_str()).collect();
    assert_eq!(why.len(), 3);
    assert!(why[0].contains("unknown-reasons") && text.contains("There is no exception to make."), "{why:?}");
    let uncommented = text.replace("# [reasons]\n# xfrm", "[reasons]\nxfrm");
    assert_eq!(read(&Source::new("f", uncommented)).unwrap().reasons.len(), 1);
}

#[test]
fn users_are_named_when_asked_for() {
    let lines_of = |with_uid| {
        let record = record(&[
            asked("msr", "/a", "").replace("\"uid\":0", "\"uid\":7"),
            asked("msr", "/a", ""),
            asked("msr", "/a", "").replace("audited", "refused"),
            asked("perf", "/a", "").replace("audited", "excepted"),
        ]);
        lines(&learn(&record, &Options { with_uid, ..options() }))
    };
    assert_eq!(lines_of(false), ["a: msr exe /a"]);
    assert_eq!(lines_of(true), ["a: msr exe /a uid 0", "a-2: msr exe /a uid 7"]);
}

#[test]
fn what_the_policy_lets_through_is_left_out_and_its_names_stay_its_own() {
    let text =
        "level = \"integrity\"\n[[exception]]\nname = \"a\"\nreasons = [\"msr\"]\nunit = \"t.service\"\n";
    let document = read(&Source::new("p", text)).unwrap();
    let mut policy = Policy::level(LevelChoice::Integrity, "p");
    policy.exceptions = document.exceptions;
    let record = record(&[
        asked("msr", "/b", "/odd.slice/t.service"),
        asked("kcore", "/b", ""),
        asked("msr", "/a", "/system.slice/x.service"),
    ]);
    let learned = learn(&record, &Options { base: Some(&policy), ..options() });
    assert_eq!(lines(&learned), ["a-2: msr exe /a"]);
    assert_eq!(learned.passed_already, 2, "integrity does not refuse kcore");
}

#[test]
fn no_name_becomes_a_sentence_of_the_policy() {
    let evil = "x\\n[reasons]\\nmsr = \\\"allow\\\"\\u2028y\\u001b";
    let lines = [
        event(&format!(
            r#""verdict":"audited","reason":"msr","comm":"{evil}","uid":0,"exe":"/{evil}","cgroup":"/{evil}""#
        )),
        event(&format!(r#""verdict":"audited","reason":"{evil}","comm":"{evil}","uid":0"#)),
        event(&format!(
            r#""verdict":"audited","reason":"msr","comm":"{evil}","uid":0,"exe":"/a","cgroup":"/{evil}""#
        )),
        event(&format!(
            r#""verdict":"audited","reason":"msr","comm":"{evil}","uid":0,"exe":null,"cgroup":"/{evil}""#
        )),
    ];
    let learned = learned(&lines);
    let document = read_back(&learned);
    assert_eq!((document.reasons.len(), document.exceptions.len()), (0, 1));
    assert!(!learned.toml().contains('\u{1b}') && !learned.toml().contains('\u{2028}'));
}

#[test]
fn the_wall_clock_is_told_where_it_is_known_and_what_is_missing_always() {
    let mut lines = vec![asked("msr", "/a (deleted)", "")];
    lines.push(r#"{"type":"lost","events":9}"#.into());
    let booted = Some("2026-05-01T10:00:00Z".parse().unwrap());
    let learned = learn(&record(&lines), &Options { booted, ..options() });
    let text = learned.toml();
    assert!(
        text.contains("1 event: 2026-05-01T10:01:00Z") && text.contains("9 events are missing"),
        "{text}"
    );
    assert!(text.contains("exe = \"/a\"") && text.contains("replaced or deleted while it ran"), "{text}");
}

const EXES: &[&str] =
    &["", "/usr/bin/a", "/usr/bin/b", "/usr/bin/python3", "/opt/it's \"c\"", "/memfd:d", "/e?"];
const CGROUPS: &[&str] = &[
    "",
    "/",
    "/system.slice",
    "/system.slice/a.service",
    "/system.slice/a.service/b.service",
    "/odd.slice/a.service",
    "/user.slice/user-1.slice/session-1.scope",
    "/user.slice/user-1.slice/user@1.service/app.slice/a.service/x",
    "/system.slice/system-serial\\x2dgetty.slice/serial-getty@ttyS0.service",
    "/kubepods/pod1/0123456789abcdef0123456789abcdef",
    "/batch",
    "/batch/job",
    "/bad*/job",
];

fn any_record() -> impl Strategy<Value = Record> {
    let any = |list: &'static [&'static str]| prop::sample::select(list);
    let reasons: Vec<&str> =
        stockade_reasons::all().iter().map(|reason| reason.id).chain(["LOCKDOWN_X"]).collect();
    let verdict = any(&["audited", "refused", "excepted"]);
    let line = (prop::sample::select(reasons), any(EXES), any(CGROUPS), verdict, 0..3_u32).prop_map(
        |(reason, exe, cgroup, verdict, uid)| {
            asked(reason, exe, cgroup)
                .replace("\"uid\":0", &format!("\"uid\":{uid}"))
                .replace("\"audited\"", &format!("{verdict:?}"))
        },
    );
    prop::collection::vec(line, 0..40).prop_map(|lines| record(&lines))
}

fn base(level: u8) -> Policy {
    let text = "[[exception]]\nname = \"a\"\nreasons = [\"msr\", \"perf\"]\nexe = \"/usr/bin/a\"\n";
    let levels = [LevelChoice::None, LevelChoice::Integrity, LevelChoice::Confidentiality];
    let mut policy = Policy::level(levels[usize::from(level)], "base");
    policy.exceptions = read(&Source::new("base", text)).expect("a policy").exceptions;
    policy
}

/// The events that matter and can be excepted, and whether all of them pass.
fn all_pass(record: &Record, policy: &Policy) -> bool {
    let policy = policy.clone().with_units(unit::finder(record.cgroups(), unit::usual));
    let events = record.events.iter().filter(|event| ["audited", "refused"].contains(&word(event.verdict)));
    events
        .map(Asked::of)
        .filter(can_be_excepted)
        .all(|asked| decide(&policy, Level::None, &asked, Timestamp::UNIX_EPOCH).passes())
}

fn word(outcome: stockade_policy::recorded::Outcome) -> &'static str {
    use stockade_policy::recorded::Outcome::{Audited, Excepted, Refused, Unknown};
    match outcome {
        Audited => "audited",
        Refused => "refused",
        Excepted => "excepted",
        Unknown => "",
    }
}

/// Said independently of what learn does.
fn can_be_excepted(asked: &Asked) -> bool {
    let reason = matches!(&asked.reason, Wanted::Known(id)
        if stockade_reasons::by_id(id).expect("in the table").subject == Subject::Trustworthy);
    let exe = matches!(&asked.exe, Program::Path(path) if path != "/e?");
    let place = asked.cgroup.as_deref().is_some_and(|path| path != "/" && path != "/bad*/job");
    reason && (exe || place)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_learned_is_enough_and_no_reason_too_much(
        record in any_record(), with_uid: bool, given in prop::option::of(0..3_u8),
    ) {
        let given = given.map(base);
        let learned = learn(&record, &Options { base: given.as_ref(), with_uid, ..options() });
        let document = read_back(&learned);
        let mut policy = given.unwrap_or_else(|| Policy::level(LevelChoice::Confidentiality, "base"));
        let before = policy.exceptions.len();
        policy.exceptions.extend(document.exceptions);
        prop_assert!(all_pass(&record, &policy), "{}", learned.toml());
        for at in before..policy.exceptions.len() {
            for reason in 0..policy.exceptions[at].reasons.len() {
                let mut less = policy.clone();
                let removed = less.exceptions[at].reasons.remove(reason);
                prop_assert!(!all_pass(&record, &less), "{} of {}\n{}", removed.value, at, learned.toml());
            }
        }
        let told: u64 = learned.exceptions.iter().map(|e| &e.tally)
            .chain(learned.everybody.iter().map(|e| &e.tally))
            .chain(learned.nobody.iter().map(|e| &e.tally))
            .map(|tally| tally.events).sum();
        prop_assert_eq!(told + learned.passed_already, learned.events);
    }

    #[test]
    fn what_cannot_be_told_hangs_on_what_is_not_known(record in any_record(), level in 0..3_u8) {
        let policy = base(level);
        for event in &record.events {
            let asked = Asked::of(event);
            let decided = decide(&policy, Level::None, &asked, Timestamp::UNIX_EPOCH);
            let Program::Gone(_) = asked.exe else { continue };
            // Whatever the program was, what was told holds.
            for exe in ["/usr/bin/a", "/usr/bin/b"] {
                let known = Asked { exe: Program::Path(exe.into()), ..asked.clone() };
                let of_known = decide(&policy, Level::None, &known, Timestamp::UNIX_EPOCH);
                if !matches!(decided, Decision::CannotTell(_)) {
                    prop_assert_eq!(&decided, &of_known);
                }
            }
        }
    }
}
