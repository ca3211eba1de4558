/*!
Attacks that load programs of root's own for the hooks of Stockade's programs.

These programs do nothing. Harmful ones are not played: once sealed, it has to be impossible to load or to attach a program that could let
something through.
*/
use std::{fs::File, os::fd::OwnedFd};

use anyhow::{Context, Result};
use stockade_kernel::{btf::KernelTypes, lab};

use super::{
    Attack, Attempt, Pins, Setting,
    bpf::{self, EXTENSION, Extra, Kind, LSM, LSM_CGROUP, MODIFY_RETURN, ObjectType, SOCKET_FILTER},
    calls::Undo,
};

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new("later-lsm-program", "attach an LSM program to locked_down", Pins::Open, || {
        load_and_attach(LSM, "bpf_lsm_locked_down")
    })
    .refused_when_sealed_before(6, 12),
    Attack::new("later-lsm-program-by-link-create", "the same by BPF_LINK_CREATE", Pins::Open, || {
        match bpf::load_for(LSM, "bpf_lsm_locked_down", 0)? {
            Ok(program) => attached(bpf::link(&program, None, LSM), program),
            Err(error) => Attempt::refused(error),
        }
    })
    .refused_when_sealed_before(6, 12),
    Attack::new("later-lsm-program-on-bpf", "attach an LSM program to bpf", Pins::Open, || {
        load_and_attach(LSM, "bpf_lsm_bpf")
    })
    .refused_when_sealed(),
    Attack::new(
        "later-lsm-program-elsewhere",
        "attach an LSM program to inode_permission, where no program of a seal is",
        Pins::Open,
        || load_and_attach(LSM, "bpf_lsm_inode_permission"),
    ),
    Attack::new(
        "later-modify-return",
        "attach a modify-return program to security_locked_down",
        Pins::Open,
        || load_and_attach(MODIFY_RETURN, "security_locked_down"),
    )
    .refused_when_sealed(),
    Attack::new(
        "later-modify-return-on-bpf",
        "attach a modify-return program to security_bpf",
        Pins::Open,
        || load_and_attach(MODIFY_RETURN, "security_bpf"),
    )
    .refused_when_sealed(),
    Attack::new(
        "lsm-cgroup-program-on-the-root",
        "attach an LSM program to the root cgroup, without a link",
        Pins::Open,
        || on_cgroup(ROOT, false),
    )
    .refused_when_sealed(),
    Attack::new(
        "lsm-cgroup-link-on-the-root",
        "attach an LSM program to the root cgroup by a link",
        Pins::Open,
        || on_cgroup(ROOT, true),
    )
    .refused_when_sealed(),
    Attack::new(
        "lsm-cgroup-program-on-a-child",
        "attach an LSM program to a cgroup of one's own",
        Pins::Open,
        || {
            std::fs::create_dir(CHILD).with_context(|| format!("make {CHILD}"))?;
            Ok(on_cgroup(CHILD, false)?.holding(Undo("rmdir /sys/fs/cgroup/attack-lsm")))
        },
    )
    .refused_when_sealed(),
    Attack::new(
        "extension-of-a-program",
        "load and attach an extension, which replaces a function of a loaded program: one of root's own here",
        Pins::Open,
        || {
            let types = bpf::load_types(&types()).context("load types")?;
            let extra = Extra { types: Some((&types, MAIN)), ..Extra::default() };
            let target = bpf::load(SOCKET_FILTER, &bpf::returns(0), &extra).context("load the program")?;
            extend(&target, &types)
        },
    )
    .refused_when_sealed(),
    Attack::new(
        "own-program-as-another-kind",
        "load programs of Stockade's own as what they are not: other kinds, other functions",
        Pins::Holds,
        || {
            let types = KernelTypes::of_running_kernel()?;
            let mut through = Vec::new();
            for (what, answer) in lab::load_sealed_as_others(&types)? {
                match answer {
                    Ok(()) => through.push(what),
                    Err(error) => println!("{what}: {error}"),
                }
            }
            if through.is_empty() {
                return Attempt::refused("each");
            }
            println!("loaded: {}", through.join(", "));
            Attempt::through()
        },
    )
    .refused_when_sealed(),
    Attack::new(
        "extension-of-stockade",
        "load an extension for any program of Stockade's, opened by id",
        Pins::Holds,
        extend_ours,
    )
    .refused_when_sealed(),
    Attack::new(
        "extension-of-stockade-with-exceptions",
        "the same where a policy with exceptions is in force, whose programs come with types",
        Pins::Holds,
        extend_ours,
    )
    .under(Setting::Exceptions)
    .refused_when_sealed(),
];

pub(super) const ROOT: &str = "/sys/fs/cgroup";
const CHILD: &str = "/sys/fs/cgroup/attack-lsm";

fn attached(answer: std::io::Result<OwnedFd>, program: OwnedFd) -> Result<Attempt> {
    match answer {
        Ok(link) => Ok(Attempt::through()?.holding(link).holding(program)),
        Err(error) => Attempt::refused(format!("loaded, not attached: {error}")),
    }
}

fn load_and_attach(kind: Kind, function: &str) -> Result<Attempt> {
    match bpf::load_for(kind, function, 0)? {
        Ok(program) => attached(bpf::attach(&program), program),
        Err(error) => Attempt::refused(format!("not loaded: {error}")),
    }
}

/// Attaches a program to a cgroup, where 1 lets a request through.
fn on_cgroup(folder: &str, by_link: bool) -> Result<Attempt> {
    let cgroup = OwnedFd::from(File::open(folder)?);
    let program = match bpf::load_for(LSM_CGROUP, "bpf_lsm_locked_down", 1)? {
        Ok(program) => program,
        Err(error) => return Attempt::refused(format!("not loaded: {error}")),
    };
    if by_link {
        return attached(bpf::link(&program, Some(&cgroup), LSM_CGROUP), program);
    }
    match bpf::attach_to(&cgroup, &program, LSM_CGROUP, bpf::ALLOW_MULTI) {
        Ok(()) => Ok(Attempt::through()?.holding(Attached { cgroup, program, kind: LSM_CGROUP })),
        Err(error) => Attempt::refused(format!("loaded, not attached: {error}")),
    }
}

/// A program on a cgroup, detached when this is dropped: otherwise it would stay.
pub(super) struct Attached {
    pub(super) cgroup: OwnedFd,
    pub(super) program: OwnedFd,
    pub(super) kind: Kind,
}

impl Drop for Attached {
    fn drop(&mut self) {
        let _ = bpf::detach_from(&self.cgroup, Some(&self.program), self.kind);
    }
}

fn extend(target: &OwnedFd, types: &OwnedFd) -> Result<Attempt> {
    let extra = Extra { function: MAIN, target: Some(target), types: Some((types, MAIN)) };
    match bpf::load(EXTENSION, &bpf::returns(0), &extra) {
        Ok(program) => attached(bpf::attach(&program), program),
        Err(error) => Attempt::refused(format!("not loaded: {error}")),
    }
}

/// Tries to load an extension for every function that a program's BTF may have, for every program that can be opened.
fn extend_ours() -> Result<Attempt> {
    let types = bpf::load_types(&types()).context("load types")?;
    for (_, program) in bpf::objects(ObjectType::Program) {
        for function in 1..=16 {
            let extra = Extra { function, target: Some(&program), types: Some((&types, MAIN)) };
            if let Ok(extension) = bpf::load(EXTENSION, &bpf::returns(0), &extra) {
                return attached(bpf::attach(&extension), extension);
            }
        }
    }
    Attempt::refused("no extension of any program could be loaded")
}

/// The BTF id of the function in [`types`].
const MAIN: u32 = 5;

/// Returns BTF for `int main(struct __sk_buff *skb)`, a global function.
pub(super) fn types() -> Vec<u8> {
    const STRINGS: &[u8] = b"\0__sk_buff\0int\0main\0skb\0";
    const SK_BUFF: u32 = 1;
    const INT: u32 = 11;
    const NAME: u32 = 15;
    const PARAMETER: u32 = 20;
    #[rustfmt::skip]
    let words: [u32; 18] = [
        // 1: a signed integer of 32 bits.
        INT, 1 << 24, 4, 1 << 24 | 32,
        // 2: a structure without members. 3: a pointer to it.
        SK_BUFF, 4 << 24, 4,
        0, 2 << 24, 2,
        // 4: a function of one parameter. 5: its name; global.
        0, 13 << 24 | 1, 1, PARAMETER, 3,
        NAME, 12 << 24 | 1, 4,
    ];
    let length = u32::try_from(size_of_val(&words)).expect("a few words");
    let strings = u32::try_from(STRINGS.len()).expect("a few names");
    let header = [24, 0, length, length, strings];
    let mut blob = vec![0x9f, 0xeb, 1, 0];
    blob.extend(header.iter().chain(&words).flat_map(|word| word.to_ne_bytes()));
    blob.extend(STRINGS);
    blob
}
