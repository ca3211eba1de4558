/*!
SARIF 2.1.0, as much of it as findings need: what code hosts and auditors' tools read.

Few structures written out, since the crate that has them all compiles a schema with a dozen others to get there.
*/
use serde::Serialize;

const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// The document.
#[derive(Debug, Serialize)]
pub struct Log {
    #[serde(rename = "$schema")]
    schema: &'static str,
    version: &'static str,
    runs: [Run; 1],
}

/// One run of one command.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Run {
    tool: Tool,
    invocations: [Invocation; 1],
    column_kind: &'static str,
    results: Vec<Finding>,
}

#[derive(Debug, Serialize)]
struct Tool {
    driver: Driver,
}

#[derive(Debug, Serialize)]
struct Driver {
    name: &'static str,
    version: &'static str,
    rules: Vec<Rule>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Invocation {
    execution_successful: bool,
    tool_execution_notifications: Vec<Notification>,
}

#[derive(Debug, Serialize)]
struct Notification {
    level: Level,
    message: Message,
}

/// How bad it is, in SARIF's words.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Error.
    Error,
    /// Warning.
    Warning,
    /// Note.
    Note,
    /// Of what is no problem.
    None,
}

/// The kind of a result; a problem if it is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// A problem.
    Fail,
    /// Looked at, and as it should be.
    Pass,
    /// Looked at, and not found out.
    Open,
    /// There is nothing to look at.
    NotApplicable,
}

/// How a result stands to that of an earlier run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Baseline {
    /// It was not there.
    New,
    /// It was another one.
    Updated,
}

#[derive(Debug, Serialize)]
struct Message {
    text: String,
}

/// The meaning of a code.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    id: String,
    name: String,
    short_description: Message,
    full_description: Message,
    help: Message,
    #[serde(skip_serializing_if = "Option::is_none")]
    help_uri: Option<String>,
    default_configuration: Configuration,
}

#[derive(Debug, Serialize)]
struct Configuration {
    level: Level,
}

/// One finding.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    rule_id: String,
    rule_index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<Kind>,
    level: Level,
    #[serde(skip_serializing_if = "Option::is_none")]
    baseline_state: Option<Baseline>,
    message: Message,
    locations: Vec<Location>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    related_locations: Vec<Location>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    suppressions: Vec<Suppression>,
}

/// A place in a file, or one that has only a name.
#[derive(Debug, Serialize)]
pub struct Location {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<usize>,
    #[serde(rename = "physicalLocation", skip_serializing_if = "Option::is_none")]
    physical: Option<PhysicalLocation>,
    #[serde(rename = "logicalLocations", skip_serializing_if = "Vec::is_empty")]
    logical: Vec<LogicalLocation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Message>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PhysicalLocation {
    artifact_location: ArtifactLocation,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<Region>,
}

#[derive(Debug, Serialize)]
struct ArtifactLocation {
    uri: String,
}

/// Lines and columns from 1; columns count characters, and the end's is the one behind the last.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Region {
    /// First line.
    pub start_line: usize,
    /// First column in it.
    pub start_column: usize,
    /// Last line.
    pub end_line: usize,
    /// The column behind the last in it.
    pub end_column: usize,
}

#[derive(Debug, Serialize)]
struct LogicalLocation {
    name: String,
    kind: &'static str,
}

#[derive(Debug, Serialize)]
struct Suppression {
    kind: &'static str,
    justification: String,
}

impl Log {
    /// Makes a run of its results and of the parts that it could not read.
    pub fn new(rules: Vec<Rule>, results: Vec<Finding>, unseen: &[String]) -> Self {
        let notification = |text: &String| Notification {
            level: Level::Note,
            message: Message::new(format!("could not look at {text}")),
        };
        Self {
            schema: SCHEMA,
            version: "2.1.0",
            runs: [Run {
                tool: Tool { driver: Driver { name: "stockade", version: env!("CARGO_PKG_VERSION"), rules } },
                invocations: [Invocation {
                    execution_successful: true,
                    tool_execution_notifications: unseen.iter().map(notification).collect(),
                }],
                column_kind: "unicodeCodePoints",
                results,
            }],
        }
    }
}

impl Message {
    fn new(text: impl Into<String>) -> Self {
        Self { text: text.into() }
    }
}

impl Rule {
    /// A code with its texts.
    pub fn new(id: &str, name: &str, level: Level, title: &str, explanation: &str, help: String) -> Self {
        Self {
            id: id.into(),
            name: name.into(),
            short_description: Message::new(title),
            full_description: Message::new(explanation),
            help: Message::new(help),
            help_uri: None,
            default_configuration: Configuration { level },
        }
    }

    /// With where more about it is.
    pub fn at(mut self, address: Option<&str>) -> Self {
        self.help_uri = address.map(Into::into);
        self
    }
}

impl Finding {
    /// A finding of the rule at an index of the run's rules.
    pub fn new(rule: (&str, usize), level: Level, message: String, location: Location) -> Self {
        Self {
            rule_id: rule.0.into(),
            rule_index: rule.1,
            kind: None,
            level,
            baseline_state: None,
            message: Message::new(message),
            locations: vec![location],
            related_locations: Vec::new(),
            suppressions: Vec::new(),
        }
    }

    /// With other places that have to do with it.
    pub fn related(mut self, places: impl Iterator<Item = Location>) -> Self {
        self.related_locations =
            places.enumerate().map(|(id, place)| Location { id: Some(id), ..place }).collect();
        self
    }

    /// Of this sort. Only a problem has a level, says the standard.
    pub fn of(mut self, kind: Kind) -> Self {
        self.kind = Some(kind);
        if kind != Kind::Fail {
            self.level = Level::None;
        }
        self
    }

    /// Compared with an earlier run.
    pub fn since(mut self, baseline: Baseline) -> Self {
        self.baseline_state = Some(baseline);
        self
    }

    /// Accepted elsewhere than at the place itself.
    pub fn waived(mut self, why: &str) -> Self {
        self.suppressions.push(Suppression { kind: "external", justification: why.into() });
        self
    }

    /// Accepted in the policy itself.
    pub fn accepted(mut self, why: &str) -> Self {
        self.suppressions.push(Suppression { kind: "inSource", justification: why.into() });
        self
    }
}

impl Location {
    /// A file, or a place in it.
    pub fn file(path: &str, region: impl Into<Option<Region>>) -> Self {
        let region = region.into();
        let artifact_location = ArtifactLocation { uri: uri(path) };
        let physical = Some(PhysicalLocation { artifact_location, region });
        Self { id: None, physical, logical: Vec::new(), message: None }
    }

    /// A place that has only a name: what is said by nobody.
    pub fn nowhere() -> Self {
        Self { id: None, physical: None, logical: Vec::new(), message: None }
    }

    /// With the thing it is about.
    pub fn about(mut self, name: &str, kind: &'static str) -> Self {
        self.logical.push(LogicalLocation { name: name.into(), kind });
        self
    }

    /// With a few words.
    pub fn words(mut self, words: &str) -> Self {
        self.message = Some(Message::new(words)).filter(|_| !words.is_empty());
        self
    }
}

/// Relative paths stay relative, so that a code host finds the file.
fn uri(path: &str) -> String {
    let mut uri = String::from(if path.starts_with('/') { "file://" } else { "" });
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => {
                uri.push(char::from(byte));
            }
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_addresses() {
        assert_eq!(uri("/etc/stockade/policy.toml"), "file:///etc/stockade/policy.toml");
        assert_eq!(uri("a b/ä:1.toml"), "a%20b/%C3%A4%3A1.toml");
    }
}
