/*!
The steps from intent to effect.

```text
first time                            later
  1 load, policy "hear everything"      1 write the slot that is not in force
  2 attach                              2 flip `active`
  3 self-test, then the real policy
  4 pin the maps
  5 pin the link: the commit
```

A kill before step 5 closes the only descriptor of the link, and the kernel detaches the program: the
old state, nothing enforced. A kill between the later steps leaves the old policy in force or the new
one, since decisions read `active` and one slot.
*/
use std::{
    os::fd::AsFd,
    time::{Duration, Instant},
};

use aya::maps::{MapData, PerCpuArray, PerCpuValues};
use serde::Serialize;
use stockade_common::{LAYOUT, LOST, MAGIC, Policy, Scope, Slot, Verdict, counter_index};
use stockade_reasons::Level;

pub use crate::selftest::SelfTest;
use crate::{
    Error,
    attach::Attachment,
    btf::KernelTypes,
    elsewhere, host,
    intent::{Intent, Notice},
    measure, object,
    pins::{self, Enforcement, Lock, Pinned, PolicyValue},
    selftest, sys,
};

/// What [`enforce`] did.
#[derive(Debug)]
pub struct Applied {
    /// How.
    pub change: Change,
    /// What is in force now.
    pub slot: Slot,
    /// What the administrator should know.
    pub notices: Vec<Notice>,
    /// How the program is asked.
    pub attachment: Attachment,
    /// Proof that it decides.
    pub self_test: SelfTest,
    /// The level of the kernel's own lockdown.
    pub native: Level,
    /// This kernel's types: read once, since that is most of the work.
    pub types: KernelTypes,
}

/// How the state changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Nothing was enforced before.
    Started,
    /// Another policy was in force before.
    Replaced,
    /// This very policy was in force.
    Unchanged,
}

/// Applies a policy until reboot or [`lift`]. Needs root, BTF, the bpf LSM and a BPF file system.
///
/// # Errors
/// Whatever is missing, as an [`Error`] that names the remedy. The state is then as before.
pub fn enforce(intent: &Intent) -> Result<Applied, Error> {
    intent.check()?;
    if !host::is_root() {
        return Err(Error::no_privilege("changing what the kernel refuses"));
    }
    let types = KernelTypes::of_running_kernel()?;
    let lsms = host::active_lsms()?;
    let native = host::native_lockdown()?;
    let (mut slot, mut notices) = intent.compile(&types);
    notices.extend(intent.without_effect(native, &types));
    slot.applied_boot_ns = host::boot_ns();

    let _lock = Lock::take()?;
    let (change, attachment, self_test) = match pins::open()? {
        Pinned::Nothing { leftovers } => {
            if leftovers {
                pins::remove()?;
            }
            elsewhere::nothing()?;
            let attachment = Attachment::choose(&lsms, &types);
            let heard =
                start(&types, slot, native, attachment).map_err(|error| match (attachment, error) {
                    (
                        Attachment::ModifyReturn,
                        source @ (Error::TooOld(_) | Error::Rejected { .. } | Error::Io { .. }),
                    ) => Error::NoBpfLsm { active: lsms, source: Box::new(source) },
                    (_, error) => error,
                })?;
            (Change::Started, attachment, heard)
        }
        Pinned::Whole(mut enforcement) => {
            let before = enforcement.swap(slot)?;
            let scope = slot.scope;
            let attachment = enforcement.attachment()?;
            let native = attachment.refused_before(native);
            match selftest::run(&types, &enforcement.counters, scope.watched, scope.deny, native) {
                Ok(proof) => (before.map_or(Change::Unchanged, |_| Change::Replaced), attachment, proof),
                Err(error) => {
                    // A policy that cannot be proven is not left behind.
                    if let Some(before) = before {
                        enforcement.swap(before)?;
                    }
                    return Err(error);
                }
            }
        }
    };
    Ok(Applied { change, slot, notices, attachment, self_test, native, types })
}

/// Kills this process when STOCKADE_STOP_AT names the step: how the lab plays a SIGKILL between two of
/// them. In every build, since the lab tests the program that ships; it can only end the caller's own command.
fn step(name: &str) {
    if std::env::var_os("STOCKADE_STOP_AT").is_some_and(|at| at == name) {
        // SAFETY: no arguments.
        unsafe { libc::raise(libc::SIGKILL) };
    }
}

fn start(types: &KernelTypes, slot: Slot, native: Level, attachment: Attachment) -> Result<SelfTest, Error> {
    let hear_everything =
        Slot { scope: Scope { watched: u64::MAX, deny: 0, quiet: u64::MAX }, ..Slot::default() };
    let mut policy =
        Policy { magic: MAGIC, layout: LAYOUT, pad: 0, active: 0, slots: [hear_everything, slot] };
    let mut loaded = object::load(types, &policy, attachment.target(types)?)?;
    step("loaded");
    let link = loaded.attach()?;
    step("attached");
    let heard = selftest::run(types, &loaded.counters, u64::MAX, 0, attachment.refused_before(native))?;
    step("heard");
    zero(&mut loaded.counters, types)?;
    policy.active = 1;
    loaded.policy.set(0, PolicyValue(policy), 0).map_err(|e| Error::Object(e.to_string()))?;
    step("decided");

    pins::make_folder()?;
    step("folder");
    let pinned = (|| {
        for (name, map) in &loaded.to_pin {
            pins::pin(map, name)?;
            step(name);
        }
        pins::pin(&link, pins::LINK)
    })();
    if pinned.is_err() {
        pins::remove()?;
    }
    pinned?;
    step("link-pinned");
    Ok(heard)
}

/// Forgets what was heard during the self-test.
fn zero(counters: &mut PerCpuArray<MapData, u64>, types: &KernelTypes) -> Result<(), Error> {
    let broken = |e: aya::maps::MapError| Error::Object(e.to_string());
    let cells = counters.get(&0, 0).map_err(broken)?.len();
    for reason in &types.reasons {
        let index = counter_index(reason.number, Verdict::Audited);
        let zeros = PerCpuValues::try_from(vec![0u64; cells]).map_err(|e| Error::io("reset a counter", e))?;
        counters.set(index, zeros, 0).map_err(broken)?;
    }
    Ok(())
}

impl Enforcement {
    fn attachment(&self) -> Result<Attachment, Error> {
        let info = sys::link_info(self.link.as_fd()).map_err(|e| Error::io("ask for the link", e))?;
        Ok(Attachment::of(&info))
    }

    fn policy(&self) -> Result<Policy, Error> {
        self.policy.get(&0, 0).map(|v| v.0).map_err(|e| Error::Object(e.to_string()))
    }

    /// Puts a slot in force and returns the one before; `None` when it was in force already.
    fn swap(&mut self, slot: Slot) -> Result<Option<Slot>, Error> {
        let mut policy = self.policy()?;
        let in_force = usize::from(policy.active & 1 == 1);
        let same_time = |slot: Slot| Slot { applied_boot_ns: 0, ..slot };
        if same_time(policy.slots[in_force]) == same_time(slot) {
            return Ok(None);
        }
        // The kernel copies the whole value; the bytes of the slot in force are written as they are.
        let mut write = |policy: Policy| {
            self.policy.set(0, PolicyValue(policy), 0).map_err(|e| Error::Object(e.to_string()))
        };
        wait_for_decisions();
        policy.slots[1 - in_force] = slot;
        write(policy)?;
        step("slot-written");
        policy.active = u64::from(in_force == 0);
        write(policy)?;
        step("flipped");
        Ok(Some(policy.slots[in_force]))
    }
}

/// Waits until no decision reads the slot that an earlier swap retired: MEMBARRIER_CMD_GLOBAL (4.3) is
/// a grace period, and LSM programs run inside read-side sections. Where it is refused (nohz_full) a
/// decision would have to last across two swaps to see a slot change, and the single word that
/// refuses would still be one policy's.
fn wait_for_decisions() {
    const MEMBARRIER_CMD_GLOBAL: i32 = 1;
    // SAFETY: takes three integers.
    unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
}

/// What [`lift`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifted {
    /// Enforcement is gone.
    Lifted,
    /// Nothing was enforced.
    NothingToLift,
}

/// Ends enforcement and removes every pin.
///
/// # Errors
/// [`Error`] when the pins cannot be removed. With `force`, pins of another version or damaged ones
/// are removed unread.
pub fn lift(force: bool) -> Result<Lifted, Error> {
    if !host::is_root() {
        return Err(Error::no_privilege("changing what the kernel refuses"));
    }
    let _lock = Lock::take()?;
    let attached = pins::link_info();
    match pins::open() {
        Ok(Pinned::Nothing { leftovers }) => {
            if leftovers {
                pins::remove()?;
            }
            elsewhere::nothing()?;
            return Ok(Lifted::NothingToLift);
        }
        Ok(Pinned::Whole(_)) => {}
        Err(Error::OtherVersion { .. } | Error::Damaged { .. }) if force => {}
        Err(e) => return Err(e),
    }
    pins::remove()?;
    if let Some(attached) = attached {
        wait_until_detached(&attached)?;
    }
    Ok(Lifted::Lifted)
}

/// The kernel detaches a moment after the last pin is gone. It first forgets the link's id, then takes
/// the program off the hook, then forgets the program's id: only the last says that nothing is refused.
fn wait_until_detached(attached: &sys::LinkInfo) -> Result<(), Error> {
    let deadline = Instant::now() + Duration::from_secs(5);
    while sys::program_exists(attached.program) {
        if Instant::now() > deadline {
            return Err(Error::Request(
                "the pins are gone, but some other process still holds the program or its attachment: enforcement may go on until it ends".into(),
            ));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Refusals and audits of one reason since enforcement started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// This kernel's number of the reason.
    pub number: u32,
    /// Its id, or the kernel's name when the table lacks it.
    pub reason: String,
    /// Requests refused.
    pub refused: u64,
    /// Requests let through and reported.
    pub audited: u64,
}

/// What is in force, read back from the kernel.
#[derive(Clone, Debug)]
pub struct InForce {
    /// The policy's slot in force.
    pub slot: Slot,
    /// Reasons with at least one refusal or audit.
    pub counts: Vec<Count>,
    /// Events that found the ring buffer full.
    pub lost_events: u64,
    /// How the program is asked.
    pub attachment: Attachment,
    /// Requests let through unasked, see [`crate::attach`].
    pub skipped: u64,
    /// Id of the attached program, as `bpftool prog` shows it.
    pub program_id: u32,
    /// Id of the link, as `bpftool link` shows it.
    pub link_id: u32,
}

/// Reads back what is in force; `None` when nothing is.
///
/// # Errors
/// [`Error`] when it cannot be read, for instance without root.
pub fn read_back(types: &KernelTypes) -> Result<Option<InForce>, Error> {
    let Pinned::Whole(enforcement) = pins::open()? else { return elsewhere::nothing().map(|()| None) };
    let policy = enforcement.policy()?;
    let sum = |index: u32| -> Result<u64, Error> {
        let values = enforcement.counters.get(&index, 0).map_err(|e| Error::Object(e.to_string()))?;
        Ok(values.iter().sum())
    };
    let mut counts = Vec::new();
    for reason in &types.reasons {
        let number = reason.number;
        let (refused, audited) =
            (sum(counter_index(number, Verdict::Refused))?, sum(counter_index(number, Verdict::Audited))?);
        if refused + audited > 0 {
            counts.push(Count { number, reason: reason_id(types, number), refused, audited });
        }
    }
    let info = sys::link_info(enforcement.link.as_fd()).map_err(|e| Error::io("ask for the link", e))?;
    Ok(Some(InForce {
        slot: policy.slots[usize::from(policy.active & 1 == 1)],
        counts,
        lost_events: sum(LOST)?,
        attachment: Attachment::of(&info),
        skipped: measure::account(&info)
            .map_err(|e| Error::io("ask for the program's statistics", e))?
            .skipped,
        program_id: info.program,
        link_id: info.id,
    }))
}

/// The id of the program that decides, as far as it is pinned.
#[must_use]
pub fn program_in_force() -> Option<u32> {
    pins::link_info().map(|link| link.program)
}

/// The id of the reason with this number, or the kernel's name where the table lacks it.
#[must_use]
pub fn reason_id(types: &KernelTypes, number: u32) -> String {
    match types.enum_name(number) {
        Some(name) => {
            stockade_reasons::by_enum_name(name).map_or_else(|| name.to_owned(), |r| r.id.to_owned())
        }
        None => format!("reason-{number}"),
    }
}
