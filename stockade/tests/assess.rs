//! `stockade assess` as it is typed: what it prints of an assessment in a file, and what it says of bad input.

use std::{
    fs,
    io::Read,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/assessment.json");

fn stockade(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_stockade")).args(args).output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// What is printed of the example, and the exit status.
fn shown(more: &[&str]) -> (i32, String) {
    let mut args = vec!["assess", "--from", EXAMPLE];
    args.extend(more);
    let output = stockade(&args);
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    (output.status.code().expect("not killed"), text(&output.stdout))
}

/// What is said of something that cannot be asked.
fn refused(args: &[&str]) -> String {
    let output = stockade(args);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output.stdout));
    assert!(output.stdout.is_empty(), "{args:?}");
    text(&output.stderr)
}

fn file(folder: &Path, name: &str, content: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, content).expect("it can be written");
    path.to_str().expect("scratch folders have plain names").to_owned()
}

fn waiver(finding: &str, expires: &str) -> String {
    format!("[[waiver]]\nfinding = \"{finding}\"\nreason = \"one owner\"\nexpires = {expires}\n")
}

/// The example with other verdicts.
fn changed(edits: &[(&str, &str)]) -> String {
    let mut value: Value =
        serde_json::from_str(&fs::read_to_string(EXAMPLE).expect("it is there")).expect("JSON");
    for feature in value["features"].as_array_mut().expect("a list") {
        for finding in feature["findings"].as_array_mut().expect("a list") {
            for (id, verdict) in edits {
                if finding["id"] == *id {
                    finding["verdict"] = json!(verdict);
                }
            }
        }
    }
    value.to_string()
}

#[test]
fn the_exit_status_says_whether_what_was_asked_for_fails() {
    for (args, status) in [
        (&[][..], 1),
        (&["--fail-on", "never"], 0),
        (&["ksm"], 0),
        (&["ksm", "--fail-on", "warn"], 1),
        (&["--fail-on", "unknown", "ksm.running"], 1),
    ] {
        assert_eq!(shown(args).0, status, "{args:?}");
    }
}

#[test]
fn single_features_and_findings_are_shown_alone() {
    let (_, out) = shown(&["ksm.running"]);
    assert!(out.starts_with("0 fail, 1 warn, 0 pass\n"), "{out}");
    assert!(!out.contains("lockdown.level"));
    let folder = tempfile::tempdir().expect("a scratch folder");
    let alone = file(folder.path(), "ksm.json", &shown(&["ksm", "--json"]).1);
    let said = refused(&["assess", "--from", &alone, "lockdown", "ksm"]);
    assert!(said.contains("ksm.json has nothing of: lockdown\n"), "{said}");
}

#[test]
fn this_machine_is_assessed() {
    let output = stockade(&["assess", "--quick", "--json", "ksm", "--fail-on", "never"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["form"], 1);
    assert_eq!(report["measured"], false);
    let ids: Vec<_> = report["features"][0]["findings"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|f| f["id"].clone())
        .collect();
    assert!(ids.contains(&json!("ksm.running")), "{ids:?}");
}

#[test]
fn no_colour_where_there_is_no_terminal() {
    assert!(!shown(&["--details"]).1.contains('\u{1b}'));
}

#[test]
fn a_waived_finding_does_not_count() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let config = file(folder.path(), "assess.toml", &waiver("ksm.running", "9999-12-31"));
    let (status, out) = shown(&["ksm.running", "--fail-on", "warn", "--config", &config]);
    assert_eq!(status, 0, "{out}");
    assert!(
        out.contains("warn     ksm.running") && out.contains("(waived until 9999-12-31: one owner)"),
        "{out}"
    );
    let config = file(folder.path(), "assess.toml", &waiver("ksm.running", "2020-01-01"));
    let (status, out) = shown(&["ksm.running", "--fail-on", "warn", "--config", &config]);
    assert_eq!(status, 1);
    assert!(out.contains("The waiver of ksm.running expired on 2020-01-01 ("), "{out}");
    assert!(out.contains("assess.toml:2)."), "{out}");
}

#[test]
fn the_examples_of_waivers_are_right() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let guide = include_str!("../../docs/assess.md");
    let guide =
        guide.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    for example in [guide, include_str!("../../packaging/assess/assess.toml")] {
        let config = file(folder.path(), "assess.toml", &example.replace("2027-01-31", "9999-12-31"));
        assert_eq!(shown(&["ksm.running", "--fail-on", "warn", "--config", &config]).0, 0, "{example}");
    }
}

#[test]
fn broken_waivers_are_told_with_their_lines() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let config =
        file(folder.path(), "assess.toml", "[[waiver]]\nfinding = \"ksm.runing\"\nexpires = 2027-01-31\n");
    let args = ["assess", "--from", EXAMPLE, "--config", &config];
    let said = refused(&args);
    for part in [
        "there is no finding \"ksm.runing\"",
        "assess.toml:2:11",
        "did you mean \"ksm.running\"?",
        "a waiver needs `reason`",
        "there are 2 mistakes; nothing was done",
    ] {
        assert!(said.contains(part), "{part} is not in:\n{said}");
    }
    let output = stockade(&[&args[..], &["--json"]].concat());
    let failure: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(failure["problems"].as_array().map(Vec::len), Some(2), "{failure}");
    assert!(
        refused(&["assess", "--from", EXAMPLE, "--config", "/nowhere/x.toml"])
            .contains("/nowhere/x.toml: No such")
    );
    let binary = folder.path().join("binary.toml");
    fs::write(&binary, [0xff, 0xfe]).expect("it can be written");
    let said = refused(&["assess", "--from", EXAMPLE, "--config", binary.to_str().expect("plain")]);
    assert!(said.contains("this is not UTF-8"), "{said}");
}

#[test]
fn unknown_names_have_a_near_one() {
    for (name, part) in [
        ("ksmm", "did you mean ksm?"),
        ("ksm.runing", "did you mean ksm.running?"),
        ("nothing-like-it", "the features are: "),
    ] {
        let said = refused(&["assess", name]);
        assert!(said.contains("there is no feature or finding") && said.contains(part), "{said}");
    }
}

#[test]
fn with_a_baseline_only_what_changed_is_told_and_only_what_got_worse_counts() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let same = shown(&["--baseline", EXAMPLE]);
    assert_eq!(same.0, 0, "what failed before fails still");
    assert!(same.1.contains("Nothing changed since 2026-06-01T09:30:00Z."), "{}", same.1);
    let before =
        file(folder.path(), "before.json", &changed(&[("lockdown.level", "pass"), ("nx.stack", "fail")]));
    let (status, out) = shown(&["--baseline", &before]);
    assert_eq!(status, 1);
    assert!(out.contains("1 worse, 1 better since"), "{out}");
    assert!(out.contains("[worse: pass → fail]") && out.contains("[better: fail → pass]"), "{out}");
    assert!(!out.contains("ksm.running"), "{out}");
    let before = file(folder.path(), "before.json", &changed(&[("nx.stack", "fail")]));
    assert_eq!(shown(&["--baseline", &before]).0, 0, "better is no reason to fail");
}

#[test]
fn what_is_no_assessment_is_no_baseline() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let compared = shown(&["--baseline", EXAMPLE, "--json"]).1;
    let damaged = changed(&[("nx.stack", "\u{1b}[2J")]);
    for (content, part) in [
        ("", "this is no JSON"),
        ("[1, 2", "this is no JSON"),
        ("{\"error\": \"x\"}", "this is JSON, but no assessment"),
        ("{\"form\": 7}", "of form 7"),
        ("{\"form\": 1}", "damaged: missing field"),
        (damaged.as_str(), "damaged: "),
        (compared.as_str(), "this is a comparison"),
    ] {
        let path = file(folder.path(), "b.json", content);
        for flag in ["--baseline", "--from"] {
            let said = refused(&["assess", "ksm", flag, &path]);
            assert!(said.contains(part) && said.contains("b.json"), "{content}: {said}");
            assert!(!said.contains('\u{1b}'), "{content}: {said}");
        }
    }
    assert!(
        refused(&["assess", "ksm", "--baseline", "/nowhere/b.json"])
            .contains("/nowhere/b.json: No such file")
    );
}

#[test]
fn several_forms_at_once_go_to_files_and_one_is_printed() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let at = |name: &str| folder.path().join(name);
    let flags = ["sarif", "junit", "html"].map(|form| format!("--{form}={}", at(form).display()));
    let mut args: Vec<&str> = flags.iter().map(String::as_str).collect();
    args.push("--json");
    let (status, out) = shown(&args);
    assert_eq!(status, 1);
    assert!(serde_json::from_str::<Value>(&out).is_ok());
    for (name, begin) in [("sarif", "{\n  \"$schema\""), ("junit", "<?xml "), ("html", "<!DOCTYPE html>")] {
        assert!(fs::read_to_string(at(name)).expect("it was written").starts_with(begin), "{name}");
    }
    let said = refused(&["assess", "--from", EXAMPLE, "--sarif", "--html"]);
    assert!(
        said.contains("--sarif and --html cannot both be printed") && said.contains("--html=FILE"),
        "{said}"
    );
    let twice = at("twice").display().to_string();
    let said =
        refused(&["assess", "--from", EXAMPLE, &format!("--sarif={twice}"), &format!("--junit={twice}")]);
    assert!(said.contains("--junit and another form cannot both be written to /"), "{said}");
    assert!(!at("twice").exists());
    let said = stockade(&["assess", "--from", EXAMPLE, "--html=/nowhere/x.html"]);
    assert_eq!(said.status.code(), Some(2));
    assert!(text(&said.stderr).contains("write /nowhere/x.html: No such file"), "{}", text(&said.stderr));
}

#[test]
fn what_cannot_be_printed_is_told() {
    for form in ["--details", "--json", "--html"] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("every Linux has it");
        let mut command = Command::new(env!("CARGO_BIN_EXE_stockade"));
        let output =
            command.args(["assess", "--from", EXAMPLE, form]).stdout(full).output().expect("it starts");
        assert_eq!(output.status.code(), Some(2), "{form}");
        assert!(text(&output.stderr).contains("write to standard output: No space left"), "{form}");
    }
}

#[test]
fn whoever_closes_the_pipe_has_read_enough() {
    for form in ["--details", "--json", "--sarif", "--junit", "--html"] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_stockade"))
            .args(["assess", "--from", EXAMPLE, form])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        drop(child.stdout.take());
        let mut said = String::new();
        child.stderr.take().expect("it is piped").read_to_string(&mut said).expect("text");
        assert_eq!((child.wait().expect("it ends").code(), said.as_str()), (Some(0), ""), "{form}");
    }
}

#[test]
fn findings_and_features_are_explained() {
    let out = text(&stockade(&["explain", "ksm.running"]).stdout);
    assert!(out.starts_with("ksm.running: KSM is off") && out.contains("echo 2 > /sys"), "{out}");
    let json: Value = serde_json::from_slice(&stockade(&["explain", "ksm", "--json"]).stdout).expect("JSON");
    assert_eq!(json["feature"], "ksm");
    for (typed, meant) in [("ksm.runing", "ksm.running"), ("ASLR", "aslr"), ("secureboot", "secure-boot")] {
        assert!(refused(&["explain", typed]).contains(&format!("did you mean {meant}?")), "{typed}");
    }
    assert!(refused(&["explain", "kexce"]).contains("there is no reason"));
}

#[test]
fn completions_know_findings() {
    // Of what stands without a flag, the others complete nothing.
    for shell in ["bash", "zsh"] {
        let script = text(&stockade(&["completions", shell]).stdout);
        assert!(script.contains("ksm.running"), "{shell}");
    }
}

/// As SARIF's own schema has it.
fn is_sarif(log: &str) {
    let schema = include_str!("data/sarif-2.1.0.schema.json");
    // One pattern in it has a bracket that only JavaScript takes for itself.
    let schema: Value = serde_json::from_str(&schema.replace("{2}]?$", "{2}\\\\]?$")).expect("JSON");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let log: Value = serde_json::from_str(log).expect("JSON");
    let wrong: Vec<_> =
        validator.iter_errors(&log).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    let mut broken = log;
    broken["runs"][0]["results"][0]["level"] = json!("catastrophe");
    assert!(!validator.is_valid(&broken), "the schema lets everything through");
}

#[test]
fn what_is_called_sarif_is() {
    is_sarif(&shown(&["--sarif"]).1);
    let folder = tempfile::tempdir().expect("a scratch folder");
    let before = file(folder.path(), "before.json", &changed(&[("lockdown.level", "pass")]));
    is_sarif(&shown(&["--sarif", "--baseline", &before]).1);
    let policy =
        "level = \"integrity\"\n\n[reasons]\nmsr = \"allow\"\n\n[[accept]]\ncode = \"SP001\"\nwhy = \"so\"\n";
    let policy = file(folder.path(), "policy.toml", policy);
    let root = folder.path().to_str().expect("plain");
    let output = stockade(&["policy", "check", "--root", root, "--policy", &policy, "--format", "sarif"]);
    is_sarif(&text(&output.stdout));
}
