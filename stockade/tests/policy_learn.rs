//! `stockade policy learn` and `policy test`, run as an administrator would.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};

fn stockade(folder: &Path, args: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_stockade"))
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}

fn event(reason: &str, exe: &str) -> String {
    format!(
        r#"{{"type":"event","boot_ns":60000000000,"verdict":"audited","by":"stockade","reason":"{reason}","kernel_string":"","comm":"c","pid":1,"tgid":1,"uid":0,"exe_inode":1,"exe_device":"8:1","exe":{exe},"cgroup_id":40,"cgroup":"/system.slice/tune.service"}}"#
    )
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("not killed")
}

#[test]
fn from_an_audit_period_to_a_policy_that_breaks_nothing() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let run = |args: &[&str]| stockade(folder.path(), args, "");
    let write =
        |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("it can be written");
    write("policy.toml", "level = \"integrity\"\nmode = \"audit\"\n");
    let events = [event("msr", "\"/usr/sbin/tuner\""), event("kcore", "null"), event("dev-mem", "null")];
    write("events", &events.join("\n"));
    let question = ["policy", "test", "--events", "events", "--enforce", "--policy", "policy.toml"];
    let before = run(&question);
    let text = String::from_utf8_lossy(&before.stdout).into_owned();
    assert_eq!(code(&before), 1, "{text}");
    assert!(
        text.contains("msr /usr/sbin/tuner: 1 event by the level") && text.contains("2 of 3 events"),
        "{text}"
    );

    let learned = run(&["policy", "learn", "--events", "events", "--policy", "policy.toml"]);
    assert_eq!(code(&learned), 0, "{}", String::from_utf8_lossy(&learned.stderr));
    write("learned.toml", &String::from_utf8_lossy(&learned.stdout));
    let after = run(&[&question[..], &["--policy", "learned.toml"]].concat());
    let text = String::from_utf8_lossy(&after.stdout);
    assert_eq!(code(&after), 0, "{text}");
    assert!(text.contains("by \"tuner\"") && text.contains("None of 3 events would be refused."), "{text}");
}

#[test]
fn what_cannot_be_told_is_its_own_answer() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let policy = "level = \"integrity\"\n[[exception]]\nname = \"t\"\nreasons = [\"msr\"]\nexe = \"/usr/sbin/tuner\"\n";
    fs::write(folder.path().join("p"), policy).expect("it can be written");
    let args = ["--json", "policy", "test", "--events", "-", "--policy", "p"];
    let output = stockade(folder.path(), &args, &event("msr", "null"));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((code(&output), &report["answer"]), (2, &"cannot-tell".into()));
    assert_eq!(report["groups"][0]["recorded"]["audited"], 1);
}

#[test]
fn times_are_told_by_the_wall_clock_and_a_broken_record_by_its_line() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let args =
        ["--json", "policy", "learn", "--events", "-", "--booted", "2026-05-01T10:00:00Z", "--with-uid"];
    let output = stockade(folder.path(), &args, &event("msr", "\"/usr/sbin/tuner\""));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let exception = &report["exceptions"][0];
    assert_eq!(exception["seen"]["first"], "2026-05-01T10:01:00Z");
    assert_eq!((&exception["exe"], &exception["uid"]), (&"/usr/sbin/tuner".into(), &0.into()));

    let broken = stockade(folder.path(), &["policy", "learn", "--events", "-"], "nonsense\n");
    assert_eq!(code(&broken), 2);
    let said = String::from_utf8_lossy(&broken.stderr);
    assert!(said.contains("standard input:1: this is not a line of `stockade watch --json`"), "{said}");
    let missing = stockade(folder.path(), &["policy", "test", "--events", "gone", "--root", "/"], "");
    assert_eq!(code(&missing), 2);
}
