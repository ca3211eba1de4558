/*!
Programs of others that could stand between a question and the answer of a sealed one, and who holds what.
*/
use std::{os::fd::BorrowedFd, path::Path};

use stockade_common::{KnownProgram, kinds};
use stockade_text::harmless;

use crate::{
    Error, programs,
    sys::{self, fs, held},
};

/// A loaded program of another's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// As `bpftool prog` shows it.
    pub id: u32,
    /// The name it was loaded under.
    pub name: String,
    /// Its type, in words.
    pub kind: String,
    /// What the kernel made of its instructions.
    pub tag: [u8; 8],
    /// User who loaded it.
    pub uid: u32,
    number: u32,
    hook: u32,
}

impl Foreign {
    /// The tag as `bpftool prog` writes it.
    #[must_use]
    pub fn tag_words(&self) -> String {
        format!("{:016x}", u64::from_be_bytes(self.tag))
    }

    /// How guards know it. For another hook the same instructions are another program.
    pub(crate) fn known(&self) -> KnownProgram {
        KnownProgram { tag: u64::from_ne_bytes(self.tag), kind: self.number, hook: self.hook }
    }

    /// Whether an administrator means it: by id or by tag.
    fn is_named(&self, name: &str) -> bool {
        self.id.to_string() == name || self.tag_words() == name
    }

    fn of(info: &aya_obj::generated::bpf_prog_info) -> Self {
        Self {
            id: info.id,
            name: programs::text(&info.name.map(libc::c_char::cast_unsigned)),
            kind: programs::kind(info.type_),
            tag: info.tag,
            uid: info.created_by_uid,
            number: info.type_,
            hook: info.attach_btf_id,
        }
    }
}

/// Every loaded program that could be of a kind that reaches ours: whether a tracing program modifies what a function returns
/// the kernel does not tell.
fn candidates() -> Result<Vec<Foreign>, Error> {
    let failed = |e| Error::io("list the loaded BPF programs", e);
    let mut found = Vec::new();
    let mut id = 0;
    while let Some(next) = sys::next_program(id).map_err(failed)? {
        id = next;
        let Some((_, info)) = held::program(id).map_err(failed)? else { continue };
        if kinds::reaches_us(info.type_, kinds::ATTACH_MODIFY_RETURN, kinds::Hook::Dialogue, 0) {
            found.push(Foreign::of(&info));
        }
    }
    Ok(found)
}

/// The programs that an administrator wants kept, each named by id or by tag.
pub(crate) fn trusted(named: &[String]) -> Result<Vec<Foreign>, Error> {
    if named.is_empty() {
        return Ok(Vec::new());
    }
    let there = candidates()?;
    let find = |name: &String| {
        let found = there.iter().find(|program| program.is_named(name));
        found.cloned().ok_or_else(|| {
            let list: Vec<_> = there.iter().map(|p| format!("{} ({})", p.id, p.name)).collect();
            Error::Request(format!(
                "--trust {name}: no loaded program of a kind that a seal keeps out has this id or tag; there are: {}",
                if list.is_empty() { "none".to_owned() } else { list.join(", ") }
            ))
        })
    };
    named.iter().map(find).collect()
}

/// Programs of others that are asked for sysctls, apart from those that an administrator trusts.
pub(crate) fn asked_for_sysctls(trust: &[String], ours: &[u32]) -> Result<Vec<Foreign>, Error> {
    let trusted = |program: &Foreign| trust.iter().any(|name| program.is_named(name));
    let mut found = candidates()?;
    found.retain(|program| {
        program.number == kinds::CGROUP_SYSCTL && !ours.contains(&program.id) && !trusted(program)
    });
    Ok(found)
}

/// Fails when a program is loaded that could reach ours, apart from these. The guard on programs has to be attached: what
/// it keeps this process from opening is what counts, since it sees what the kernel does not tell.
pub(crate) fn none_but(trusted: &[Foreign], ours: &[u32]) -> Result<(), Error> {
    let failed = |e| Error::io("list the loaded BPF programs", e);
    let mut refused = Vec::new();
    let mut id = 0;
    while let Some(next) = sys::next_program(id).map_err(failed)? {
        id = next;
        let known = ours.contains(&id) || trusted.iter().any(|foreign| foreign.id == id);
        if !known && sys::program_by_id(id).is_err_and(|e| e.raw_os_error() == Some(libc::EPERM)) {
            refused.push(id);
        }
    }
    if refused.is_empty() { Ok(()) } else { Err(Error::Foreign { programs: refused, words: String::new() }) }
}

/// In words what [`Error::Foreign`] is about. The guard has to be gone again.
pub(crate) fn describe(ids: &[u32]) -> String {
    let mut text = String::new();
    let holds = programs::holds(ids, &[Path::new(crate::pins::BPFFS).to_owned()]);
    for &id in ids {
        let Ok(Some((_, info))) = held::program(id) else { continue };
        let foreign = Foreign::of(&info);
        let mut by: Vec<String> = holds
            .iter()
            .filter(|(program, _)| *program == id)
            .map(|(_, hold)| match hold {
                programs::Hold::Link(link) => format!("link {link}"),
                programs::Hold::Pin(path) => harmless(path.as_os_str().as_encoded_bytes()),
            })
            .collect();
        by.extend(holders("prog_id", id).into_iter().map(|(pid, comm)| format!("{comm} ({pid})")));
        let by = if by.is_empty() { "nobody that can be seen".to_owned() } else { by.join(", ") };
        text += &format!(
            "\n  {id} {} ({}), loaded by user {}, held by {by}; to keep it: --trust {} or --trust {id}",
            if foreign.name.is_empty() { "without a name" } else { &foreign.name },
            foreign.kind,
            foreign.uid,
            foreign.tag_words(),
        );
    }
    text
}

/// Processes other than this one with a descriptor of the BPF object with this id.
pub(crate) fn holders(field: &str, id: u32) -> Vec<(u32, String)> {
    let wanted = format!("{field}:\t{id}\n");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if pid == std::process::id() {
            continue;
        }
        // Which descriptors are BPF objects is told by their links: far cheaper than reading every fdinfo.
        let has = fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten().any(|fd| {
            let link = fs::read_link(fd.path()).unwrap_or_default();
            link.to_string_lossy().starts_with("anon_inode:bpf")
                && fs::read_to_string(entry.path().join("fdinfo").join(fd.file_name()))
                    .is_ok_and(|info| info.contains(&wanted))
        });
        if has {
            found.push((pid, comm(&entry.path())));
        }
    }
    found
}

/// What a process calls itself, fit to print. It ends with a line break of the kernel's.
pub(crate) fn comm(process: &Path) -> String {
    let comm = fs::read(process.join("comm")).unwrap_or_default();
    harmless(comm.strip_suffix(b"\n").unwrap_or(&comm))
}

/// The id of a program.
pub(crate) fn id(program: BorrowedFd<'_>) -> Option<u32> {
    sys::program_info(program, &mut []).ok().map(|info| info.id)
}
