//! The program as it is typed, as far as it needs no kernel: the rest is played in the lab's guests.

use std::process::{Command, Output};

use sha2::{Digest, Sha256};

fn stockade(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_stockade")).args(args).output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn every_reason_is_explained() {
    for reason in stockade_reasons::all() {
        let output = stockade(&["explain", reason.id]);
        assert_eq!(output.status.code(), Some(0), "{}", reason.id);
        assert!(text(&output.stdout).contains(reason.kernel_string));
        let json: serde_json::Value =
            serde_json::from_slice(&stockade(&["explain", "--json", reason.id]).stdout).unwrap();
        assert_eq!(json["reason"], reason.id);
    }
}

#[test]
fn a_pasted_line_is_explained_with_who_asked() {
    let line =
        "Nov 23 host kernel: Lockdown: Xorg: raw io port access is restricted; see man kernel_lockdown.7";
    let output = stockade(&["explain", line]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let out = text(&output.stdout);
    assert!(out.starts_with("ioport (") && out.contains("Asked for by: Xorg"), "{out}");
}

#[test]
fn nonsense_ends_with_2_and_a_hint() {
    let output = stockade(&["explain", "kexce"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("did you mean kexec?"));
    assert_eq!(stockade(&["enforce", "everything"]).status.code(), Some(2));
    assert_eq!(stockade(&["no-such-command"]).status.code(), Some(2));
}

#[test]
fn the_version_names_the_program_by_commit_build_id_and_kernel_side_object() {
    let output = stockade(&["--version"]);
    let out = text(&output.stdout);
    assert_eq!((output.status.code(), out.lines().count()), (Some(0), 1), "{out}");
    assert!(out.starts_with(concat!("stockade ", env!("CARGO_PKG_VERSION"), " (commit ")), "{out}");
    for args in [&["--version", "--json"][..], &["--json", "--version"], &["--json", "-V"]] {
        let output = stockade(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
        assert!(json["commit"].as_str().is_some_and(|commit| !commit.is_empty()), "{json}");
        let object =
            std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../stockade-kernel/bpf/stockade.bpf.o"));
        assert_eq!(json["kernel_object"], format!("sha256:{}", hex(&Sha256::digest(object.unwrap()))));
        assert_eq!(json["build_id"].as_str().map(str::to_owned), build_id_in_file(), "{args:?}");
    }
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// The first note of the linker's in the program's file: name of 4 bytes, content of 20 bytes, type 3.
fn build_id_in_file() -> Option<String> {
    const HEAD: &[u8] = b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0";
    let program = std::fs::read(env!("CARGO_BIN_EXE_stockade")).expect("cargo has built the program");
    let at = program.windows(HEAD.len()).position(|bytes| bytes == HEAD)? + HEAD.len();
    Some(hex(&program[at..at + 20]))
}

#[test]
fn failures_are_json_too() {
    let output = stockade(&["--json", "explain", "kexce"]);
    assert_eq!(output.status.code(), Some(2));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(json["error"].as_str().unwrap().contains("kexec"));
}

#[test]
fn a_command_line_that_is_not_understood_is_a_failure_in_json_too() {
    for args in [&["enforce", "everything", "--json"][..], &["--json", "no-such-command"], &["--json"]] {
        let output = stockade(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(!json["error"].as_str().unwrap().is_empty(), "{args:?}");
        assert!(!output.stderr.is_empty(), "{args:?}");
    }
    // Help is no failure, and a file named --json is no flag.
    assert!(text(&stockade(&["--json", "--help"]).stdout).starts_with("Programmable"));
    assert!(stockade(&["explain", "--", "--json"]).stdout.is_empty());
}

#[test]
fn completions_and_man_pages_know_every_command() {
    let commands = [
        "enforce",
        "lift",
        "status",
        "probe",
        "residual",
        "assess",
        "watch",
        "check-host",
        "seal-record",
        "trust",
        "explain",
        "policy",
    ];
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = text(&stockade(&["completions", shell]).stdout);
        assert!(commands.iter().all(|c| script.contains(c)), "{shell}");
    }
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("man");
    assert_eq!(stockade(&["man", folder.to_str().unwrap()]).status.code(), Some(0));
    for command in commands {
        assert!(folder.join(format!("stockade-{command}.1")).exists(), "{command} has no page");
    }
}
