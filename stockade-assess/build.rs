/*!
Checks the texts in `findings/` and the known answers in `vectors/` and compiles them into static tables, so that nothing is parsed at run time.

An error in the data fails the build and names the file. What only reading can judge (is it true, is it plain) is not checked here.
*/

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, process};

use serde::Deserialize;

#[path = "build/vectors.rs"]
mod vectors;

const FOLDER: &str = "findings";

/// What everybody who fixes something may have to be told apart by.
const DISTRIBUTIONS: &str = "give fix.all, or fix.debian, fix.fedora and fix.suse";

/// Where the kernel and what belongs to it are documented.
const DOCUMENTATION: [&str; 4] = [
    "https://docs.kernel.org/",
    "https://www.kernel.org/",
    "https://man7.org/linux/man-pages/",
    "https://git.kernel.org/",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    title: String,
    root: String,
    why: String,
    fix: Fix,
    links: Vec<String>,
    #[serde(default)]
    cis: Vec<String>,
    #[serde(default)]
    hsi: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fix {
    all: Option<String>,
    debian: Option<String>,
    fedora: Option<String>,
    suse: Option<String>,
}

fn main() {
    println!("cargo::rerun-if-changed={FOLDER}");
    println!("cargo::rerun-if-changed=build.rs");
    let mut errors = Vec::new();
    let mut code = String::from("static TEXTS: &[Text] = &[\n");
    for (id, path) in files(&mut errors) {
        println!("cargo::rerun-if-changed={}", path.display());
        let text = fs::read_to_string(&path).map_err(|error| error.to_string());
        match text.and_then(|text| toml::from_str::<Text>(&text).map_err(|error| error.to_string())) {
            Ok(text) => {
                errors.extend(
                    mistakes(&id, &text).into_iter().map(|what| format!("{}: {what}", path.display())),
                );
                render(&mut code, &id, &text);
            }
            Err(error) => errors.push(format!("{}: {error}", path.display())),
        }
    }
    code.push_str("];\n");
    let out = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR for build scripts");
    let answers = vectors::compile(&mut errors);
    for (name, code) in [("texts.rs", code), ("vectors.rs", answers)] {
        if let Err(error) = fs::write(Path::new(&out).join(name), code) {
            errors.push(format!("cannot write {name}: {error}"));
        }
    }
    for error in &errors {
        println!("cargo::error={}", error.replace('\n', " / "));
    }
    if !errors.is_empty() {
        process::exit(1);
    }
}

/// Every finding's id and file, in order of ids.
fn files(errors: &mut Vec<String>) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    let entries = |folder: &Path, errors: &mut Vec<String>| match fs::read_dir(folder) {
        Ok(entries) => entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect(),
        Err(error) => {
            errors.push(format!("{}: {error}", folder.display()));
            Vec::new()
        }
    };
    for folder in entries(Path::new(FOLDER), errors) {
        println!("cargo::rerun-if-changed={}", folder.display());
        for file in entries(&folder, errors) {
            let name = |path: &Path| path.file_stem().map(|name| name.to_string_lossy().into_owned());
            match (name(&folder), name(&file), file.extension().is_some_and(|end| end == "toml")) {
                (Some(feature), Some(thing), true) if is_kebab(&feature) && is_kebab(&thing) => {
                    found.push((format!("{feature}.{thing}"), file));
                }
                _ => errors.push(format!("{}: wants FEATURE/THING.toml, in kebab-case", file.display())),
            }
        }
    }
    found.sort();
    found
}

fn mistakes(id: &str, text: &Text) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut demand = |holds: bool, what: String| {
        if !holds {
            wrong.push(what);
        }
    };
    let plain = |words: &str| !words.trim().is_empty() && words.trim() == words;
    demand(
        plain(&text.title) && text.title.chars().count() <= 72,
        format!("title of {id}: 1 to 72 characters, no space around"),
    );
    demand(!text.title.ends_with('.'), "title: no full stop at the end".into());
    demand(
        matches!(text.root.as_str(), "no" | "more" | "yes"),
        format!("root {:?} is none of no, more, yes", text.root),
    );
    let sentences = sentences(&text.why);
    demand(sentences == 2, format!("why has {sentences} sentences and wants two"));
    let Fix { all, debian, fedora, suse } = &text.fix;
    let each = [debian, fedora, suse];
    demand(all.is_some() || each.iter().all(|fix| fix.is_some()), format!("fix: {DISTRIBUTIONS}"));
    demand(
        each.into_iter().chain([all]).flatten().all(|fix| !fix.trim().is_empty()),
        "a fix is empty".into(),
    );
    demand(!text.links.is_empty(), "links: at least one".into());
    for link in &text.links {
        demand(
            DOCUMENTATION.iter().any(|begin| link.starts_with(begin)),
            format!("link {link:?} begins with none of {DOCUMENTATION:?}"),
        );
    }
    for name in &text.hsi {
        demand(
            name.starts_with("org.fwupd.hsi."),
            format!("hsi {name:?} does not begin with org.fwupd.hsi."),
        );
    }
    for name in &text.cis {
        demand(plain(name), format!("cis {name:?} is empty or has space around it"));
    }
    wrong
}

/// A full stop, question or exclamation mark with white space or nothing behind it ends one.
fn sentences(text: &str) -> usize {
    let text = text.trim();
    let ends = |(at, _): &(usize, &str)| text[at + 1..].chars().next().is_none_or(char::is_whitespace);
    ['.', '?', '!'].iter().map(|end| text.match_indices(*end).filter(ends).count()).sum()
}

fn is_kebab(id: &str) -> bool {
    id.split('-').all(|word| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    })
}

/// Lines of a paragraph joined; what is indented or begins a list keeps its line.
fn flow(text: &str) -> String {
    let mut flowing = String::new();
    let mut goes_on = false;
    // The space before the first line stays: a fix may begin with a command.
    for line in text.trim_matches('\n').trim_end().lines() {
        let keeps = line.is_empty() || line.starts_with([' ', '-']);
        if !flowing.is_empty() {
            flowing.push(if goes_on && !keeps { ' ' } else { '\n' });
        }
        flowing.push_str(line.trim_end());
        goes_on = !line.is_empty() && !line.starts_with(' ');
    }
    flowing
}

/// Rust's `Debug` for strings is a valid Rust literal, which is all the escaping needed.
fn render(code: &mut String, id: &str, text: &Text) {
    let root = match text.root.as_str() {
        "no" => "Root::No",
        "more" => "Root::More",
        _ => "Root::Yes",
    };
    let fix = |fix: &Option<String>| fix.as_deref().map(flow);
    writeln!(
        code,
        "Text {{ id: {id:?}, title: {:?}, root: {root}, why: {:?}, fix: Fix {{ all: {:?}, debian: {:?}, fedora: {:?}, suse: {:?} }}, \
         links: &{:?}, cis: &{:?}, hsi: &{:?} }},",
        text.title,
        flow(&text.why),
        fix(&text.fix.all),
        fix(&text.fix.debian),
        fix(&text.fix.fedora),
        fix(&text.fix.suse),
        text.links,
        text.cis,
        text.hsi,
    )
    .expect("writing to a String cannot fail");
}
