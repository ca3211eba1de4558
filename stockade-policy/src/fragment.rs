/*!
`[[seal.trust]]` as a file: made of programs that are loaded, or of a file that is there with their tags added. What somebody wrote
into that file stays as it is, comments included.
*/
use std::fmt::Write;

use crate::{
    document::Document,
    problems::Problems,
    quote::quoted,
    read::read,
    source::Source,
    trusted::{ProgramHook, ProgramKind, ProgramTag, TrustedProgram, target},
    words::Word,
};

/// A loaded program, as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedProgram {
    /// The name that it was loaded under; may be empty.
    pub name: String,
    /// Its kind.
    pub kind: ProgramKind,
    /// The hook that it is attached to.
    pub hook: Option<ProgramHook>,
    /// Its tag.
    pub tag: ProgramTag,
    /// The user who loaded it and the processes that hold it, for a comment.
    pub about: String,
}

/// A file with these programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Its text.
    pub text: String,
    /// Names of the programs that were not in it.
    pub new_programs: Vec<String>,
    /// Names of those that were, with another tag.
    pub new_tags: Vec<String>,
}

/// Tells the reader what to do before a seal trusts the recorded programs.
const HEADING: &str = "\
# Programs of others that a seal keeps out, as they were loaded when `stockade trust record` looked.
#
# A trusted program can undo the seal, and anybody may load the same instructions again. Before you trust one:
#   - find out which package or agent loads it, and that you need it;
#   - make sure that this machine was clean when it was recorded: what an attacker loaded is in this list as well;
#   - look whether it decides by maps (`bpftool prog show`): whoever writes those decides what it answers.
# Remove the entries that you do not trust, say in `why` what each is for, and put the file into /etc/stockade/policy.d.
";

/// Adds programs to a file, or makes one. `at` stands in the comment on each tag: the kernel and the day.
///
/// # Errors
/// With what is wrong with the file that is there, or with what it would become.
pub fn record(existing: Option<&Source>, loaded: &[LoadedProgram], at: &str) -> Result<Fragment, Problems> {
    let existing = existing.filter(|source| !source.text().trim().is_empty());
    let (mut text, there) = match existing {
        Some(source) => (source.text().to_owned(), read(source)?.seal.trusted),
        None => (HEADING.to_owned(), Vec::new()),
    };
    let at = stockade_text::harmless(at);
    let mut entries: Vec<Entry> =
        there.into_iter().map(|program| Entry::There { program, tags: Vec::new() }).collect();
    let (mut new_programs, mut new_tags) = (Vec::new(), Vec::new());
    for program in loaded {
        let alike: Vec<usize> = (0..entries.len()).filter(|&at| entries[at].is_alike(program)).collect();
        if alike.iter().any(|&at| entries[at].has(program.tag)) {
            continue;
        }
        let wanted = if program.name.is_empty() { "without a name" } else { &program.name };
        let comment = format!("{at}; {}", stockade_text::harmless(&program.about));
        let Some(found) = alike.into_iter().find(|&at| entries[at].name() == wanted) else {
            let name = free_name(&entries, wanted, program);
            new_programs.push(name.clone());
            let (kind, hook, tags) = (program.kind, program.hook.clone(), vec![(program.tag, comment)]);
            entries.push(Entry::New { name, kind, hook, tags });
            continue;
        };
        new_tags.push(wanted.to_owned());
        let (Entry::There { tags, .. } | Entry::New { tags, .. }) = &mut entries[found];
        tags.push((program.tag, comment));
    }
    // From the end, so that places before it stay where they are.
    for entry in entries.iter().rev() {
        if let Entry::There { program, tags } = entry {
            let first = program.tags.first().expect("a trusted program has a tag").origin.span.0 as usize;
            for (tag, comment) in tags {
                text.insert_str(first, &format!("\"{tag}\", # {comment}\n    "));
            }
        }
    }
    if !text.ends_with('\n') {
        text.push('\n');
    }
    for entry in &entries {
        if let Entry::New { name, kind, hook, tags } = entry {
            text.push_str(&table(name, *kind, hook.as_ref(), tags));
        }
    }
    let name = existing.map_or("what was recorded", Source::name);
    let document: Document = read(&Source::new(name, &*text))?;
    debug_assert!(loaded.iter().all(|program| document.seal.trusted.iter().any(|there| {
        there.identities().any(|identity| identity == (program.tag, program.kind, program.hook.as_ref()))
    })));
    Ok(Fragment { text, new_programs, new_tags })
}

/// An entry of the file.
enum Entry {
    There { program: TrustedProgram, tags: Vec<(ProgramTag, String)> },
    New { name: String, kind: ProgramKind, hook: Option<ProgramHook>, tags: Vec<(ProgramTag, String)> },
}

impl Entry {
    fn name(&self) -> &str {
        match self {
            Self::There { program, .. } => &program.name.value,
            Self::New { name, .. } => name,
        }
    }

    fn is_alike(&self, program: &LoadedProgram) -> bool {
        let (kind, hook) = match self {
            Self::There { program, .. } => {
                (program.kind.value, program.hook.as_ref().map(|said| &said.value))
            }
            Self::New { kind, hook, .. } => (*kind, hook.as_ref()),
        };
        (kind, hook) == (program.kind, program.hook.as_ref())
    }

    fn has(&self, tag: ProgramTag) -> bool {
        let (Self::There { tags, .. } | Self::New { tags, .. }) = self;
        let was_there = match self {
            Self::There { program, .. } => program.tags.iter().any(|said| said.value == tag),
            Self::New { .. } => false,
        };
        was_there || tags.iter().any(|(added, _)| *added == tag)
    }
}

/// The name of the program, with what it is attached to where the name alone is taken.
fn free_name(entries: &[Entry], wanted: &str, program: &LoadedProgram) -> String {
    let is_taken = |name: &str| entries.iter().any(|entry| entry.name() == name);
    let target = target(program.kind, program.hook.as_ref());
    let more = (1..).map(|number| match number {
        1 => wanted.to_owned(),
        2 => format!("{wanted}, {target}"),
        number => format!("{wanted}, {target}, {number}"),
    });
    let mut free = more.filter(|name| !is_taken(name));
    free.next().expect("numbers do not end")
}

fn table(name: &str, kind: ProgramKind, hook: Option<&ProgramHook>, tags: &[(ProgramTag, String)]) -> String {
    let mut out = format!("\n[[seal.trust]]\nname = {}\nkind = {}\n", quoted(name), quoted(kind.word()));
    match hook {
        Some(ProgramHook::Name(name)) => {
            let _ = writeln!(out, "hook = {}", quoted(name));
        }
        Some(ProgramHook::Number(number)) => {
            let _ = writeln!(out, "hook = {number}");
        }
        None => {}
    }
    out.push_str("tags = [\n");
    for (tag, comment) in tags {
        let _ = writeln!(out, "    \"{tag}\", # {comment}");
    }
    out.push_str("]\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lsm(name: &str, hook: &str, tag: u8) -> LoadedProgram {
        LoadedProgram {
            name: name.into(),
            kind: ProgramKind::Lsm,
            hook: Some(ProgramHook::Name(hook.into())),
            tag: ProgramTag([tag; 8]),
            about: "loaded by user 0, held by link 3".into(),
        }
    }

    fn after(existing: Option<&str>, loaded: &[LoadedProgram]) -> Fragment {
        let source = existing.map(|text| Source::new("trust.toml", text));
        record(source.as_ref(), loaded, "Linux 6.12.1, 2026-11-30")
            .unwrap_or_else(|e| panic!("{}", e.render(false)))
    }

    #[test]
    fn a_file_is_made_that_says_what_to_check() {
        let sysctl = LoadedProgram { kind: ProgramKind::CgroupSysctl, hook: None, ..lsm("networkd", "", 2) };
        let ext = LoadedProgram {
            kind: ProgramKind::Ext,
            hook: Some(ProgramHook::Number(12)),
            ..lsm("xdp", "", 3)
        };
        let made = after(None, &[lsm("agent", "bpf", 1), sysctl, ext]);
        assert!(made.text.starts_with(HEADING));
        assert_eq!(
            &made.text[HEADING.len()..],
            r#"
[[seal.trust]]
name = "agent"
kind = "lsm"
hook = "bpf"
tags = [
    "0101010101010101", # Linux 6.12.1, 2026-11-30; loaded by user 0, held by link 3
]

[[seal.trust]]
name = "networkd"
kind = "cgroup-sysctl"
tags = [
    "0202020202020202", # Linux 6.12.1, 2026-11-30; loaded by user 0, held by link 3
]

[[seal.trust]]
name = "xdp"
kind = "ext"
hook = 12
tags = [
    "0303030303030303", # Linux 6.12.1, 2026-11-30; loaded by user 0, held by link 3
]
"#
        );
        assert_eq!(made.new_programs, ["agent", "networkd", "xdp"]);
        // Once more it changes nothing.
        let again = after(Some(&made.text), &[lsm("agent", "bpf", 1)]);
        assert_eq!((again.text, again.new_programs, again.new_tags), (made.text, vec![], vec![]));
    }

    #[test]
    fn tags_are_added_and_nothing_else_is_touched() {
        let there = "# mine\n[seal]\npcr = 13\n\n[[seal.trust]]\nname = 'agent' # ours\nkind = \"lsm\"\nhook = \"bpf\"\ntags = [\"0101010101010101\"] # old\nwhy = \"it is needed\"\n\n[reasons]\nperf = \"allow\"";
        let made =
            after(Some(there), &[lsm("agent", "bpf", 2), lsm("agent", "bpf", 3), lsm("other", "bpf", 1)]);
        assert_eq!(
            (made.new_tags, made.new_programs),
            (vec!["agent".into(), "agent".into()], Vec::<String>::new())
        );
        let comment = "# Linux 6.12.1, 2026-11-30; loaded by user 0, held by link 3\n    ";
        let tags = format!(
            "\"0303030303030303\", {comment}\"0202020202020202\", {comment}\"0101010101010101\"] # old"
        );
        assert_eq!(made.text, there.replace("\"0101010101010101\"] # old", &tags) + "\n");
    }

    #[test]
    fn programs_of_one_name_are_told_apart_by_their_hooks() {
        let loaded =
            [lsm("agent", "bpf", 1), lsm("agent", "bpf", 2), lsm("agent", "file_open", 1), lsm("", "bpf", 4)];
        let made = after(None, &loaded);
        assert_eq!(made.new_programs, ["agent", "agent, lsm on file_open", "without a name"]);
        assert_eq!(made.new_tags, ["agent"]);
        assert_eq!(after(Some(&made.text), &loaded).text, made.text);
    }

    #[test]
    fn nothing_is_written_over_a_file_that_is_wrong_or_becomes_wrong() {
        let wrong = Source::new("trust.toml", "levle = 1\n");
        assert!(record(Some(&wrong), &[], "").unwrap_err().to_string().contains("levle"));
        let many: Vec<_> = (0..33).map(|tag| lsm("agent", "bpf", tag)).collect();
        assert!(record(None, &many, "").unwrap_err().to_string().contains("room for: 32"));
        let inline = Source::new("trust.toml", "seal = { pcr = 13 }\n");
        assert!(record(Some(&inline), &many[..1], "").is_err());
    }

    #[test]
    fn a_comment_stays_on_its_line() {
        let mut program = lsm("agent", "bpf", 1);
        program.about = "held by /sys/fs/bpf/a\nlevel = \"none\"".into();
        let made = after(None, &[program]);
        assert!(!made.text.contains("\nlevel"), "{}", made.text);
    }
}
