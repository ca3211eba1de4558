/*!
Checks `settings.toml` and compiles it into a static table.
*/
use std::{collections::BTreeSet, fmt::Write as _, fs};

use serde::Deserialize;

pub const DATA: &str = "settings.toml";

/// As many as the kernel side looks at: `SettingRule::VALUES`.
const MOST_VALUES: usize = 8;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    setting: Vec<Entry>,
    family: Vec<Family>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Family {
    prefix: String,
    ways: Vec<String>,
    ways_source: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Entry {
    name: String,
    order: Option<Vec<i8>>,
    values: Option<Values>,
    profile: String,
    why: String,
    source: String,
    ways: Option<Vec<String>>,
    ways_source: Option<String>,
    instead: Option<String>,
}

/// Under the names that the table's type has for them.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Values {
    Higher,
    Lower,
    LowerButZero,
    Bits,
    Text,
    Number,
    List,
}

pub fn generate() -> Result<String, Vec<String>> {
    let text = fs::read_to_string(DATA).map_err(|error| vec![format!("cannot read: {error}")])?;
    let table: Table = toml::from_str(&text).map_err(|error| vec![format!("{error}")])?;
    let mut errors = check(&table.setting);
    errors.extend(check_families(&table.family));
    if errors.is_empty() { Ok(render(&table.setting) + &render_families(&table.family)) } else { Err(errors) }
}

/// A folder or a file of /proc/sys.
fn is_plain(part: &str) -> bool {
    !part.is_empty()
        && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
}

fn check_families(families: &[Family]) -> Vec<String> {
    let mut errors = Vec::new();
    for family in families {
        if !family.prefix.split('.').all(is_plain) {
            errors.push(format!("{}: a prefix is folders with dots between them", family.prefix));
        }
        if family.ways.is_empty() || family.ways_source.trim().is_empty() {
            errors.push(format!("{}: say by which ways, and from where", family.prefix));
        }
    }
    errors
}

fn check(entries: &[Entry]) -> Vec<String> {
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for entry in entries {
        let mut wrong = |what: &str| errors.push(format!("{}: {what}", entry.name));
        if !entry.name.contains('.') || !entry.name.split('.').all(is_plain) {
            wrong("a name is folders and a file, with dots between them");
        }
        if !seen.insert(entry.name.as_str()) {
            wrong("it is there twice");
        }
        if entry.values.is_some() == entry.order.is_some() {
            wrong("say either values or order");
        }
        if let Some(order) = &entry.order {
            let different: BTreeSet<_> = order.iter().collect();
            if order.len() < 2 || order.len() > MOST_VALUES || different.len() != order.len() {
                wrong("an order has two to eight different values");
            }
        }
        if !matches!(entry.profile.as_str(), "integrity" | "confidentiality" | "none") {
            wrong("profile is integrity, confidentiality or none");
        }
        if matches!(entry.values, Some(Values::Text | Values::Number | Values::List))
            && entry.profile != "none"
        {
            wrong("what has no stricter value is in no profile");
        }
        if entry.why.trim().is_empty() || entry.source.trim().is_empty() {
            wrong("say why, and from where");
        }
        if entry.ways.is_some() != entry.ways_source.as_ref().is_some_and(|source| !source.trim().is_empty())
        {
            wrong("ways and ways-source go together");
        }
        if entry.ways.iter().flatten().any(|way| way.trim().is_empty()) {
            wrong("a way is empty");
        }
        if entry.instead.is_some() && entry.ways.as_ref().is_none_or(Vec::is_empty) {
            wrong("instead closes other ways, and there are none");
        }
    }
    errors
}

fn render(entries: &[Entry]) -> String {
    let mut code = format!("static SETTINGS: [Setting; {}] = [\n", entries.len());
    for entry in entries {
        let profile = match entry.profile.as_str() {
            "integrity" => "Some(Level::Integrity)",
            "confidentiality" => "Some(Level::Confidentiality)",
            _ => "None",
        };
        let values = match (&entry.order, entry.values) {
            (Some(order), _) => format!("Order(&{order:?})"),
            (None, values) => values.map_or_else(String::new, |values| format!("{values:?}")),
        };
        writeln!(
            code,
            "    Setting {{ name: {:?}, kernel_name: {:?}, values: Values::{values}, profile: {profile}, why: {:?}, source: {:?}, ways: {}, ways_source: {:?}, instead: {:?} }},",
            entry.name,
            entry.name.replace('.', "/"),
            entry.why,
            entry.source,
            entry.ways.as_ref().map_or_else(|| "None".into(), |ways| format!("Some(&{ways:?})")),
            entry.ways_source,
            entry.instead,
        )
        .expect("writing to a String cannot fail");
    }
    code.push_str("];\n");
    code
}

fn render_families(families: &[Family]) -> String {
    let mut code = format!("static FAMILIES: [Family; {}] = [\n", families.len());
    for Family { prefix, ways, ways_source } in families {
        writeln!(code, "    Family {{ prefix: {prefix:?}, ways: &{ways:?}, ways_source: {ways_source:?} }},")
            .expect("writing to a String cannot fail");
    }
    code.push_str("];\n");
    code
}
