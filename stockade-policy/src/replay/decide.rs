/*!
Deciding a recorded request of which not everything is known.

```text
everything known              interpret
program or cgroup unknown     the verdict, where all that it may have been give the same one; else it cannot be told
```
*/
use std::path::Path;

use jiff::Timestamp;
use stockade_reasons::Level;

use crate::{
    interpret::{By, KernelReason, Request, Ruling, fits_where, interpret, without_exceptions},
    model::{Exception, Place, Policy, Verdict},
    requester::{Asked, Program, Wanted},
};

/// The decision of a policy about a recorded request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Decision {
    /// Refused, and by which sentence.
    Refused(String),
    /// It depends on what the record does not tell.
    CannotTell(String),
    /// Let through and reported, and by which sentence.
    Audited(String),
    /// Let through by the exception of this name.
    Excepted(String),
    /// Let through, and by which sentence.
    Allowed(String),
}

impl Decision {
    /// Whether it is let through without a report, for certain.
    #[must_use]
    pub fn passes(&self) -> bool {
        matches!(self, Self::Excepted(_) | Self::Allowed(_))
    }
}

/// Decides. The policy's units have been replaced, see [`Policy::with_units`]; `auto` is what the level `auto`
/// stands for, and exceptions that have ended by `now` let nobody through.
#[must_use]
pub fn decide(policy: &Policy, auto: Level, asked: &Asked, now: Timestamp) -> Decision {
    let verdicts = candidates(policy, asked);
    let reasons = kernel_reasons(&asked.reason);
    if let (Some(cgroup), [reason]) = (&asked.cgroup, reasons.as_slice())
        && !matches!(asked.exe, Program::Gone(_))
    {
        let exe = asked.exe.path().map(Path::new);
        let request = Request { reason, cgroup, exe, inherited: false, uid: asked.uid, at: now };
        return told(&interpret(policy, auto, &request));
    }
    let rulings: Vec<Ruling> = reasons
        .iter()
        .flat_map(|reason| {
            verdicts.iter().map(move |cgroup| without_exceptions(policy, auto, reason, cgroup))
        })
        .collect();
    let first = &rulings[0];
    let same = rulings.iter().all(|ruling| ruling.verdict == first.verdict);
    if same && first.verdict == Verdict::Allow {
        return told(first);
    }
    if reasons.iter().all(|reason| !reason.debugger) {
        if let Some(sure) = policy.exceptions.iter().find(|e| fits(e, asked, now, false)) {
            return Decision::Excepted(sure.name.value.clone());
        }
        if let Some(perhaps) = policy.exceptions.iter().find(|e| fits(e, asked, now, true)) {
            let unknown = if asked.cgroup.is_none() { "cgroup" } else { "program" };
            return Decision::CannotTell(format!(
                "whether exception \"{}\" fits: its {unknown} is not in the record",
                perhaps.name.value
            ));
        }
    }
    if same {
        return told(first);
    }
    Decision::CannotTell(match reasons.as_slice() {
        [_] => "which scope it is in: its cgroup is not in the record".into(),
        _ => "whether the level refuses it: this version does not know the reason".into(),
    })
}

/// Cgroups of which one decides as the unknown one would.
fn candidates(policy: &Policy, asked: &Asked) -> Vec<String> {
    if let Some(cgroup) = &asked.cgroup {
        return vec![cgroup.clone()];
    }
    let named = policy.scopes.iter().map(|scope| match &scope.place.value {
        Place::Path(path) => path.clone(),
        // No pattern has a question mark, so that only those name it which name everything that this one does.
        Place::Glob { prefix, suffix } => format!("{prefix}?{suffix}"),
        Place::Unit(unit) => crate::unit::usual(unit),
    });
    std::iter::once("/".to_owned()).chain(named).collect()
}

/// Returns the reason as the running kernel has it; if the table lacks it, once for each level that it can have.
fn kernel_reasons(reason: &Wanted) -> Vec<KernelReason> {
    if let Some(known) = reason.known() {
        return vec![KernelReason::from(known)];
    }
    let of = |level| KernelReason {
        number: 0,
        id: None,
        enum_name: reason.id().to_owned(),
        level,
        debugger: false,
    };
    [Level::Integrity, Level::Confidentiality].map(of).into()
}

/// Reports whether an exception fits, with `unknown` as the answer for a program or cgroup that the record lacks.
fn fits(exception: &Exception, asked: &Asked, now: Timestamp, unknown: bool) -> bool {
    let program = |own: &Path| match &asked.exe {
        Program::Path(path) => Path::new(path) == own,
        Program::NotOfHost(_) => false,
        Program::Gone(_) => unknown,
    };
    let place = |own: &Place| asked.cgroup.as_ref().map_or(unknown, |cgroup| own.covers(cgroup));
    fits_where(exception, asked.reason.id(), program, place, asked.uid, now)
}

fn told(ruling: &Ruling) -> Decision {
    let by = match &ruling.by {
        By::Level => "the level".into(),
        By::Reasons => "[reasons]".into(),
        By::UnknownReasons => "unknown-reasons".into(),
        By::Scope(scope) => format!("scope \"{}\"", scope.name.value),
        By::Exception(exception) => return Decision::Excepted(exception.name.value.clone()),
    };
    match ruling.verdict {
        Verdict::Allow => Decision::Allowed(by),
        Verdict::Audit => Decision::Audited(by),
        Verdict::Deny => Decision::Refused(by),
    }
}
