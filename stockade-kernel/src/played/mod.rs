/*!
Commands played on a model of the kernel (`sys/fake`): killed before every call, each call failing with each errno that
`sys/fake/errnos.rs` lists for it, short of descriptors or memory from any call on, and with another command in between.

| file | what is played |
|---|---|
| `stories.rs` | the commands, each with the state that it starts from and the one that it leads to |
| `whole.rs` | nothing in between: every instant is decided by the old or the new policy |
| `killed.rs` | a kill before every call |
| `failing.rs` | each errno of the list at every call, and starvation from every call on |
| `beside.rs` | another command at every call |
| `added.rs` | what is added to a seal, and others who add to it |
| `sealed.rs` | what the guards of a seal refuse, and foreign programs |
| `proof.rs` | what the proof of a seal says of each reason |

The lab plays one of each on real kernels, which shows that the model is right.
*/
mod added;
mod beside;
mod failing;
mod killed;
mod proof;
mod sealed;
mod stories;
mod trusted;
mod whole;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use stockade_common::{GuardOffsets, Offsets, Slot};
use stockade_policy::{merge::merge, model::Policy, read, source::Source};
use stockade_reasons::Level;

use self::stories::{STORIES, Story};
use crate::{
    Error, enforce, lift,
    machine::btf::{self, KernelTypes},
    read_back::{InForce, read_back},
    seal,
    sys::fake::{Ended, Fate, Machine, Table},
};

/// Numbers of the reasons on the machine, markers included.
const REASONS: [&str; 11] = [
    "LOCKDOWN_NONE",
    "LOCKDOWN_MODULE_SIGNATURE",
    "LOCKDOWN_DEV_MEM",
    "LOCKDOWN_KEXEC",
    "LOCKDOWN_IOPORT",
    "LOCKDOWN_MSR",
    "LOCKDOWN_INTEGRITY_MAX",
    "LOCKDOWN_KCORE",
    "LOCKDOWN_KPROBES",
    "LOCKDOWN_TRACEFS",
    "LOCKDOWN_CONFIDENTIALITY_MAX",
];

/// Functions and type names that programs hang on. The first is the hook for lockdown.
const FUNCTIONS: [&str; 12] = [
    "bpf_lsm_locked_down",
    "bpf_lsm_bprm_committed_creds",
    "bpf_lsm_task_alloc",
    "bpf_lsm_ptrace_access_check",
    "bpf_lsm_ptrace_traceme",
    "bpf_lsm_bpf_prog",
    "bpf_lsm_bpf_map",
    "bpf_lsm_file_open",
    "bpf_lsm_bpf",
    "bpf_iter_task",
    "btf_trace_cgroup_mkdir",
    "btf_trace_cgroup_release",
];

/// BTF id of the first function: the enum comes before it.
const HOOK: u32 = 2;

/// The machine's types, in BTF's format: each member of a structure lies 8 bytes behind the one before.
fn types() -> Vec<u8> {
    const STRUCT: u32 = 4;
    const ENUM: u32 = 6;
    let fields = || Offsets::FIELDS.iter().chain(&GuardOffsets::FIELDS).copied();
    let names: Vec<&str> = REASONS.into_iter().chain(fields().map(|(_, field)| field)).collect();
    let (_, at) = btf::tests::blob(&[], &names);
    let (reasons, fields_at) = at.split_at(REASONS.len());
    let values = reasons.iter().zip(0u32..).flat_map(|(&name, number)| [name, number]).collect();
    let count = u32::try_from(REASONS.len()).unwrap();
    let mut types = vec![("lockdown_reason", ENUM << 24 | count, 4, values)];
    for name in FUNCTIONS {
        let kind = if name.starts_with("btf_trace") { btf::TYPEDEF } else { btf::FUNC };
        types.push((name, kind << 24, 1, vec![]));
    }
    let mut owners: Vec<&str> = fields().map(|(owner, _)| owner).collect();
    owners.sort_unstable();
    owners.dedup();
    for owner in owners {
        let of_owner = fields().zip(fields_at).zip(1u32..).filter(|(((of, _), _), _)| *of == owner);
        let members: Vec<u32> = of_owner.flat_map(|((_, &name), number)| [name, 0, number * 64]).collect();
        types.push((owner, STRUCT << 24 | u32::try_from(members.len() / 3).unwrap(), 512, members));
    }
    btf::tests::blob(&types, &names).0
}

/// A machine on which nothing is enforced.
fn machine() -> Arc<Machine> {
    let types = types();
    let files: &[(&str, &[u8])] = &[
        (btf::VMLINUX, &types),
        ("/sys/kernel/security/lsm", b"lockdown,capability,yama,bpf\n"),
        ("/sys/kernel/security/lockdown", b"[none] integrity confidentiality\n"),
        ("/sys/fs/bpf/", b""),
        ("/sys/fs/cgroup/cage/below/", b""),
        ("/proc/sys/kernel/osrelease", b"6.12.0\n"),
        ("/proc/sys/kernel/ftrace_enabled", b"1\n"),
        ("/proc/sys/kernel/perf_event_max_stack", b"127\n"),
        ("/proc/self/status", b"TracerPid:\t0\n"),
        ("/proc/sys/kernel/random/boot_id", b"01234567-89ab-cdef-0123-456789abcdef\n"),
        ("/proc/self/cgroup", b"0::/\n"),
        ("/proc/1/", b""),
        ("/run/", b""),
    ];
    Machine::new(files, HOOK)
}

fn policy(text: &str) -> Policy {
    merge([read(&Source::new("played", text)).unwrap()]).unwrap()
}

/// A command.
#[derive(Clone, Copy, Debug)]
enum Command {
    /// With the text of the policy.
    Enforce(&'static str),
    /// An exception for the tool, added to what is in force.
    Grant,
    Lift,
    Seal,
}

/// Seals whatever the policy leaves open.
const BEST_EFFORT: bool = true;

impl Command {
    fn execute(self) -> Result<(), Error> {
        match self {
            Self::Enforce(text) => enforce::enforce(&policy(text), Level::None).map(drop),
            Self::Grant => enforce::amend(|policy| {
                let mut granted = self::policy(stories::GRANTED).exceptions.remove(0);
                granted.granted = true;
                // Given again, it takes the place of the one that a killed command left in force.
                policy.exceptions.retain(|exception| !exception.granted);
                policy.exceptions.push(granted);
                Ok(())
            })
            .map(drop),
            Self::Lift => lift::lift(false).map(drop),
            Self::Seal => {
                let options = seal::Options { best_effort: BEST_EFFORT, ..seal::Options::default() };
                seal::seal(&options, |_| Ok(())).map(drop)
            }
        }
    }
}

/// The state in force, as it is read back: the slot without its time and number, whether its description is there, and the number of
/// sealed policies. `None` if nothing is in force, and for a policy that decides nothing.
type Told = Option<(Slot, bool, usize)>;

fn tells(in_force: Option<&InForce>) -> Told {
    let in_force = in_force.filter(|told| told.slot != Slot::default())?;
    let mut slot = in_force.slot;
    (slot.applied_boot_ns, slot.words.generation) = (0, 0);
    let sealed = in_force.sealed.as_ref().map_or(0, |seal| seal.policies);
    Some((slot, in_force.description.is_some(), sealed))
}

fn look() -> Result<Told, Error> {
    let in_force = read_back(&KernelTypes::of_running_kernel()?)?;
    Ok(tells(in_force.as_ref()))
}

/// A state of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    told: Told,
    table: Table,
}

impl State {
    fn of(machine: &Arc<Machine>) -> Self {
        let told = machine.run(Fate::Lives, look).done().unwrap();
        Self { told, table: machine.kernel().table() }
    }
}

/// A story that is played again and again.
struct Played {
    story: &'static Story,
    /// The state before the command, and a machine in it.
    old: State,
    origin: Arc<Machine>,
    /// The state after a command that nothing disturbs, and what there is then.
    new: State,
    inventory: Vec<String>,
    /// States that were judged already, by what there is.
    judged: HashMap<Vec<String>, State>,
}

impl Played {
    fn new(story: &'static Story) -> Self {
        let origin = machine();
        for command in story.before {
            origin.run(Fate::Lives, || command.execute()).done().unwrap();
        }
        let old = State::of(&origin);
        let machine = origin.copy();
        assert_eq!(State::of(&machine), old, "{}: a copy is another", story.name);
        machine.run(Fate::Lives, || story.command.execute()).done().unwrap();
        let new = State::of(&machine);
        assert_ne!(old, new, "{}: nothing changes", story.name);
        let inventory = machine.kernel().inventory();
        Self { story, old, origin, new, inventory, judged: HashMap::new() }
    }

    /// A machine before the command.
    fn machine(&self) -> Arc<Machine> {
        self.origin.copy()
    }

    /// Whether everybody is decided by the old policy or by the new one. What is sealed takes no step back: settings that a stacked
    /// policy adds are held from the moment on that their program is attached, which is before the one that decides.
    fn is_either(&self, table: &Table) -> bool {
        let settings_first =
            || table.refused == self.old.table.refused && table.settings == self.new.table.settings;
        *table == self.old.table || *table == self.new.table || self.story.stacks() && settings_first()
    }

    /// Checks that the machine is in the old state or in the new one, whatever happened to the command, and that the command works the next time and leaves
    /// the state of an undisturbed run. Returns the state.
    fn judge(&mut self, machine: &Arc<Machine>, what: &str) -> State {
        let there = machine.kernel().fingerprint();
        if let Some(state) = self.judged.get(&there) {
            return state.clone();
        }
        let state = State::of(machine);
        let (old, new) = (&self.old, &self.new);
        let told = state.told == old.told || state.told == new.told;
        let whole = self.is_either(&state.table);
        assert!(told && whole, "{what}: neither nor: {state:?}\nold {old:?}\nnew {new:?}");
        self.works_now(machine, what);
        self.judged.insert(there, state.clone());
        state
    }

    fn works_now(&self, machine: &Arc<Machine>, what: &str) {
        // What is sealed is sealed: asking once more is refused.
        let is_sealed = || machine.run(Fate::Lives, seal::is_sealed).done().unwrap();
        if !(matches!(self.story.command, Command::Seal) && is_sealed()) {
            match machine.run(Fate::Lives, || self.story.command.execute()) {
                Ended::Done(Ok(())) => {}
                other => panic!("{what}: the next time: {other:?}"),
            }
            let mut left = machine.kernel().inventory();
            let there = &self.inventory;
            let less: Vec<_> = there.iter().filter(|there| !left.contains(there)).collect();
            assert!(less.is_empty(), "{what}: missing the next time: {less:?}");
            if self.story.stacks() {
                // What the root cgroup holds once stays, and a program of the same kind beside it decides no less.
                left.dedup();
            }
            let more: Vec<_> = left.iter().filter(|left| !there.contains(left)).collect();
            assert!(
                left.len() <= there.len() && more.is_empty(),
                "{what}: left behind: {more:?}, {} for {}",
                left.len(),
                there.len()
            );
        }
        assert_eq!(State::of(machine), self.new, "{what}: the next time");
    }
}

/// Plays every story, as many at once as there are processors.
fn each(play: impl Fn(&mut Played) + Sync) {
    let next = AtomicUsize::new(0);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(story) = STORIES.get(next.fetch_add(1, Ordering::Relaxed)) {
                    play(&mut Played::new(story));
                }
            });
        }
    });
}
