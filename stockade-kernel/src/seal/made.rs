/*!
A generation of sealed programs: loaded, its maps written, frozen and read back.
*/
use std::{
    collections::HashMap,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

use stockade_common::{KNOWN_MAX, KeptFile, Policy as KernelPolicy, Seal, Slot};

use super::Open;
use crate::{
    Error,
    anchor::Root,
    enforce::Machine,
    foreign::{self, Foreign},
    host,
    object::{self, Duty, LABELS, MAPS, Object, SEAL},
    ready::Ready,
    selftest::{self, SelfTest},
    sys::{self, held},
    tables::{self, Maps, SETTINGS, meddled},
};

/// What is known of the set of programs to be made.
pub struct Set<'a> {
    pub number: u32,
    pub generation: u64,
    pub open: &'a [Open],
    pub trusted: &'a [Foreign],
    pub files: &'a [(PathBuf, KeptFile)],
}

/// A generation of programs, loaded, its maps written and frozen.
pub struct Made {
    object: Object,
    programs: HashMap<Duty, OwnedFd>,
    /// Attachments that are not the root cgroup's.
    pub beside: Vec<(Duty, OwnedFd)>,
    pub seal: Seal,
    /// Ids of the maps that programs write and decisions depend on.
    kept: Vec<u32>,
}

impl Made {
    /// With the maps that are there already.
    pub fn new(
        machine: &Machine,
        ready: &mut Ready,
        duties: &[Duty],
        set: &Set<'_>,
        there: HashMap<String, OwnedFd>,
    ) -> Result<Self, Error> {
        // Of those too that a policy stacked on this one may need.
        let (targets, offsets) = Duty::sealed_targets(&Duty::SEALED)?;
        let targets: HashMap<Duty, sys::Target> = Duty::SEALED.into_iter().zip(targets).collect();
        let frozen_already: Vec<String> = there.keys().cloned().collect();
        let object = Object::open_with(&machine.types, offsets, there)?;
        let maps = Maps::to_be_checked(&object)?;
        ready.write(&maps, set.generation)?;
        let policy = KernelPolicy { slots: [ready.slot, Slot::default()], ..KernelPolicy::EMPTY };
        sys::update(object.map(MAPS[0].0)?, &0u32, &policy)
            .map_err(|e| Error::bpf("writing the policy", e))?;

        let mut programs = HashMap::new();
        for &duty in duties {
            let program = object.load(duty, targets[&duty])?;
            if matches!(duty, Duty::Sealed | Duty::SealedWhole) {
                // Where whoever looks for the seal finds it.
                for map in [SEAL, SETTINGS] {
                    held::bind(program.as_fd(), object.map(map)?)
                        .map_err(|e| Error::io("bind a map to the program", e))?;
                }
            }
            programs.insert(duty, program);
        }
        let mut beside = Vec::new();
        if set.open.contains(&Open::NewCgroups) {
            // The old attachments fill the old tables, for as long as those decide: these fill the new ones.
            beside = crate::enforce::attach_all(&object, &Duty::PLACES)?;
        }
        maps.place(&ready.tables.places, set.generation)?;

        let kept = kept_maps(&object, ready)?;
        let boot_id = host::boot_id();
        if boot_id == [0; 16] {
            // It could not be corrected afterwards.
            let path = "/proc/sys/kernel/random/boot_id";
            return Err(Error::Request(format!(
                "not sealed: {path} cannot be read, and a seal names its boot"
            )));
        }
        let mut seal = Seal {
            number: set.number,
            sealed_boot_ns: host::boot_ns(),
            boot_id,
            open: if set.open.contains(&Open::NewCgroups) { Seal::NEW_CGROUPS } else { 0 },
            ..Seal::NONE
        };
        for (to, &id) in seal.maps.iter_mut().zip(&kept) {
            *to = id;
        }
        for (at, (_, file)) in set.files.iter().enumerate() {
            *seal.files.get_mut(at).ok_or_else(|| Error::Object("too many files are kept".into()))? = *file;
        }
        let tags = object::tags().map_err(|e| Error::Object(e.to_string()))?;
        let ours = tags.iter().map(|(duty, tag)| targets[duty].known(*tag));
        for (at, program) in ours.chain(set.trusted.iter().map(Foreign::known)).enumerate() {
            *seal.programs.get_mut(at).ok_or_else(too_many)? = program;
            seal.programs_known = u32::try_from(at + 1).expect("they are few");
        }
        sys::update(object.map(SEAL)?, &0u32, &seal).map_err(|e| Error::bpf("writing the seal", e))?;

        // Readers of events move their place in the buffer: it is the one map that user space goes on writing.
        let frozen = MAPS.iter().chain([&LABELS]).map(|(name, _)| *name).filter(|name| *name != "EVENTS");
        for name in frozen.chain([SEAL]).filter(|name| !frozen_already.iter().any(|there| there == name)) {
            held::freeze(object.map(name)?).map_err(|e| Error::io(format!("freeze the map {name}"), e))?;
        }
        maps.check()?;
        check_value(&object, MAPS[0].0, &policy)?;
        check_value(&object, SEAL, &seal)?;
        if crate::labels::any_in(object.map(LABELS.0)?)? {
            return Err(meddled(LABELS.0));
        }
        Ok(Self { object, programs, beside, seal, kept })
    }

    pub fn attach(&self, root: &Root, duty: Duty) -> Result<(), Error> {
        root.attach(duty, self.programs[&duty].as_fd()).map_err(|e| match e.raw_os_error() {
            Some(libc::EINVAL) => Error::TooOld("programs of security modules that a cgroup holds, which came with 6.0"),
            Some(libc::ENOSPC) => Error::Request(
                "the kernel lets cgroups use ten hooks of security modules in all, and others use too many of them: \
                 `bpftool cgroup tree` lists whose programs are attached as lsm_cgroup; end them, or take exceptions by program out of the policy".into(),
            ),
            Some(libc::E2BIG) => Error::Request(format!(
                "too many programs are attached to {}: `bpftool prog` lists them; end some", duty.hook_name()
            )),
            _ => Error::io(format!("attach {} to the root cgroup", duty.hook_name()), e),
        })
    }

    pub fn self_test(&self, machine: &Machine, watched: u64) -> Result<SelfTest, Error> {
        let counters = crate::enforce::counters(&self.object)?;
        selftest::run(&machine.types, &counters, watched, machine.native)
    }

    /// Processes that run an excepted program since before its labels were there.
    pub fn started_before(&self, ready: &Ready) -> Result<Vec<(u32, PathBuf)>, Error> {
        if ready.executables.is_empty() {
            return Ok(Vec::new());
        }
        crate::labels::missing_in(self.object.map(LABELS.0)?, &ready.description.programs)
    }

    /// Nobody else may hold a map that programs write: it would outlive the guard's attachment.
    pub fn held_by_nobody_else(&self) -> Result<(), Error> {
        let beside = self.beside.iter().filter_map(|(_, link)| sys::link_info(link.as_fd()).ok());
        let ours = self.programs.values().filter_map(|p| foreign::id(p.as_fd()));
        let ours: Vec<u32> = ours.chain(beside.map(|link| link.program)).collect();
        foreign::no_holder_of(&self.kept, &ours)
    }
}

/// Fails unless a frozen map has this value.
fn check_value<T: Copy>(object: &Object, name: &str, value: &T) -> Result<(), Error> {
    let there =
        held::value(object.map(name)?).map_err(|e| Error::io(format!("read back the map {name}"), e))?;
    if there == tables::bytes(value) { Ok(()) } else { Err(meddled(name)) }
}

fn too_many() -> Error {
    Error::Request(format!(
        "more programs are trusted than a seal can name: {KNOWN_MAX} in all, Stockade's own included"
    ))
}

fn kept_maps(object: &Object, ready: &Ready) -> Result<Vec<u32>, Error> {
    let mut names = Vec::new();
    if !ready.tables.programs.is_empty() {
        names.push(LABELS.0);
    }
    if !ready.tables.places.is_empty() {
        names.push("CGROUPS");
    }
    let id = |name| {
        let info = held::map_info(object.map(name)?).map_err(|e| Error::io("ask for a map's id", e))?;
        Ok(info.id)
    };
    names.into_iter().map(id).collect()
}
