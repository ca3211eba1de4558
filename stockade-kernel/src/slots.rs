/*!
The two slots of a pinned policy, and the program that reads them: what is in force, what is written beside it, which of both counts, and
when nobody reads the other any more.
*/
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use stockade_common::{Policy as KernelPolicy, Slot, Words};

use crate::{
    Error,
    attach::Attachment,
    duty::PROGRAM_NAMES,
    elsewhere,
    enforce::step,
    lift,
    pins::{self, Enforcement, PolicyValue},
    sys,
};

/// Whether two slots say the same, whenever they were applied.
pub(crate) fn same(one: &Slot, other: &Slot) -> bool {
    let timeless =
        |slot: &Slot| Slot { applied_boot_ns: 0, words: Words { generation: 0, ..slot.words }, ..*slot };
    timeless(one) == timeless(other)
}

impl Enforcement {
    pub(crate) fn attachment(&self) -> Result<Attachment, Error> {
        let info = sys::link_info(self.link.as_fd()).map_err(|e| Error::io("ask for the link", e))?;
        Ok(Attachment::of(&info))
    }

    pub(crate) fn policy(&self) -> Result<KernelPolicy, Error> {
        PolicyValue::read(self.policy.as_fd()).map(|value| value.0)
    }

    /// Whether the program that decides knows places and exceptions.
    pub(crate) fn is_whole(&self) -> Result<bool, Error> {
        let failed = |e| Error::io("ask for the program that decides", e);
        let info = sys::link_info(self.link.as_fd()).map_err(failed)?;
        Ok(elsewhere::name(info.program).map_err(failed)? == *PROGRAM_NAMES[1])
    }

    /// Puts an attached program in the place of the one that decides. For a moment both do, by the same policy: then
    /// what is refused may be counted twice. Returns when the old one is gone, since it would not understand the next policy.
    pub(crate) fn exchange(&mut self, link: OwnedFd) -> Result<(), Error> {
        let failed = |e| Error::io("ask for the program that decides", e);
        let old = sys::link_info(self.link.as_fd()).map_err(failed)?;
        pins::pin_next(&link)?;
        step("next-pinned");
        pins::next_takes_over()?;
        step("taken-over");
        // The descriptor would hold it.
        self.link = link;
        lift::wait_until_detached(&old).map_err(|_| {
            Error::Request(
                "another process holds the program that decided so far, which knows no scopes and exceptions: end it \
                 (bpftool link show tells who holds what), and apply the policy again"
                    .into(),
            )
        })
    }

    /// The slot in force.
    pub(crate) fn slot(&self) -> Result<Slot, Error> {
        let policy = self.policy()?;
        Ok(policy.slots[usize::from(policy.active & 1 == 1)])
    }

    /// The kernel copies the whole value; the bytes that do not change are written as they are.
    fn change(&mut self, change: impl FnOnce(&mut KernelPolicy)) -> Result<(), Error> {
        let mut policy = self.policy()?;
        change(&mut policy);
        PolicyValue(policy).write(self.policy.as_fd())
    }

    pub(crate) fn write_slot(&mut self, at: usize, slot: Slot) -> Result<(), Error> {
        self.change(|policy| policy.slots[at] = slot)
    }

    /// Puts a policy in force that refuses nothing and holds nothing: one byte for all attachments.
    pub(crate) fn let_go(&mut self) -> Result<(), Error> {
        let policy = self.policy()?;
        let other = usize::from(policy.active & 1 == 0);
        if policy.slots[other] != Slot::default() {
            wait_for_decisions();
            self.write_slot(other, Slot::default())?;
        }
        self.flip()
    }

    pub(crate) fn flip(&mut self) -> Result<(), Error> {
        self.change(|policy| policy.active = u64::from(policy.active & 1 == 0))
    }
}

/// Waits until no decision reads what was just retired: LSM programs run inside read-side sections. Where a grace period
/// cannot be waited for (`nohz_full`) the kernel is made to wait otherwise.
pub(crate) fn wait_for_decisions() {
    if let Err(error) = grace_period() {
        eprintln!("stockade: decisions under way may still see parts of the old policy: {error}");
    }
}

/// Waits for a grace period of the kernel's. It takes as long as it takes: there is no limit.
pub(crate) fn grace_period() -> io::Result<()> {
    sys::wait_for_grace_period().or_else(|_| sys::wait_for_programs())
}
