/*!
How the program hangs on the kernel's check point.

```text
BPF LSM         asked by security_locked_down() after the kernel's other security modules; needs `bpf`
                among the active ones
modify-return   runs in front of security_locked_down() and answers in its place; needs nothing of the
                list, and is the weaker: the kernel skips it for a request that comes while another
                one is being decided on the same processor, and so lets that one through
```

Modify-return exists since 5.7 for functions whose names begin with `security_`; the guard against
recursion that skips is that of all tracing programs (`__bpf_prog_enter_recur()`), which LSM programs
are exempt from. How often it skipped is in the kernel's account of the program since 5.12.
*/
use serde::Serialize;
use stockade_common::kinds;
use stockade_reasons::Level;

use crate::{
    Error,
    btf::{self, KernelTypes},
    host, sys,
};

/// The function that modify-return stands in front of.
const CHECK_POINT: &str = "security_locked_down";

/// A way to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attachment {
    /// A program of the BPF security module.
    BpfLsm,
    /// The same, held by the root cgroup: sealed. 6.0 and later.
    RootCgroup,
    /// A program in front of the function that asks the security modules.
    ModifyReturn,
}

impl Attachment {
    /// The stronger one that works with these active security modules. Attaching to the BPF security
    /// module where it is not active would succeed and do nothing.
    #[must_use]
    pub fn choose(active_lsms: &str, types: &KernelTypes) -> Self {
        if host::has_bpf_lsm(active_lsms) && types.hook.is_some() { Self::BpfLsm } else { Self::ModifyReturn }
    }

    /// Whether this kernel has what the program hangs on.
    ///
    /// # Errors
    /// [`Error::TooOld`] when it does not, [`Error::NoBtf`] and the like when that cannot be told.
    pub fn check(self, types: &KernelTypes) -> Result<(), Error> {
        self.target(types).map(drop)
    }

    /// What the program is loaded for.
    pub(crate) fn target(self, types: &KernelTypes) -> Result<sys::Target, Error> {
        match self {
            Self::BpfLsm | Self::RootCgroup => {
                types.hook.map(sys::Target::lsm).ok_or(Error::TooOld("the hook bpf_lsm_locked_down"))
            }
            Self::ModifyReturn => btf::function(CHECK_POINT)?
                .map(sys::Target::modify_return)
                .ok_or(Error::TooOld("the function security_locked_down")),
        }
    }

    /// An error of attaching so, with what would help where these security modules are active.
    pub(crate) fn explain(self, error: Error, active_lsms: String) -> Error {
        match (self, error) {
            (Self::ModifyReturn, source @ (Error::TooOld(_) | Error::Rejected { .. } | Error::Io { .. })) => {
                Error::NoBpfLsm { active: active_lsms, source: Box::new(source) }
            }
            (_, error) => error,
        }
    }

    /// The way a link is attached.
    pub(crate) fn of(link: &sys::LinkInfo) -> Self {
        if link.attach_type == kinds::ATTACH_MODIFY_RETURN { Self::ModifyReturn } else { Self::BpfLsm }
    }

    /// The level up to which the kernel's own lockdown refuses before this program is asked.
    pub(crate) fn refused_before(self, native: Level) -> Level {
        match self {
            Self::BpfLsm | Self::RootCgroup => native,
            Self::ModifyReturn => Level::None,
        }
    }
}
