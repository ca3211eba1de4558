/*!
The two slots of a pinned policy and the deciding program: reads and writes the slots, flips them, exchanges the program, and waits for decisions
that still read the old policy.
*/
use std::os::fd::{AsFd, OwnedFd};

use stockade_common::{Policy as KernelPolicy, Slot, Words};

use crate::{
    Error,
    machine::patience::grace_period,
    pinned::pins::{self, Enforcement, PolicyValue},
    program::{
        attach::{self, Attachment},
        duty::PROGRAM_NAMES,
        info,
    },
    sys::{self, step},
};

/// Reports whether two slots have the same policy, apart from generation and time.
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

    /// Reports whether the deciding program supports places and exceptions.
    pub(crate) fn supports_scopes(&self) -> Result<bool, Error> {
        let failed = |e| Error::io("ask for the program that decides", e);
        let info = sys::link_info(self.link.as_fd()).map_err(failed)?;
        Ok(info::raw_name(info.program).map_err(failed)? == *PROGRAM_NAMES[1])
    }

    /// Replaces the deciding program by an attached one. For a moment both decide, by the same policy, and refusals may be counted twice. Returns
    /// when the old program is detached, since it does not support the next policy.
    pub(crate) fn exchange(&mut self, link: OwnedFd) -> Result<(), Error> {
        let failed = |e| Error::io("ask for the program that decides", e);
        let old = sys::link_info(self.link.as_fd()).map_err(failed)?;
        pins::pin_next(&link)?;
        step("next-pinned");
        pins::next_takes_over()?;
        step("taken-over");
        // The old descriptor would keep the old link attached.
        self.link = link;
        attach::wait_until_detached(&old).map_err(|_| {
            Error::Request(
                "another process holds the program that decided so far, which knows no scopes and exceptions: end it \
                 (bpftool link show tells who holds what), and apply the policy again"
                    .into(),
            )
        })
    }

    /// Returns the slot in force.
    pub(crate) fn slot(&self) -> Result<Slot, Error> {
        let policy = self.policy()?;
        Ok(policy.slots[usize::from(policy.active & 1 == 1)])
    }

    /// Changes the value of the policy map. The kernel copies the whole value; unchanged bytes are written with the same content.
    fn change(&mut self, change: impl FnOnce(&mut KernelPolicy)) -> Result<(), Error> {
        let mut policy = self.policy()?;
        change(&mut policy);
        PolicyValue(policy).write(self.policy.as_fd())
    }

    pub(crate) fn write_slot(&mut self, at: usize, slot: Slot) -> Result<(), Error> {
        self.change(|policy| policy.slots[at] = slot)
    }

    /// Puts an empty policy in force: one byte for all attachments.
    pub(crate) fn disarm(&mut self) -> Result<(), Error> {
        let policy = self.policy()?;
        let other = usize::from(policy.active & 1 == 0);
        if policy.slots[other] != Slot::default() {
            // If this fails, a decision under way may see the empty policy a moment too early, which is what comes next anyway.
            let _ = wait_for_decisions();
            self.write_slot(other, Slot::default())?;
        }
        self.flip()
    }

    pub(crate) fn flip(&mut self) -> Result<(), Error> {
        self.change(|policy| policy.active = u64::from(policy.active & 1 == 0))
    }
}

/// Waits until no decision reads the retired slot and its tables: LSM programs run inside RCU read-side critical sections.
///
/// # Errors
/// If the kernel lets this process wait for no grace period.
pub(crate) fn wait_for_decisions() -> Result<(), Error> {
    grace_period().map_err(|e| Error::io("wait until no decision reads the retired policy", e))
}
