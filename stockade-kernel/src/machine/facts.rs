/*!
The facts about the machine on which every change of the policy in force depends.
*/
use stockade_reasons::Level;

use crate::{
    Error,
    machine::{btf::KernelTypes, host},
};

/// The facts about the machine, read once, since reading BTF takes most of the time.
#[derive(Clone, Debug)]
pub struct Machine {
    pub(crate) types: KernelTypes,
    pub(crate) lsms: String,
    pub(crate) native: Level,
}

impl Machine {
    /// Reads the facts.
    ///
    /// # Errors
    /// Without root, BTF or securityfs.
    pub fn look() -> Result<Self, Error> {
        Self::may_look()?;
        Self::with(KernelTypes::of_running_kernel()?)
    }

    /// Fails without root, and on a kernel that is too old.
    pub(crate) fn may_look() -> Result<(), Error> {
        if !host::is_root() {
            return Err(Error::no_privilege("changing what the kernel refuses"));
        }
        host::is_new_enough()
    }

    /// Reads the facts other than the types.
    pub(crate) fn with(types: KernelTypes) -> Result<Self, Error> {
        Ok(Self { types, lsms: host::active_lsms()?, native: host::native_lockdown()? })
    }
}
