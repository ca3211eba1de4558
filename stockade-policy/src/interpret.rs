/*!
The meaning of a policy: one request, one verdict, and the sentence of the policy that decides.

Everything that asks what a policy says asks this module: [`mod@crate::compile`] for the tables of the kernel, [`crate::check`], [`mod@crate::diff`],
[`crate::laxer`] and [`mod@crate::replay`]. A property test holds the tables against it, with how the kernel side looks places and exceptions up.

```text
the machine's verdict      [reasons], else the level under the mode
then each scope around the requester, from the outermost inwards:
    its own verdict        its [reasons], else its level and mode if it has either, else none
    it decides             if it is stricter, or says loosen = true
then, unless allowed:      any exception that fits lets the request through
```
*/
use std::path::Path;

use jiff::Timestamp;
use stockade_reasons::{Level, Reason};

use crate::{
    model::{Exception, LevelChoice, Mode, Place, Policy, Reasons, Scope, Unknown, Verdict},
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

impl From<&Reason> for KernelReason {
    /// A reason of the table, as a kernel has it; no kernel's number, but 0.
    fn from(reason: &Reason) -> Self {
        Self {
            number: 0,
            id: Some(reason.id),
            enum_name: reason.enum_name.to_owned(),
            level: reason.level,
            debugger: reason.debugger,
        }
    }
}

/// A request of a process.
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
    /// The verdict.
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
    /// `unknown-reasons`, for reasons that the table lacks.
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

/// Decides about a reason in a cgroup, exceptions left out.
#[must_use]
pub fn without_exceptions<'a>(
    policy: &'a Policy,
    auto: Level,
    reason: &KernelReason,
    cgroup: &str,
) -> Ruling<'a> {
    let mut descent = Descent::new(policy, auto, reason);
    for scope in scopes_around(policy, cgroup) {
        descent.enter(scope);
    }
    descent.ruling
}

/// The decision about one reason on the way from the machine inwards, through one scope after the other. Exceptions are left out.
#[derive(Clone, Debug)]
pub struct Descent<'a, 'r> {
    policy: &'a Policy,
    auto: Level,
    reason: &'r KernelReason,
    level: LevelChoice,
    mode: Mode,
    /// The decision where the way has led to.
    pub ruling: Ruling<'a>,
}

impl<'a, 'r> Descent<'a, 'r> {
    /// Begins outside of every scope.
    #[must_use]
    pub fn new(policy: &'a Policy, auto: Level, reason: &'r KernelReason) -> Self {
        let (level, mode) = (policy.level.value, policy.mode.value);
        Self { policy, auto, reason, level, mode, ruling: host(policy, auto, reason) }
    }

    /// Enters a scope. Returns the verdict that the scope itself says, whether or not it decides; `None` if it says none.
    pub fn enter(&mut self, scope: &'a Scope) -> Option<Verdict> {
        self.level = scope.level.as_ref().map_or(self.level, |own| own.value);
        self.mode = scope.mode.as_ref().map_or(self.mode, |own| own.value);
        let own = if let Some(verdict) = named(&scope.reasons, self.reason) {
            verdict
        } else if let Some(verdict) = unknown(self.policy, self.reason) {
            verdict
        } else if scope.level.is_some() || scope.mode.is_some() {
            of_level(self.level, self.mode, self.auto, self.reason)
        } else {
            return None;
        };
        if scope.loosen.value || own > self.ruling.verdict {
            self.ruling = Ruling { verdict: own, by: By::Scope(scope) };
        }
        Some(own)
    }

    /// Returns the level that the scope, or the nearest one around it that has a level, or the machine says.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level.settled(self.auto)
    }
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

/// Reports whether an exception lets this request through.
#[must_use]
pub fn fits(exception: &Exception, request: &Request<'_>) -> bool {
    request.reason.id.is_some_and(|id| {
        let program =
            |exe: &Path| request.exe == Some(exe) && (!request.inherited || exception.inherit.value);
        let place = |place: &Place| place.covers(request.cgroup);
        fits_where(exception, id, program, place, request.uid, request.at)
    })
}

/// Reports whether an exception lets requests for the reason with this id through, from a program and a place for which these functions return true.
#[must_use]
pub fn fits_where(
    exception: &Exception,
    reason: &str,
    program: impl Fn(&Path) -> bool,
    place: impl Fn(&Place) -> bool,
    uid: u32,
    at: Timestamp,
) -> bool {
    exception.reasons.iter().any(|said| said.value == reason)
        && exception.exe.as_ref().is_none_or(|exe| program(&exe.value))
        && exception.place.as_ref().is_none_or(|said| place(&said.value))
        && exception.uid.as_ref().is_none_or(|own| own.value == uid)
        && exception.expires.as_ref().is_none_or(|expires| at < expires.value)
}
