/*!
Notices: facts that an administrator should know about a policy that is applied.
*/
use std::path::{Path, PathBuf};

use serde::Serialize;
use stockade_policy::{
    compile::CompiledSetting,
    interpret::KernelReason,
    model::{Clock, Mode, Policy, Unknown, Verdict, known},
    settings,
};
use stockade_reasons::Level;

use crate::machine::{
    btf::KernelTypes,
    host::{self, ClockCare},
};

/// A notice about an applied policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Notice {
    /// The policy names a reason that this kernel does not have.
    AbsentReason {
        /// The reason's id.
        reason: String,
    },
    /// This kernel has a reason that the table lacks.
    UnknownReason {
        /// The kernel's name for it.
        enum_name: String,
        /// The verdict on it.
        verdict: &'static str,
    },
    /// A reason is allowed that the level does not refuse.
    NeedlessAllow {
        /// The reason's id.
        reason: String,
    },
    /// A reason is allowed, audited or excepted that the kernel's own lockdown refuses.
    RefusedByNative {
        /// The reason's id.
        reason: String,
        /// Level of the kernel's own lockdown.
        native: Level,
    },
    /// A process executed an excepted program before the policy was applied, and has no label.
    StartedBefore {
        /// Its process id.
        pid: u32,
        /// The program.
        path: PathBuf,
    },
    /// Any other notice, in words.
    Other(String),
    /// The policy holds a setting that only a seal can hold.
    HeldOnceSealed {
        /// The name of the setting.
        setting: String,
    },
    /// The policy holds a setting that this kernel does not have now.
    AbsentSetting {
        /// The name as sysctl(8) shows it.
        setting: String,
    },
}

impl std::fmt::Display for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AbsentReason { reason } => {
                write!(f, "this kernel has no check for {reason}: naming it changes nothing here")
            }
            Self::UnknownReason { enum_name, verdict } => write!(
                f,
                "this kernel checks {enum_name}, which this version of Stockade does not know: it is {verdict} (--unknown-reasons decides)"
            ),
            Self::NeedlessAllow { reason } => {
                write!(f, "the level does not refuse {reason}: allowing it changes nothing")
            }
            Self::RefusedByNative { reason, native } => write!(
                f,
                "{reason} stays refused: the kernel's own lockdown is at {native} and refuses it whatever Stockade says, until reboot"
            ),
            Self::StartedBefore { pid, path } => write!(
                f,
                "process {pid} runs {} since before it was excepted and is not known as such: restart it for its exception to apply",
                path.display()
            ),
            Self::Other(words) => f.write_str(words),
            Self::HeldOnceSealed { setting } => {
                write!(f, "{setting} is held by a seal alone: root can still change it before stockade seal")
            }
            Self::AbsentSetting { setting } => write!(
                f,
                "there is no setting {setting} here: it is held once a module brings it, until then that changes nothing"
            ),
        }
    }
}

/// Returns the notices of a policy on this machine.
pub(crate) fn of(policy: &Policy, auto: Level, native: Level, types: &KernelTypes) -> Vec<Notice> {
    let reasons = types.kernel_reasons();
    let of_kernel = |id: &str| types.number(known(id).enum_name);
    let level = policy.level.value.settled(auto);
    let mut notices = Vec::new();
    let excepted = policy.exceptions.iter().flat_map(|e| &e.reasons).map(|said| said.value.as_str());
    let scoped = policy.scopes.iter().flat_map(|scope| scope.reasons.keys()).map(String::as_str);
    let mut named: Vec<&str> =
        policy.reasons.keys().map(String::as_str).chain(scoped).chain(excepted).collect();
    named.sort_unstable();
    named.dedup();
    for id in named.into_iter().filter(|id| of_kernel(id).is_none()) {
        notices.push(Notice::AbsentReason { reason: id.into() });
    }
    for (id, said) in &policy.reasons {
        let reason = reasons.iter().find(|reason| reason.id == Some(id.as_str()));
        if said.value == Verdict::Allow && reason.is_some_and(|reason| reason.level > level) {
            notices.push(Notice::NeedlessAllow { reason: id.clone() });
        }
    }
    for reason in reasons.iter().filter(|reason| reason.id.is_none()) {
        notices.push(Notice::UnknownReason {
            enum_name: reason.enum_name.clone(),
            verdict: verdict(policy, level, reason),
        });
    }
    let mut through: Vec<&str> = policy
        .reasons
        .iter()
        .filter(|(_, said)| said.value != Verdict::Deny)
        .map(|(id, _)| id.as_str())
        .collect();
    through.extend(policy.exceptions.iter().flat_map(|e| &e.reasons).map(|said| said.value.as_str()));
    through.sort_unstable();
    through.dedup();
    for id in through {
        let refused = reasons.iter().any(|reason| reason.id == Some(id) && reason.level <= native);
        if refused {
            notices.push(Notice::RefusedByNative { reason: id.into(), native });
        }
    }
    notices
}

/// Returns the notice about exceptions with a date if the clock is implausible or not synchronised.
pub(crate) fn of_clock(policy: &Policy, now: Clock, care: Option<ClockCare>) -> Option<Notice> {
    let left_out =
        policy.exceptions.iter().find(|e| !e.granted && e.expires.is_some() && e.ends_boot_ns == Some(0));
    if let (Some(wrong), Some(exception)) = (host::implausible(now), left_out) {
        return Some(Notice::Other(format!(
            "{wrong}, so that nobody can say whether the exception {} has expired: it is left out. \
             Set the clock (date -s, or wait until it is synchronised) and apply the policy again",
            exception.name.value
        )));
    }
    let dated = policy.exceptions.iter().find(|e| !e.granted && e.expires.is_some() && !e.has_ended(now))?;
    let unsynchronised = care.is_some_and(|care| !care.synchronised);
    unsynchronised.then(|| {
        Notice::Other(format!(
            "the clock of this machine is not synchronised, as far as the kernel knows: the exception {} expires at its date only if \
             the clock is right; apply the policy again when it was set",
            dated.name.value
        ))
    })
}

/// Returns the notices of the settings that a policy holds. Settings of the default profile that the kernel lacks get none.
pub(crate) fn of_settings(settings: &[CompiledSetting]) -> Vec<Notice> {
    let named = |setting: &CompiledSetting| settings::dotted(&setting.name);
    let mut notices = Vec::new();
    for setting in settings {
        if settings::FILES.iter().any(|files| files.kernel_name == setting.name) {
            notices.push(Notice::HeldOnceSealed { setting: named(setting) });
        } else if setting.named && !Path::new("/proc/sys").join(&setting.name).exists() {
            notices.push(Notice::AbsentSetting { setting: named(setting) });
        }
    }
    notices
}

fn verdict(policy: &Policy, level: Level, reason: &KernelReason) -> &'static str {
    match policy.unknown_reasons.value {
        Unknown::Level if reason.level > level => "allowed, as the level says",
        Unknown::Level if policy.mode.value == Mode::Audit => "audited, as the level says",
        Unknown::Level => "refused, as the level says",
        Unknown::Allow => "allowed",
        Unknown::Audit => "audited",
        Unknown::Deny => "refused",
    }
}
