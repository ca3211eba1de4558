/*!
Facts that links give about the programs that they attach. A guard on BPF programs can refuse a descriptor of a program and not the one of
its link, and the link has type and hook of the program.
*/
use std::os::fd::AsFd;

use stockade_common::{
    Seal,
    kinds::{self, Hook},
};

use crate::{
    machine::btf,
    program::info,
    sys::{self, LinkInfo},
};

/// `BPF_LINK_TYPE_TRACING`: attaches LSM programs, programs on functions, and those that replace a function of another program.
const TRACING_LINK: u32 = 2;
/// `BPF_LINK_TYPE_CGROUP`
const CGROUP_LINK: u32 = 3;

/// All links that this process may read.
#[derive(Debug, Default)]
pub(crate) struct Links(Vec<LinkInfo>);

/// Type, attach type and hook of a program, read from its link. They are set when the program is loaded, and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Nature {
    /// The program type, of `enum bpf_prog_type`, if programs of this type can bypass ours; `None` for another type.
    pub kind: Option<u32>,
    /// The attach type, of `enum bpf_attach_type`.
    pub attach_type: u32,
    /// The BTF id of the hook; `None` if the link does not have it.
    pub hook: Option<u32>,
}

impl Nature {
    fn of(link: &LinkInfo) -> Self {
        match link.kind {
            TRACING_LINK => {
                let kind = match link.attach_type {
                    kinds::ATTACH_LSM => kinds::LSM,
                    // Such a program has no attach type.
                    0 => kinds::EXT,
                    _ => kinds::TRACING,
                };
                Self { kind: Some(kind), attach_type: link.attach_type, hook: Some(link.target) }
            }
            CGROUP_LINK => {
                let kind = match link.target {
                    kinds::ATTACH_CGROUP_SYSCTL => Some(kinds::CGROUP_SYSCTL),
                    kinds::ATTACH_LSM_CGROUP => Some(kinds::LSM),
                    _ => None,
                };
                Self { kind, attach_type: link.target, hook: None }
            }
            // The kernel attaches none of the kinds that can reach ours by other links.
            _ => Self { kind: None, attach_type: 0, hook: None },
        }
    }

    /// Reports whether such a program could bypass one of this seal. An unknown hook counts as the hook of the dialogue.
    fn reaches(self, seal: &Seal) -> bool {
        let Some(kind) = self.kind else { return false };
        let hook = self.hook.map_or(Hook::Dialogue, |hook| on(seal, hook));
        kinds::reaches_us(kind, self.attach_type, hook, seal.flags)
    }
}

/// Reports whether this is the hook of the dialogue, another hook of the seal, or neither.
pub(crate) fn on(seal: &Seal, hook: u32) -> Hook {
    if hook == seal.dialogue_hook {
        Hook::Dialogue
    } else if seal.hooks.contains(&hook) {
        Hook::Ours
    } else {
        Hook::Another
    }
}

impl Links {
    /// Reads all links. Links that cannot be read are left out: nothing is concluded from a missing link.
    pub fn look() -> Self {
        let mut links = Vec::new();
        let mut id = 0;
        while let Ok(Some(next)) = sys::next_link(id) {
            id = next;
            links.extend(sys::link_by_id(id).and_then(|link| sys::link_info(link.as_fd())));
        }
        Self(links)
    }

    /// Returns type and hook of a program that a link attaches.
    pub fn nature(&self, program: u32) -> Option<Nature> {
        self.0.iter().find(|link| link.program == program).map(Nature::of)
    }

    /// Reports whether a link proves that a program cannot bypass one of this seal.
    pub fn prove_harmless(&self, program: u32, seal: &Seal) -> bool {
        self.nature(program).is_some_and(|nature| !nature.reaches(seal))
    }

    /// Describes the guards of others on BPF programs: LSM programs that links attach to the hooks `bpf_prog` and `bpf`. Empty if none
    /// is visible.
    pub(crate) fn guards_in_words(&self) -> String {
        let hooks = ["bpf_lsm_bpf_prog", "bpf_lsm_bpf"].map(|name| (btf::FUNC, name));
        let hooks = btf::ids(&hooks).unwrap_or_default();
        let mut seen: Vec<u32> = Vec::new();
        let mut words = String::new();
        for link in &self.0 {
            let (id, nature) = (link.program, Nature::of(link));
            let is_guard =
                nature.kind == Some(kinds::LSM) && nature.hook.is_some() && hooks.contains(&nature.hook);
            if !is_guard || seen.contains(&id) {
                continue;
            }
            if !seen.is_empty() {
                words.push_str(", ");
            }
            seen.push(id);
            match info::name(id) {
                Some(name) if !name.is_empty() => words += &format!("{name} (program {id})"),
                _ => words += &format!("program {id}, whose name it refuses as well"),
            }
        }
        words
    }
}

/// Returns the sentence about a program of which a guard refuses a descriptor, with the guard if it is visible. `a_guard` is `a guard`, or
/// `another guard` if it is none of ours.
#[cold]
#[inline(never)]
pub(crate) fn refused_by(a_guard: &str, links: &Links) -> String {
    let guards = links.guards_in_words();
    let who = if guards.is_empty() { String::new() } else { format!(" ({guards})") };
    format!("{a_guard} on BPF programs{who} refuses to let it be looked at")
}
