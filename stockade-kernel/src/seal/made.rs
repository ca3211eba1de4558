/*!
The programs and maps of a seal: loaded, written, frozen and read back.
*/
use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

use stockade_common::{
    Added, HELD_MAX, KeptFile, Policy as KernelPolicy, STAYING_MAX, Seal, Slot, TRUSTED_MAX,
};

use super::Open;
use crate::{
    Error,
    anchor::Root,
    duty::{Duty, Sealing},
    enforce::Machine,
    foreign::{self, Foreign},
    host,
    object::{ADDED, LABELS, MAPS, Object, SEAL, SHOWN},
    ready::Ready,
    selftest::{self, SelfTest},
    sys::{self, held},
    tables::{self, Maps, meddled},
};

/// What is known of the seal to be made.
pub struct Set<'a> {
    /// Number of the policy.
    pub generation: u64,
    pub open: &'a [Open],
    pub trusted: &'a [Foreign],
    pub files: &'a [(PathBuf, KeptFile)],
    /// Bits of [`Seal::flags`] beyond what is left open.
    pub flags: u32,
    /// Programs of others that are asked for sysctls.
    pub staying: &'a [Foreign],
}

/// The programs of a seal, loaded, its maps written and frozen.
pub struct Made {
    object: Object,
    programs: HashMap<Duty, OwnedFd>,
    /// Attachments that are not the root cgroup's.
    pub beside: Vec<(Duty, OwnedFd)>,
    pub seal: Seal,
}

impl Made {
    /// Loads the programs for these duties and makes their maps.
    pub fn new(
        machine: &Machine,
        ready: &mut Ready,
        duties: &[Duty],
        sealing: &Sealing,
        set: &Set<'_>,
    ) -> Result<Self, Error> {
        let object = Object::open_sealing(&machine.types, sealing.offsets)?;
        let maps = Maps::to_be_checked(&object)?;
        ready.write(&maps, set.generation)?;
        let policy = KernelPolicy { slots: [ready.slot, Slot::default()], ..KernelPolicy::EMPTY };
        sys::update(object.map(MAPS[0].0)?, &0u32, &policy)
            .map_err(|e| Error::bpf("writing the policy", e))?;
        sys::update(object.map(ADDED)?, &0u32, &Added::NONE)
            .map_err(|e| Error::bpf("writing what is added", e))?;

        let mut programs = HashMap::new();
        for &duty in duties {
            programs.insert(duty, object.load(duty, sealing.target(duty))?);
        }
        let mut beside = Vec::new();
        if set.open.contains(&Open::NewCgroups) {
            // The old attachments fill the old tables, for as long as those decide: these fill the new ones.
            beside = crate::enforce::attach_all(&object, &Duty::PLACES)?;
        }
        maps.place(&ready.tables.places, set.generation)?;

        let seal = seal(&object, &programs, sealing, set)?;
        sys::update(object.map(SEAL)?, &0u32, &seal).map_err(|e| Error::bpf("writing the seal", e))?;

        // Readers of events move their place in the buffer: it is the one map that user space goes on writing.
        let frozen = MAPS.iter().chain([&LABELS]).map(|(name, _)| *name).filter(|name| *name != "EVENTS");
        for name in frozen.chain([SEAL, ADDED]) {
            held::freeze(object.map(name)?).map_err(|e| Error::io(format!("freeze the map {name}"), e))?;
        }
        maps.check()?;
        check_value(&object, MAPS[0].0, &policy)?;
        check_value(&object, SEAL, &seal)?;
        check_value(&object, ADDED, &Added::NONE)?;
        if crate::labels::any_in(object.map(LABELS.0)?)? {
            return Err(meddled(LABELS.0));
        }
        Ok(Self { object, programs, beside, seal })
    }

    /// Has the root cgroup hold the program for a duty.
    pub fn attach(&self, root: &Root, duty: Duty) -> Result<(), Error> {
        root.attach(duty, self.programs[&duty].as_fd()).map_err(|e| cannot_attach(duty.hook_name(), e))
    }

    pub fn self_test(&self, machine: &Machine, watched: u64) -> Result<SelfTest, Error> {
        let counters = crate::enforce::counters(&self.object)?;
        selftest::run(&machine.types, &selftest::counted(&counters), watched, machine.native)
    }

    /// Processes that run an excepted program since before its labels were there.
    pub fn started_before(&self, ready: &Ready) -> Result<Vec<(u32, PathBuf)>, Error> {
        if ready.executables.is_empty() {
            return Ok(Vec::new());
        }
        crate::labels::missing_in(self.object.map(LABELS.0)?, &ready.description.programs)
    }
}

/// Fails unless a frozen map has this value.
fn check_value<T: Copy>(object: &Object, name: &str, value: &T) -> Result<(), Error> {
    let there =
        held::value(object.map(name)?).map_err(|e| Error::io(format!("read back the map {name}"), e))?;
    if there == tables::bytes(value) { Ok(()) } else { Err(meddled(name)) }
}

/// What the programs know of the seal.
fn seal(
    object: &Object,
    programs: &HashMap<Duty, OwnedFd>,
    sealing: &Sealing,
    set: &Set<'_>,
) -> Result<Seal, Error> {
    let boot_id = host::boot_id();
    if boot_id == [0; 16] {
        // It could not be corrected afterwards.
        let path = "/proc/sys/kernel/random/boot_id";
        return Err(Error::Request(format!("not sealed: {path} cannot be read, and a seal names its boot")));
    }
    let new_cgroups = if set.open.contains(&Open::NewCgroups) { Seal::NEW_CGROUPS } else { 0 };
    let sealed_boot_ns = host::boot_ns();
    let mut seal = Seal { flags: set.flags | new_cgroups, sealed_boot_ns, boot_id, ..Seal::NONE };
    let full = |what: &str| Error::Object(format!("a seal has no room for {what}"));
    let mut kept = seal.maps.iter_mut();
    for (name, map) in object.maps() {
        let id = held::map_info(map).map_err(|e| Error::io("ask for a map's id", e))?.id;
        match SHOWN.iter().position(|shown| *shown == name) {
            Some(at) => seal.shown[at] = id,
            None => *kept.next().ok_or_else(|| full("its maps"))? = id,
        }
    }
    assert!(Duty::SEALED.len() <= HELD_MAX, "a seal has room for each of its programs");
    for (at, duty) in Duty::SEALED.into_iter().enumerate() {
        if let Some(program) = programs.get(&duty) {
            seal.programs[at] =
                foreign::id(program.as_fd()).ok_or_else(|| full("a program without an id"))?;
            seal.hooks[at] = sealing.target(duty).hook();
        }
    }
    seal.dialogue_hook = sealing.target(Duty::GuardCalls).hook();
    for (at, program) in set.trusted.iter().map(Foreign::known).enumerate() {
        *seal.trusted.get_mut(at).ok_or_else(|| {
            Error::Request(format!("more programs are trusted than a seal can name: {TRUSTED_MAX}"))
        })? = program;
    }
    for (at, program) in set.staying.iter().enumerate() {
        *seal.staying.get_mut(at).ok_or_else(|| {
            Error::Request(format!(
                "not sealed: more than {STAYING_MAX} programs of others are asked for sysctls"
            ))
        })? = program.id;
    }
    for (at, (_, file)) in set.files.iter().enumerate() {
        *seal.files.get_mut(at).ok_or_else(|| full("the files that are kept"))? = *file;
    }
    Ok(seal)
}

/// The error where a program cannot be attached to the root cgroup.
pub(super) fn cannot_attach(hook: &str, error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::EINVAL) => Error::TooOld("programs of security modules that a cgroup holds, which came with 6.0"),
        Some(libc::ENOSPC) => Error::Request(
            "the kernel lets cgroups use ten hooks of security modules in all, and others use too many of them: \
             `bpftool cgroup tree` lists whose programs are attached as lsm_cgroup; end them, or take exceptions by program out of the policy".into(),
        ),
        Some(libc::E2BIG) => Error::Request(format!(
            "too many programs are attached to {hook}: `bpftool prog` lists them; end some"
        )),
        _ => Error::io(format!("attach {hook} to the root cgroup"), error),
    }
}
