/*!
What is in force, read back from the kernel.
*/
use std::{
    os::fd::AsFd,
    thread,
    time::{Duration, Instant},
};

use stockade_common::{LOST, Slot, UNPLACED, Verdict, counter_index};

use crate::{
    Error,
    attach::Attachment,
    btf::KernelTypes,
    description::Description,
    elsewhere, measure,
    pins::{self, Enforcement, Pinned},
    sys,
};

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
    /// Requests let through by an exception.
    pub excepted: u64,
}

/// What is in force, read back from the kernel.
#[derive(Clone, Debug)]
pub struct InForce {
    /// The policy's slot in force.
    pub slot: Slot,
    /// The same in words; `None` where it was lost, or says something else than what is in force.
    pub description: Option<Description>,
    /// Reasons with at least one refusal or audit.
    pub counts: Vec<Count>,
    /// Events that found the ring buffer full.
    pub lost_events: u64,
    /// New cgroups that could not be looked up among the policy's places, see [`UNPLACED`].
    pub unplaced_cgroups: u64,
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
    let Some(enforcement) = settled()? else { return Ok(None) };
    let policy = enforcement.policy()?;
    let sum = |index: u32| -> Result<u64, Error> {
        let values = enforcement.counters.get(&index, 0).map_err(|e| Error::Object(e.to_string()))?;
        Ok(values.iter().sum())
    };
    let mut counts = Vec::new();
    for reason in &types.reasons {
        let number = reason.number;
        let count = |verdict| sum(counter_index(number, verdict));
        let (refused, audited) = (count(Verdict::Refused)?, count(Verdict::Audited)?);
        let excepted = count(Verdict::Excepted)?;
        if refused + audited + excepted > 0 {
            counts.push(Count { number, reason: reason_id(types, number), refused, audited, excepted });
        }
    }
    let info = sys::link_info(enforcement.link.as_fd()).map_err(|e| Error::io("ask for the link", e))?;
    let slot = policy.slots[usize::from(policy.active & 1 == 1)];
    Ok(Some(InForce {
        slot,
        description: Description::read(slot.words.generation, slot.digest),
        counts,
        lost_events: sum(LOST)?,
        unplaced_cgroups: sum(UNPLACED)?,
        attachment: Attachment::of(&info),
        skipped: measure::account(&info)
            .map_err(|e| Error::io("ask for the program's statistics", e))?
            .skipped,
        program_id: info.program,
        link_id: info.id,
    }))
}

/// What is pinned, once no other command is in the middle of pinning or removing it: to be told what is in force, nobody
/// waits for the lock.
fn settled() -> Result<Option<Box<Enforcement>>, Error> {
    let link = || pins::link_info().map(|link| link.id);
    let deadline = Instant::now() + elsewhere::PATIENCE;
    loop {
        let before = link();
        match pins::open() {
            Ok(Pinned::Whole(enforcement)) => return Ok(Some(enforcement)),
            Ok(Pinned::Nothing { .. }) => match elsewhere::ours() {
                None => return Ok(None),
                Some(program) if Instant::now() > deadline => return Err(Error::Elsewhere { program }),
                // Being lifted, or about to be pinned.
                Some(_) => {}
            },
            // Removed meanwhile, the link first.
            Err(Error::Damaged { .. }) if link() != before => {}
            Err(error) => return Err(error),
        }
        thread::sleep(Duration::from_millis(5));
    }
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
