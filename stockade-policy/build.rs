/*!
Checks `codes.toml` and `settings.toml` and compiles them into static tables, so that nothing is parsed at run time.

An error in the data fails the build and names the entry.
*/

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs, process};

use serde::Deserialize;

#[path = "build/settings.rs"]
mod settings;

const DATA: &str = "codes.toml";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    code: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    name: String,
    severity: String,
    title: String,
    explanation: String,
    remedy: String,
    wrong: String,
    right: String,
}

fn main() {
    println!("cargo::rerun-if-changed={DATA}");
    println!("cargo::rerun-if-changed={}", settings::DATA);
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build/settings.rs");
    write("codes.rs", DATA, generate());
    write("settings.rs", settings::DATA, settings::generate());
}

fn write(name: &str, data: &str, code: Result<String, Vec<String>>) {
    match code {
        Ok(code) => {
            let out = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR for build scripts");
            let path = Path::new(&out).join(name);
            if let Err(error) = fs::write(&path, code) {
                fail(data, &[format!("cannot write {}: {error}", path.display())]);
            }
        }
        Err(errors) => fail(data, &errors),
    }
}

fn fail(data: &str, errors: &[String]) -> ! {
    for error in errors {
        println!("cargo::error={data}: {}", error.replace('\n', " / "));
    }
    process::exit(1);
}

fn generate() -> Result<String, Vec<String>> {
    let text = fs::read_to_string(DATA).map_err(|error| vec![format!("cannot read: {error}")])?;
    let table: Table = toml::from_str(&text).map_err(|error| vec![format!("{error}")])?;
    let errors = check(&table.code);
    if errors.is_empty() { Ok(render(&table.code)) } else { Err(errors) }
}

fn check(entries: &[Entry]) -> Vec<String> {
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    let mut last = "";
    for entry in entries {
        let mut wrong = |what: &str| errors.push(format!("{}: {what}", entry.id));
        let number = entry.id.strip_prefix("SP").unwrap_or_default();
        if number.len() != 3 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            wrong("an id is SP and three digits");
        }
        if entry.id.as_str() <= last {
            wrong("ids go up, so that none is given twice");
        }
        last = &entry.id;
        if entry.name.is_empty() || !entry.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
        {
            wrong("a name is lower-case letters and hyphens");
        }
        if !seen.insert(entry.name.as_str()) {
            wrong("this name is already that of another code");
        }
        if !matches!(entry.severity.as_str(), "error" | "warning" | "note") {
            wrong("severity is error, warning or note");
        }
        if entry.title.ends_with('.') || entry.title.contains('\n') {
            wrong("a title is one line without a full stop");
        }
        let texts = [&entry.title, &entry.explanation, &entry.remedy, &entry.wrong, &entry.right];
        if texts.iter().any(|text| text.trim().is_empty()) {
            wrong("a text is empty");
        }
    }
    errors
}

/// Rust's `Debug` for strings is a valid Rust literal, which is all the escaping needed.
fn render(entries: &[Entry]) -> String {
    let constant = |entry: &Entry| entry.name.to_ascii_uppercase().replace('-', "_");
    let mut code = String::new();
    for entry in entries {
        writeln!(
            code,
            "/// {}: {}.\npub static {}: Code = Code {{ id: {:?}, name: {:?}, severity: Severity::{}, \
             title: {:?}, explanation: {:?}, remedy: {:?}, wrong: {:?}, right: {:?} }};",
            entry.id,
            entry.title,
            constant(entry),
            entry.id,
            entry.name,
            match entry.severity.as_str() {
                "error" => "Error",
                "warning" => "Warning",
                _ => "Note",
            },
            entry.title,
            entry.explanation.trim(),
            entry.remedy,
            entry.wrong.trim(),
            entry.right.trim(),
        )
        .expect("writing to a String cannot fail");
    }
    writeln!(code, "static CODES: [&Code; {}] = [", entries.len()).expect("writing to a String cannot fail");
    for entry in entries {
        writeln!(code, "    &{},", constant(entry)).expect("writing to a String cannot fail");
    }
    code.push_str("];\n");
    code
}
