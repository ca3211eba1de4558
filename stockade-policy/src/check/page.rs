/*!
Writes `docs/checks/` from the table of codes, and tests that the committed pages are what the table says.

`STOCKADE_BLESS=1 cargo test -p stockade-policy` rewrites the pages.
*/
use std::{collections::BTreeMap, env, fs, path::Path};

use super::code::{Code, codes};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/checks");

const MARK: &str = "<!-- Written from stockade-policy/codes.toml. Change that, then: STOCKADE_BLESS=1 cargo test -p stockade-policy -->\n";

const FAMILIES: [&str; 7] = [
    "What falls with what is let through",
    "Who is excepted",
    "The program's file",
    "What has no effect",
    "Time",
    "What was accepted",
    "How a seal is recorded",
];

fn index() -> String {
    let mut text = format!(
        "{MARK}\n# What `stockade policy check` argues\n\n\
         Each finding has a code. Codes are stable: what accepts or filters one today means the same tomorrow. The severity \
         given here is the worst; the page of a code says when it is milder. The same text is at hand on the machine: \
         `stockade explain SP001`.\n\n\
         A finding that was looked at and is to stay is accepted in the policy itself:\n\n\
         ```toml\n[[accept]]\ncode = \"SP002\"\nabout = \"firmware\"   # the exception or scope; everything with this code where it is left out\n\
         why = \"vendor tool, until the driver is upstream\"\n```\n\n\
         Exit status: 0 no error and no warning is left, 1 otherwise (`--strict`: no note either), 2 the policy could not be read.\n"
    );
    for (family, title) in FAMILIES.iter().enumerate() {
        text.push_str(&format!("\n## {title}\n\n| code | at worst | |\n|---|---|---|\n"));
        for code in codes().iter().filter(|code| code.id.as_bytes().get(2) == Some(&family_digit(family))) {
            text.push_str(&format!(
                "| [{id}]({id}.md) | {} | {} |\n",
                code.severity,
                code.title,
                id = code.id
            ));
        }
    }
    text
}

fn family_digit(family: usize) -> u8 {
    b'0' + u8::try_from(family).expect("there are few families")
}

fn page(code: &Code) -> String {
    format!(
        "{MARK}\n# {}: {}\n\n`{}`, at worst {}\n\n{}\n\n**What to do**: {}\n\n\
         ## A policy that provokes it\n\n```toml\n{}\n```\n\n## One that does not\n\n```toml\n{}\n```\n",
        code.id,
        code.title,
        code.name,
        match code.severity {
            super::Severity::Error => "an error",
            super::Severity::Warning => "a warning",
            super::Severity::Note => "a note",
        },
        code.explanation,
        code.remedy,
        code.wrong,
        code.right,
    )
}

#[test]
fn the_pages_in_docs_are_what_the_table_says() {
    let mut wanted: BTreeMap<String, String> =
        codes().iter().map(|code| (format!("{}.md", code.id), page(code))).collect();
    wanted.insert("README.md".into(), index());
    let folder = Path::new(FOLDER);
    if env::var_os("STOCKADE_BLESS").is_some() {
        fs::create_dir_all(folder).expect("docs/ is writable");
        for (name, text) in &wanted {
            fs::write(folder.join(name), text).expect("docs/checks/ is writable");
        }
    }
    let found: BTreeMap<String, String> = fs::read_dir(folder)
        .expect("docs/checks/ is there")
        .map(|entry| {
            let entry = entry.expect("docs/checks/ can be listed");
            let text = fs::read_to_string(entry.path()).expect("a page is text");
            (entry.file_name().to_string_lossy().into_owned(), text)
        })
        .collect();
    for name in wanted.keys().chain(found.keys()) {
        assert!(
            wanted.get(name) == found.get(name),
            "docs/checks/{name} is not up to date: run STOCKADE_BLESS=1 cargo test -p stockade-policy"
        );
    }
}

#[test]
fn every_code_is_in_the_index() {
    let index = index();
    for code in codes() {
        assert!(index.contains(&format!("]({}.md)", code.id)), "{} has a family of its own", code.id);
    }
}
