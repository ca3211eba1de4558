/*!
The programs and maps of a seal: loaded, written, frozen and read back.
*/
use std::{
    cell::Cell,
    collections::HashMap,
    io,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

use stockade_common::{
    Added, Counted, HELD_MAX, KEPT_MAPS_MAX, KeptFile, Known, Policy as KernelPolicy, STAYING_MAX, Seal,
    Seen, Slot, Stacked,
};

use super::{
    access,
    first_guards::{self, FirstGuard, retry_on_eperm},
    lists,
    references::{self, Shared},
};
use crate::{
    Error,
    machine::{Machine, host},
    pinned::tables::{self, Maps, meddled},
    program::{
        duty::{Duty, Sealing},
        info, instructions,
        object::{MapName, Object},
    },
    ready::Ready,
    sealed::{
        anchor::Root,
        foreign::{self, Foreign},
        trust::Trust,
    },
    selftest::{self, SelfTest},
    sys::{self, held, step},
};

/// The inputs of a seal, beside the policy.
pub struct SealInputs<'a> {
    /// The generation of the sealed policy.
    pub generation: u64,
    /// Whether programs on tracepoints give new cgroups their places, see [`Seal::NEW_CGROUPS`].
    pub places: bool,
    /// Programs of others that the guard on programs admits.
    pub trust: &'a Trust,
    pub files: &'a [(PathBuf, KeptFile)],
    /// [`Seal::SYSCTL_CLOSED`] or 0. The other bits of [`Seal::flags`] are found while the seal is made.
    pub flags: u32,
    /// Programs of others that run on accesses to sysctls, are not trusted and stay.
    pub staying: &'a [Foreign],
}

/// A seal before the commit: its programs are loaded, its maps written and frozen.
pub struct UncommittedSeal {
    object: Object,
    maps: Maps,
    policy: KernelPolicy,
    programs: HashMap<Duty, OwnedFd>,
    /// Links of the programs that give new cgroups their places. The root cgroup holds all other programs.
    pub beside: Vec<(Duty, OwnedFd)>,
    /// The number of programs of the seal that use each map.
    map_programs: MapPrograms,
    /// The guards that refuse other processes a descriptor of the seal's maps and programs until the commit.
    _first: Vec<FirstGuard>,
    pub seal: Seal,
}

impl UncommittedSeal {
    /// Loads the programs for these duties and makes their maps.
    pub fn new(
        machine: &Machine,
        ready: &mut Ready,
        duties: &[Duty],
        sealing: &Sealing,
        set: &SealInputs<'_>,
    ) -> Result<Self, Error> {
        let task_tgid = machine.types.known_offsets().task_tgid;
        let mut first = vec![FirstGuard::of_programs(sealing).map_err(first_guards::explained)?];
        first.push(FirstGuard::of_command(sealing, task_tgid).map_err(first_guards::explained)?);
        // After the guard: a process that held the LSM program that this loads would keep the machine from being sealed.
        let (is_bounded, tried) = retry_on_eperm(|| instructions::try_bounds(&machine.types))?;
        let mut enforcing = Vec::new();
        let mut attach_guard = || {
            first.push(FirstGuard::of_maps(sealing).map_err(first_guards::explained)?);
            step("first-guard-attached");
            let hooks = [duties, &first_guards::HOOKS].concat();
            let seal = sealing.seal_on(&hooks, is_bounded);
            enforcing = first_guards::fail_if_bypassable(&first, &seal, sealing, set.trust, set.staying)?;
            Ok(())
        };
        let has_room = duties.contains(&Duty::SealedScoped);
        let object = Object::open_sealing(&machine.types, sealing.offsets, has_room, &mut attach_guard)?;
        let maps = Maps::to_be_checked(&object)?;
        ready.write(&maps, set.generation)?;
        let policy = KernelPolicy { slots: [ready.slot, Slot::default()], ..KernelPolicy::EMPTY };
        sys::update(object.map(MapName::Policy)?, &0u32, &policy)
            .map_err(|e| Error::bpf("writing the policy", e))?;
        sys::update(object.map(MapName::Added)?, &0u32, &Added::NONE)
            .map_err(|e| Error::bpf("writing what is added", e))?;
        sys::update(object.map(MapName::AddedPolicies)?, &0u32, &Stacked::NONE)
            .map_err(|e| Error::bpf("writing what is stacked", e))?;
        lists::are_for_us(&object)?;

        let mut beside = Vec::new();
        if set.places {
            // The old attachments fill the old tables, for as long as those decide: these fill the new ones. Root can end them anyway.
            beside = object.attach_all(&Duty::PLACES)?;
        }
        let mut programs = HashMap::new();
        for &duty in duties.iter().chain(&[Duty::ListTasks]) {
            programs.insert(duty, retry_on_eperm(|| object.load(duty, sealing.target(duty)))?);
        }
        tables::place(&maps, &ready.tables.places, set.generation)?;

        let map_programs = users_of_maps(&programs, &beside)?;
        let bounded = if is_bounded { Seal::BOUNDED } else { 0 };
        let mut seal = seal(&object, &programs, &map_programs, sealing, set, bounded)?;
        // Another process can keep what it got hold of before the guards were attached, and what enforces now stays until the commit. None of it is
        // a program of others, and the guard on programs lets nobody see what it is.
        let free = seal.trusted.iter_mut().skip(set.trust.known.len());
        for (known, id) in free.zip(first.iter().filter_map(FirstGuard::id).chain(tried).chain(enforcing)) {
            *known = foreign::by_id(id);
        }
        sys::update(object.map(MapName::Seal)?, &0u32, &seal)
            .map_err(|e| Error::bpf("writing the seal", e))?;

        // Readers of events move their place in the buffer: it is the one map that user space goes on writing.
        let frozen = MapName::PINNED.into_iter().filter(|name| *name != MapName::Events);
        for name in frozen.chain(MapName::SEALED) {
            held::freeze(object.map(name)?).map_err(|e| Error::io(format!("freeze the map {name}"), e))?;
        }
        check_value(&object, MapName::Added, &Added::NONE)?;
        check_value(&object, MapName::AddedPolicies, &Stacked::NONE)?;
        if crate::pinned::labels::any_in(object.map(MapName::Labels)?)? {
            return Err(meddled(MapName::Labels));
        }
        Ok(Self { object, maps, policy, programs, beside, map_programs, _first: first, seal })
    }

    /// Reads back the maps that decide. To be called when no other process has a reference to a map.
    fn check(&self) -> Result<(), Error> {
        self.maps.check()?;
        check_value(&self.object, MapName::Policy, &self.policy)?;
        check_value(&self.object, MapName::Seal, &self.seal)
    }

    /// Waits for writes to settings and kexec calls that began before the programs of the seal were attached.
    pub fn wait_for_earlier_calls(&self) -> Result<(), Error> {
        access::wait_for_earlier_calls(&|| lists::read(&self.object, self.programs[&Duty::ListTasks].as_fd()))
    }

    /// Reads the map in which the guards store what they saw.
    fn seen(&self) -> Result<Seen, Error> {
        lists::seen(&self.object)
    }

    /// Waits until no kept file is open for writing. The kernel counts the writers of an inode; the guard of the files stores whether there are any
    /// when this
    /// process opens the file for reading.
    pub fn wait_for_no_writer(&self, files: &[(PathBuf, KeptFile)]) -> Result<(), Error> {
        crate::sealed::kept_files::wait_for_no_writer(files, &|| self.seen().map(|seen| seen.file))
    }

    /// Closes all programs except the last guard, waits until there are only the known references to any program or map of the seal, and reads
    /// back the maps that decide.
    pub fn wait_for_no_other_references(&mut self) -> Result<(), Error> {
        let iterator = self.programs.get(&Duty::ListTasks).and_then(|program| info::id(program.as_fd()));
        self.programs.retain(|duty, _| *duty == Duty::GuardCalls);
        let programs = references::of_programs(&self.seal);
        let maps =
            references::of_maps(&self.seal, |_, id| self.map_programs.get(&id).copied().unwrap_or(0), 1);
        let shared = references::wait_for_known_references(
            programs.chain(maps),
            &Witness { made: self, since: Cell::new(0) },
        )?;
        shared.map_or(Ok(()), |shared| Err(not_alone(&shared, iterator.as_slice())))?;
        self.check()
    }
}

/// The map in which the guards store the reference counts.
struct Witness<'a> {
    made: &'a UncommittedSeal,
    since: Cell<u64>,
}

impl references::Witness for Witness<'_> {
    fn forget(&self, _: &Known) -> Result<(), Error> {
        self.since.set(self.made.seen()?.asked);
        Ok(())
    }

    fn counted(&self, known: &Known) -> Result<Counted, Error> {
        let seen = self.made.seen()?;
        Ok(known.compare(seen.counts[known.slot as usize], self.since.get()))
    }

    fn is_making(&self) -> bool {
        true
    }
}

/// Returns the known references of a seal of which no process has a descriptor.
pub(super) fn known(seal: &Seal) -> impl Iterator<Item = Known> {
    let users = seal.map_programs;
    references::of_programs(seal).chain(references::of_maps(seal, move |at, _| users[at], 0))
}

fn not_alone(shared: &Shared, passing: &[u32]) -> Error {
    Error::Request(format!("not sealed: {}\n  end it, and seal again", shared.describe(passing)))
}

/// The number of programs that use each map, by the id of the map.
type MapPrograms = HashMap<u32, u32>;

/// Counts the programs of a seal that use each map.
fn users_of_maps(
    programs: &HashMap<Duty, OwnedFd>,
    beside: &[(Duty, OwnedFd)],
) -> Result<MapPrograms, Error> {
    let failed = |e| Error::io("ask for the maps of a program", e);
    let mut users = MapPrograms::new();
    let mut count = |maps: Vec<u32>| maps.into_iter().for_each(|map| *users.entry(map).or_insert(0) += 1);
    // The iterator is closed before references are counted.
    for (_, program) in programs.iter().filter(|(duty, _)| **duty != Duty::ListTasks) {
        count(sys::program_maps(program.as_fd()).map_err(failed)?);
    }
    for (_, link) in beside {
        let info = sys::link_info(link.as_fd()).map_err(failed)?;
        if let Some((program, _)) = held::program(info.program).map_err(failed)? {
            count(sys::program_maps(program.as_fd()).map_err(failed)?);
        }
    }
    Ok(users)
}

impl UncommittedSeal {
    /// Attaches the program for a duty to the root cgroup.
    pub fn attach(&self, root: &Root, duty: Duty) -> Result<(), Error> {
        root.attach(duty, self.programs[&duty].as_fd()).map_err(|e| cannot_attach(duty.hook_name(), e))
    }

    pub fn self_test(&self, machine: &Machine, watched: u64) -> Result<SelfTest, Error> {
        let counters = self.object.counters()?;
        selftest::run(&machine.types, &selftest::counted(&counters), watched, machine.native)
    }

    /// Returns the processes that executed an excepted program before the seal and have no label.
    pub fn started_before(&self, ready: &Ready) -> Result<Vec<(u32, PathBuf)>, Error> {
        if ready.executables.is_empty() {
            return Ok(Vec::new());
        }
        crate::pinned::labels::missing_in(self.object.map(MapName::Labels)?, &ready.description.programs)
    }
}

/// Fails unless a frozen map has this value.
fn check_value<T: Copy>(object: &Object, name: MapName, value: &T) -> Result<(), Error> {
    let there =
        held::value(object.map(name)?).map_err(|e| Error::io(format!("read back the map {name}"), e))?;
    if there == tables::bytes(value) { Ok(()) } else { Err(meddled(name)) }
}

/// Returns the value of the map from which the programs read the seal.
fn seal(
    object: &Object,
    programs: &HashMap<Duty, OwnedFd>,
    map_programs: &MapPrograms,
    sealing: &Sealing,
    set: &SealInputs<'_>,
    bounded: u32,
) -> Result<Seal, Error> {
    let boot_id = host::boot_id();
    if boot_id == [0; 16] {
        // The value cannot be changed after the map is frozen.
        let path = "/proc/sys/kernel/random/boot_id";
        return Err(Error::Request(format!("not sealed: {path} cannot be read, and a seal names its boot")));
    }
    let new_cgroups = if set.places { Seal::NEW_CGROUPS } else { 0 };
    let sealed_boot_ns = host::boot_ns();
    let flags = bounded | set.flags | new_cgroups;
    let mut seal = Seal { flags, sealed_boot_ns, boot_id, ..Seal::NONE };
    let full = |what: &str| Error::Object(format!("a seal has no room for {what}"));
    let mut kept = 0;
    for (name, map) in object.maps() {
        let id = held::map_info(map).map_err(|e| Error::io("ask for a map's id", e))?.id;
        match MapName::SHOWN.iter().position(|shown| shown.name() == name) {
            Some(at) => seal.shown[at] = id,
            None if kept == KEPT_MAPS_MAX => return Err(full("its maps")),
            None => {
                seal.maps[kept] = id;
                seal.map_programs[kept] = map_programs.get(&id).copied().unwrap_or(0);
                kept += 1;
            }
        }
    }
    assert!(Duty::SEALED.len() <= HELD_MAX, "a seal has room for each of its programs");
    for (at, duty) in Duty::SEALED.into_iter().enumerate() {
        if let Some(program) = programs.get(&duty) {
            seal.programs[at] = info::id(program.as_fd()).ok_or_else(|| full("a program without an id"))?;
            seal.hooks[at] = sealing.target(duty).hook();
        }
    }
    seal.dialogue_hook = sealing.target(Duty::GuardCalls).hook();
    for (at, program) in set.trust.known.iter().enumerate() {
        *seal.trusted.get_mut(at).ok_or_else(|| full("the trusted programs"))? = *program;
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

/// Returns the error if a program cannot be attached to the root cgroup.
pub(super) fn cannot_attach(hook: &str, error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::EPERM) => Error::Request(format!(
            "not sealed: the kernel refuses to attach an LSM_CGROUP program for {hook} to the root cgroup (EPERM): either another program is attached there \
             without BPF_F_ALLOW_MULTI, which `bpftool cgroup tree` lists, or another security module refuses it; detach that program, and seal again"
        )),
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
