/*!
The steps to a seal, and the proof that it holds.

```text
1 check that nothing would make the seal worthless
2 attach the first guards: other processes get no descriptor of a newer program and, once the counters and the ring buffer are created, of a
  newer map; fail if a loaded program can bypass the guards
3 create and write the other maps, load every program, freeze the maps
4 attach the guard on maps
5 attach the guard on programs
6 attach the deciding program and those for labels, settings and files; wait for writes and kexec calls that began before; self-test
7 close the programs except the last guard; wait until there are only the known references to any program or map; read the maps back; list the
  loaded programs again
8 attach the guard on calls, after which no program of the seal can be detached: the commit
9 remove the pins, detach the first guards, prove that the guards hold and that there are only the known references
```

The waits in steps 6 and 7 are for calls that began before their guard was attached, see access.rs and references.rs. If the command is killed before the
commit, the policy that was in force stays in force; the next command detaches the programs of the seal. After the commit nothing is undone.
A stricter policy is added by the seal's own program, see [`crate::sealed`]: that needs no descriptor, no further program and no further map, so
the guards have no exemption.
*/
mod access;
mod addition;
pub(crate) mod first_guards;
mod lists;
mod made;
mod proof;
mod references;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use stockade_common::{Seal, SettingRule, Slot, kinds};
use stockade_policy::{compile::CompiledSetting, model::Policy};
use stockade_reasons::Level;

pub use crate::sealed::gap::Gap;
pub use proof::{
    prove,
    reasons::{Cause, Conclusion, Probe, ProbeResult, Proof, Untried},
};
pub(crate) use {addition::add, proof::proof};

use self::{
    made::{SealInputs, UncommittedSeal},
    proof::problems_of,
};
use crate::{
    Error,
    machine::{Machine, btf::KernelTypes, host},
    pinned::{
        description::{self, Description},
        pins::{self, Lock, Pinned},
    },
    program::duty::{Duty, Sealing},
    ready::Ready,
    sealed::{
        TRACING,
        anchor::{self, Found, Root},
        foreign::{self, Foreign, Others},
        kept_files,
        trust::Trust,
    },
    selftest::SelfTest,
    sys::{fs, step},
};

/// The options of [`seal`].
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Programs of others that stay loaded, in addition to those that the policy names: by id, or by tag in sixteen digits.
    pub trust: Vec<String>,
    /// Seal although this kernel or this policy leaves something open.
    pub best_effort: bool,
}

/// The result of [`seal`].
#[derive(Debug)]
pub struct Done {
    /// The slot of the sealed policy.
    pub slot: Slot,
    /// The sealed policy.
    pub policy: Policy,
    /// The level that `auto` in the policy stands for.
    pub auto: Level,
    /// The time of the seal, in nanoseconds since boot.
    pub sealed_boot_ns: u64,
    /// Loaded programs that the command named as trusted.
    pub trusted: Vec<Foreign>,
    /// Ids of trusted programs of which another guard refuses a descriptor.
    pub trusted_by_id: Vec<u32>,
    /// Programs that the policy trusts for a hook that this kernel lacks: name and hook.
    pub trusted_without_hook: Vec<(String, String)>,
    /// The gaps of the seal.
    pub open: Vec<Gap>,
    /// Processes that executed an excepted program before the seal and have no label, so that the exception does not apply: process id and path.
    pub started_before: Vec<(u32, PathBuf)>,
    /// The time from the start of the command to the commit.
    pub effective_after: Duration,
    /// The result of the self-test before the commit.
    pub self_test: SelfTest,
    /// Problems found after the commit: parts of the seal that do not hold, and steps that failed. Empty if there are none.
    pub problems: Vec<String>,
    /// The hooks of the seal's programs.
    pub hooks: Vec<&'static str>,
    /// The types of the running kernel.
    pub types: KernelTypes,
}

/// Returns the gaps that a seal of this policy would have, and fails if there are any, unless `options` accept gaps.
fn left_open(
    ready: &Ready,
    types: &KernelTypes,
    sysctl: &[Foreign],
    options: &Options,
) -> Result<Vec<Gap>, Error> {
    let mut open = Gap::of(&ready.slot, !ready.tables.places.is_empty(), types);
    open.extend(Gap::exceptions(&ready.description.policy, types));
    open.extend(Gap::ends(&ready.description.policy));
    open.extend(Gap::scopes(ready.slot.words.deny, &ready.tables.places, types));
    if !sysctl.is_empty() {
        open.push(Gap::Sysctl(
            sysctl.iter().map(|program| format!("{} {}", program.id, program.name)).collect(),
        ));
    }
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

/// Makes the policy in force irremovable until reboot. Needs root, kernel 6.0 and the bpf LSM.
///
/// Calls `before` with the policy after the checks and before the first program is loaded, and returns its result.
///
/// # Errors
/// [`Error::Request`] for each condition that would make the seal worthless, with its remedy; [`Error::Foreign`] for programs that could bypass it;
/// and the error of `before`. Nothing is sealed then.
pub fn seal<T>(
    options: &Options,
    before: impl FnOnce(&Policy) -> Result<T, Error>,
) -> Result<(Done, T), Error> {
    let begin = Instant::now();
    Machine::may_look()?;
    let (types, sealing) = Sealing::look_with_types()?;
    let machine = Machine::with(types)?;
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
    let others = Others::look()?;
    let trust = Trust::look(&ready.description.policy, &options.trust, &others)?;
    let sysctl = trust.untrusted_sysctl_programs(&others, &pins::programs());
    let open = left_open(&ready, &machine.types, &sysctl, options)?;
    let places = ready.is_sealed_with_places(&machine.types)?;
    if ready.refuses_nothing() {
        return Err(Error::Request(
            "the policy in force refuses nothing, so a seal would hold nothing: apply one that does, for instance \
             stockade enforce integrity"
                .into(),
        ));
    }
    hold_tracing(&mut ready);
    let root = Root::open().map_err(|e| Error::io("open the root of the cgroup tree", e))?;
    let sealing = sealing?;
    let asked = before(&ready.description.policy)?;

    let files = kept_files::find(&ready.tables.settings, &machine.lsms)?;
    let mut duties = ready.sealed_duties();
    if !files.is_empty() {
        duties.insert(0, Duty::GuardFiles);
    }
    let mut everything = duties.clone();
    everything.extend([Duty::GuardPrograms, Duty::GuardMaps, Duty::GuardCalls]);
    let flags = if sysctl.is_empty() { 0 } else { Seal::SYSCTL_CLOSED };
    let set = SealInputs {
        generation: next_generation()?,
        places,
        trust: &trust,
        files: &files,
        flags,
        staying: &sysctl,
    };
    let attached = (|| -> Result<(UncommittedSeal, SelfTest), Error> {
        let mut made = UncommittedSeal::new(&machine, &mut ready, &everything, &sealing, &set)?;
        step("sealed-loaded");
        made.attach(&root, Duty::GuardMaps)?;
        step("maps-guarded");
        made.attach(&root, Duty::GuardPrograms)?;
        step("guard-attached");
        for &duty in &duties {
            made.attach(&root, duty)?;
            step("sealed-attached");
        }
        made.wait_for_no_writer(&files)?;
        made.wait_for_earlier_calls()?;
        // Checked before; now the seal refuses to change it.
        if host::tracing_is_off() {
            return Err(Error::Request(TRACING_IS_OFF.into()));
        }
        if kernel_is_loaded() {
            return Err(Error::Request(format!("not sealed: {KERNEL_IS_LOADED}")));
        }
        step("settings-held");
        let heard = made.self_test(&machine, ready.watched_here())?;
        step("sealed-heard");
        for (duty, link) in &made.beside {
            pins::pin_waiting(link, *duty)?;
            step("sealed-pinned");
        }
        made.wait_for_no_other_references()?;
        step("alone");
        is_asked_last(&root, &made)?;
        if let Some(problem) = proof::linked(&made.seal) {
            return Err(Error::Request(format!("not sealed: {problem}")));
        }
        // From here on root cannot detach the guard on programs, load a program and attach the guard again, so that this list is final.
        let programs = foreign::strangers_beside(&made.seal, &sealing)?;
        if !programs.is_empty() {
            return Err(Error::Foreign { programs, words: String::new() });
        }
        made.attach(&root, Duty::GuardCalls)?;
        Ok((made, heard))
    })();
    let (made, self_test) = attached.or_else(|error| {
        anchor::tidy_up()?;
        keep_described();
        Err(match error {
            // The guard on programs, now detached, refused descriptors of them.
            Error::Foreign { programs, .. } => {
                Error::Foreign { words: foreign::describe(&programs), programs }
            }
            other => other,
        })
    })?;
    let sealed_boot_ns = made.seal.sealed_boot_ns;
    let effective_after = begin.elapsed();
    step("committed");
    // The commit cannot be undone: from here on errors are reported as problems.
    let mut problems = Vec::new();
    for (duty, _) in &made.beside {
        problems.extend(pins::waiting_takes_over(*duty).err().map(|e| e.to_string()));
    }
    problems.extend(pins::remove_all_but(&pins_of(places)).err().map(|e| format!("a pin is left over: {e}")));
    description::keep_only(&[ready.slot.words.generation]);
    let started_before = made.started_before(&ready).unwrap_or_else(|e| {
        problems.push(format!("which processes ran an excepted program before is not known: {e}"));
        Vec::new()
    });
    // The seal refuses descriptors of its programs from the first call of bpf(2) after the commit on: here at the latest. Only then the first
    // guards may go.
    let found = anchor::look();
    drop(made);
    match found {
        Ok(Found::Sealed(sealed)) => problems.extend(problems_of(&sealed, &machine.types, machine.native)),
        Ok(_) => problems.push("the seal does not answer any more".to_owned()),
        Err(e) => problems.push(format!("the seal cannot be asked: {e}")),
    }
    let done = Done {
        slot: ready.slot,
        auto,
        policy: ready.description.policy,
        sealed_boot_ns,
        trusted: trust.named,
        trusted_by_id: trust.by_id,
        trusted_without_hook: trust.without_hook,
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

/// Reports whether the machine is sealed. False without root.
///
/// # Errors
/// [`Error::SealedByOther`], and errors of the calls that look for a seal.
pub fn is_sealed() -> Result<bool, Error> {
    Ok(matches!(anchor::look()?, Found::Sealed(_)))
}

/// Returns the policy in force without grants that have ended, and the level that its `auto` stands for.
fn in_force() -> Result<(Policy, Level), Error> {
    let Pinned::Whole(enforcement) = pins::open()? else {
        crate::pinned::elsewhere::nothing()?;
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

/// Removes every description except that of the policy in force, after sealing failed.
fn keep_described() {
    if let Ok(Pinned::Whole(enforcement)) = pins::open()
        && let Ok(slot) = enforcement.slot()
    {
        description::keep_only(&[slot.words.generation]);
    }
}

const TRACING_IS_OFF: &str =
    "kernel.ftrace_enabled is 0, which silences the programs of a seal: sysctl kernel.ftrace_enabled=1";

const KERNEL_IS_LOADED: &str = "a kernel is loaded for kexec, and root could start it at any time: unload it with kexec --unload, or reboot into it";

fn kernel_is_loaded() -> bool {
    // The second name is that of 6.18 and later.
    ["/sys/kernel/kexec_loaded", "/sys/kernel/kexec/loaded"]
        .iter()
        .any(|path| fs::read_to_string(path).is_ok_and(|loaded| loaded.trim() == "1"))
}

/// Makes the seal hold kernel.ftrace_enabled, whatever the policy says: 0 would silence its programs.
fn hold_tracing(ready: &mut Ready) {
    ready.tables.settings.retain(|setting| setting.name != TRACING);
    let rule = SettingRule { hold: SettingRule::FREEZE, kind: SettingRule::HIGHER, ..SettingRule::default() };
    ready.tables.settings.push(CompiledSetting { name: TRACING.into(), rule, named: false });
}

/// Returns the generation of the sealed policy: 1, or 2 if the policy in force has 1. The tables are new, so only the names of the two descriptions
/// must differ. Root can write the generation of the policy in force, so the result is not derived from it.
fn next_generation() -> Result<u64, Error> {
    match pins::open()? {
        Pinned::Whole(enforcement) => Ok(if enforcement.slot()?.words.generation == 1 { 2 } else { 1 }),
        Pinned::Nothing { .. } => Ok(1),
    }
}

/// Returns the reasons why this machine cannot be sealed, whatever the policy, each with its remedy. `lsms` are the active security modules.
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
        obstacles.push(TRACING_IS_OFF.to_owned());
    }
    if kernel_is_loaded() {
        obstacles.push(KERNEL_IS_LOADED.to_owned());
    }
    if host::in_pid_namespace() {
        obstacles.push(
            "this process is in a pid namespace of its own and does not see who is writing settings: seal on the machine itself".to_owned(),
        );
    }
    if let Err(error) = Root::open() {
        obstacles.push(format!("the root of the cgroup tree cannot be opened: {error}"));
    }
    obstacles
}

/// Fails unless the seal's program runs last on accesses to sysctls: a program that runs later could change a value that it has checked. The kernel
/// runs the programs of descendant cgroups first, and those of one cgroup in the order in which they were attached.
fn is_asked_last(root: &Root, made: &UncommittedSeal) -> Result<(), Error> {
    let ours = Duty::SEALED.iter().position(|&duty| duty == Duty::Settings).map(|at| made.seal.programs[at]);
    let there = root.programs(kinds::ATTACH_CGROUP_SYSCTL);
    let there = there.map_err(|e| Error::io("ask which programs the root cgroup holds", e))?;
    if there.last().copied() == ours {
        return Ok(());
    }
    Err(Error::Request(
        "not sealed: while this went on, somebody attached a program to the root cgroup that is asked for sysctls: \
         `bpftool cgroup show` on its mount point tells; seal again"
            .into(),
    ))
}

/// Returns the pins that stay: those of the programs that give new cgroups their places.
fn pins_of(places: bool) -> Vec<&'static str> {
    if places { Duty::PLACES.map(Duty::pin).to_vec() } else { Vec::new() }
}
