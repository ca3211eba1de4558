/*!
What the benchmark needs from the kernel: the floor, a program on the same hook that does nothing, and
the kernel's own statistics of ours.
*/
use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use crate::{
    Error,
    anchor::Root,
    attach::Attachment,
    btf::KernelTypes,
    duty::{Duty, Sealing},
    instructions::load_constant,
    object::Object,
    sys,
};

/// Attaches a program that returns 0 and nothing else, as long as the value returned lives: what any
/// BPF program on the hook costs at least.
///
/// # Errors
/// As for [`crate::enforce::enforce`].
pub fn attach_empty_program(types: &KernelTypes) -> Result<EmptyProgram, Error> {
    let target = Attachment::BpfLsm.target(types)?;
    let program = load_constant(target, 0).map_err(|e| Error::bpf("loading the empty program", e))?;
    let link = sys::attach(program.as_fd()).map_err(|e| Error::bpf("attaching the empty program", e))?;
    Ok(EmptyProgram { _program: program, _link: link })
}

/// Loads programs of a seal as what they are not, and lets them go again: for each way, what came of it. For the lab: the
/// guards have to know a program of Stockade's by more than its instructions.
///
/// # Errors
/// As for [`crate::enforce::enforce`], as far as the object is concerned.
#[doc(hidden)]
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
        let id = crate::btf::function(function)?.ok_or(Error::TooOld("the functions that ask for bpf(2)"))?;
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

/// The same, held by the root cgroup as sealed programs are.
///
/// # Errors
/// As for [`attach_empty_program`]; where something is sealed it cannot be loaded.
pub fn hold_empty_program(types: &KernelTypes) -> Result<HeldProgram, Error> {
    let hook = types.hook.ok_or(Error::TooOld("the hook bpf_lsm_locked_down"))?;
    // Of programs of this kind 1 lets through.
    let program = load_constant(sys::Target::lsm_of_cgroup(hook), 1)
        .map_err(|e| Error::bpf("loading the empty program", e))?;
    let root = Root::open().map_err(|e| Error::io("open the root of the cgroup tree", e))?;
    root.attach(Duty::Sealed, program.as_fd())
        .map_err(|e| Error::io("attach the empty program to the root cgroup", e))?;
    Ok(HeldProgram { program, root })
}

/// The floor of a seal, attached until it is dropped.
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

/// The floor, attached.
#[derive(Debug)]
pub struct EmptyProgram {
    _program: OwnedFd,
    _link: OwnedFd,
}

/// Loads our program against these types and lets it go again, attached to nothing. For the lab, which
/// plays kernels that lack a field.
///
/// # Errors
/// [`Error::Rejected`] when the verifier refuses it.
#[doc(hidden)]
pub fn load_only(types: &KernelTypes) -> Result<(), Error> {
    let object = Object::open(types, std::collections::HashMap::new())?;
    for duty in [Duty::Decide, Duty::DecideWhole] {
        // What the second one looks at has to be there.
        if duty == Duty::Decide || types.missing.is_empty() {
            object.load(duty, Attachment::BpfLsm.target(types)?)?;
        }
    }
    Ok(())
}

/// How often the program that decides ran and for how long, while `kernel.bpf_stats_enabled` was 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Runs.
    pub runs: u64,
    /// Nanoseconds in total.
    pub nanoseconds: u64,
}

/// Reads the kernel's statistics of the program that decides (5.1 and later).
///
/// # Errors
/// [`Error::Request`] when nothing is enforced, [`Error::Io`] when the kernel does not tell.
pub fn statistics() -> Result<Statistics, Error> {
    let program = crate::read_back::program_in_force()
        .ok_or_else(|| Error::Request("nothing is enforced: there are no statistics".into()))?;
    let account =
        account(program).map_err(|e: io::Error| Error::io("ask for the program's statistics", e))?;
    Ok(Statistics { runs: account.runs, nanoseconds: account.nanoseconds })
}

/// The kernel's account of a program.
pub(crate) struct Account {
    runs: u64,
    nanoseconds: u64,
    /// Requests that the program was not asked about, since it was deciding another one on the same
    /// processor. Always 0 for LSM programs.
    pub skipped: u64,
}

pub(crate) fn account(program: u32) -> io::Result<Account> {
    let program = sys::program_by_id(program)?;
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd()))?;
    let field = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or_default()
    };
    Ok(Account {
        runs: field("run_cnt:"),
        nanoseconds: field("run_time_ns:"),
        skipped: field("recursion_misses:"),
    })
}
