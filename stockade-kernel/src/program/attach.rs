/*!
How the deciding program is attached to the kernel's lockdown check.

```text
BPF LSM         security_locked_down() runs it after the kernel's other security modules; needs `bpf`
                among the active ones
modify-return   runs before security_locked_down() and replaces its result; works without `bpf`. It is
                weaker: the kernel skips it for a request that comes while another one is being
                decided on the same processor, and so allows that request
```

Modify-return exists since 5.7 for functions whose names begin with `security_`. The kernel skips it by the recursion check of all tracing
programs (`__bpf_prog_enter_recur()`), which LSM programs do not have. Since 5.12 the kernel counts how often it skipped a program.
*/
use serde::Serialize;
use stockade_common::kinds;
use stockade_reasons::Level;

use crate::{
    Error,
    machine::{
        btf::{self, KernelTypes},
        host,
        patience::Patience,
    },
    sys,
};

/// The function to which modify-return attaches.
const CHECK_POINT: &str = "security_locked_down";

/// A way to attach the deciding program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attachment {
    /// An LSM program, attached by a link.
    BpfLsm,
    /// An LSM_CGROUP program on the root cgroup: sealed. 6.0 and later.
    RootCgroup,
    /// A modify-return program on `security_locked_down()`.
    ModifyReturn,
}

impl Attachment {
    /// Returns the strongest attachment that works with these active security modules. Attaching an LSM program without `bpf` among them would
    /// succeed and have no effect.
    #[must_use]
    pub fn choose(active_lsms: &str, types: &KernelTypes) -> Self {
        if host::has_bpf_lsm(active_lsms) && types.hook.is_some() { Self::BpfLsm } else { Self::ModifyReturn }
    }

    /// Fails if this kernel lacks the attachment's hook or function.
    ///
    /// # Errors
    /// [`Error::TooOld`] if it is missing, [`Error::NoBtf`] and the like if BTF cannot be read.
    pub fn check(self, types: &KernelTypes) -> Result<(), Error> {
        self.target(types).map(drop)
    }

    /// Returns the target to load the program for.
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

    /// Converts an error of attaching this way: if modify-return does not work either, the error says how to activate `bpf`.
    pub(crate) fn explain(self, error: Error, active_lsms: String) -> Error {
        match (self, error) {
            (Self::ModifyReturn, source @ (Error::TooOld(_) | Error::Rejected { .. } | Error::Io { .. })) => {
                Error::NoBpfLsm { active: active_lsms, source: Box::new(source) }
            }
            (_, error) => error,
        }
    }

    /// Returns the attachment of a link.
    pub(crate) fn of(link: &sys::LinkInfo) -> Self {
        if link.attach_type == kinds::ATTACH_MODIFY_RETURN { Self::ModifyReturn } else { Self::BpfLsm }
    }

    /// Returns the level up to which the kernel's own lockdown refuses requests before this program runs.
    pub(crate) fn refused_before(self, native: Level) -> Level {
        match self {
            Self::BpfLsm | Self::RootCgroup => native,
            Self::ModifyReturn => Level::None,
        }
    }
}

/// Waits until the kernel has detached a program. It does so some time after the last pin is removed: it frees the link's id, then detaches the
/// program, then frees the program's id. Only a missing program id proves that nothing is refused.
pub(crate) fn wait_until_detached(attached: &sys::LinkInfo) -> Result<(), Error> {
    let mut patience = Patience::new();
    while sys::program_exists(attached.program) {
        if !patience.wait() {
            return Err(Error::Request(format!(
                "nothing of Stockade's holds program {} any more, and the kernel did not forget it in {} s: some other process still holds \
                 the program or its attachment (bpftool link show tells), and it may go on deciding until that process ends",
                attached.program,
                patience.seconds()
            )));
        }
    }
    Ok(())
}
