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
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Entry {
    name: String,
    order: Option<Vec<i8>>,
    #[serde(default)]
    higher: bool,
    #[serde(default)]
    lower: bool,
    #[serde(default)]
    lower_but_zero: bool,
    #[serde(default)]
    bits: bool,
    #[serde(default)]
    text: bool,
    #[serde(default)]
    number: bool,
    profile: String,
    why: String,
    source: String,
}

pub fn generate() -> Result<String, Vec<String>> {
    let text = fs::read_to_string(DATA).map_err(|error| vec![format!("cannot read: {error}")])?;
    let table: Table = toml::from_str(&text).map_err(|error| vec![format!("{error}")])?;
    let errors = check(&table.setting);
    if errors.is_empty() { Ok(render(&table.setting)) } else { Err(errors) }
}

impl Entry {
    /// The kinds of value it says it has.
    fn values(&self) -> Vec<String> {
        let words = [
            (self.higher, "Higher"),
            (self.lower, "Lower"),
            (self.lower_but_zero, "LowerButZero"),
            (self.bits, "Bits"),
            (self.text, "Text"),
            (self.number, "Number"),
        ];
        let mut values: Vec<_> =
            words.iter().filter(|(said, _)| *said).map(|(_, word)| (*word).to_owned()).collect();
        values.extend(self.order.iter().map(|order| format!("Order(&{order:?})")));
        values
    }
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
        if entry.values().len() != 1 {
            wrong("say one kind of values");
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
        if (entry.text || entry.number) && entry.profile != "none" {
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
        writeln!(
            code,
            "    Setting {{ name: {:?}, kernel_name: {:?}, values: Values::{}, profile: {profile}, why: {:?}, source: {:?} }},",
            entry.name,
            entry.name.replace('.', "/"),
            entry.values().concat(),
            entry.why,
            entry.source,
        )
        .expect("writing to a String cannot fail");
    }
    code.push_str("];\n");
    code
}
