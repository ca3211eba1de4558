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
use jiff::Timestamp;
use serde::Serialize;
use stockade_common::ReasonSet;
use stockade_policy::{
    compile::bit,
    interpret::{KernelReason, Request, fits},
    model::Exception,
};
use stockade_reasons::Level;

use crate::{
    Error,
    machine::{btf::KernelTypes, cgroups, host},
    pinned::description::Description,
    sealed::Sealed,
    selftest::is_refused_natively,
    sys,
};

/// The result of an attempt at an operation that a reason governs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    /// It was refused in the way lockdown refuses it.
    Refused,
    /// It went through.
    LetThrough,
    /// Nothing was tried.
    NotTried(Cause, String),
}

/// Tries a reason by its id, without an effect also where nothing refuses it.
pub type Probe<'a> = &'a dyn Fn(&str) -> ProbeResult;

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
    /// The cause in words, about this machine.
    pub detail: String,
}

/// The result of trying a seal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// The problems.
    pub problems: Vec<String>,
    /// Ids of the reasons that were tried and that the seal refused.
    pub refused: Vec<String>,
    /// Reasons that the policy refuses and that were not tried.
    pub untried: Vec<Untried>,
}

/// The conclusion of a [`Proof`].
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
    /// Returns the conclusion.
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
    knock: Probe<'_>,
) -> Result<Proof, Error> {
    let claims = Claims::of(sealed)?;
    let here = claims.0.iter().fold(0, |here, claim| here | claim.here);
    let anywhere = sealed.policies().fold(here, |anywhere, policy| anywhere | policy.words.deny);
    let mut proof = Proof::default();
    for reason in types.kernel_reasons() {
        let id = types.reason_id(reason.number);
        if anywhere & bit(reason.number) == 0 {
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
            try_one(&mut proof, &reason, id, &claims, knock)?;
        }
    }
    Ok(proof)
}

fn try_one(
    proof: &mut Proof,
    reason: &KernelReason,
    id: String,
    claims: &Claims,
    knock: Probe<'_>,
) -> Result<(), Error> {
    let before = Sealed::decided_requests()?;
    let knocked = knock(&id);
    let heard = Sealed::decided_requests()? != before;
    match (knocked, heard) {
        (ProbeResult::Refused, true) => proof.refused.push(id),
        (ProbeResult::Refused, false) => proof
            .problems
            .push(format!("a request for {id} was refused, and not by the seal: it was not asked")),
        (ProbeResult::LetThrough, true) => match claims.letting_through(reason) {
            Ok(Some(why)) => proof.skip(id, Cause::LetThroughHere, why),
            Ok(None) => proof.problems.push(format!("a request for {id} reached the seal and went through")),
            Err(why) => proof.problems.push(format!("a request for {id} went through, and {why}")),
        },
        (ProbeResult::LetThrough, false) => proof.problems.push(format!(
            "a request for {id} went through, and the kernel did not ask the seal: the policy refuses {id}, and this kernel does not"
        )),
        (ProbeResult::NotTried(cause, detail), _) => proof.skip(id, cause, detail),
    }
    Ok(())
}

/// The reasons that a seal refuses to this process: by the sealed policy, by each policy that was added with scopes or exceptions, and by additions for all processes.
struct Claims(Vec<Claim>);

/// The reasons that one policy refuses.
struct Claim {
    /// Refused where this process is, exceptions aside.
    here: ReasonSet,
    /// Reasons from which somebody is excepted.
    excepted: ReasonSet,
    /// None where the description of the policy is lost.
    exceptions: Option<Vec<Exception>>,
    /// Whether it was added. Anybody can add a policy and say in its description what they like.
    added: bool,
}

impl Claims {
    fn of(sealed: &Sealed) -> Result<Self, Error> {
        let everybody =
            Claim { here: sealed.added.deny, excepted: 0, exceptions: Some(Vec::new()), added: true };
        let mut claims = vec![everybody];
        for (at, policy) in sealed.policies().enumerate() {
            let words = policy.words;
            let here = Sealed::sets_here(&policy)?.map_or(words.deny, |sets| sets.deny);
            let exceptions = if words.excepted == 0 {
                Some(Vec::new())
            } else {
                Description::read(words.generation, policy.digest).map(living)
            };
            claims.push(Claim { here, excepted: words.excepted, exceptions, added: at > 0 });
        }
        Ok(Self(claims))
    }

    /// Why all that refuse a reason may let this process or a child of it through; none where one does not.
    fn letting_through(&self, reason: &KernelReason) -> Result<Option<String>, &'static str> {
        let (exe, cgroup) = (std::env::current_exe().ok(), cgroups::own().unwrap_or_default());
        // Those that have ended were left out by the clock that the kernel goes by.
        let request = |inherited| Request {
            reason,
            cgroup: &cgroup,
            exe: exe.as_deref(),
            inherited,
            uid: sys::real_user(),
            at: Timestamp::MIN,
        };
        let fits = |exception: &&Exception| [false, true].iter().any(|&by| fits(exception, &request(by)));
        let mut why = None;
        for claim in self.0.iter().filter(|claim| claim.here & bit(reason.number) != 0) {
            if claim.excepted & bit(reason.number) == 0 {
                return Ok(None);
            }
            let found = match claim.exceptions.as_ref().map(|exceptions| exceptions.iter().find(fits)) {
                Some(Some(exception)) => {
                    format!("the exception {} of the policy lets this process through", exception.name.value)
                }
                // What it adds is what its tables say. That a description says more makes nothing laxer.
                _ if claim.added => {
                    "an exception of a policy that was added lets this process through".to_owned()
                }
                Some(None) => return Ok(None),
                None => {
                    return Err(
                        "whether an exception lets this process through cannot be told: the description of the policy is lost",
                    );
                }
            };
            why.get_or_insert(found);
        }
        Ok(why)
    }
}

/// The exceptions of a policy that have not ended.
fn living(description: Description) -> Vec<Exception> {
    let now = host::now();
    let mut exceptions = description.policy.exceptions;
    exceptions.retain(|exception| !exception.has_ended(now));
    exceptions
}
