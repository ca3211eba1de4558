/*!
`[[seal.trust]]`: a program of another's that a seal lets in.
*/
use stockade_common::TRUSTED_MAX;
use toml::de::DeValue;

use super::{
    Reader,
    fields::{Table, Value, printable},
};
use crate::{
    model::{Origin, Said},
    problem::Problem,
    trusted::{Identity, ProgramHook, ProgramKind, ProgramTag, TrustedProgram, no_room},
};

/// The keys of a trusted program.
pub const KEYS: &[&str] = &["name", "kind", "hook", "tags", "why"];

const KIND: &str = "kind = \"lsm\"";
const HOOK: &str = "hook = \"file_open\"";
const EXT_HOOK: &str = "hook = 12";
const TAGS: &str = "tags = [\"6cbd744a7dc19c8d\"]";
const RECORD: &str = "`stockade trust record` prints whole entries for the programs that are loaded";

/// The longest name of a hook or function, in bytes: the kernel's own symbols are shorter.
const LONGEST_HOOK: usize = 128;

impl Reader<'_> {
    /// The tables of `[[seal.trust]]`, given `[seal]`.
    pub(super) fn trusted(&mut self, seal: &Table) -> Vec<TrustedProgram> {
        let tables = self.headed_tables(seal, "trust", "[[seal.trust]]", "a trusted program");
        self.unique_names(&tables, "trusted program");
        let trusted: Vec<_> = tables.iter().filter_map(|table| self.trusted_program(table)).collect();
        self.told_apart(&trusted);
        trusted
    }

    /// Reports tags that come twice, and the first for which a seal has no room.
    fn told_apart(&mut self, trusted: &[TrustedProgram]) {
        let mut seen: Vec<(Identity<'_>, &Origin)> = Vec::new();
        for program in trusted {
            for (tag, identity) in program.tags.iter().zip(program.identities()) {
                if let Some((_, first)) = seen.iter().find(|(there, _)| *there == identity) {
                    let what = format!("the tag {} of kind {} is trusted twice", tag.value, program.target());
                    let problem = Problem::new(what, tag.origin.clone()).label("again here");
                    self.report(problem.also((*first).clone(), "first here").help("keep one of the two"));
                } else if seen.len() == TRUSTED_MAX {
                    self.report(no_room(tag.origin.clone()));
                    return;
                } else {
                    seen.push((identity, &tag.origin));
                }
            }
        }
    }

    fn trusted_program(&mut self, table: &Table) -> Option<TrustedProgram> {
        self.only_known_keys(table, KEYS);
        let name = self.name(table, "name = \"restrict_filesystems\"");
        let kind = self.demand(table, "kind", KIND).and_then(|value| self.one_word("kind", value));
        let hook = kind.as_ref().map(|kind| self.program_hook(table, kind.value));
        let tags = self.demand(table, "tags", TAGS).and_then(|value| self.tags(value));
        let why = table
            .get("why")
            .and_then(|value| self.sentence("why", value, "why = \"RestrictFileSystems= of systemd 257\""));
        Some(TrustedProgram { name: name?, kind: kind?, hook: hook?.ok()?, tags: tags?, why })
    }

    /// The hook of a program of this kind; an error after a mistake, which is reported.
    fn program_hook(&mut self, table: &Table, kind: ProgramKind) -> Result<Option<Said<ProgramHook>>, ()> {
        match kind {
            ProgramKind::CgroupSysctl => {
                if !table.has("hook") {
                    return Ok(None);
                }
                let problem = self.wrong(
                    "a program of kind \"cgroup-sysctl\" has no hook: a cgroup asks it for sysctls",
                    &table.key("hook"),
                );
                self.report(problem.help("remove `hook`"));
                Err(())
            }
            ProgramKind::Ext => {
                let value = self.demand(table, "hook", EXT_HOOK).ok_or(())?;
                self.hook_number(value).map(Some).ok_or(())
            }
            ProgramKind::Lsm | ProgramKind::LsmCgroup | ProgramKind::ModifyReturn => {
                let example = if kind == ProgramKind::ModifyReturn {
                    "hook = \"security_inode_getattr\""
                } else {
                    HOOK
                };
                let value = self.demand(table, "hook", example).ok_or(())?;
                self.hook_name(value, kind, example).map(Some).ok_or(())
            }
        }
    }

    fn hook_number(&mut self, value: &Value) -> Option<Said<ProgramHook>> {
        const WANTED: &str = "a number where `kind` is \"ext\"";
        let DeValue::Integer(number) = value.get_ref() else {
            self.wrong_type("hook", WANTED, value, EXT_HOOK);
            return None;
        };
        let number = i64::from_str_radix(number.as_str(), number.radix()).ok();
        if let Some(number) = number.and_then(|number| u32::try_from(number).ok()).filter(|id| *id != 0) {
            return Some(self.said(ProgramHook::Number(number), &value.span()));
        }
        let what = "`hook` of kind \"ext\" is the number of a function in type information: 1 to 4294967295";
        let problem = self.wrong(what, &value.span());
        self.report(problem.help(RECORD));
        None
    }

    fn hook_name(&mut self, value: &Value, kind: ProgramKind, example: &str) -> Option<Said<ProgramHook>> {
        let hook = self.string("hook", value, example)?;
        let name = hook.value.as_str();
        let plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let wrong = if name.is_empty() || name.len() > LONGEST_HOOK || !plain(name) {
            format!("`hook` cannot be \"{}\": the kernel has no such name", printable(name))
        } else if kind != ProgramKind::ModifyReturn
            && let Some(rest) = ["bpf_lsm_", "security_"].iter().find_map(|start| name.strip_prefix(start))
        {
            let problem =
                Problem::new(format!("`hook` is the hook's name alone, and this is {name}"), hook.origin);
            self.report(problem.help(format!("write: hook = \"{rest}\"")));
            return None;
        } else {
            return Some(Said { value: ProgramHook::Name(hook.value), origin: hook.origin });
        };
        let problem = Problem::new(wrong, hook.origin);
        self.report(problem.help(format!("write for instance: {example}")));
        None
    }

    fn tags(&mut self, value: &Value) -> Option<Vec<Said<ProgramTag>>> {
        let typed = self.strings("tags", value, TAGS)?;
        if typed.is_empty() {
            let problem = self.wrong("`tags` is empty, so that no program would be trusted", &value.span());
            self.report(problem.help(RECORD));
            return None;
        }
        let mut tags = Vec::new();
        let mut all = true;
        for tag in typed {
            if let Some(value) = ProgramTag::parse(&tag.value) {
                tags.push(Said { value, origin: tag.origin });
                continue;
            }
            let what = format!("\"{}\" is no tag: a tag has 16 hexadecimal digits", printable(&tag.value));
            let help = "`bpftool prog show` prints it behind the word `tag`; `stockade trust record` prints whole entries";
            self.report(Problem::new(what, tag.origin).help(help));
            all = false;
        }
        all.then_some(tags)
    }
}
