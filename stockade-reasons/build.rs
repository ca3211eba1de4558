/*!
Checks `reasons.toml` and compiles it into a static table, so that nothing is parsed at run time.

An error in the data fails the build and names the entry. What only reading can judge (is the
sentence true, is it plain) is not checked here.
*/

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs, process};

use serde::Deserialize;

const DATA: &str = "reasons.toml";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    reason: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    enum_name: String,
    id: String,
    kernel_string: String,
    #[serde(default)]
    historic: Vec<String>,
    level: String,
    first_version: String,
    architecture: String,
    closes: String,
    commonly_hit: Vec<String>,
    instead: String,
    implies: Implies,
    implies_why: String,
    subject: String,
    subject_why: String,
    #[serde(default)]
    debugger: bool,
    probe: Option<String>,
    never_probe: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Implies {
    Word(String),
    Ids(Vec<String>),
}

fn main() {
    println!("cargo::rerun-if-changed={DATA}");
    println!("cargo::rerun-if-changed=build.rs");
    match generate() {
        Ok(code) => {
            let out = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR for build scripts");
            let path = Path::new(&out).join("table.rs");
            if let Err(error) = fs::write(&path, code) {
                fail(&[format!("cannot write {}: {error}", path.display())]);
            }
        }
        Err(errors) => fail(&errors),
    }
}

fn fail(errors: &[String]) -> ! {
    for error in errors {
        println!("cargo::error={DATA}: {}", error.replace('\n', " / "));
    }
    process::exit(1);
}

fn generate() -> Result<String, Vec<String>> {
    let text = fs::read_to_string(DATA).map_err(|error| vec![format!("cannot read: {error}")])?;
    // Entries are taken one by one, so that a missing or misspelt field names its entry.
    let table: toml::Table = text.parse().map_err(|error| vec![format!("{error}")])?;
    let mut errors = Vec::new();
    let mut entries = Vec::new();
    for value in table.get("reason").and_then(toml::Value::as_array).into_iter().flatten() {
        let name =
            value.get("enum_name").and_then(toml::Value::as_str).unwrap_or("an entry without enum_name");
        match value.clone().try_into::<Entry>() {
            Ok(entry) => entries.push(entry),
            Err(error) => errors.push(format!("{name}: {error}")),
        }
    }
    if errors.is_empty() {
        // The whole once more, for keys outside the entries.
        if let Err(error) = toml::from_str::<Table>(&text).map(|table| table.reason.len()) {
            errors.push(format!("{error}"));
        }
    }
    if entries.is_empty() && errors.is_empty() {
        errors.push("no [[reason]] in it".into());
    }
    check(&entries, &mut errors);
    if errors.is_empty() { Ok(render(&entries)) } else { Err(errors) }
}

fn check(entries: &[Entry], errors: &mut Vec<String>) {
    let ids: BTreeSet<&str> = entries.iter().map(|entry| entry.id.as_str()).collect();
    let mut seen: BTreeMap<(&str, String), &str> = BTreeMap::new();

    for entry in entries {
        let name = entry.enum_name.as_str();
        let mut wrong = |what: String| errors.push(format!("{name}: {what}"));

        for (field, value) in
            [("enum_name", &entry.enum_name), ("id", &entry.id), ("kernel_string", &entry.kernel_string)]
        {
            if let Some(first) = seen.insert((field, value.to_ascii_lowercase()), name) {
                wrong(format!("{field} {value:?} is already that of {first}"));
            }
        }
        for words in &entry.historic {
            if let Some(first) = seen.insert(("kernel_string", words.to_ascii_lowercase()), name) {
                wrong(format!("historic {words:?} is already that of {first}"));
            }
        }
        // The id may also be given as the enum's name, so one must follow from the other.
        if !is_kebab(&entry.id) {
            wrong(format!("id {:?} is not kebab-case (a-z, 0-9, single hyphens)", entry.id));
        } else if format!("LOCKDOWN_{}", entry.id.to_ascii_uppercase().replace('-', "_")) != name {
            wrong(format!("id {:?} is not the enum name in kebab-case", entry.id));
        }
        // The kernel's log line is cut at the last ": "; a string that contained one would be ambiguous.
        if entry.historic.iter().chain([&entry.kernel_string]).any(|words| words.contains(": ")) {
            wrong("kernel_string or historic contains \": \", which the log line parser cuts at".into());
        }
        if !matches!(entry.level.as_str(), "integrity" | "confidentiality") {
            wrong(format!("level {:?} is neither \"integrity\" nor \"confidentiality\"", entry.level));
        }
        if !matches!(entry.subject.as_str(), "trustworthy" | "unreliable") {
            wrong(format!("subject {:?} is neither \"trustworthy\" nor \"unreliable\"", entry.subject));
        }
        if !is_version(&entry.first_version) {
            wrong(format!("first_version {:?} is not of the form \"5.4\"", entry.first_version));
        }
        match &entry.implies {
            Implies::Word(word) if word != "everything" => {
                wrong(format!("implies {word:?}: give a list of ids, or \"everything\""));
            }
            Implies::Word(_) => {}
            Implies::Ids(implied) => {
                for (at, id) in implied.iter().enumerate() {
                    if !ids.contains(id.as_str()) {
                        wrong(format!("implies {id:?}, which is no reason's id"));
                    } else if *id == entry.id {
                        wrong("implies itself".into());
                    } else if implied[..at].contains(id) {
                        wrong(format!("implies {id:?} twice"));
                    }
                }
            }
        }
        match (&entry.probe, &entry.never_probe) {
            (Some(_), Some(_)) => wrong("has both probe and never_probe".into()),
            (None, None) => wrong("has neither probe nor never_probe".into()),
            _ => {}
        }
        if entry.debugger && entry.probe.is_some() {
            wrong("is a debugger's reason and has a probe; entering a debugger stops the machine".into());
        }
        if entry.debugger && entry.subject == "trustworthy" {
            wrong("is a debugger's reason, so its subject cannot be trustworthy".into());
        }
        for (field, text) in [
            ("kernel_string", &entry.kernel_string),
            ("architecture", &entry.architecture),
            ("closes", &entry.closes),
            ("instead", &entry.instead),
            ("implies_why", &entry.implies_why),
            ("subject_why", &entry.subject_why),
        ] {
            if text.trim().is_empty() || text.trim() != text {
                wrong(format!("{field} is empty or has space around it"));
            }
        }
        if entry.commonly_hit.iter().any(|hit| !hit.contains(": ")) {
            wrong("commonly_hit wants \"program: a few words\"".into());
        }
    }
}

fn is_kebab(id: &str) -> bool {
    id.split('-').all(|word| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    })
}

fn is_version(version: &str) -> bool {
    version.split_once('.').is_some_and(|(major, minor)| {
        [major, minor].iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
    })
}

/// Rust's `Debug` for strings is a valid Rust literal, which is all the escaping needed.
fn render(entries: &[Entry]) -> String {
    let mut code = format!("static REASONS: [Reason; {}] = [\n", entries.len());
    for entry in entries {
        let implies = match &entry.implies {
            Implies::Word(_) => "Implies::Everything".to_owned(),
            Implies::Ids(ids) => format!("Implies::Reasons(&{ids:?})"),
        };
        let probe = match (&entry.probe, &entry.never_probe) {
            (Some(how), _) => format!("Probe::How({how:?})"),
            (None, why) => format!("Probe::Never({:?})", why.as_deref().unwrap_or_default()),
        };
        let level = if entry.level == "integrity" { "Integrity" } else { "Confidentiality" };
        let subject = if entry.subject == "trustworthy" { "Trustworthy" } else { "Unreliable" };
        writeln!(
            code,
            "Reason {{ id: {:?}, enum_name: {:?}, kernel_string: {:?}, historic: &{:?}, level: Level::{level}, \
             first_version: {:?}, architecture: {:?}, closes: {:?}, commonly_hit: &{:?}, instead: {:?}, \
             implies: {implies}, implies_why: {:?}, subject: Subject::{subject}, subject_why: {:?}, \
             debugger: {}, probe: {probe} }},",
            entry.id,
            entry.enum_name,
            entry.kernel_string,
            entry.historic,
            entry.first_version,
            entry.architecture,
            entry.closes,
            entry.commonly_hit,
            entry.instead,
            entry.implies_why,
            entry.subject_why,
            entry.debugger,
        )
        .expect("writing to a String cannot fail");
    }
    code.push_str("];\n");
    code
}
