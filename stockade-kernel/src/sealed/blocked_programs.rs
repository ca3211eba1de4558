/*!
The loaded programs of others that a seal would block, for `stockade trust record`. Attaches no program and changes nothing.

While a seal is made, its guard on programs tells which programs can bypass it. Here no guard is attached, so the link that attaches a tracing program tells
whether it modifies a return value.
*/
use std::path::Path;

use stockade_common::kinds;
use stockade_policy::{
    fragment::LoadedProgram,
    trusted::{ProgramHook, ProgramKind, ProgramTag},
};

use crate::{
    Error,
    machine::{
        btf::{self, KernelTypes},
        host,
    },
    pinned::pins,
    program::{
        duty::{Duty, Sealing},
        instructions,
        links::refused_by,
        loaded, object,
    },
    sealed::{
        anchor::{self, Found},
        foreign::{Foreign, Others, held_by},
    },
};

/// The loaded programs of others that a seal would block.
#[derive(Debug, Default)]
pub struct BlockedPrograms {
    /// Programs that can be recorded, by id.
    pub programs: Vec<(u32, LoadedProgram)>,
    /// Programs that cannot be recorded: id and cause.
    pub not_recorded: Vec<(u32, String)>,
}

/// Returns the loaded programs of others that a seal would block. Needs root and Linux 6.0.
///
/// # Errors
/// [`Error::NoPrivilege`] without root, [`Error::Sealed`] on a sealed machine, since none of the blocked programs is loaded any more.
pub fn look() -> Result<BlockedPrograms, Error> {
    if !host::is_root() {
        return Err(Error::no_privilege("looking at the BPF programs of others"));
    }
    if !host::is_at_least(6, 0) {
        return Err(Error::Request(
            "this kernel is older than 6.0: it cannot be sealed, and does not tell which hook a program is attached to".into(),
        ));
    }
    if let Found::Sealed(_) = anchor::look()? {
        return Err(Error::Sealed {
            what: "recording which programs to trust",
            instead: "what a seal keeps out is not loaded any more: run it after the next boot, before the machine is sealed"
                .into(),
        });
    }
    let sealing = Sealing::look()?;
    let seal = sealing.seal_on(&Duty::SEALED, instructions::is_bounded(&KernelTypes::of_running_kernel()?)?);
    let others = Others::look()?;
    let links = &others.links;
    let mut found = BlockedPrograms::default();
    let mut kept = Vec::new();
    for program in others.seen.into_iter().filter(|program| !is_ours(program)) {
        if program.number == kinds::TRACING && program.attach_type.is_none() {
            found.not_recorded.push((
                program.id,
                format!(
                    "{}: no link attaches this tracing program, so that it cannot be told whether it modifies what a function returns",
                    program.name
                ),
            ));
        } else if program.reaches(&seal) {
            kept.push(program);
        }
    }
    let hidden = others.hidden.into_iter().filter(|&id| !links.prove_harmless(id, &seal));
    let refused = hidden.map(|id| (id, refused_by("another guard", links)));
    found.not_recorded.extend(refused.collect::<Vec<_>>());
    record(kept, &mut found)?;
    Ok(found)
}

/// Reports whether a program is one of Stockade's: pinned, or with the tag of one that a killed command left.
fn is_ours(program: &Foreign) -> bool {
    let tagged = || object::tags().is_ok_and(|tags| tags.iter().any(|(_, tag)| *tag == program.tag));
    pins::programs().contains(&program.id) || tagged()
}

/// Records these programs in `found`: with the name of the hook, with its BTF id for a program that replaces a function of another, and without a
/// hook for
/// `CGROUP_SYSCTL`. A program whose attach type or hook name is not known is added to `not_recorded`.
fn record(kept: Vec<Foreign>, found: &mut BlockedPrograms) -> Result<(), Error> {
    let ids: Vec<u32> = kept.iter().map(|program| program.id).collect();
    let hooks: Vec<u32> = kept.iter().map(|program| program.hook).collect();
    let names = btf::function_names(&hooks)?;
    let holds = loaded::holds(&ids, &[Path::new(pins::BPFFS).to_owned()]);
    for (program, function) in kept.into_iter().zip(names) {
        let (kind, hook) = match (program.number, function) {
            (kinds::EXT, _) => (ProgramKind::Ext, Some(ProgramHook::Number(program.hook))),
            (kinds::CGROUP_SYSCTL, _) => (ProgramKind::CgroupSysctl, None),
            (kinds::LSM, Some(function)) if function.starts_with("bpf_lsm_") => {
                let name = function.trim_start_matches("bpf_lsm_").to_owned();
                match program.attach_type {
                    Some(kinds::ATTACH_LSM) => (ProgramKind::Lsm, Some(ProgramHook::Name(name))),
                    Some(kinds::ATTACH_LSM_CGROUP) => (ProgramKind::LsmCgroup, Some(ProgramHook::Name(name))),
                    _ => {
                        let why = format!(
                            "{}: how this LSM program is attached cannot be asked: another guard refuses it",
                            program.name
                        );
                        found.not_recorded.push((program.id, why));
                        continue;
                    }
                }
            }
            (kinds::TRACING, Some(function)) if program.is_on_kernel() => {
                (ProgramKind::ModifyReturn, Some(ProgramHook::Name(function)))
            }
            _ => {
                let why =
                    format!("{}: what it is attached to has no name in the kernel's types", program.name);
                found.not_recorded.push((program.id, why));
                continue;
            }
        };
        let about = format!("loaded by user {}, held by {}", program.uid, held_by(program.id, &holds));
        let tag = ProgramTag(program.tag);
        found.programs.push((program.id, LoadedProgram { name: program.name, kind, hook, tag, about }));
    }
    Ok(())
}
