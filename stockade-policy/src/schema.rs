/*!
docs/schema/policy.schema.json, for editors: made from these types, whose keys a test holds against the reader's.
`STOCKADE_BLESS=1 cargo test -p stockade-policy` writes it anew.

A schema cannot say all that the reader checks; what it forbids, the reader refuses.
*/
#![expect(dead_code, reason = "the types are there to be described")]
use std::{collections::BTreeMap, path::Path};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema, schema_for};
use serde_json::{Value, json};
use stockade_reasons::Subject;

use crate::{read::keys, settings, words::Word};

/// Stockade policy
///
/// /etc/stockade/policy.toml and files in /etc/stockade/policy.d; see stockade.policy(5).
#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
struct Policy {
    /// Version of the language
    #[schemars(schema_with = "version", default)]
    version: Option<u32>,
    /// What is refused outside all scopes. auto: integrity where EFI Secure Boot is on, otherwise none
    #[schemars(schema_with = "words::<crate::model::LevelChoice>", default = "auto")]
    level: Option<String>,
    /// Whether the level refuses, or lets through and reports
    #[schemars(schema_with = "words::<crate::model::Mode>", default = "enforce")]
    mode: Option<String>,
    /// What happens to reasons of the running kernel that this version does not know
    #[schemars(schema_with = "words::<crate::model::Unknown>", default = "level")]
    unknown_reasons: Option<String>,
    /// Single reasons, whatever the level and mode
    #[schemars(schema_with = "reasons", default)]
    reasons: Option<BTreeMap<String, String>>,
    /// Kernel security settings that are kept from being weakened
    settings: Option<Settings>,
    /// Parts of the cgroup tree with verdicts of their own
    scope: Option<Vec<Scope>>,
    /// Who is let through where others are not
    exception: Option<Vec<Exception>>,
    /// Findings of `stockade policy check` that somebody looked at and accepted
    accept: Option<Vec<Accept>>,
    /// How it is recorded that a policy was sealed
    seal: Option<Seal>,
}

fn auto() -> String {
    "auto".into()
}

fn enforce() -> String {
    "enforce".into()
}

fn level() -> String {
    "level".into()
}

/// Kernel security settings that are kept from being weakened
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Settings {
    /// Settings that keep their value: names as sysctl(8) has them, or default for those that go with the level
    #[schemars(schema_with = "frozen", default)]
    freeze: Option<Vec<String>>,
    /// Settings that keep their value or get a stricter one: those of which it is known what is stricter, or default
    #[schemars(schema_with = "ratchets", default)]
    ratchet: Option<Vec<String>>,
}

/// A part of the cgroup tree with verdicts of its own
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, transform = one_place)]
struct Scope {
    /// Unique among scopes; a later file replaces the scope of the same name
    #[schemars(length(min = 1, max = 100))]
    name: String,
    /// Path of a cgroup from the root of the tree, with all below it, or a pattern with one * in its last component
    #[schemars(regex(pattern = r"^/([^/]|[^/]/)*$"), length(max = 255))]
    cgroup: Option<String>,
    /// A unit of systemd's that has a cgroup, wherever systemd puts it
    #[schemars(regex(pattern = r"^[A-Za-z0-9:_.\\@-]+\.(service|slice|scope|socket|mount|swap)$"))]
    unit: Option<String>,
    /// Its level; the surrounding one's when left out
    #[schemars(schema_with = "words::<crate::model::LevelChoice>", default)]
    level: Option<String>,
    /// Its mode; the surrounding one's when left out
    #[schemars(schema_with = "words::<crate::model::Mode>", default)]
    mode: Option<String>,
    /// Single reasons, whatever its level and mode
    #[schemars(schema_with = "reasons", default)]
    reasons: Option<BTreeMap<String, String>>,
    /// Whether it may be laxer than what surrounds it
    #[schemars(default)]
    loosen: bool,
}

/// Who is let through where others are not
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, transform = subject)]
struct Exception {
    /// Unique among exceptions; a later file replaces the exception of the same name
    #[schemars(length(min = 1, max = 100))]
    name: String,
    /// For which reasons: those whose requester can be told
    #[schemars(schema_with = "excepted")]
    reasons: Vec<String>,
    /// Absolute path of the program
    #[schemars(regex(pattern = "^/"))]
    exe: Option<String>,
    /// What the program's content has to be
    #[schemars(regex(pattern = "^(verity:)?sha256:[0-9A-Fa-f]{64}$"))]
    digest: Option<String>,
    /// Path of a cgroup from the root of the tree, with all below it, or a pattern with one * in its last component
    #[schemars(regex(pattern = r"^/([^/]|[^/]/)*$"), length(max = 255))]
    cgroup: Option<String>,
    /// A unit of systemd's that has a cgroup, wherever systemd puts it
    #[schemars(regex(pattern = r"^[A-Za-z0-9:_.\\@-]+\.(service|slice|scope|socket|mount|swap)$"))]
    unit: Option<String>,
    /// The real user id
    #[schemars(range(max = 4_294_967_294u32))]
    uid: Option<u32>,
    /// Whether children that the program forks are let through as well
    #[schemars(default)]
    inherit: bool,
    /// When it ends: a time with Z or an offset, without quotes
    #[schemars(schema_with = "time", default)]
    expires: Option<String>,
    /// Why, for whoever reads the policy
    why: Option<String>,
}

/// A finding of the check that somebody looked at and accepted
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Accept {
    /// The finding's code
    #[schemars(regex(pattern = "^SP[0-9]{3}$"))]
    code: String,
    /// Name of the exception or scope it is about; everything with this code when left out
    about: Option<String>,
    /// Why it is acceptable
    #[schemars(length(min = 1))]
    why: String,
}

/// How it is recorded that a policy was sealed, what can be added to the seal, and which programs of others it lets in
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, rename_all = "kebab-case")]
struct Seal {
    /// The TPM's register that the record is measured into; none when left out
    #[schemars(range(min = 8, max = 15))]
    pcr: Option<u8>,
    /// Whether nothing is sealed where no TPM takes the record
    #[schemars(default)]
    require_tpm: bool,
    /// Whether scopes and exceptions can be added to a seal of this policy; they always can where it has scopes
    #[schemars(default)]
    room_for_scopes: bool,
    /// BPF programs of others that may stay and may be loaded later
    trust: Option<Vec<Trust>>,
}

/// A BPF program of another's that a seal lets in
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Trust {
    /// Its name, for readers
    #[schemars(length(min = 1, max = 100))]
    name: String,
    /// Its kind
    #[schemars(schema_with = "words::<crate::trusted::ProgramKind>")]
    kind: String,
    /// lsm and lsm-cgroup: the hook's name. modify-return: the function's name. ext: the number of the function in type information. cgroup-sysctl: none
    #[schemars(schema_with = "hook", default)]
    hook: Option<String>,
    /// Its tags, as bpftool prints them: one for each version and kernel
    #[schemars(schema_with = "tags")]
    tags: Vec<String>,
    /// Why, for whoever reads the policy
    why: Option<String>,
}

fn version(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "const": crate::read::VERSION })
}

fn words<W: Word>(_: &mut SchemaGenerator) -> Schema {
    let words: Vec<_> = W::WORDS.iter().map(|(word, _)| *word).collect();
    json_schema!({ "type": "string", "enum": words })
}

fn reasons(generator: &mut SchemaGenerator) -> Schema {
    let verdict = words::<crate::model::Verdict>(generator);
    let each = stockade_reasons::all().iter().map(|reason| {
        let mut verdict = verdict.clone();
        verdict.insert(
            "description".into(),
            format!("{} ({}). {}", reason.kernel_string, reason.level, reason.closes).into(),
        );
        (reason.id.to_owned(), verdict.to_value())
    });
    let each: serde_json::Map<String, Value> = each.collect();
    json_schema!({ "type": "object", "properties": each, "additionalProperties": false })
}

fn hook(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "anyOf": [
        { "type": "string", "pattern": "^[A-Za-z0-9_]{1,128}$" },
        { "type": "integer", "minimum": 1, "maximum": u32::MAX }
    ] })
}

fn tags(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": { "type": "string", "pattern": "^[0-9A-Fa-f]{16}$" },
        "minItems": 1,
        "uniqueItems": true
    })
}

fn frozen(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": { "type": "string", "pattern": "^(default|[!-~]+[./][!-~]+)$", "maxLength": 63 },
        "uniqueItems": true
    })
}

fn ratchets(_: &mut SchemaGenerator) -> Schema {
    let known = settings::all().iter().filter(|setting| setting.values.have_an_order());
    let names: Vec<_> = [settings::DEFAULT]
        .into_iter()
        .chain(known.flat_map(|setting| [setting.name, setting.kernel_name]))
        .collect();
    json_schema!({ "type": "array", "items": { "enum": names }, "uniqueItems": true })
}

fn excepted(_: &mut SchemaGenerator) -> Schema {
    let trustworthy = stockade_reasons::all().iter().filter(|reason| reason.subject == Subject::Trustworthy);
    let ids: Vec<_> = trustworthy.map(|reason| reason.id).collect();
    json_schema!({ "type": "array", "items": { "enum": ids }, "minItems": 1, "uniqueItems": true })
}

/// Editors hand over TOML's times as strings.
fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date-time" })
}

fn one_place(schema: &mut Schema) {
    schema.insert("oneOf".into(), json!([{ "required": ["cgroup"] }, { "required": ["unit"] }]));
}

fn subject(schema: &mut Schema) {
    let any = ["exe", "cgroup", "unit"].map(|key| json!({ "required": [key] }));
    schema.insert("anyOf".into(), json!(any));
    schema.insert("not".into(), json!({ "required": ["cgroup", "unit"] }));
    schema.insert("dependentRequired".into(), json!({ "digest": ["exe"], "inherit": ["exe"] }));
}

#[test]
fn the_schema_for_editors_is_that_of_the_reader() {
    let mut schema = schema_for!(Policy);
    // A key may be left out, but TOML has no null to say so.
    drop_null(schema.as_object_mut().expect("a schema of a table is an object"));
    let schema = schema.to_value();
    let keys = |table: &Value| -> Vec<String> {
        table["properties"].as_object().expect("a table has keys").keys().cloned().collect()
    };
    let sorted = |keys: &[&str]| {
        let mut keys: Vec<_> = keys.iter().map(ToString::to_string).collect();
        keys.sort();
        keys
    };
    let mut top = keys(&schema);
    top.sort();
    assert_eq!(top, sorted(keys::TOP));
    for (name, known) in [
        ("Settings", keys::SETTINGS),
        ("Scope", keys::SCOPE),
        ("Exception", keys::EXCEPTION),
        ("Accept", keys::ACCEPT),
        ("Seal", keys::SEAL),
        ("Trust", keys::TRUST),
    ] {
        let mut there = keys(&schema["$defs"][name]);
        there.sort();
        assert_eq!(there, sorted(known), "{name}");
    }
    let needed = |table: &Value| table["required"].as_array().cloned().unwrap_or_default();
    assert_eq!(needed(&schema), [] as [Value; 0]);
    assert_eq!(needed(&schema["$defs"]["Scope"]), ["name"]);
    assert_eq!(needed(&schema["$defs"]["Exception"]), ["name", "reasons"]);
    assert_eq!(needed(&schema["$defs"]["Accept"]), ["code", "why"]);
    assert_eq!(needed(&schema["$defs"]["Trust"]), ["name", "kind", "tags"]);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema/policy.schema.json");
    let text = serde_json::to_string_pretty(&schema).expect("a schema is JSON") + "\n";
    if std::env::var_os("STOCKADE_BLESS").is_some() {
        std::fs::write(&path, &text).expect("the folder of schemas is there");
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == text,
        "{} is out of date: STOCKADE_BLESS=1 cargo test -p stockade-policy",
        path.display()
    );
}

fn drop_null(object: &mut serde_json::Map<String, Value>) {
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|one| one != "null");
        if let [one] = types.as_slice() {
            let one = one.clone();
            object.insert("type".into(), one);
        }
    }
    if object.get("default") == Some(&Value::Null) {
        object.remove("default");
    }
    for value in object.values_mut() {
        match value {
            Value::Object(inner) => drop_null(inner),
            Value::Array(list) => list.iter_mut().filter_map(Value::as_object_mut).for_each(drop_null),
            _ => {}
        }
    }
}
