//! `stockade policy check` as it is typed, on files made for it: what a guest would add is that the arguments are true.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

const VOID: &str = "level = \"integrity\"\n\n[reasons]\nmsr = \"allow\"\n";
const FINE: &str = "level = \"integrity\"\n";

fn stockade(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_stockade")).args(args).output().expect("the program starts")
}

/// Checks a policy far from any machine: nothing but its text and an empty root.
fn check(policy: &str, more: &[&str]) -> (i32, String) {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let file = folder.path().join("policy.toml");
    fs::write(&file, policy).expect("it can be written");
    let root = folder.path().to_str().expect("scratch folders have plain names");
    let mut args = vec![
        "policy",
        "check",
        "--root",
        root,
        "--policy",
        file.to_str().expect("scratch folders have plain names"),
    ];
    args.extend(more);
    let output = stockade(&args);
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (output.status.code().expect("not killed"), String::from_utf8(output.stdout).expect("text"))
}

fn json(policy: &str, format: &str) -> Value {
    serde_json::from_str(&check(policy, &["--format", format]).1).expect("JSON")
}

#[test]
fn a_bad_policy_is_pointed_at_and_counted() {
    let (code, text) = check(VOID, &[]);
    assert_eq!(code, 1);
    for part in [
        "error[SP001]: msr is allowed",
        "4 | msr = \"allow\"",
        "^^^^^^^ this lets it through",
        "docs/checks/SP001.md",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
    assert_eq!(text.lines().last(), Some("1 error, 0 warnings, 0 notes; 0 accepted"));
}

#[test]
fn nothing_to_say_is_success_and_names_what_was_not_seen() {
    let (code, text) = check(FINE, &[]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("could not look at the level of the kernel's own lockdown"), "{text}");
    assert_eq!(text.lines().last(), Some("0 errors, 0 warnings, 0 notes; 0 accepted"));
}

#[test]
fn the_example_passes() {
    let example = include_str!("../../packaging/policy/policy.toml");
    let (code, text) = check(example, &["--strict"]);
    assert_eq!(code, 0, "{text}");
}

#[test]
fn notes_decide_only_when_asked_to() {
    let policy = format!("{FINE}\n[reasons]\nperf = \"allow\"\n");
    assert_eq!(check(&policy, &[]).0, 0);
    assert_eq!(check(&policy, &["--strict"]).0, 1);
    assert_eq!(check(FINE, &["--strict"]).0, 0);
}

#[test]
fn what_is_accepted_is_shown_and_does_not_count() {
    let policy = format!(
        "{VOID}\n[[accept]]\ncode = \"SP001\"\nabout = \"reasons.msr\"\nwhy = \"until the driver is there\"\n"
    );
    let (code, text) = check(&policy, &[]);
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("accepted[SP001]") && text.contains("because: until the driver is there"),
        "{text}"
    );
    assert_eq!(text.lines().last(), Some("0 errors, 0 warnings, 0 notes; 1 accepted"));
}

#[test]
fn json_says_the_same() {
    let report = json(VOID, "json");
    assert_eq!((&report["errors"], &report["accepted"]), (&1.into(), &0.into()));
    let finding = &report["findings"][0];
    assert_eq!((&finding["code"], &finding["about_name"]), (&"SP001".into(), &"reasons.msr".into()));
    assert_eq!((&finding["at"]["line"], &finding["at"]["column"]), (&4.into(), &7.into()));
    assert!(finding["why"].as_str().unwrap().contains("Falls with it: module-signature"));
}

#[test]
fn sarif_has_a_rule_for_each_result_and_lines_for_each_place() {
    let policy = format!(
        "{VOID}\n[[accept]]\ncode = \"SP001\"\nwhy = \"so be it\"\n[[exception]]\nname = \"ü\"\nreasons = [\"kexec\"]\nunit = \"a.service\"\n"
    );
    let log = json(&policy, "sarif");
    assert_eq!(log["version"], "2.1.0");
    let run = &log["runs"][0];
    let results = run["results"].as_array().unwrap();
    assert!(results.len() >= 3);
    for result in results {
        let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
        assert_eq!(run["tool"]["driver"]["rules"][index]["id"], result["ruleId"]);
        let place = &result["locations"][0]["physicalLocation"];
        assert!(place["artifactLocation"]["uri"].as_str().unwrap().starts_with("file:///"));
        assert!(place["region"]["startLine"].as_u64().unwrap() > 1);
    }
    let accepted = results.iter().find(|result| result["ruleId"] == "SP001").unwrap();
    assert_eq!(accepted["suppressions"][0]["justification"], "so be it");
}

#[test]
fn the_policy_and_the_programs_of_an_image_are_looked_at() {
    let image = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &str| {
        let path = image.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    put("usr/bin/tool", "#!/bin/sh\n");
    put(
        "etc/stockade/policy.toml",
        "level = \"integrity\"\n[[exception]]\nname = \"here\"\nreasons = [\"efi-test\"]\nexe = \"/usr/bin/tool\"\n\
         [[exception]]\nname = \"gone\"\nreasons = [\"efi-test\"]\nexe = \"/usr/bin/true\"\n",
    );
    let output = stockade(&["policy", "check", "--root", image.path().to_str().unwrap(), "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let about = |code: &str| -> Vec<&str> {
        let findings = report["findings"].as_array().unwrap().iter();
        findings.filter(|f| f["code"] == code).map(|f| f["about_name"].as_str().unwrap()).collect()
    };
    assert_eq!(about("SP201"), ["gone"], "this machine has /usr/bin/true, the image does not");
    assert_eq!(
        (about("SP202"), about("SP203")),
        (vec!["here"], vec!["here"]),
        "a script, and not executable"
    );
}

#[test]
fn what_cannot_be_read_ends_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let gone = folder.path().join("gone.toml");
    let wrong = folder.path().join("wrong.toml");
    fs::write(&wrong, "level = \"paranoid\"\n").unwrap();
    let run = |file: &Path, more: &[&str]| {
        let mut args = vec!["policy", "check", "--policy", file.to_str().unwrap()];
        args.extend(more);
        stockade(&args)
    };
    assert_eq!(run(&gone, &[]).status.code(), Some(2));
    let output = run(&wrong, &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("^^^"), "{output:?}");
    let output = run(&wrong, &["--json"]);
    assert_eq!(output.status.code(), Some(2));
    let failure: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(failure["error"].as_str().unwrap().contains("paranoid"));
}

#[test]
fn every_code_is_explained() {
    for id in ["SP001", "sp204", "level-void"] {
        let output = stockade(&["explain", id]);
        assert_eq!(output.status.code(), Some(0), "{id}");
    }
    let code: Value = serde_json::from_slice(&stockade(&["explain", "--json", "SP001"]).stdout).unwrap();
    assert_eq!((&code["code"], &code["severity"]), (&"SP001".into(), &"error".into()));
    let output = stockade(&["explain", "SP999"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("knows no code SP999"));
}
