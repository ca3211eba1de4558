/*!
The proof that a seal holds, by trying.
*/
use stockade_common::kinds;
use stockade_reasons::Level;

use super::ours_in_pins;
use crate::{
    Error,
    anchor::{self, Found, Sealed},
    btf::KernelTypes,
    description::{self, Description},
    foreign, host, measure,
    object::Duty,
    ready::Ready,
    selftest::{self, SelfTest},
    sys::{self, fs, held},
};

/// What is wrong with the seal, proven by trying; nothing when it holds. One of the doors is knocked at: a refusal that is counted
/// and told as any other. Everything else that is tried has no effect even where no guard is.
///
/// # Errors
/// [`Error::Request`] when nothing is sealed, and whatever keeps from trying.
pub fn problems(types: &KernelTypes) -> Result<Vec<String>, Error> {
    match anchor::look()? {
        // What a command left pinned that was killed right after the commit decides the same once more.
        Found::Sealed(sealed) => Ok(problems_of(&sealed, types, host::native_lockdown()?, &ours_in_pins())),
        _ => Err(Error::Request("nothing is sealed".into())),
    }
}

pub(super) fn problems_of(sealed: &Sealed, types: &KernelTypes, native: Level, going: &[u32]) -> Vec<String> {
    let mut problems = Vec::new();
    if host::tracing_is_off() {
        problems
            .push("kernel.ftrace_enabled is 0: no program runs, nothing is refused by Stockade".to_owned());
    }
    for duty in [Duty::GuardPrograms, Duty::Settings, Duty::GuardCalls] {
        if !sealed.held.iter().any(|held| held.duty == Some(duty)) {
            problems.push(format!("the guard on {} is gone", duty.hook_name()));
        }
    }
    // Of a descriptor that is none the kernel says EBADF, unless the guard answers first.
    let refused = |answer: std::io::Result<()>| answer.is_err_and(|e| e.raw_os_error() == Some(libc::EPERM));
    for kind in anchor::KINDS {
        if !refused(held::detach_from_nothing(kind)) {
            problems
                .push("the guard on bpf(2) does not refuse to take programs off the root cgroup".to_owned());
        }
    }
    if let Some(hook) = types.hook
        && !refused(measure::load_foreign(sys::Target::lsm(hook)))
    {
        problems.push("the guard on programs does not keep a foreign one out".to_owned());
    }
    match foreign::none_but(&[], going) {
        Ok(()) => {}
        Err(Error::Foreign { programs, .. }) => problems.push(format!(
            "programs are loaded that the guard would have kept out, so they were there before it: {programs:?}"
        )),
        Err(error) => problems.push(error.to_string()),
    }
    // Where nothing holds it, what is not 0 turns it on, as it is.
    match fs::write("/proc/sys/kernel/ftrace_enabled", "2") {
        Err(e) if e.raw_os_error() == Some(libc::EPERM) => {}
        Err(e) if e.raw_os_error() == Some(libc::EROFS) => problems.push(
            "whether kernel.ftrace_enabled is held cannot be tried: /proc/sys is mounted read-only here"
                .to_owned(),
        ),
        _ => problems.push("kernel.ftrace_enabled is not held: 0 would silence every program".to_owned()),
    }
    let trusted = |held: &anchor::Held| {
        let known = &sealed.generations[0].seal.programs;
        known.iter().any(|program| program.tag == u64::from_ne_bytes(held.tag) && program.tag != 0)
    };
    let beside = |held: &&anchor::Held| held.duty.is_none() && !trusted(held);
    if let Some(attached) =
        sealed.held.iter().filter(|held| held.kind == kinds::ATTACH_LSM_CGROUP).find(beside)
    {
        problems.push(format!(
            "a program that is not Stockade's, {} ({}), is attached beside it",
            attached.name, attached.id
        ));
    }
    let newest = sealed.newest();
    if newest.seal.boot_id != host::boot_id() {
        problems.push("the boot id is not that of the seal: /proc/sys/kernel/random/boot_id is not the kernel's own file".to_owned());
    }
    if newest.seal.sealed_boot_ns > host::boot_ns() {
        problems.push("the seal is of the future: the clock since boot is not the kernel's own".to_owned());
    }
    match proof(sealed, types, native) {
        Ok(_) => {}
        Err(error) => problems.push(error.to_string()),
    }
    problems
}

/// Knocks, and looks whether the newest generation heard it.
pub(crate) fn proof(sealed: &Sealed, types: &KernelTypes, native: Level) -> Result<SelfTest, Error> {
    let newest = sealed.newest();
    let slot = newest.policy.slots[0];
    let counters = newest.counters()?;
    let watched = if slot.words.places == 0 {
        slot.words.watched
    } else {
        // Which place decides for this process is not to be read from the tables any more.
        let description =
            Description::read(slot.words.generation, slot.digest).ok_or_else(description::lost_for_good)?;
        Ready::new(types, description.policy, description.auto.into())?.watched_here()
    };
    selftest::run(types, &counters, watched, native)
}
