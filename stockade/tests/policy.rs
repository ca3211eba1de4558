//! `stockade policy` as it is typed.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;
use tempfile::TempDir;

fn stockade(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_stockade")).args(args).output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn image(files: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().expect("a folder");
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
    root
}

fn path(root: &TempDir, name: &str) -> String {
    root.path().join(name).display().to_string()
}

const HOST: &str = "etc/stockade/policy.toml";

#[test]
fn show_tells_each_value_with_its_origin_and_is_a_policy_itself() {
    let root = image(&[
        (HOST, "level = \"integrity\"\n"),
        ("usr/lib/stockade/policy.d/10-vendor.toml", "[reasons]\nperf = \"audit\"\n"),
    ]);
    let output = stockade(&["policy", "show", "--root", &path(&root, "")]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let out = text(&output.stdout);
    assert!(out.contains(&format!("level = \"integrity\" # from {}:1", path(&root, HOST))), "{out}");
    assert!(
        out.contains("policy.d/10-vendor.toml:2\n") && out.contains("mode = \"enforce\" # default"),
        "{out}"
    );

    let again = root.path().join("shown.toml");
    fs::write(&again, &out).unwrap();
    let shown = again.to_str().unwrap();
    let output = stockade(&["policy", "diff", "--root", &path(&root, ""), shown]);
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(0), "The two policies say the same.\n".into())
    );

    let report = json(&stockade(&["--json", "policy", "show", "--policy", shown]));
    assert_eq!(report["level"]["value"], "integrity");
    assert_eq!(report["level"]["file"], shown);
    assert!(report["reasons"]["perf"]["line"].as_u64().unwrap() > 1);
}

#[test]
fn mistakes_are_shown_with_carets_and_end_with_2() {
    let root = image(&[(HOST, "levle = \"auto\"\n[reasons]\nkexce = \"deny\"\n")]);
    let output = stockade(&["policy", "show", "--policy", &path(&root, HOST)]);
    assert_eq!(output.status.code(), Some(2));
    let err = text(&output.stderr);
    assert!(
        err.contains("did you mean `level`?") && err.contains("^^^^^") && err.contains("2 mistakes"),
        "{err}"
    );
    assert!(!err.contains('\u{1b}'), "no colour where there is no terminal: {err:?}");
    assert!(output.stdout.is_empty());

    let output = stockade(&["--json", "policy", "show", "--policy", &path(&root, HOST)]);
    let report = json(&output);
    assert_eq!(report["problems"][1]["line"], 3);
    assert_eq!(report["problems"][1]["column"], 1);
    assert_eq!(report["problems"][1]["help"], "did you mean `kexec`?");
    assert!(report["error"].as_str().unwrap().contains("policy.toml:3:1: there is no reason `kexce`"));
}

#[test]
fn without_a_policy_it_is_said_where_to_write_one() {
    let root = image(&[]);
    let output = stockade(&["policy", "show", "--root", &path(&root, "")]);
    assert_eq!(output.status.code(), Some(2));
    let err = text(&output.stderr);
    assert!(err.contains("there is no policy") && err.contains("write ") && err.contains(HOST), "{err}");
    assert_eq!(
        stockade(&["policy", "show", "--root", "/", "--policy", "x"]).status.code(),
        Some(2),
        "one of the two"
    );
}

#[test]
fn diff_tells_what_changes_by_meaning_and_ends_with_1() {
    let root = image(&[
        (
            "old.toml",
            "level = \"integrity\"\n[[exception]]\nname = \"e\"\nreasons = [\"msr\"]\nexe = \"/a\"\n",
        ),
        (
            "new.toml",
            "level = \"confidentiality\"\n[reasons]\nmsr = \"allow\"\n[[scope]]\nname = \"s\"\ncgroup = \"/s\"\n",
        ),
    ]);
    let (old, new) = (path(&root, "old.toml"), path(&root, "new.toml"));
    let output = stockade(&["policy", "diff", "--policy", &old, &new]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let out = text(&output.stdout);
    for line in [
        "  laxer: deny -> allow: msr",
        "  ~ host: level: integrity -> confidentiality",
        "  ~ host: reasons.msr: nothing -> allow",
        "  + scope \"s\": place /s (stricter)",
        "  - exception \"e\": reasons msr, exe /a (stricter)",
    ] {
        assert!(out.lines().any(|l| l == line), "{line}\n{out}");
    }
    assert!(out.contains("  stricter: allow -> deny: kcore, "), "{out}");
    let output = stockade(&["--json", "policy", "diff", "--policy", &old, &new]);
    assert_eq!((output.status.code(), json(&output)["different"].as_bool()), (Some(1), Some(true)));
    assert_eq!(stockade(&["policy", "diff", "--policy", &old, "/nothing"]).status.code(), Some(2));
}

#[test]
fn the_example_that_is_shipped_is_right() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/policy/policy.toml");
    let output = stockade(&["policy", "show", "--policy", example.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    // What it has as comments is right too, once the digest is one.
    let whole = fs::read_to_string(example).unwrap().replace("# [[", "[[").replace("# \n", "\n");
    let whole: String = whole
        .lines()
        .map(|line| {
            line.strip_prefix("# ").filter(|rest| rest.contains(" = ")).unwrap_or(line).to_owned() + "\n"
        })
        .collect();
    let whole = whole.replace("sha256:…", &format!("sha256:{}", "0".repeat(64)));
    let root = image(&[("p.toml", &whole)]);
    let output = stockade(&["--json", "policy", "show", "--policy", &path(&root, "p.toml")]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let report = json(&output);
    assert_eq!(
        (report["exceptions"].as_array().unwrap().len(), report["accepted"].as_array().unwrap().len()),
        (1, 1)
    );
}

#[test]
fn the_language_has_a_man_page() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = stockade(&["man", folder.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0));
    let page = fs::read_to_string(folder.path().join("stockade.policy.5")).unwrap();
    assert!(page.contains(".TH stockade.policy 5"), "{page}");
    assert!(folder.path().join("stockade-policy-show.1").exists());
}
