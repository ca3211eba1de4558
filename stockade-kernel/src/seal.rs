/*!
The steps to a seal, and the proof that it holds.

```text
1 look: nothing that would make the seal worth nothing
2 load every program and write every map; freeze the maps
3 attach the guard that keeps foreign programs out, then look for those that are in already
4 attach what decides, and prove that it does
5 attach the guard that keeps all of them there: the commit
6 prove that the guards hold; let go of the pins
```

A kill before the commit leaves what was in force before, beside programs that the next command takes off again.
After it nothing is taken back by anybody: a stricter policy is stacked as one more program that decides, and a request
passes when none of them refuses.
*/
use std::{
    collections::HashMap,
    fmt, fs,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    time::{Duration, Instant},
};

use stockade_common::{KNOWN_MAX, KeptFile, Policy as KernelPolicy, Seal, SettingRule, Slot, kinds};
use stockade_policy::{
    compile::{CompiledSetting, bit},
    model::Policy,
};
use stockade_reasons::Level;

use crate::{
    Error,
    anchor::{self, Found, Root, Sealed},
    btf::KernelTypes,
    description::{self, Description},
    enforce::{Machine, Ready, step},
    foreign::{self, Foreign},
    host, kept_files, measure,
    object::{self, Duty, LABELS, MAPS, Object, SEAL},
    pins::{self, Lock, Pinned},
    read_back::reason_id,
    selftest::{self, SelfTest},
    sys::{self, held},
    tables::{self, Maps, SETTINGS, meddled},
};

/// What to keep beside the seal, and what to do without.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Foreign programs that stay: by id, or by tag in sixteen digits.
    pub trust: Vec<String>,
    /// Seal although this kernel or this policy leaves something open.
    pub best_effort: bool,
}

/// What the seal does not close: told as long as it lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Open {
    /// Root can end the attachments that give new cgroups their places.
    NewCgroups,
    /// These reasons of the integrity level are not refused to everybody: with them root changes the kernel, and so the seal.
    Reasons(Vec<String>),
}

impl Open {
    /// In a word or two, for a record: `new-cgroups`, or the reasons.
    #[must_use]
    pub fn word(&self) -> String {
        match self {
            Self::NewCgroups => "new-cgroups".into(),
            Self::Reasons(reasons) => reasons.join(" "),
        }
    }

    /// What a policy with this slot leaves open once it is sealed.
    pub(crate) fn of(slot: &Slot, new_cgroups: bool, types: &KernelTypes) -> Vec<Self> {
        let mut open = Vec::new();
        let reasons = types.reasons.iter().map(|reason| reason.number);
        let free: Vec<_> = reasons
            .filter(|&number| types.is_integrity(number) && slot.words.deny & bit(number) == 0)
            .map(|number| reason_id(types, number))
            .collect();
        if !free.is_empty() {
            open.push(Self::Reasons(free));
        }
        if new_cgroups {
            open.push(Self::NewCgroups);
        }
        open
    }
}

impl fmt::Display for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NewCgroups => f.write_str(
                "new cgroups get their scopes from programs that root can end (unlink the pins, unmount /sys/fs/bpf): \
                 what surrounds such a cgroup then decides for it",
            ),
            Self::Reasons(reasons) => write!(
                f,
                "root can change the kernel, and with it the seal, by what is not refused: {}",
                reasons.join(", ")
            ),
        }
    }
}

/// What [`seal`] did.
#[derive(Debug)]
pub struct Done {
    /// The policy that was sealed.
    pub slot: Slot,
    /// The same in words.
    pub policy: Policy,
    /// What its `auto` was found to be.
    pub auto: Level,
    /// When: nanoseconds since boot.
    pub sealed_boot_ns: u64,
    /// Foreign programs that were trusted.
    pub trusted: Vec<Foreign>,
    /// What is left open.
    pub open: Vec<Open>,
    /// Programs that are started already and excepted only when started anew: process id and path.
    pub started_before: Vec<(u32, PathBuf)>,
    /// How long it took until it was in force; the proof of that and its record come after.
    pub effective_after: Duration,
    /// What is wrong with it, proven by trying; nothing when it holds.
    pub problems: Vec<String>,
    /// The kernel hooks in use.
    pub hooks: Vec<&'static str>,
    /// This kernel's types.
    pub types: KernelTypes,
}

/// Makes the policy in force irremovable until reboot. Needs root, kernel 6.0 and the bpf LSM.
///
/// `before` is asked about the policy when nothing is in the way any more and nothing was done yet; what it returns is handed back.
///
/// # Errors
/// [`Error::Request`] for whatever would make the seal worth nothing, each with its remedy, and what `before` says. Nothing is
/// sealed then.
pub fn seal<T>(
    options: &Options,
    before: impl FnOnce(&Policy) -> Result<T, Error>,
) -> Result<(Done, T), Error> {
    let begin = Instant::now();
    let machine = Machine::look()?;
    let _lock = Lock::take()?;
    if let Found::Sealed(_) = anchor::look()? {
        return Err(Error::Sealed {
            what: "sealing once more",
            instead: "a stricter policy is added with: stockade enforce".into(),
        });
    }
    anchor::tidy_up()?;
    let (policy, auto) = in_force()?;
    let obstacles = obstacles(&machine.lsms);
    if !obstacles.is_empty() {
        return Err(Error::Request(format!("not sealed:\n  - {}", obstacles.join("\n  - "))));
    }
    let mut ready = Ready::new(&machine.types, policy, auto)?;
    let open = left_open(&ready, &machine.types, options)?;
    if ready.refuses_nothing() {
        return Err(Error::Request(
            "the policy in force refuses nothing, so a seal would hold nothing: apply one that does, for instance \
             stockade enforce integrity"
                .into(),
        ));
    }
    hold_tracing(&mut ready);
    let trusted = foreign::trusted(&options.trust)?;
    let root = Root::open().map_err(|e| Error::io("open the root of the cgroup tree", e))?;
    let asked = before(&ready.description.policy)?;

    let files = kept_files::find(&ready.tables.settings, &machine.lsms)?;
    let mut duties = ready.sealed_duties();
    if !files.is_empty() {
        duties.insert(0, Duty::GuardFiles);
    }
    let mut everything = duties.clone();
    everything.extend([Duty::GuardPrograms, Duty::GuardCalls]);
    let set =
        Set { number: 1, generation: next_generation()?, open: &open, trusted: &trusted, files: &files };
    let made = Made::new(&machine, &mut ready, &everything, &set, HashMap::new())?;
    step("sealed-loaded");

    let sealed_boot_ns = made.seal.sealed_boot_ns;
    let attached = (|| -> Result<(), Error> {
        made.attach(&root, Duty::GuardPrograms)?;
        step("guard-attached");
        foreign::none_but(&trusted, &ours_in_pins())?;
        for &duty in &duties {
            made.attach(&root, duty)?;
            step("sealed-attached");
        }
        kept_files::no_writer_of(&files)?;
        made.held_by_nobody_else()?;
        made.self_test(&machine, ready.watched_here())?;
        step("sealed-heard");
        for (duty, link) in &made.beside {
            pins::pin_waiting(link, *duty)?;
            step("sealed-pinned");
        }
        made.attach(&root, Duty::GuardCalls)
    })();
    if let Err(error) = attached {
        anchor::tidy_up()?;
        return Err(match error {
            // Only without the guard can it be asked who they are.
            Error::Foreign { programs, .. } => {
                Error::Foreign { words: foreign::describe(&programs), programs }
            }
            other => other,
        });
    }
    let effective_after = begin.elapsed();
    step("committed");
    // The kernel takes a moment to forget them once their pins are gone.
    let before_us = ours_in_pins();
    for (duty, _) in &made.beside {
        pins::waiting_takes_over(*duty)?;
    }
    pins::remove_all_but(&open_pins(&open))?;
    description::keep_only(Some(ready.slot.words.generation));
    let started_before = made.started_before(&ready)?;
    // There is no way back: what is wrong now is told and not undone.
    let problems = match anchor::look()? {
        Found::Sealed(sealed) => problems_of(&sealed, &machine.types, machine.native, &before_us),
        _ => vec!["the kernel does not list its programs any more".to_owned()],
    };
    let done = Done {
        slot: ready.slot,
        auto,
        policy: ready.description.policy,
        sealed_boot_ns,
        trusted,
        open,
        started_before,
        effective_after,
        problems,
        hooks: everything.iter().map(|duty| duty.hook_name()).collect(),
        types: machine.types,
    };
    Ok((done, asked))
}

/// Whether something is sealed.
///
/// # Errors
/// [`Error::SealedByOther`], and whatever keeps from looking.
pub fn is_sealed() -> Result<bool, Error> {
    Ok(matches!(anchor::look()?, Found::Sealed(_)))
}

/// The policy in force in words, and what its `auto` was found to be.
fn in_force() -> Result<(Policy, Level), Error> {
    let Pinned::Whole(enforcement) = pins::open()? else {
        crate::elsewhere::nothing()?;
        return Err(Error::Request(
            "nothing is enforced, so there is nothing to seal: apply a policy first, for instance with stockade enforce integrity".into(),
        ));
    };
    let slot = enforcement.slot()?;
    let description = Description::read(slot.words.generation, slot.digest).ok_or_else(description::lost)?;
    let mut policy = description.policy;
    policy.exceptions.retain(|e| !e.granted || !e.has_ended(host::now()));
    Ok((policy, description.auto.into()))
}

/// Whatever the policy says, the switch that silences all programs stays on.
fn hold_tracing(ready: &mut Ready) {
    const SWITCH: &str = "kernel/ftrace_enabled";
    ready.tables.settings.retain(|setting| setting.name != SWITCH);
    let rule = SettingRule { hold: SettingRule::FREEZE, kind: SettingRule::HIGHER, ..SettingRule::default() };
    ready.tables.settings.push(CompiledSetting { name: SWITCH.into(), rule, named: false });
}

fn next_generation() -> Result<u64, Error> {
    match pins::open()? {
        Pinned::Whole(enforcement) => {
            let policy = enforcement.policy()?;
            Ok(policy.slots.iter().map(|slot| slot.words.generation).max().unwrap_or_default() + 1)
        }
        Pinned::Nothing { .. } => Ok(1),
    }
}

/// What keeps this machine from being sealed, whatever the policy: each with its remedy. `lsms` are the active security modules.
#[must_use]
pub fn obstacles(lsms: &str) -> Vec<String> {
    let mut obstacles = Vec::new();
    if !host::is_at_least(6, 0) {
        obstacles.push(
            "this kernel is older than 6.0, with which came programs of security modules that a cgroup holds: boot a newer one"
                .to_owned(),
        );
    }
    if !host::has_bpf_lsm(lsms) {
        obstacles.push(format!(
            "bpf is not among the active security modules ({lsms}), and programs that work without it can be removed by root: \
             add lsm={lsms},bpf to the kernel command line and reboot"
        ));
    }
    if host::tracing_is_off() {
        obstacles.push(
            "kernel.ftrace_enabled is 0, which silences the programs of a seal: sysctl kernel.ftrace_enabled=1".to_owned(),
        );
    }
    if fs::read_to_string("/sys/kernel/kexec_loaded").is_ok_and(|loaded| loaded.trim() == "1") {
        obstacles.push(
            "a kernel is loaded for kexec, and root could start it at any time: unload it with kexec --unload, or reboot into it"
                .to_owned(),
        );
    }
    if let Err(error) = Root::open() {
        obstacles.push(format!("the root of the cgroup tree cannot be opened: {error}"));
    }
    obstacles
}

fn left_open(ready: &Ready, types: &KernelTypes, options: &Options) -> Result<Vec<Open>, Error> {
    let open = Open::of(&ready.slot, !ready.tables.places.is_empty(), types);
    if options.best_effort || open.is_empty() {
        return Ok(open);
    }
    let list: Vec<_> = open.iter().map(ToString::to_string).collect();
    Err(Error::Request(format!(
        "not sealed: a seal of the policy in force would leave something open:\n  - {}\n  \
         apply a policy that does not, or seal this one with --best-effort; status then says what is open until reboot",
        list.join("\n  - ")
    )))
}

/// Ids of the programs behind our pins, which the seal takes over from.
fn ours_in_pins() -> Vec<u32> {
    let all = [Duty::Decide, Duty::Settings].into_iter().chain(Duty::PLACES).chain(Duty::LABELS);
    all.filter_map(|duty| pins::link_info_of(duty).map(|link| link.program)).collect()
}

/// Pins that stay, for what is left open.
fn open_pins(open: &[Open]) -> Vec<&'static str> {
    if open.contains(&Open::NewCgroups) { Duty::PLACES.map(Duty::pin).to_vec() } else { Vec::new() }
}

/// What is known of the set of programs to be made.
struct Set<'a> {
    number: u32,
    generation: u64,
    open: &'a [Open],
    trusted: &'a [Foreign],
    files: &'a [(PathBuf, KeptFile)],
}

/// A generation of programs, loaded, its maps written and frozen.
struct Made {
    object: Object,
    programs: HashMap<Duty, OwnedFd>,
    /// Attachments that are not the root cgroup's.
    beside: Vec<(Duty, OwnedFd)>,
    seal: Seal,
    /// Ids of the maps that programs write and decisions depend on.
    kept: Vec<u32>,
}

impl Made {
    /// With the maps that are there already.
    fn new(
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
        let mut seal = Seal {
            number: set.number,
            sealed_boot_ns: host::boot_ns(),
            boot_id: host::boot_id(),
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

    fn attach(&self, root: &Root, duty: Duty) -> Result<(), Error> {
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

    fn self_test(&self, machine: &Machine, watched: u64) -> Result<SelfTest, Error> {
        let counters = crate::enforce::counters(&self.object)?;
        selftest::run(&machine.types, &counters, watched, machine.native)
    }

    /// Processes that run an excepted program since before its labels were there.
    fn started_before(&self, ready: &Ready) -> Result<Vec<(u32, PathBuf)>, Error> {
        if ready.executables.is_empty() {
            return Ok(Vec::new());
        }
        crate::labels::missing_in(self.object.map(LABELS.0)?, &ready.description.programs)
    }

    /// Nobody else may hold a map that programs write: it would outlive the guard's attachment.
    fn held_by_nobody_else(&self) -> Result<(), Error> {
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

/// Stacks a policy on what is sealed, and tells which running programs its exceptions do not know yet. It counts and tells into the maps that are there.
pub(crate) fn stack(
    machine: &Machine,
    sealed: &Sealed,
    ready: &mut Ready,
) -> Result<(SelfTest, Vec<(u32, PathBuf)>), Error> {
    if !ready.tables.places.is_empty() {
        return Err(Error::Sealed {
            what: "adding a policy with scopes or exceptions by unit or cgroup",
            instead: "they need programs that root can end: apply a policy without them, which is added to what is sealed".into(),
        });
    }
    let newest = sealed.newest();
    let files = kept_files::find(&ready.tables.settings, &machine.lsms)?;
    let mut duties = ready.sealed_duties();
    if !files.is_empty() {
        duties.insert(0, Duty::GuardFiles);
    }
    let set = Set {
        number: newest.seal.number + 1,
        generation: newest.policy.slots[0].words.generation + 1,
        open: &[],
        trusted: &[],
        files: &files,
    };
    let mut there = HashMap::new();
    for name in [MAPS[1].0, MAPS[2].0] {
        let map = newest
            .map(name)
            .ok_or_else(|| Error::Object(format!("a sealed program without the map {name}")))?;
        there.insert(name.to_owned(), map.try_clone_to_owned().map_err(|e| Error::io("keep a map", e))?);
    }
    let made = Made::new(machine, ready, &duties, &set, there)?;
    step("sealed-loaded");
    made.held_by_nobody_else()?;
    kept_files::no_writer_of(&files)?;
    // What decides comes last.
    for &duty in &duties {
        made.attach(&sealed.root, duty)?;
        step("sealed-attached");
    }
    let proof = made.self_test(machine, ready.watched_here())?;
    Ok((proof, made.started_before(ready)?))
}

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

fn problems_of(sealed: &Sealed, types: &KernelTypes, native: Level, going: &[u32]) -> Vec<String> {
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
