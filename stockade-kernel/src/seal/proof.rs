/*!
Proves that a seal holds by trying: its guards here, the reasons in `proof/reasons.rs`.
*/
pub(super) mod reasons;

use stockade_common::{KnownProgram, Seal, Sets, kinds};
use stockade_policy::compile::bit;
use stockade_reasons::Level;

use self::reasons::{Probe, Proof};
use super::{made, references};
use crate::{
    Error,
    machine::{btf::KernelTypes, host},
    program::{
        duty::{Duty, Sealing},
        instructions, links,
    },
    sealed::{
        Sealed,
        anchor::{self, Found, Root},
        foreign,
    },
    selftest::{self, SelfTest},
    sys::{self, fs, held},
};

/// Tries what the seal claims: that its guards hold, and that it refuses every reason that its policies refuse to this process, as far as
/// `knock` can try it. Each refusal is counted and told as any other. Whatever else is tried has no effect even where no guard is.
///
/// # Errors
/// [`Error::Request`] when nothing is sealed, and whatever keeps from trying.
pub fn prove(types: &KernelTypes, knock: Probe<'_>) -> Result<Proof, Error> {
    let Found::Sealed(sealed) = anchor::look()? else {
        return Err(Error::Request("nothing is sealed".into()));
    };
    let native = host::native_lockdown()?;
    // What a command left pinned that was killed right after the commit decides the same once more.
    let mut problems = guard_problems(&sealed, types);
    let mut proof = reasons::try_all(&sealed, types, native, knock).unwrap_or_else(|error| {
        problems.push(error.to_string());
        Proof::default()
    });
    problems.append(&mut proof.problems);
    Ok(Proof { problems, ..proof })
}

/// Returns the problems of a seal right after it was made: tries its guards, and one door.
pub(super) fn problems_of(sealed: &Sealed, types: &KernelTypes, native: Level) -> Vec<String> {
    let mut problems = guard_problems(sealed, types);
    problems.extend(proof(sealed, types, native).err().map(|error| error.to_string()));
    problems
}

/// Returns the problems of the guards, programs and settings that keep the seal in force.
fn guard_problems(sealed: &Sealed, types: &KernelTypes) -> Vec<String> {
    let mut problems = Vec::new();
    if host::tracing_is_off() {
        problems
            .push("kernel.ftrace_enabled is 0: no program runs, nothing is refused by Stockade".to_owned());
    }
    for duty in [Duty::GuardPrograms, Duty::GuardMaps, Duty::Settings, Duty::GuardCalls] {
        if sealed.program(duty).is_none() {
            problems.push(format!("the seal has no guard on {}", duty.hook_name()));
        }
    }
    problems.extend(not_held(sealed));
    problems.extend(linked(&sealed.seal));
    match Sealing::look().and_then(|sealing| foreign::strangers_beside(&sealed.seal, &sealing)) {
        Ok(strangers) => problems.extend(strangers.into_iter().map(|id| {
            format!(
                "program {id} of another's is loaded, and could answer in the place of the seal's, or a guard refuses to let it be looked at and no link tells what it is: \
                 `bpftool prog show id {id}`"
            )
        })),
        Err(error) => problems.push(format!("whether other programs could answer in the place of the seal's cannot be told: {error}")),
    }
    problems.extend(let_through(sealed, types));
    problems.extend(tracing_not_held());
    if sealed.seal.boot_id != host::boot_id() {
        problems.push("the boot id is not that of the seal: /proc/sys/kernel/random/boot_id is not the kernel's own file".to_owned());
    }
    if sealed.seal.sealed_boot_ns > host::boot_ns() {
        problems.push("the seal is of the future: the clock since boot is not the kernel's own".to_owned());
    }
    problems
}

/// Writes to kernel.ftrace_enabled and returns the problem unless the seal refuses it. Any value but 0 leaves tracing on; if the kernel takes it,
/// the old value is written back.
fn tracing_not_held() -> Option<String> {
    const SETTING: &str = "/proc/sys/kernel/ftrace_enabled";
    let old = fs::read_to_string(SETTING);
    match fs::write(SETTING, "2") {
        Err(e) if e.raw_os_error() == Some(libc::EPERM) => None,
        Err(e) if e.raw_os_error() == Some(libc::EROFS) => Some(
            "whether kernel.ftrace_enabled is held cannot be tried: /proc/sys is mounted read-only here"
                .to_owned(),
        ),
        Err(e) => Some(format!("whether kernel.ftrace_enabled is held cannot be tried: {e}")),
        Ok(()) => {
            let old = old.as_deref().map_or("1", str::trim);
            let back = fs::write(SETTING, old).err();
            let back = back.map(|e| format!("; it is 2 now, since writing {old} back failed: {e}"));
            Some(format!(
                "kernel.ftrace_enabled is not held: 0 would silence every BPF program{}",
                back.unwrap_or_default()
            ))
        }
    }
}

/// A link that holds a program of the seal: whoever has the link can let go of it, and with it of the program.
pub(super) fn linked(seal: &Seal) -> Option<String> {
    let linked = match anchor::programs_with_links() {
        Ok(linked) => linked,
        Err(error) => return Some(format!("the links of BPF programs cannot be listed: {error}")),
    };
    let id = linked.into_iter().find(|id| *id != 0 && seal.programs.contains(id))?;
    Some(format!("a link holds program {id} of the seal, and whoever has that link can take the program off"))
}

/// Programs of the seal that the root cgroup does not hold.
fn not_held(sealed: &Sealed) -> Vec<String> {
    // In a cgroup namespace of its own a process does not see the root; the seal has answered it all the same.
    let Ok(root) = Root::open() else { return Vec::new() };
    let mut there = Vec::new();
    for kind in anchor::KINDS {
        match root.programs(kind) {
            Ok(programs) => there.push((kind, programs)),
            Err(error) => return vec![format!("the programs of the root cgroup cannot be listed: {error}")],
        }
    }
    let mut problems = Vec::new();
    for duty in Duty::SEALED {
        let Some(id) = sealed.program(duty) else { continue };
        if !there.iter().any(|(kind, programs)| *kind == duty.held_as() && programs.contains(&id)) {
            problems.push(format!(
                "the root cgroup does not hold program {id}, which is for {}",
                duty.hook_name()
            ));
        }
    }
    let sysctl = there.iter().find(|(kind, _)| *kind == kinds::ATTACH_CGROUP_SYSCTL);
    let last = sysctl.and_then(|(_, programs)| programs.last().copied());
    let trusts = sealed.seal.trusted.iter().any(|known| known.kind == kinds::CGROUP_SYSCTL);
    if last != sealed.program(Duty::Settings) && !trusts {
        problems.push(
            "a program of another's is asked for sysctls after Stockade's, and could change what is written"
                .to_owned(),
        );
    }
    let lsm = there.iter().find(|(kind, _)| *kind == kinds::ATTACH_LSM_CGROUP);
    for &id in lsm.into_iter().flat_map(|(_, programs)| programs) {
        if !sealed.seal.programs.contains(&id) && !is_harmless(sealed, id) {
            problems.push(format!(
                "the root cgroup holds program {id} of another's beside those of the seal, and it could change their answers"
            ));
        }
    }
    problems
}

/// Whether a program of another's that the root cgroup holds is on another hook than those of the seal, or is trusted.
fn is_harmless(sealed: &Sealed, id: u32) -> bool {
    let Ok(Some((_, info))) = held::program(id) else { return foreign::is_by_id(&sealed.seal, id) };
    let kind = kinds::of(info.type_, kinds::ATTACH_LSM_CGROUP);
    let known = KnownProgram { tag: u64::from_ne_bytes(info.tag), kind, hook: info.attach_btf_id };
    links::on(&sealed.seal, info.attach_btf_id) == kinds::Hook::Another
        || sealed.seal.trusted.contains(&known)
}

/// Returns the operations that the guards do not refuse.
fn let_through(sealed: &Sealed, types: &KernelTypes) -> Vec<String> {
    let mut problems = Vec::new();
    let refused = |answer: std::io::Result<()>| answer.is_err_and(|e| e.raw_os_error() == Some(libc::EPERM));
    // Of a descriptor that is none the kernel says EBADF, unless the guard answers first.
    for kind in anchor::KINDS {
        if !refused(held::detach_from_nothing(kind)) {
            problems
                .push("the guard on bpf(2) does not refuse to take programs off the root cgroup".to_owned());
        }
    }
    if let Some(hook) = types.hook
        && !refused(instructions::load_foreign(sys::Target::lsm_of_cgroup(hook)))
    {
        problems.push("the guard on programs does not keep a foreign one out".to_owned());
    }
    for map in sealed.seal.maps.into_iter().filter(|&id| id != 0) {
        // Some are gone: no program of this policy needs them.
        if held::map_by_id(map).is_ok() {
            problems.push(format!("the guard on maps gives out map {map} of the seal"));
        }
    }
    for program in sealed.seal.programs.into_iter().filter(|&id| id != 0) {
        if sys::program_by_id(program).is_ok() {
            problems.push(format!("the guard on programs gives out program {program} of the seal"));
        }
    }
    if problems.is_empty() {
        match references::wait_for_known_references(made::known(&sealed.seal), &references::Asked) {
            Ok(shared) => problems.extend(shared.map(|shared| shared.describe(&[]))),
            Err(error) => problems.push(error.to_string()),
        }
    }
    problems
}

/// Knocks, and asks the seal whether it heard it.
pub(crate) fn proof(sealed: &Sealed, types: &KernelTypes, native: Level) -> Result<SelfTest, Error> {
    let (mut watched, mut refuses) = (sealed.added.watched, sealed.added.deny);
    for policy in sealed.policies() {
        let words = policy.words;
        let here = Sealed::sets_here(&policy)?.unwrap_or(Sets {
            watched: words.watched,
            deny: words.deny,
            ..Sets::default()
        });
        watched |= here.watched;
        refuses |= here.deny & !words.excepted;
    }
    let heard = |number: u32| {
        // Where nobody is excepted, what the seal hears it refuses.
        let heard = Sealed::decided_requests()?;
        Ok(if refuses & bit(number) == 0 { [0, heard, 0] } else { [heard, 0, 0] })
    };
    selftest::run(types, &heard, watched, native)
}
