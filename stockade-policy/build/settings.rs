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
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    order: Option<Vec<i8>>,
    values: Option<Values>,
    profile: String,
    why: String,
    source: String,
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
}

pub fn generate() -> Result<String, Vec<String>> {
    let text = fs::read_to_string(DATA).map_err(|error| vec![format!("cannot read: {error}")])?;
    let table: Table = toml::from_str(&text).map_err(|error| vec![format!("{error}")])?;
    let errors = check(&table.setting);
    if errors.is_empty() { Ok(render(&table.setting)) } else { Err(errors) }
}

fn check(entries: &[Entry]) -> Vec<String> {
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for entry in entries {
        let mut wrong = |what: &str| errors.push(format!("{}: {what}", entry.name));
        let plain = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        if !entry.name.contains('.') || !entry.name.split('.').all(plain) {
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
        if matches!(entry.values, Some(Values::Text | Values::Number)) && entry.profile != "none" {
            wrong("what has no stricter value is in no profile");
        }
        if entry.why.trim().is_empty() || entry.source.trim().is_empty() {
            wrong("say why, and from where");
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
            "    Setting {{ name: {:?}, kernel_name: {:?}, values: Values::{values}, profile: {profile}, why: {:?}, source: {:?} }},",
            entry.name,
            entry.name.replace('.', "/"),
            entry.why,
            entry.source,
        )
        .expect("writing to a String cannot fail");
    }
    code.push_str("];\n");
    code
}
