/*!
What a policy means, said as plainly as possible: one request, one verdict, and the sentence that decides.

Slow on purpose. `policy test` uses it to replay what happened, and a property test holds what
[`crate::compile`] makes of a policy against it.

```text
the machine's verdict      [reasons], else the level under the mode
then each scope around the requester, from the outermost inwards:
    its own verdict        its [reasons], else its level and mode where it says either, else as it was
    it decides             where it is stricter, or says loosen = true
then, unless allowed:      any exception that fits lets through
```
*/
use std::path::Path;

use jiff::Timestamp;
use stockade_reasons::Level;

use crate::{
    model::{Exception, LevelChoice, Mode, Policy, Reasons, Scope, Unknown, Verdict},
    place,
};

/// A reason as one kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelReason {
    /// The kernel's number.
    pub number: u32,
    /// Its id in the reasons table; none where the table lacks it.
    pub id: Option<&'static str>,
    /// The kernel's name for it.
    pub enum_name: String,
    /// The level from which on the kernel refuses it.
    pub level: Level,
    /// Whether a kernel debugger asks for it, when no event can be written.
    pub debugger: bool,
}

/// Somebody asks for something.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// For what.
    pub reason: &'a KernelReason,
    /// Path of the requester's cgroup.
    pub cgroup: &'a str,
    /// The program that its process is known to execute.
    pub exe: Option<&'a Path>,
    /// Whether it is a child that inherited being known.
    pub inherited: bool,
    /// Real user id.
    pub uid: u32,
    /// When.
    pub at: Timestamp,
}

/// Verdict and who gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling<'a> {
    /// What becomes of the request.
    pub verdict: Verdict,
    /// Which sentence of the policy says so.
    pub by: By<'a>,
}

/// A sentence of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By<'a> {
    /// The machine's level and mode.
    Level,
    /// The machine's `[reasons]`.
    Reasons,
    /// What is said of reasons that the table lacks.
    UnknownReasons,
    /// A scope.
    Scope(&'a Scope),
    /// An exception.
    Exception(&'a Exception),
}

/// Decides one request. `auto` is what the level `auto` was found to be.
#[must_use]
pub fn interpret<'a>(policy: &'a Policy, auto: Level, request: &Request<'_>) -> Ruling<'a> {
    let ruling = without_exceptions(policy, auto, request.reason, request.cgroup);
    // Debuggers ask while nothing can be looked up.
    if ruling.verdict == Verdict::Allow || request.reason.debugger {
        return ruling;
    }
    match policy.exceptions.iter().find(|exception| fits(exception, request)) {
        Some(exception) => Ruling { verdict: Verdict::Allow, by: By::Exception(exception) },
        None => ruling,
    }
}

/// The verdict where nobody is excepted.
#[must_use]
pub fn without_exceptions<'a>(
    policy: &'a Policy,
    auto: Level,
    reason: &KernelReason,
    cgroup: &str,
) -> Ruling<'a> {
    let (mut level, mut mode) = (policy.level.value, policy.mode.value);
    let mut ruling = host(policy, auto, reason);
    for scope in scopes_around(policy, cgroup) {
        if let Some(own) = &scope.level {
            level = own.value;
        }
        if let Some(own) = &scope.mode {
            mode = own.value;
        }
        let says_level = scope.level.is_some() || scope.mode.is_some();
        let own = if let Some(verdict) = named(&scope.reasons, reason) {
            verdict
        } else if let Some(verdict) = unknown(policy, reason) {
            verdict
        } else if says_level {
            of_level(level, mode, auto, reason)
        } else {
            continue;
        };
        if scope.loosen.value || own > ruling.verdict {
            ruling = Ruling { verdict: own, by: By::Scope(scope) };
        }
    }
    ruling
}

/// The machine's own verdict, outside of every scope.
#[must_use]
pub fn host<'a>(policy: &'a Policy, auto: Level, reason: &KernelReason) -> Ruling<'a> {
    if let Some(verdict) = named(&policy.reasons, reason) {
        Ruling { verdict, by: By::Reasons }
    } else if let Some(verdict) = unknown(policy, reason) {
        Ruling { verdict, by: By::UnknownReasons }
    } else {
        let verdict = of_level(policy.level.value, policy.mode.value, auto, reason);
        Ruling { verdict, by: By::Level }
    }
}

/// The scopes around a cgroup, the outermost first; of those that name one cgroup the most specific.
#[must_use]
pub fn scopes_around<'a>(policy: &'a Policy, cgroup: &str) -> Vec<&'a Scope> {
    let scopes = || policy.scopes.iter().map(|scope| (&scope.place.value, scope));
    let named = |path: &str| place::most_specific(scopes(), path).map(|(_, scope)| scope);
    place::chain(cgroup).into_iter().filter_map(named).collect()
}

fn named(reasons: &Reasons, reason: &KernelReason) -> Option<Verdict> {
    reasons.get(reason.id?).map(|said| said.value)
}

fn unknown(policy: &Policy, reason: &KernelReason) -> Option<Verdict> {
    match policy.unknown_reasons.value {
        _ if reason.id.is_some() => None,
        Unknown::Level => None,
        Unknown::Allow => Some(Verdict::Allow),
        Unknown::Audit => Some(Verdict::Audit),
        Unknown::Deny => Some(Verdict::Deny),
    }
}

fn of_level(level: LevelChoice, mode: Mode, auto: Level, reason: &KernelReason) -> Verdict {
    match mode {
        _ if level.settled(auto) < reason.level => Verdict::Allow,
        Mode::Enforce => Verdict::Deny,
        Mode::Audit => Verdict::Audit,
    }
}

/// Whether an exception lets this request through.
#[must_use]
pub fn fits(exception: &Exception, request: &Request<'_>) -> bool {
    let reason = request.reason.id.is_some_and(|id| exception.reasons.iter().any(|said| said.value == id));
    let program = exception
        .exe
        .as_ref()
        .is_none_or(|exe| request.exe == Some(&exe.value) && (!request.inherited || exception.inherit.value));
    let place = exception.place.as_ref().is_none_or(|place| place.value.covers(request.cgroup));
    let user = exception.uid.as_ref().is_none_or(|uid| uid.value == request.uid);
    let time = exception.expires.as_ref().is_none_or(|expires| request.at < expires.value);
    reason && program && place && user && time
}
