/*!
Reads the policy in force back from the kernel.
*/
use std::{os::fd::AsFd, time::Duration};

use stockade_common::{LOST, SETTINGS_AUDITED, SETTINGS_REFUSED, Slot, UNPLACED, Verdict, counter_index};
use stockade_policy::compile::CompiledSetting;

use crate::{
    Error,
    machine::{btf::KernelTypes, patience::Patience},
    pinned::{
        description::Description,
        elsewhere,
        pins::{self, Enforcement, Pinned},
        tables::{Maps, held_unsealed},
    },
    program::{attach::Attachment, duty::Duty, info},
    sealed::{
        Sealed,
        anchor::{self, Found},
        gap::Gap,
    },
    sys::{self, Counters},
};

/// Counts of one reason since the policy came into force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// The reason's number in this kernel.
    pub number: u32,
    /// The reason's id, or the kernel's name if the table lacks it.
    pub reason: String,
    /// Requests refused.
    pub refused: u64,
    /// Requests allowed and reported.
    pub audited: u64,
    /// Requests allowed by an exception.
    pub excepted: u64,
}

/// The state that is in force.
#[derive(Clone, Debug)]
pub struct InForce {
    /// The slot in force.
    pub slot: Slot,
    /// The description; `None` if it is lost or belongs to another policy.
    pub description: Option<Description>,
    /// Reasons with at least one request that was refused, audited or excepted.
    pub counts: Vec<Count>,
    /// Events that were lost because the ring buffer was full.
    pub lost_events: u64,
    /// New cgroups that did not get a place, see [`UNPLACED`].
    pub unplaced_cgroups: u64,
    /// Held settings, by name.
    pub settings: Vec<CompiledSetting>,
    /// Whether the program for settings is attached.
    pub settings_held: bool,
    /// Writes to settings: refused ones, and those allowed and reported.
    pub setting_writes: (u64, u64),
    /// The attachment of the deciding program.
    pub attachment: Attachment,
    /// Requests that the kernel allowed without running the program, see [`crate::program::attach`].
    pub skipped: u64,
    /// Id of the deciding program, as `bpftool prog` shows it.
    pub program_id: u32,
    /// Id of its link, as `bpftool link` shows it; none for a sealed program.
    pub link_id: Option<u32>,
    /// The seal.
    pub sealed: Option<SealInForce>,
}

/// A seal in force. [`crate::seal::prove`] tells whether it holds.
#[derive(Clone, Debug)]
pub struct SealInForce {
    /// Time of sealing: nanoseconds since boot, suspend included.
    pub boot_ns: u64,
    /// Number of policies: the sealed one and those that were added.
    pub policies: usize,
    /// The gaps that the seal leaves open.
    pub open: Vec<Gap>,
}

/// Reads the state that is in force; `None` if no policy is.
///
/// # Errors
/// [`Error`] when it cannot be read, for instance without root.
pub fn read_back(types: &KernelTypes) -> Result<Option<InForce>, Error> {
    let mut found = settled()?;
    loop {
        let told = match &found {
            Settled::Sealed(sealed) => read_sealed(sealed, types),
            Settled::Pinned(enforcement) => read_pinned(enforcement, types),
            Settled::Nothing => return Ok(None),
        };
        if told.as_ref().is_ok_and(|told| told.description.is_some()) {
            return told.map(Some);
        }
        // A command that changes the policy does not wait for readers, and removes the old description and the old pins.
        let before = match &told {
            Ok(told) => (told.program_id, told.slot.words.generation),
            Err(_) => found.mark()?,
        };
        drop(found);
        found = settled()?;
        if found.mark()? == before {
            return told.map(Some);
        }
    }
}

fn read_pinned(enforcement: &Enforcement, types: &KernelTypes) -> Result<InForce, Error> {
    let policy = enforcement.policy()?;
    let info = sys::link_info(enforcement.link.as_fd()).map_err(|e| Error::io("ask for the link", e))?;
    let slot = policy.slots[usize::from(policy.active & 1 == 1)];
    Ok(InForce {
        slot,
        description: Description::read(slot.words.generation, slot.digest),
        counts: counts(&enforcement.counters, types)?,
        lost_events: sum(&enforcement.counters, LOST)?,
        unplaced_cgroups: sum(&enforcement.counters, UNPLACED)?,
        settings: held_unsealed(Maps::pinned()?.settings(slot.words.generation)?),
        settings_held: pins::works(Duty::Settings),
        setting_writes: setting_writes(&enforcement.counters)?,
        attachment: Attachment::of(&info),
        skipped: match info::account(info.program) {
            // A guard that a killed command left refuses even this. Guards need LSM programs, which the kernel never skips.
            Err(e) if e.raw_os_error() == Some(libc::EPERM) => 0,
            account => account.map_err(|e| Error::io("ask for the program's statistics", e))?.skipped,
        },
        program_id: info.program,
        link_id: Some(info.id),
        sealed: None,
    })
}

fn read_sealed(sealed: &Sealed, types: &KernelTypes) -> Result<InForce, Error> {
    let counters = sealed.counters()?;
    let description = sealed.newest_description();
    let named = description.as_ref().map_or_else(Vec::new, |description| {
        let settings = stockade_policy::settings::compile(&description.policy, description.auto.into());
        settings.into_iter().map(|setting| setting.name).collect()
    });
    Ok(InForce {
        slot: sealed.in_force(types),
        description,
        counts: counts(&counters, types)?,
        lost_events: sum(&counters, LOST)?,
        unplaced_cgroups: sum(&counters, UNPLACED)?,
        settings: sealed.settings(&named)?,
        settings_held: sealed.program(Duty::Settings).is_some(),
        setting_writes: setting_writes(&counters)?,
        attachment: Attachment::RootCgroup,
        skipped: 0,
        program_id: sealed.decides(),
        link_id: None,
        sealed: Some(SealInForce {
            boot_ns: sealed.seal.sealed_boot_ns,
            policies: 1 + usize::try_from(sealed.added.count).unwrap_or(usize::MAX - 1),
            open: Gap::of_seal(sealed, types),
        }),
    })
}

fn counts(counters: &Counters, types: &KernelTypes) -> Result<Vec<Count>, Error> {
    let mut counts = Vec::new();
    for reason in &types.reasons {
        let number = reason.number;
        let count = |verdict| sum(counters, counter_index(number, verdict));
        let (refused, audited) = (count(Verdict::Refused)?, count(Verdict::Audited)?);
        let excepted = count(Verdict::Excepted)?;
        if refused + audited + excepted > 0 {
            counts.push(Count { number, reason: types.reason_id(number), refused, audited, excepted });
        }
    }
    Ok(counts)
}

/// The state that is in force.
enum Settled {
    Sealed(Box<Sealed>),
    Pinned(Box<Enforcement>),
    Nothing,
}

impl Settled {
    /// Returns data that differ for another policy in force or another deciding program.
    fn mark(&self) -> Result<(u32, u64), Error> {
        Ok(match self {
            Self::Sealed(sealed) => (sealed.decides(), sealed.generation()),
            Self::Pinned(enforcement) => {
                let info = sys::link_info(enforcement.link.as_fd());
                let info = info.map_err(|e| Error::io("ask for the link", e))?;
                (info.program, enforcement.slot()?.words.generation)
            }
            Self::Nothing => (0, 0),
        })
    }
}

/// Returns the sealed or pinned state when no other command is in the middle of a change. Readers do not take the lock.
fn settled() -> Result<Settled, Error> {
    let link = || pins::link_info().map(|link| link.id);
    let mut patience = Patience::new();
    loop {
        if let Found::Sealed(sealed) = anchor::look()? {
            return Ok(Settled::Sealed(sealed));
        }
        let before = link();
        match pins::open() {
            Ok(Pinned::Whole(enforcement)) => return Ok(Settled::Pinned(enforcement)),
            Ok(Pinned::Nothing { .. }) => match elsewhere::ours() {
                // Sealed since the first test: sealing removes the pins.
                None => {
                    return Ok(match anchor::look()? {
                        Found::Sealed(sealed) => Settled::Sealed(sealed),
                        _ => Settled::Nothing,
                    });
                }
                // Another command is lifting, sealing or trying a policy, or is about to pin one.
                Some(program) => {
                    if !patience.wait() {
                        return Err(Error::Elsewhere { program });
                    }
                }
            },
            // Removed in the meantime, the link first.
            Err(Error::Damaged { .. }) if link() != before => sys::sleep(Duration::from_millis(5)),
            Err(error) => return Err(error),
        }
    }
}

/// Returns the numbers of refused and of audited writes to settings.
fn setting_writes(counters: &Counters) -> Result<(u64, u64), Error> {
    Ok((sum(counters, SETTINGS_REFUSED)?, sum(counters, SETTINGS_AUDITED)?))
}

/// Returns a counter's sum over all processors.
fn sum(counters: &Counters, index: u32) -> Result<u64, Error> {
    counters.sum(index).map_err(|e| Error::io("read the counters", e))
}

/// Returns the id of the deciding program, if it is pinned or sealed.
#[must_use]
pub fn program_in_force() -> Option<u32> {
    match anchor::look() {
        Ok(Found::Sealed(sealed)) => Some(sealed.decides()),
        _ => pins::link_info().map(|link| link.program),
    }
}
