/*!
A policy as text: TOML that reads as the same policy, with a comment on each value that says where it is from.
*/
use std::fmt::Write;

use crate::{
    load::Loaded,
    model::{Accepted, Digest, Exception, Hold, Origin, Place, Policy, Reasons, Said, Scope, Seal, Settings},
    quote::quoted,
    settings,
    trusted::{ProgramHook, ProgramTag, TrustedProgram},
    words::Word,
};

/// Which files were read, and which were not, as comments.
#[must_use]
pub fn heading(loaded: &Loaded) -> String {
    let mut out = "# What these files say together, later ones over earlier ones:\n".to_owned();
    for source in &loaded.sources {
        let _ = writeln!(out, "#   {}", source.name());
    }
    if !loaded.passed_over.is_empty() {
        out.push_str("# Not read:\n");
    }
    for file in &loaded.passed_over {
        let line = format!("{}: {}", file.path.display(), file.why);
        let _ = writeln!(out, "#   {}", stockade_text::harmless(line));
    }
    out.push('\n');
    out
}

/// A policy. Reading the text gives the same one, with other origins.
#[must_use]
pub fn show(policy: &Policy) -> String {
    let mut out = format!("version = {}\n", crate::read::VERSION);
    word(&mut out, "level", &policy.level);
    word(&mut out, "mode", &policy.mode);
    word(&mut out, "unknown-reasons", &policy.unknown_reasons);
    reasons(&mut out, "[reasons]", &policy.reasons);
    settings_table(&mut out, &policy.settings);
    policy.scopes.iter().for_each(|s| scope(&mut out, s));
    policy.exceptions.iter().for_each(|e| out.push_str(&exception(e)));
    policy.accepted.iter().for_each(|a| accepted(&mut out, a));
    seal(&mut out, &policy.seal);
    out
}

/// Returns the text without origins: policies with the same values give the same bytes, whose digest is in the record of a seal.
#[must_use]
pub fn canonical(policy: &Policy) -> String {
    let nowhere = from(&Origin::default());
    let text = show(&policy.clone().without_origins());
    let bare = text.lines().map(|line| line.strip_suffix(&nowhere).map_or(line, str::trim_end));
    bare.flat_map(|line| [line, "\n"]).collect()
}

/// One exception as a table of its own: what to paste into a policy.
#[must_use]
pub fn exception(e: &Exception) -> String {
    let mut out = "\n[[exception]]\n".to_owned();
    text(&mut out, "name", &e.name);
    list(&mut out, "reasons", &e.reasons);
    if let Some(exe) = &e.exe {
        line(&mut out, "exe", &quoted(&exe.value.to_string_lossy()), &exe.origin);
        if let Some(digest) = &e.digest {
            line(&mut out, "digest", &quoted(&digest.value.to_string()), &digest.origin);
        }
    }
    e.place.iter().for_each(|p| place(&mut out, p));
    if let Some(uid) = &e.uid {
        line(&mut out, "uid", &uid.value.to_string(), &uid.origin);
    }
    if e.exe.is_some() {
        line(&mut out, "inherit", &e.inherit.value.to_string(), &e.inherit.origin);
    }
    if let Some(expires) = &e.expires {
        line(&mut out, "expires", &expires.value.to_string(), &expires.origin);
    }
    e.why.iter().for_each(|why| text(&mut out, "why", why));
    out
}

fn scope(out: &mut String, s: &Scope) {
    out.push_str("\n[[scope]]\n");
    text(out, "name", &s.name);
    place(out, &s.place);
    s.level.iter().for_each(|level| word(out, "level", level));
    s.mode.iter().for_each(|mode| word(out, "mode", mode));
    line(out, "loosen", &s.loosen.value.to_string(), &s.loosen.origin);
    reasons(out, "[scope.reasons]", &s.reasons);
}

fn accepted(out: &mut String, a: &Accepted) {
    out.push_str("\n[[accept]]\n");
    text(out, "code", &a.code);
    a.about.iter().for_each(|about| text(out, "about", about));
    text(out, "why", &a.why);
}

/// Without the keys where all of them are as if nothing was said.
fn seal(out: &mut String, seal: &Seal) {
    if seal.pcr.is_some() || seal.require_tpm.value || seal.room_for_scopes.value {
        keys(out, seal);
    }
    seal.trusted.iter().for_each(|program| out.push_str(&trusted(program)));
}

/// One trusted program as a table of its own: what to paste into a policy.
#[must_use]
pub fn trusted(program: &TrustedProgram) -> String {
    let mut out = "\n[[seal.trust]]\n".to_owned();
    text(&mut out, "name", &program.name);
    word(&mut out, "kind", &program.kind);
    if let Some(hook) = &program.hook {
        let value = match &hook.value {
            ProgramHook::Name(name) => quoted(name),
            ProgramHook::Number(number) => number.to_string(),
        };
        line(&mut out, "hook", &value, &hook.origin);
    }
    let tag = |tag: &Said<ProgramTag>| Said { value: tag.value.to_string(), origin: tag.origin.clone() };
    list(&mut out, "tags", &program.tags.iter().map(tag).collect::<Vec<_>>());
    program.why.iter().for_each(|why| text(&mut out, "why", why));
    out
}

fn keys(out: &mut String, seal: &Seal) {
    out.push_str("\n[seal]\n");
    if let Some(pcr) = &seal.pcr {
        line(out, "pcr", &pcr.value.to_string(), &pcr.origin);
    }
    for (key, said) in [("require-tpm", &seal.require_tpm), ("room-for-scopes", &seal.room_for_scopes)] {
        line(out, key, &said.value.to_string(), &said.origin);
    }
}

fn reasons(out: &mut String, heading: &str, reasons: &Reasons) {
    if !reasons.is_empty() {
        let _ = writeln!(out, "\n{heading}");
    }
    for (id, verdict) in reasons {
        word(out, id, verdict);
    }
}

fn settings_table(out: &mut String, settings: &Settings) {
    if !settings.is_empty() {
        out.push_str("\n[settings]\n");
    }
    for (key, hold) in Hold::WORDS {
        let held = settings.iter().filter(|(_, said)| said.value == *hold);
        let names: Vec<_> =
            held.map(|(name, said)| Said { value: name.clone(), origin: said.origin.clone() }).collect();
        list(out, key, &names);
    }
    let name_only: Vec<&str> = name_only(settings).collect();
    if !name_only.is_empty() {
        let _ = writeln!(out, "# held under this name only, see SP315: {}", name_only.join(", "));
    }
}

/// Settings whose value can change by other ways than a write to their file.
pub fn name_only(settings: &Settings) -> impl Iterator<Item = &str> {
    let named = settings.keys().filter(|name| *name != settings::DEFAULT);
    named.map(String::as_str).filter(|name| settings::coverage(name) != settings::Coverage::Value)
}

fn place(out: &mut String, place: &Said<Place>) {
    let key = if matches!(place.value, Place::Unit(_)) { "unit" } else { "cgroup" };
    line(out, key, &quoted(&place.value.to_string()), &place.origin);
}

/// On one line where all come from one, otherwise each on its own.
fn list(out: &mut String, key: &str, items: &[Said<String>]) {
    let place = |said: &Said<String>| (said.origin.file.clone(), said.origin.line);
    match items.first() {
        Some(first) if items.iter().any(|item| place(item) != place(first)) => {
            let _ = writeln!(out, "{key} = [");
            for item in items {
                let _ = writeln!(out, "    {}, {}", quoted(&item.value), from(&item.origin));
            }
            out.push_str("]\n");
        }
        Some(first) => {
            let values: Vec<_> = items.iter().map(|item| quoted(&item.value)).collect();
            line(out, key, &format!("[{}]", values.join(", ")), &first.origin);
        }
        None => {}
    }
}

fn word(out: &mut String, key: &str, said: &Said<impl Word>) {
    line(out, key, &quoted(said.value.word()), &said.origin);
}

fn text(out: &mut String, key: &str, said: &Said<String>) {
    line(out, key, &quoted(&said.value), &said.origin);
}

fn line(out: &mut String, key: &str, value: &str, origin: &Origin) {
    let _ = writeln!(out, "{key} = {value} {}", from(origin));
}

fn from(origin: &Origin) -> String {
    let origin = stockade_text::harmless(origin.to_string());
    if origin == crate::merge::DEFAULT { format!("# {origin}") } else { format!("# from {origin}") }
}

/// The spelling in a policy file.
impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (prefix, bytes) = match self {
            Self::Sha256(bytes) => ("sha256", bytes),
            Self::Verity(bytes) => ("verity:sha256", bytes),
        };
        write!(f, "{prefix}:")?;
        bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
