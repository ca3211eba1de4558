/*!
The steps to a seal, and the proof that it holds.

```text
1 look: nothing that would make the seal worth nothing
2 load every program and write every map; freeze the maps and read them back
3 attach the guard that keeps foreign programs out, then look for those that are in already
4 attach what decides, and prove that it does
5 attach the guard that keeps all of them there: the commit
6 prove that the guards hold; let go of the pins
```

A kill before the commit leaves what was in force before, beside programs that the next command takes off again.
After it nothing is taken back by anybody: a stricter policy is stacked as one more program that decides, and a request
passes when none of them refuses.
*/
mod made;
mod proof;

use std::{
    collections::HashMap,
    fmt,
    path::PathBuf,
    time::{Duration, Instant},
};

use stockade_common::{SettingRule, Slot};
use stockade_policy::{
    compile::{CompiledSetting, bit},
    model::Policy,
};
use stockade_reasons::Level;

pub use proof::problems;
pub(crate) use proof::proof;

use self::{
    made::{Made, Set},
    proof::problems_of,
};
use crate::{
    Error,
    anchor::{self, Found, Root, Sealed},
    btf::KernelTypes,
    description::{self, Description},
    enforce::{Machine, step},
    foreign::{self, Foreign},
    host, kept_files,
    object::{Duty, MAPS},
    pins::{self, Lock, Pinned},
    read_back::reason_id,
    ready::Ready,
    selftest::SelfTest,
    sys::fs,
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
    /// Proof that it decides, as far as there was something to ask for.
    pub self_test: SelfTest,
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
    let made = Made::new(&machine, &mut ready, &everything, &set, HashMap::new())
        .inspect_err(|_| keep_described())?;
    step("sealed-loaded");

    let sealed_boot_ns = made.seal.sealed_boot_ns;
    let attached = (|| -> Result<SelfTest, Error> {
        made.attach(&root, Duty::GuardPrograms)?;
        step("guard-attached");
        foreign::none_but(&trusted, &ours_in_pins())?;
        for &duty in &duties {
            made.attach(&root, duty)?;
            step("sealed-attached");
        }
        kept_files::no_writer_of(&files)?;
        made.held_by_nobody_else()?;
        let heard = made.self_test(&machine, ready.watched_here())?;
        step("sealed-heard");
        for (duty, link) in &made.beside {
            pins::pin_waiting(link, *duty)?;
            step("sealed-pinned");
        }
        made.attach(&root, Duty::GuardCalls)?;
        Ok(heard)
    })();
    let self_test = attached.or_else(|error| {
        anchor::tidy_up()?;
        keep_described();
        Err(match error {
            // Only without the guard can it be asked who they are.
            Error::Foreign { programs, .. } => {
                Error::Foreign { words: foreign::describe(&programs), programs }
            }
            other => other,
        })
    })?;
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
        self_test,
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

/// Removes the description of what was not sealed after all.
fn keep_described() {
    if let Ok(Pinned::Whole(enforcement)) = pins::open()
        && let Ok(slot) = enforcement.slot()
    {
        description::keep_only(Some(slot.words.generation));
    }
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
