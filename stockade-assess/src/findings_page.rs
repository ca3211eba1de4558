/*!
Writes `docs/findings.md` from the texts, and tests that the committed page is what they say.

`STOCKADE_BLESS=1 cargo test -p stockade-assess` rewrites the page.
*/
use std::{env, fs};

use crate::{
    Text, features,
    text::{Fix, Root},
};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/findings.md");

const HEAD: &str = "\
<!-- Written from stockade-assess/findings. Change that, then: STOCKADE_BLESS=1 cargo test -p stockade-assess -->

# What `stockade assess` finds out

Every finding, by feature: what is so when it passes, why it matters and how to get it. `stockade explain FINDING` says the same.
How to use the assessment: [assess.md](assess.md).
";

fn contents() -> String {
    let mut text = String::from("\n| feature | findings |\n|---|---|\n");
    for feature in features::ALL {
        let findings: Vec<_> = Text::of_feature(feature.id).map(|text| format!("`{}`", text.id)).collect();
        text += &format!("| {} | {} |\n", feature.title, findings.join(" "));
    }
    text
}

fn finding(text: &Text) -> String {
    let mut page = format!("\n### {}\n\nWanted: {}.\n\n{}\n", text.id, text.title, text.why);
    let Fix { all, debian, fedora, suse } = text.fix;
    for (whose, fix) in [
        ("", all),
        ("On Debian and Ubuntu", debian),
        ("On Fedora, Red Hat Enterprise Linux and CentOS", fedora),
        ("On SUSE and openSUSE", suse),
    ] {
        let Some(fix) = fix else { continue };
        page.push('\n');
        if !whose.is_empty() {
            page += &format!("{whose}:\n\n");
        }
        page += &markdown(fix);
    }
    page.push('\n');
    for link in text.links {
        page += &format!("- <{link}>\n");
    }
    for (word, list) in [("CIS", text.cis), ("Host Security ID", text.hsi)] {
        if !list.is_empty() {
            page += &format!("- {word}: {}\n", list.join(", "));
        }
    }
    match text.root {
        Root::No => {}
        Root::More => page += "- Root sees more of it.\n",
        Root::Yes => page += "- Only root sees anything of it.\n",
    }
    page
}

/// Indented lines are commands; Markdown wants an empty line around them.
fn markdown(fix: &str) -> String {
    let mut text = String::new();
    let mut code = false;
    for line in fix.lines() {
        if line.is_empty() && text.ends_with("\n\n") {
            continue;
        }
        if line.starts_with(' ') != code && !line.is_empty() && !text.is_empty() && !text.ends_with("\n\n") {
            text.push('\n');
        }
        code = line.starts_with(' ') || code && line.is_empty();
        text += line;
        text.push('\n');
    }
    text
}

fn page() -> String {
    let mut text = format!("{HEAD}{}", contents());
    for feature in features::ALL {
        text += &format!("\n## {}\n", feature.title);
        text.extend(Text::of_feature(feature.id).map(finding));
    }
    text
}

#[test]
fn the_page_in_docs_is_what_the_texts_say() {
    let wanted = page();
    if env::var_os("STOCKADE_BLESS").is_some() {
        fs::write(PAGE, &wanted).expect("docs/ is writable");
    }
    assert!(
        fs::read_to_string(PAGE).unwrap_or_default() == wanted,
        "docs/findings.md is not up to date: run STOCKADE_BLESS=1 cargo test -p stockade-assess"
    );
}
