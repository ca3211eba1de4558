/*!
Every reason that a seal refuses to this process, tried.

| the request | the seal counted it | what follows |
|---|---|---|
| refused | yes | the seal refuses this reason |
| refused | no | a problem: somebody else refused it, or the seal is silent and not needed for this attempt |
| let through | yes | a problem, unless an exception of the policy fits this process |
| let through | no | a problem: the kernel does not ask the seal here |
| not tried | | listed, with the cause |

The seal counts all requests in one number that no process can write. A request of another process that it decides in the same
instant moves that number too; such a request cannot make an attempt fail with the errno of a refusal.
*/
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;
use stockade_common::ReasonSet;
use stockade_policy::{
    compile::bit,
    interpret::{KernelReason, Request, fits},
    model::Exception,
};
use stockade_reasons::Level;

use super::ready;
use crate::{
    Error, btf::KernelTypes, cgroups, description::Description, host, read_back::reason_id, sealed::Sealed,
    selftest::is_refused_natively, sys,
};

/// What came of an attempt to do what a reason guards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Knocked {
    /// It was refused in the way lockdown refuses it.
    Refused,
    /// It went through.
    LetThrough,
    /// Nothing was tried.
    NotTried(Cause, String),
}

/// Tries a reason by its id, without an effect also where nothing refuses it.
pub type Knock<'a> = &'a dyn Fn(&str) -> Knocked;

/// Why a reason was not tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// This machine has no way to ask for it: no such device, or a kernel that was built without it.
    Absent,
    /// Each attempt has an effect where nothing refuses it.
    HasEffect,
    /// The kernel's own lockdown refuses it first.
    NativeRefusesFirst,
    /// Something else refuses it before lockdown is asked.
    RefusedBefore,
    /// The policy lets this process through: by a scope that it is in, or by an exception.
    LetThroughHere,
    /// The attempt went wrong.
    Failed,
}

/// A reason that was not tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untried {
    /// Its id.
    pub reason: String,
    /// Why not.
    pub cause: Cause,
    /// The same in words, about this machine.
    pub detail: String,
}

/// What trying has shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// What does not hold.
    pub problems: Vec<String>,
    /// Ids of the reasons that were tried and that the seal refused.
    pub refused: Vec<String>,
    /// Reasons that the policy refuses and that were not tried.
    pub untried: Vec<Untried>,
}

/// What a [`Proof`] comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Conclusion {
    /// Everything that could be tried holds, and at least one reason could be tried.
    Verified,
    /// Something does not hold.
    NotVerified,
    /// No reason could be tried.
    Unknown,
}

impl Proof {
    /// What it comes to.
    #[must_use]
    pub fn conclusion(&self) -> Conclusion {
        if !self.problems.is_empty() {
            Conclusion::NotVerified
        } else if self.refused.is_empty() {
            Conclusion::Unknown
        } else {
            Conclusion::Verified
        }
    }

    fn skip(&mut self, reason: String, cause: Cause, detail: impl Into<String>) {
        self.untried.push(Untried { reason, cause, detail: detail.into() });
    }
}

/// Tries every reason that the seal's policies refuse, those that were added included.
pub(super) fn try_all(
    sealed: &Sealed,
    types: &KernelTypes,
    native: Level,
    knock: Knock<'_>,
) -> Result<Proof, Error> {
    let words = sealed.slot().words;
    let added = sealed.added.deny;
    let here = added | ready(sealed, types)?.map_or(words.deny, |ready| ready.refused_here());
    let exceptions = Exceptions::of(sealed, words.excepted & !added);
    let mut proof = Proof::default();
    for reason in types.kernel_reasons() {
        let id = reason_id(types, reason.number);
        if (words.deny | here) & bit(reason.number) == 0 {
            continue;
        }
        if here & bit(reason.number) == 0 {
            proof.skip(id, Cause::LetThroughHere, "this process is in a scope that lets it through");
        } else if is_refused_natively(types, reason.number, native) {
            let detail = format!("the kernel's own lockdown is at {native} and refuses it first");
            proof.skip(id, Cause::NativeRefusesFirst, detail);
        } else if reason.id.is_none() {
            proof.skip(id, Cause::Absent, "this version of Stockade does not know the reason");
        } else {
            try_one(&mut proof, &reason, id, &exceptions, knock)?;
        }
    }
    Ok(proof)
}

fn try_one(
    proof: &mut Proof,
    reason: &KernelReason,
    id: String,
    exceptions: &Exceptions,
    knock: Knock<'_>,
) -> Result<(), Error> {
    let before = Sealed::heard()?;
    let knocked = knock(&id);
    let heard = Sealed::heard()? != before;
    match (knocked, heard) {
        (Knocked::Refused, true) => proof.refused.push(id),
        (Knocked::Refused, false) => proof
            .problems
            .push(format!("a request for {id} was refused, and not by the seal: it was not asked")),
        (Knocked::LetThrough, true) => match exceptions.letting_through(reason) {
            Ok(Some(name)) => {
                let detail = format!("the exception {name} of the policy lets this process through");
                proof.skip(id, Cause::LetThroughHere, detail);
            }
            Ok(None) => proof.problems.push(format!("a request for {id} reached the seal and went through")),
            Err(why) => proof.problems.push(format!("a request for {id} went through, and {why}")),
        },
        (Knocked::LetThrough, false) => proof.problems.push(format!(
            "a request for {id} went through, and the kernel did not ask the seal: the policy refuses {id}, and this kernel does not"
        )),
        (Knocked::NotTried(cause, detail), _) => proof.skip(id, cause, detail),
    }
    Ok(())
}

/// The exceptions of the sealed policy, and who this process is to them.
struct Exceptions {
    /// Reasons from which somebody is excepted.
    reasons: ReasonSet,
    /// None where the description of the policy is lost.
    described: Option<Vec<Exception>>,
    exe: Option<PathBuf>,
    cgroup: String,
    uid: u32,
}

impl Exceptions {
    fn of(sealed: &Sealed, reasons: ReasonSet) -> Self {
        let now = host::now();
        let living = |description: Description| {
            let mut exceptions = description.policy.exceptions;
            exceptions.retain(|exception| !exception.has_ended(now));
            exceptions
        };
        Self {
            reasons,
            described: if reasons == 0 { Some(Vec::new()) } else { sealed.description().map(living) },
            exe: std::env::current_exe().ok(),
            cgroup: cgroups::own().unwrap_or_default(),
            uid: sys::real_user(),
        }
    }

    /// The name of the exception that lets this process or a child of it through; none where none does.
    fn letting_through(&self, reason: &KernelReason) -> Result<Option<&str>, &'static str> {
        if self.reasons & bit(reason.number) == 0 {
            return Ok(None);
        }
        let lost = "whether an exception lets this process through cannot be told: the description of the policy is lost";
        let exceptions = self.described.as_ref().ok_or(lost)?;
        // Those that have ended were left out by the clock that the kernel goes by.
        let request = |inherited| Request {
            reason,
            cgroup: &self.cgroup,
            exe: self.exe.as_deref(),
            inherited,
            uid: self.uid,
            at: Timestamp::MIN,
        };
        let fitting = |exception: &&Exception| [false, true].iter().any(|&by| fits(exception, &request(by)));
        Ok(exceptions.iter().find(fitting).map(|exception| exception.name.value.as_str()))
    }
}
