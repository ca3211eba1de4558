/*!
Programs of others that could bypass the programs of a seal, and the processes that hold them.
*/
use std::{os::fd::AsFd, path::Path};

use stockade_common::{KnownProgram, Seal, kinds};
use stockade_text::harmless;

use crate::{
    Error,
    machine::{patience::Patience, processes},
    program::{
        duty::{Duty, Sealing},
        info, instructions,
        links::{self, Links, refused_by},
        loaded, object,
    },
    sys::{self, held},
};

/// The kind in a [`KnownProgram`] that stands for one program, by its id in place of the tag. No program has this kind, so that the
/// guard lets none in by it: what is loaded stays, and nothing like it can be loaded.
const BY_ID: u32 = u32::MAX;

/// A loaded program of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// The id that `bpftool prog` shows.
    pub id: u32,
    /// The name it was loaded under.
    pub name: String,
    /// Its type, in words.
    pub kind: String,
    /// The kernel's hash of its instructions.
    pub tag: [u8; 8],
    /// User who loaded it.
    pub uid: u32,
    /// Its type: one of `enum bpf_prog_type`.
    pub(crate) number: u32,
    /// The BTF id of the function that it is attached to; 0 for none.
    pub(crate) hook: u32,
    /// The attach type, of `enum bpf_attach_type`. `None` for a tracing program that no link attaches, and if another guard refuses the descriptor.
    pub(crate) attach_type: Option<u32>,
    /// The id of the type information that the hook is of; 0 for none.
    types: u32,
}

impl Foreign {
    /// The tag as `bpftool prog` writes it.
    #[must_use]
    pub fn tag_words(&self) -> String {
        format!("{:016x}", u64::from_be_bytes(self.tag))
    }

    /// Returns the identity that guards compare: tag, type and hook. `None` for an LSM program whose attach type is not known.
    pub(crate) fn known(&self) -> Option<KnownProgram> {
        let kind = match (self.number, self.attach_type) {
            (kinds::LSM, None) => return None,
            (number, attach_type) => kinds::of(number, attach_type.unwrap_or_default()),
        };
        Some(KnownProgram { tag: u64::from_ne_bytes(self.tag), kind, hook: self.hook })
    }

    /// Reports whether it could bypass a program of this seal. A tracing program that no link attaches cannot yet; callers that run before the seal's guard on programs
    /// is attached have to assume that it will be attached.
    pub(crate) fn reaches(&self, seal: &Seal) -> bool {
        let hook = links::on(seal, self.hook);
        match (self.number, self.attach_type) {
            (kinds::LSM, None) => hook != kinds::Hook::Another,
            (number, attach_type) => {
                kinds::reaches_us(number, attach_type.unwrap_or_default(), hook, seal.flags)
            }
        }
    }

    /// Reports whether the hook is a function of the kernel, not of a module or of another program. The kernel's BTF has the first id.
    pub(crate) fn is_on_kernel(&self) -> bool {
        self.types == 1
    }

    /// Reports whether an administrator named it, by id or by tag.
    fn is_named(&self, name: &str) -> bool {
        self.id.to_string() == name || self.tag_words() == name
    }

    pub(crate) fn of(info: &aya_obj::generated::bpf_prog_info) -> Self {
        Self {
            id: info.id,
            name: info::text(&info.name.map(libc::c_char::cast_unsigned)),
            kind: info::kind(info.type_),
            tag: info.tag,
            uid: info.created_by_uid,
            number: info.type_,
            hook: info.attach_btf_id,
            attach_type: None,
            types: info.attach_btf_obj_id,
        }
    }
}

/// The loaded programs of others that could bypass ours, or that cannot be looked at, as bpf(2) tells.
///
/// A BPF program on the hook `bpf` or `bpf_prog` can make a call of bpf(2) fail. It cannot change what a successful call returns.
#[derive(Debug, Default)]
pub(crate) struct Others {
    /// Those of a kind that could reach ours: whether a tracing program modifies what a function returns the kernel does not tell.
    pub seen: Vec<Foreign>,
    /// Ids of those that a guard of another's gives no descriptor of, so that kind and tag are not known.
    pub hidden: Vec<u32>,
    /// Ids that the kernel lists, and then says that there is no such program: a program of another's answers in its place.
    pub denied: Vec<u32>,
    /// Ids of all loaded programs, in ascending order.
    listed: Vec<u32>,
    /// The links, which tell attach type and hook of a program that cannot be opened.
    pub links: Links,
}

impl Others {
    /// Looks at every loaded program but these.
    fn look_beside(ours: &[u32]) -> Result<Self, Error> {
        let mut others = Self { links: Links::look(), listed: loaded()?, ..Self::default() };
        for id in others.listed.iter().copied().filter(|id| !ours.contains(id)) {
            let (program, info) = match held::program(id) {
                Ok(Some(found)) => found,
                Ok(None) => {
                    // It was unloaded if the next id is another one. At the end of the list ENOENT proves nothing.
                    if next(id - 1)?.is_none_or(|other| other <= id) {
                        others.denied.push(id);
                    }
                    continue;
                }
                Err(e) if e.raw_os_error() == Some(libc::EPERM) => {
                    others.hidden.push(id);
                    continue;
                }
                Err(e) => return Err(Error::io(format!("look at the BPF program {id}"), e)),
            };
            if kinds::reaches_us(info.type_, kinds::ATTACH_MODIFY_RETURN, kinds::Hook::Dialogue, 0) {
                let attach_type = match info.type_ {
                    kinds::LSM => held::is_for_cgroups(program.as_fd()).ok().map(|is_for_cgroups| {
                        if is_for_cgroups { kinds::ATTACH_LSM_CGROUP } else { kinds::ATTACH_LSM }
                    }),
                    kinds::TRACING => others.links.nature(id).map(|nature| nature.attach_type),
                    kinds::CGROUP_SYSCTL => Some(kinds::ATTACH_CGROUP_SYSCTL),
                    _ => Some(0),
                };
                others.seen.push(Foreign { attach_type, ..Foreign::of(&info) });
            }
        }
        Ok(others)
    }

    /// Repeats the look until no program was loaded or unloaded during it. A program that made a call about another one fail is then still loaded when it is
    /// looked at itself, and is seen, hidden or denied.
    pub fn look_quietly(ours: &[u32]) -> Result<Self, Error> {
        let failed = |e| Error::bpf("loading a program that does nothing", e);
        let mark = || instructions::load_constant(sys::Target::socket_filter(), 0).map_err(failed);
        let mut patience = Patience::new();
        loop {
            let before = mark()?;
            let first = info::id(before.as_fd()).unwrap_or_default();
            let others = Self::look_beside(&[ours, &[first]].concat())?;
            let listed = loaded()?;
            let last = info::id(mark()?.as_fd());
            // The kernel allocates ids in ascending order.
            if last == first.checked_add(1) && listed == others.listed && listed.contains(&first) {
                return Ok(others);
            }
            if !patience.wait() {
                return Err(Error::Request(format!(
                    "the loaded BPF programs cannot be listed: for {} s, programs have been loaded and unloaded all the time, or one keeps the kernel from \
                     listing them: `bpftool prog` tells, try again",
                    patience.seconds()
                )));
            }
        }
    }

    /// Looks at every loaded program.
    pub fn look() -> Result<Self, Error> {
        Self::look_beside(&[])
    }

    /// Returns the ids of those that could bypass the programs of a seal: seen and not known, or not to be looked at where no link proves them harmless.
    pub fn strangers(
        &self,
        seal: &Seal,
        is_known: &dyn Fn(&Foreign) -> bool,
        is_known_id: &dyn Fn(u32) -> bool,
    ) -> Vec<u32> {
        let seen = self.seen.iter().filter(|program| program.reaches(seal) && !is_known(program));
        let unknown = self.hidden.iter().chain(&self.denied).copied();
        let unknown = unknown.filter(|id| !self.links.prove_harmless(*id, seal));
        seen.map(|program| program.id).chain(unknown).filter(|id| !is_known_id(*id)).collect()
    }

    /// The program that an administrator means, by id or by tag.
    pub fn named(&self, name: &str) -> Result<Foreign, Error> {
        let found = self.seen.iter().find(|program| program.is_named(name));
        found.cloned().ok_or_else(|| {
            let list: Vec<_> = self.seen.iter().map(|p| format!("{} ({})", p.id, p.name)).collect();
            let mut words = format!(
                "--trust {name}: no loaded program of a kind that a seal keeps out has this id or tag; there are: {}",
                if list.is_empty() { "none".to_owned() } else { list.join(", ") }
            );
            if !self.hidden.is_empty() {
                let ids: Vec<_> = self.hidden.iter().map(u32::to_string).collect();
                words += &format!(
                    "; another guard on BPF programs hides {}, of which no tag is known: name them by id",
                    ids.join(", ")
                );
            }
            Error::Request(words)
        })
    }
}

/// The entry of [`Seal::trusted`] for the one loaded program with this id.
pub(crate) fn by_id(id: u32) -> KnownProgram {
    KnownProgram { tag: id.into(), kind: BY_ID, hook: 0 }
}

/// Whether a seal trusts the one program with this id.
pub(crate) fn is_by_id(seal: &Seal, id: u32) -> bool {
    seal.trusted.contains(&by_id(id))
}

/// The lowest id of a loaded program above this one.
fn next(after: u32) -> Result<Option<u32>, Error> {
    sys::next_program(after).map_err(|e| Error::io("list the loaded BPF programs", e))
}

/// Ids of all loaded programs, in rising order.
fn loaded() -> Result<Vec<u32>, Error> {
    let mut ids = Vec::new();
    while let Some(id) = next(ids.last().copied().unwrap_or_default())? {
        ids.push(id);
    }
    Ok(ids)
}

/// Returns the ids of loaded programs that could bypass those of a seal and that it does not trust. The seal's guard on programs has to be attached: it refuses a
/// descriptor of each such program, which is then hidden. Waits for programs to be unloaded that were released a moment ago.
pub(crate) fn strangers_beside(seal: &Seal, sealing: &Sealing) -> Result<Vec<u32>, Error> {
    let ours: Vec<u32> = seal.programs.into_iter().chain(seal.staying).filter(|id| *id != 0).collect();
    let enforcing = enforcing(sealing)?;
    let is_known = |program: &Foreign| {
        program.known().is_some_and(|known| enforcing.contains(&known) || seal.trusted.contains(&known))
    };
    let mut patience = Patience::new();
    loop {
        let others = Others::look_quietly(&ours)?;
        let strangers = others.strangers(seal, &is_known, &|id| is_by_id(seal, id));
        if strangers.is_empty() || !patience.wait() {
            return Ok(strangers);
        }
    }
}

/// Lists the programs that Stockade pins and that are attached to hooks of a seal. Any process with CAP_BPF can load them with maps of its own; they can then
/// refuse more requests, and cannot allow one that the seal refuses.
pub(crate) fn enforcing(sealing: &Sealing) -> Result<Vec<KnownProgram>, Error> {
    let tags = object::tags().map_err(|e| Error::io("read the built-in kernel program", e))?;
    let known = tags.iter().filter_map(|(duty, tag)| {
        let (twin, attach_type) = match duty {
            Duty::Decide | Duty::DecideScoped => (Duty::Sealed, kinds::ATTACH_LSM),
            Duty::Label => (Duty::SealedLabel, kinds::ATTACH_LSM),
            Duty::HandOn => (Duty::SealedHandOn, kinds::ATTACH_LSM),
            Duty::Traced => (Duty::SealedTraced, kinds::ATTACH_LSM),
            Duty::TraceMe => (Duty::SealedTraceMe, kinds::ATTACH_LSM),
            Duty::Settings => (Duty::Settings, kinds::ATTACH_CGROUP_SYSCTL),
            _ => return None,
        };
        let target = sealing.target(twin);
        let tag = u64::from_ne_bytes(*tag);
        Some(KnownProgram { tag, kind: kinds::of(target.kind(), attach_type), hook: target.hook() })
    });
    Ok(known.collect())
}

/// In words what [`Error::Foreign`] is about. The guard has to be gone again.
pub(crate) fn describe(ids: &[u32]) -> String {
    let mut text = String::new();
    let holds = loaded::holds(ids, &[Path::new(crate::pinned::pins::BPFFS).to_owned()]);
    let pinned = crate::pinned::pins::programs();
    let links = Links::look();
    for &id in ids {
        if pinned.contains(&id) {
            text += &format!(
                "\n  program {id} is pinned where Stockade pins its own, and is none of this version's: end it with `stockade lift`, and apply the policy again"
            );
            continue;
        }
        let by = held_by(id, &holds);
        let foreign = match held::program(id) {
            Ok(Some((_, info))) => Foreign::of(&info),
            Err(e) if e.raw_os_error() == Some(libc::EPERM) => {
                text += &format!(
                    "\n  program {id}: {}, so that its kind and tag are not known; held by {by}; to keep the one that is loaded now: \
                     --trust {id}",
                    refused_by("another guard", &links),
                );
                continue;
            }
            _ => {
                text += &format!(
                    "\n  program {id}: it is loaded, and bpf(2) says that there is none: a program on the hook `bpf` or `bpf_prog` hides it; held by {by}; \
                     reboot, and find out what loads both"
                );
                continue;
            }
        };
        let attached = foreign.number != kinds::TRACING || links.nature(id).is_some();
        text += &format!(
            "\n  {id} {} ({}{}), loaded by user {}, held by {by}; to keep it: --trust {} or --trust {id}",
            if foreign.name.is_empty() { "without a name" } else { &foreign.name },
            foreign.kind,
            if attached {
                ""
            } else {
                "; attached by no link, so that it cannot be told whether it modifies what a function returns"
            },
            foreign.uid,
            foreign.tag_words(),
        );
    }
    text
}

/// Describes the links, pins and processes that hold a program.
pub(crate) fn held_by(id: u32, holds: &[(u32, loaded::Hold)]) -> String {
    let mut by: Vec<String> = holds
        .iter()
        .filter(|(program, _)| *program == id)
        .map(|(_, hold)| match hold {
            loaded::Hold::Link(link) => format!("link {link}"),
            loaded::Hold::Pin(path) => harmless(path.as_os_str().as_encoded_bytes()),
        })
        .collect();
    by.extend(processes::holders("prog_id", id).into_iter().map(|(pid, comm)| format!("{comm} ({pid})")));
    if by.is_empty() { "nobody that can be seen".to_owned() } else { by.join(", ") }
}
