/*!
Writes `docs/settings.md` from the table, and tests that the committed page is what the table says.

`STOCKADE_BLESS=1 cargo test -p stockade-policy` rewrites the page.
*/
use std::{env, fs};

use crate::settings::{Coverage, Setting, Values, all, coverage, families};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/settings.md");

const HEAD: &str = "\
<!-- Written from stockade-policy/settings.toml. Change that, then: STOCKADE_BLESS=1 cargo test -p stockade-policy -->

# Kernel security settings

What `[settings]` in a policy knows of the kernel's settings: which values are stricter, for `ratchet`, and what the word
`default` stands for at each level. [What holding means](policy-language.md#settings).

A level has the settings of the level below it as well. A setting that a kernel does not have is passed over.

## Frozen, or this name only

Stockade refuses writes to the file of a setting below /proc/sys. Some values change by other ways as well: by a second name of the
same number, a module parameter, netlink or a system call. Stockade does not refuse those. So:

- A setting of this page whose column *held* says **value** is held as a whole. The kernel's source was searched, and nothing but a write
  to its file changes the value while the kernel runs. Such a setting is what `status` calls frozen or ratcheted.
- Every other setting is held under **this name only**. `status` lists it apart, and `policy check` reports SP315 with the other ways.
  That includes every setting that is not on this page: nobody has searched for its other ways.
";

fn values(setting: &Setting) -> String {
    match setting.values {
        Values::Order(values) => values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" → "),
        Values::Higher => "higher".into(),
        Values::Lower => "lower; negative is no limit".into(),
        Values::LowerButZero => "lower; 0 is no limit".into(),
        Values::Bits => "fewer bits; 1 is all of them".into(),
        Values::Text | Values::Number | Values::List => "none: freeze only".into(),
    }
}

fn page() -> String {
    let mut text = String::from(HEAD);
    for (heading, level) in [
        ("Default from level integrity on", Some(stockade_reasons::Level::Integrity)),
        ("Default from level confidentiality on", Some(stockade_reasons::Level::Confidentiality)),
        ("Known, and in no default", None),
    ] {
        text += &format!(
            "\n## {heading}\n\n| setting | stricter | held | what a weaker value opens |\n|---|---|---|---|\n"
        );
        for setting in all().iter().filter(|setting| setting.profile == level) {
            let held = if coverage(setting.name) == Coverage::Value { "value" } else { "this name only" };
            text += &format!("| `{}` | {} | {held} | {} |\n", setting.name, values(setting), setting.why);
        }
    }
    text += "\n## Other ways to a value\n\nOf settings that are held under their name only, as far as they are known.\n\n";
    for setting in all().iter().filter(|setting| coverage(setting.name) != Coverage::Value) {
        let ways = setting.ways.unwrap_or_default().join("; ");
        let instead = setting.instead.map_or_else(String::new, |instead| format!(". {instead}"));
        text += &format!("- `{}`: {ways}{instead}\n", setting.name);
    }
    for family in families() {
        text += &format!("- `{}.*`: {}\n", family.prefix, family.ways.join("; "));
    }
    text += "\n## Sources\n\nIn the kernel's tree, unless another is named.\n\n";
    for setting in all() {
        text += &format!("- `{}`: {}\n", setting.name, setting.source);
    }
    text += "\nSearched for other ways, in the source of 6.12.117 as Debian builds it:\n\n";
    for setting in all() {
        text += &format!("- `{}`: {}\n", setting.name, setting.ways_source.unwrap_or("not searched"));
    }
    for family in families() {
        text += &format!("- `{}.*`: {}\n", family.prefix, family.ways_source);
    }
    text
}

#[test]
fn the_page_in_docs_is_what_the_table_says() {
    let wanted = page();
    if env::var_os("STOCKADE_BLESS").is_some() {
        fs::write(PAGE, &wanted).expect("docs/ is writable");
    }
    assert!(
        fs::read_to_string(PAGE).unwrap_or_default() == wanted,
        "docs/settings.md is not up to date: run STOCKADE_BLESS=1 cargo test -p stockade-policy"
    );
}
