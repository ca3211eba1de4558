/*!
`[[seal.trust]]`: programs of others that a seal lets in, known by tag, kind and hook before they are loaded.
*/
use std::fmt;

use serde::{Deserialize, Serialize};
use stockade_common::TRUSTED_MAX;

use crate::{
    problem::Problem,
    said::{Origin, Said},
    words::Word,
};

/// A BPF program of another's that may stay, and may be loaded later, although one of its kind could answer in the place of a
/// sealed program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustedProgram {
    /// For readers. Unique among trusted programs; a seal does not compare it.
    pub name: Said<String>,
    /// Its kind.
    pub kind: Said<ProgramKind>,
    /// The hook that it is attached to; none for kinds without a hook.
    pub hook: Option<Said<ProgramHook>>,
    /// The tags that it has: another one for each version of its loader and for each kernel that it is adapted to.
    pub tags: Vec<Said<ProgramTag>>,
    /// Why, for whoever reads the policy.
    pub why: Option<Said<String>>,
}

/// The parts of a program that a seal compares.
pub type Identity<'p> = (ProgramTag, ProgramKind, Option<&'p ProgramHook>);

impl TrustedProgram {
    /// Returns the identities that a seal compares: one for each tag.
    pub fn identities(&self) -> impl Iterator<Item = Identity<'_>> {
        self.tags.iter().map(|tag| (tag.value, self.kind.value, self.hook.as_ref().map(|hook| &hook.value)))
    }

    /// Kind and hook in words: `lsm on file_open`.
    #[must_use]
    pub fn target(&self) -> String {
        target(self.kind.value, self.hook.as_ref().map(|hook| &hook.value))
    }
}

/// Kind and hook in words.
#[must_use]
pub fn target(kind: ProgramKind, hook: Option<&ProgramHook>) -> String {
    match hook {
        Some(hook) => format!("{} on {hook}", kind.word()),
        None => kind.word().to_owned(),
    }
}

/// Kinds of programs that could answer in the place of a sealed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProgramKind {
    /// LSM, attached by a link.
    Lsm,
    /// LSM, held by a cgroup.
    LsmCgroup,
    /// Tracing, modifies what a function of the kernel returns.
    ModifyReturn,
    /// Takes the place of a function of another BPF program.
    Ext,
    /// Is asked for sysctls by a cgroup.
    CgroupSysctl,
}

impl Word for ProgramKind {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("lsm", Self::Lsm),
        ("lsm-cgroup", Self::LsmCgroup),
        ("modify-return", Self::ModifyReturn),
        ("ext", Self::Ext),
        ("cgroup-sysctl", Self::CgroupSysctl),
    ];
}

impl ProgramKind {
    /// The kernel's name, in its type information, of the function behind a hook; none for kinds whose hooks are not the kernel's.
    #[must_use]
    pub fn kernel_function(self, hook: &str) -> Option<String> {
        match self {
            Self::Lsm | Self::LsmCgroup => Some(format!("bpf_lsm_{hook}")),
            Self::ModifyReturn => Some(hook.to_owned()),
            Self::Ext | Self::CgroupSysctl => None,
        }
    }
}

/// The hook that a program is attached to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ProgramHook {
    /// A hook of the security modules without `bpf_lsm_`, or a function of the kernel.
    Name(String),
    /// The number of a function in the type information of the BPF program that it belongs to.
    Number(u32),
}

impl fmt::Display for ProgramHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Number(number) => number.fmt(f),
        }
    }
}

/// The kernel's digest of a program's instructions, as `bpftool prog` prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProgramTag(pub [u8; 8]);

impl ProgramTag {
    /// Reads sixteen hexadecimal digits.
    #[must_use]
    pub fn parse(digits: &str) -> Option<Self> {
        let plain = digits.len() == 16 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let number = u64::from_str_radix(digits, 16).ok().filter(|_| plain)?;
        Some(Self(number.to_be_bytes()))
    }
}

impl fmt::Display for ProgramTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

/// The mistake of a policy that trusts more programs than a seal has room for, at the first that has none.
pub(crate) fn too_many(trusted: &[TrustedProgram]) -> Option<Problem> {
    let mut seen: Vec<Identity<'_>> = Vec::new();
    for program in trusted {
        for (identity, tag) in program.identities().zip(&program.tags) {
            if seen.contains(&identity) {
                continue;
            }
            if seen.len() == TRUSTED_MAX {
                return Some(no_room(tag.origin.clone()));
            }
            seen.push(identity);
        }
    }
    None
}

/// The mistake at a tag for which a seal has no room.
pub(crate) fn no_room(origin: Origin) -> Problem {
    let what =
        format!("the policy trusts more programs than a seal has room for: {TRUSTED_MAX} different tags");
    Problem::new(what, origin).label("this one has no room").help(
        "remove the tags of kernels and versions that do not run any more: those of the running one are listed by: stockade trust record",
    )
}
