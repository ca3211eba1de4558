/*!
What only the lab needs: empty programs on the same hook, the statistics of the deciding program, and states that no command makes. The linker leaves it out of the
released program, which `cargo xtask dist` checks.
*/
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use crate::{
    Error,
    machine::btf::KernelTypes,
    pinned::pins::{self, Pinned},
    program::{
        attach::Attachment,
        duty::{Duty, Sealing},
        info,
        instructions::load_constant,
        object::Object,
    },
    sealed::anchor::Root,
    sys,
};

/// Attaches a program that only returns 0, as long as the returned value lives: the minimum cost of any BPF program on the hook.
///
/// # Errors
/// The errors of [`crate::enforce::enforce`].
pub fn attach_empty_program(types: &KernelTypes) -> Result<EmptyProgram, Error> {
    let target = Attachment::BpfLsm.target(types)?;
    let program = load_constant(target, 0).map_err(|e| Error::bpf("loading the empty program", e))?;
    let link = sys::attach(program.as_fd()).map_err(|e| Error::bpf("attaching the empty program", e))?;
    Ok(EmptyProgram { _program: program, _link: link })
}

/// Loads each program of a seal for hooks and types that it was not made for, unloads it, and returns the results. The guards must not
/// accept a program by its instructions alone.
///
/// # Errors
/// The errors of [`crate::enforce::enforce`] about the object.
pub fn load_sealed_as_others(types: &KernelTypes) -> Result<Vec<(String, io::Result<()>)>, Error> {
    let sealing = Sealing::look()?;
    let object = Object::open_sealing(types, sealing.offsets, false, &mut || Ok(()))?;
    let mut tried = Vec::new();
    for (function, target) in [
        ("bpf_lsm_bpf", sys::Target::lsm as fn(u32) -> sys::Target),
        ("bpf_lsm_bpf_prog", sys::Target::lsm),
        ("security_bpf", sys::Target::modify_return),
        ("security_bpf_prog", sys::Target::modify_return),
    ] {
        let id = crate::machine::btf::function(function)?
            .ok_or(Error::TooOld("the functions that ask for bpf(2)"))?;
        for duty in Duty::SEALED {
            let answer = object.load(duty, target(id)).map(drop).map_err(|error| match error {
                Error::Rejected { source, .. } => source,
                other => io::Error::other(other.to_string()),
            });
            tried.push((format!("{} for {function}", duty.hook_name()), answer));
        }
    }
    Ok(tried)
}

/// Attaches an empty program to the root cgroup, like a sealed program.
///
/// # Errors
/// The errors of [`attach_empty_program`]; while the machine is sealed the program cannot be loaded.
pub fn hold_empty_program(types: &KernelTypes) -> Result<HeldProgram, Error> {
    let hook = types.hook.ok_or(Error::TooOld("the hook bpf_lsm_locked_down"))?;
    // An LSM_CGROUP program returns 1 to allow.
    let program = load_constant(sys::Target::lsm_of_cgroup(hook), 1)
        .map_err(|e| Error::bpf("loading the empty program", e))?;
    let root = Root::open().map_err(|e| Error::io("open the root of the cgroup tree", e))?;
    root.attach(Duty::Sealed, program.as_fd())
        .map_err(|e| Error::io("attach the empty program to the root cgroup", e))?;
    Ok(HeldProgram { program, root })
}

/// An empty program on the root cgroup, attached until it is dropped.
pub struct HeldProgram {
    program: OwnedFd,
    root: Root,
}

impl Drop for HeldProgram {
    fn drop(&mut self) {
        let kind = Duty::Sealed.held_as();
        if let Err(error) = sys::held::detach_from_cgroup(self.root.as_fd(), self.program.as_fd(), kind) {
            eprintln!("stockade: the empty program stays attached: {error}");
        }
    }
}

/// An empty program, attached until it is dropped.
#[derive(Debug)]
pub struct EmptyProgram {
    _program: OwnedFd,
    _link: OwnedFd,
}

/// Loads the deciding programs for these types, attaches them to nothing, and unloads them. The lab simulates kernels that lack a field.
///
/// # Errors
/// [`Error::Rejected`] when the verifier rejects it.
pub fn load_only(types: &KernelTypes) -> Result<(), Error> {
    let object = Object::open(types, std::collections::HashMap::new())?;
    for duty in [Duty::Decide, Duty::DecideScoped] {
        // The second program needs every field.
        if duty == Duty::Decide || types.missing.is_empty() {
            object.load(duty, Attachment::BpfLsm.target(types)?)?;
        }
    }
    Ok(())
}

/// Number and time of the deciding program's runs while `kernel.bpf_stats_enabled` was 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Runs.
    pub runs: u64,
    /// Nanoseconds in total.
    pub nanoseconds: u64,
}

/// Reads the kernel's statistics of the deciding program (5.1 and later).
///
/// # Errors
/// [`Error::Request`] when nothing is enforced, [`Error::Io`] when the kernel does not report them.
pub fn statistics() -> Result<Statistics, Error> {
    let program = crate::read_back::program_in_force()
        .ok_or_else(|| Error::Request("nothing is enforced: there are no statistics".into()))?;
    let account =
        info::account(program).map_err(|e: io::Error| Error::io("ask for the program's statistics", e))?;
    Ok(Statistics { runs: account.runs, nanoseconds: account.nanoseconds })
}

/// Puts the other slot in force as it is, like the commit of a change. The lab flips between two policies ten thousand times.
///
/// # Errors
/// If nothing is pinned or the map cannot be written.
pub fn flip() -> Result<(), Error> {
    match pins::open()? {
        Pinned::Whole(mut enforcement) => enforcement.flip(),
        Pinned::Nothing { .. } => Err(Error::Request("nothing is enforced".into())),
    }
}

/// Changes the layout number in the pinned policy, as a program of another version would write it.
///
/// # Errors
/// When nothing is pinned or the map cannot be written.
pub fn rewrite_layout(layout: u32) -> Result<(), Error> {
    let map = pins::open_policy()?;
    let mut value = pins::PolicyValue::read(map.as_fd())?;
    value.0.layout = layout;
    value.write(map.as_fd())
}
