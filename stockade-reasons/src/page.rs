/*!
Writes `docs/reasons.md` from the table, and tests that the committed page is what the table says.

`STOCKADE_BLESS=1 cargo test -p stockade-reasons` rewrites the page.
*/

use std::fmt::Write as _;
use std::{env, fs};

use crate::{Implies, Level, Probe, Reason, Subject, all, closure};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reasons.md");

const HEAD: &str = "\
<!-- Written from stockade-reasons/reasons.toml. Change that, then: STOCKADE_BLESS=1 cargo test -p stockade-reasons -->

# The reasons of lockdown

A reason is the kernel's word for one thing lockdown refuses. Level *integrity* refuses what lets root change
the running kernel; level *confidentiality* refuses that and what lets root read the kernel's secrets. The same
text is at hand on the machine: `stockade explain REASON`.

\"Since\" is the first mainline release; stable series and distributions may have a reason earlier. \"If allowed\" says
what else falls with it: an exception is as large as what it implies.
";

fn page() -> String {
    let mut text = String::from(HEAD);
    text.push_str(
        "\n| reason | the kernel says | level | since | where | if allowed |\n|---|---|---|---|---|---|\n",
    );
    for reason in all() {
        let falls = match closure(reason).len() {
            0 => "nothing else falls".to_owned(),
            count if count + 1 == all().len() => "everything falls".to_owned(),
            count => format!("{count} others fall"),
        };
        put(
            &mut text,
            format_args!(
                "| [{id}](#{id}) | {} | {} | {} | {} | {falls} |\n",
                reason.kernel_string,
                reason.level,
                reason.first_version,
                reason.architecture,
                id = reason.id,
            ),
        );
    }
    for level in [Level::Integrity, Level::Confidentiality] {
        put(&mut text, format_args!("\n## Level {level}\n"));
        for reason in all().iter().filter(|reason| reason.level == level) {
            section(&mut text, reason);
        }
    }
    text
}

fn section(text: &mut String, reason: &Reason) {
    put(
        text,
        format_args!(
            "\n### {}\n\n{}\n\n- **The kernel says**: `{}` (`{}`)\n- **Since**: Linux {}, {}\n",
            reason.id,
            reason.closes,
            reason.kernel_string,
            reason.enum_name,
            reason.first_version,
            match reason.architecture {
                "all" => "all architectures".to_owned(),
                only => format!("{only} only"),
            },
        ),
    );
    if !reason.historic.is_empty() {
        let words: Vec<_> = reason.historic.iter().map(|words| format!("`{words}`")).collect();
        put(text, format_args!("- **Before 5.4 it said**: {}\n", words.join("; ")));
    }
    text.push_str("- **Commonly hit by**:\n");
    for hit in reason.commonly_hit {
        put(text, format_args!("  - {hit}\n"));
    }
    put(text, format_args!("- **Instead**: {}\n", reason.instead));
    let falls = match reason.implies {
        Implies::Everything => "everything else falls".to_owned(),
        Implies::Reasons([]) => "nothing else falls".to_owned(),
        Implies::Reasons(ids) => {
            let links: Vec<_> = ids.iter().map(|id| format!("[{id}](#{id})")).collect();
            let more = if closure(reason).len() > ids.len() { ", and what they imply," } else { "" };
            format!("{}{more} fall too", links.join(", "))
        }
    };
    put(text, format_args!("- **If allowed**, {falls}. {}\n", reason.implies_why));
    let subject = match reason.subject {
        Subject::Trustworthy => "can be made",
        Subject::Unreliable => "cannot be relied on",
    };
    put(text, format_args!("- **Exceptions by program or unit** {subject}. {}\n", reason.subject_why));
    match reason.probe {
        Probe::How(how) => put(text, format_args!("- **Probed by**: {how}.\n")),
        Probe::Never(why) => put(text, format_args!("- **Never probed**: {why}\n")),
    }
}

fn put(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("writing to a String cannot fail");
}

#[test]
fn the_page_in_docs_is_what_the_table_says() {
    let wanted = page();
    if env::var_os("STOCKADE_BLESS").is_some() {
        fs::write(PAGE, &wanted).expect("docs/ is writable");
    }
    let found = fs::read_to_string(PAGE).unwrap_or_default();
    assert!(
        found == wanted,
        "docs/reasons.md is not up to date: run STOCKADE_BLESS=1 cargo test -p stockade-reasons"
    );
}
