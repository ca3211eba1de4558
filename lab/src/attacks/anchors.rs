//! Attacks on the programs that are attached to the root cgroup.

use std::{fs::File, io, os::fd::OwnedFd};

use anyhow::Result;
use stockade_common::{Policy, Seal};

use super::{
    Attack, Attempt, Pins,
    bpf::{self, Kind, LSM_CGROUP, ObjectType, SYSCTL},
    calls::{Undo, shell},
    later_programs::ROOT,
};

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new(
        "detach-lsm-cgroup",
        "take LSM programs off the root cgroup by BPF_PROG_DETACH",
        Pins::Holds,
        || detach(LSM_CGROUP),
    )
    .refused_when_sealed(),
    Attack::new(
        "detach-sysctl",
        "take sysctl programs off the root cgroup by BPF_PROG_DETACH",
        Pins::Holds,
        || detach(SYSCTL),
    )
    .refused_when_sealed(),
    Attack::new(
        "replace-an-anchor",
        "put another program in the place of one on the root cgroup, by BPF_F_REPLACE",
        Pins::Holds,
        replace,
    )
    .refused_when_sealed(),
    Attack::new(
        "attach-by-other-rules",
        "attach a sysctl program to the root cgroup such that only one can be there",
        Pins::Holds,
        || {
            let program = match bpf::load(SYSCTL, &bpf::returns(1), &bpf::Extra::default()) {
                Ok(program) => program,
                Err(error) => return Attempt::refused(error),
            };
            let root = OwnedFd::from(File::open(ROOT)?);
            let attach = |flags| bpf::attach_to(&root, &program, SYSCTL, flags);
            let answer = attach(bpf::ALLOW_OVERRIDE).or_else(|_| attach(0));
            let _ = bpf::detach_from(&root, Some(&program), SYSCTL);
            Attempt::from_result(answer)
        },
    )
    .refused_when_sealed(),
    Attack::new(
        "bind-a-map",
        "give every program that can be opened another policy and another seal, by BPF_PROG_BIND_MAP",
        Pins::Holds,
        bind_maps,
    ),
    Attack::new("detach-links", "detach every link by BPF_LINK_DETACH", Pins::Holds, || {
        every_link(bpf::detach)
    })
    .refused_when_sealed(),
    Attack::new(
        "update-links",
        "put a program of one's own into every link by BPF_LINK_UPDATE",
        Pins::Holds,
        || {
            let program = bpf::load(bpf::SOCKET_FILTER, &bpf::returns(0), &bpf::Extra::default())?;
            every_link(|link| bpf::update_link(link, &program))
        },
    )
    .refused_when_sealed(),
];

/// Opens the root of the cgroup hierarchy, through its mount and through another one.
pub(super) fn roots() -> Result<Vec<OwnedFd>> {
    let undo = Undo("umount -l /tmp/cgroups; rmdir /tmp/cgroups");
    shell("mkdir -p /tmp/cgroups && mount -t cgroup2 none /tmp/cgroups")?.exits(0)?;
    let roots = [ROOT, "/tmp/cgroups"].map(|path| File::open(path).map(OwnedFd::from));
    drop(undo);
    Ok(roots.into_iter().collect::<io::Result<_>>()?)
}

/// Tries to detach every program that can be opened, those that the kernel lists, and any.
fn detach(kind: Kind) -> Result<Attempt> {
    let programs = bpf::objects(ObjectType::Program);
    let mut last = "no program is there".to_owned();
    for root in roots()? {
        let known = bpf::query(&root, kind).unwrap_or_default();
        let known = known.into_iter().filter_map(|id| bpf::by_id(ObjectType::Program, id).ok());
        let known: Vec<_> = known.collect();
        let all = programs.iter().map(|(_, program)| program).chain(&known);
        for program in all.map(Some).chain([None]) {
            let more = program.map(|program| bpf::detach_with_more(&root, program, kind));
            match more
                .unwrap_or_else(|| Err(io::Error::other("no program")))
                .or_else(|_| bpf::detach_from(&root, program, kind))
            {
                Ok(()) => return Attempt::through(),
                Err(error) => last = error.to_string(),
            }
        }
    }
    Attempt::refused(last)
}

/// Replaces each program by each other one, or by one that does nothing.
fn replace() -> Result<Attempt> {
    let harmless = bpf::load(SYSCTL, &bpf::returns(1), &bpf::Extra::default());
    let programs = bpf::objects(ObjectType::Program);
    let mut last = "no program is there".to_owned();
    let flags = bpf::ALLOW_MULTI | bpf::REPLACE;
    for root in roots()? {
        for kind in [SYSCTL, LSM_CGROUP] {
            for (old_id, old) in &programs {
                let others = programs.iter().filter(|(id, _)| id != old_id).map(|(_, program)| program);
                for new in others.chain(harmless.as_ref().ok()) {
                    match bpf::replace_in(&root, new, kind, flags, Some(old)) {
                        Ok(()) => return Attempt::through(),
                        Err(error) => last = error.to_string(),
                    }
                }
            }
        }
    }
    Attempt::refused(last)
}

fn every_link(change: impl Fn(&OwnedFd) -> io::Result<()>) -> Result<Attempt> {
    let mut last = "no link is there".to_owned();
    for (_, link) in bpf::objects(ObjectType::Link) {
        match change(&link) {
            Ok(()) => return Attempt::through(),
            Err(error) => last = error.to_string(),
        }
    }
    Attempt::refused(last)
}

/// Binds empty maps with the names and sizes of Stockade's to every program.
fn bind_maps() -> Result<Attempt> {
    let policy = u32::try_from(size_of::<Policy>())?;
    let seal = u32::try_from(size_of::<Seal>())?;
    let maps = [
        bpf::create_array(b".data.policy\0\0\0\0", policy)?,
        bpf::create_array(b".data.seal\0\0\0\0\0\0", seal)?,
        bpf::create_array(b"COUNTS\0\0\0\0\0\0\0\0\0\0", 8)?,
    ];
    let mut bound = 0;
    for (_, program) in bpf::objects(ObjectType::Program) {
        bound += maps.iter().filter(|map| bpf::bind(&program, map).is_ok()).count();
    }
    if bound == 0 {
        Attempt::refused("no program could be opened and given a map")
    } else {
        Attempt::through()
    }
}
