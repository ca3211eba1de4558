/*!
The type of one row of the table.
*/

use serde::Serialize;

use crate::Level;

/// One thing lockdown refuses, and what an administrator should know about it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Reason {
    /// The name Stockade uses everywhere: the kernel's, in kebab-case (`dev-mem`).
    pub id: &'static str,
    /// The constant in the kernel's `enum lockdown_reason` (`LOCKDOWN_DEV_MEM`).
    pub enum_name: &'static str,
    /// The kernel's words for it in its log, verbatim.
    pub kernel_string: &'static str,
    /// Its words before 5.4, when distributions carried lockdown as patches.
    pub historic: &'static [&'static str],
    /// The level from which on the kernel refuses it; never [`Level::None`].
    pub level: Level,
    /// The first mainline release with this reason. Stable series and distributions may have it
    /// earlier: whether a kernel has it is for its BTF to say.
    pub first_version: &'static str,
    /// `all`, or the one architecture on which the kernel asks (`x86`, `powerpc`).
    pub architecture: &'static str,
    /// What is closed, in plain words.
    pub closes: &'static str,
    /// Who runs into it: `program: a few words`.
    pub commonly_hit: &'static [&'static str],
    /// What an administrator can do instead.
    pub instead: &'static str,
    /// What falls too when this reason is allowed. See [`closure`](crate::closure()).
    pub implies: Implies,
    /// Why that falls too, or why nothing does.
    pub implies_why: &'static str,
    /// Whether the task seen at the check is the one that asks.
    pub subject: Subject,
    /// Why.
    pub subject_why: &'static str,
    /// Asked by kgdb, kdb or xmon, with the other processors stopped: no locks, no ring buffer, and
    /// never a probe.
    pub debugger: bool,
    /// How to see a refusal without doing harm.
    pub probe: Probe,
}

/// What else is lost when a reason is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Implies {
    /// Every other reason: whoever may do this can change the kernel that checks.
    Everything,
    /// The reasons with these ids, and what they imply; may be none.
    Reasons(&'static [&'static str]),
}

/// Whether an exception by subject makes sense for a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// The current task at the check is the one that asks.
    Trustworthy,
    /// It may be another task, or none.
    Unreliable,
}

/// Whether and how a reason can be tried on a running machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Probe {
    /// How, in words.
    How(&'static str),
    /// It must not or cannot be tried, and why.
    Never(&'static str),
}
