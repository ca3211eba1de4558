/*!
The scenarios: one file per topic, one function per scenario.
*/
use std::ffi::CString;

use anyhow::{Result, ensure};

pub(crate) use crate::program::lift_all;
pub use crate::raw::try_door;

use crate::{attacks, scenario::Scenario};

mod apparmor;
mod bad_input;
mod boots;
mod cgroups;
mod compat;
mod conformance;
mod enforcement;
mod fallback;
mod flips;
mod hosts;
mod killed;
mod load;
mod namespaces;
mod native;
mod policy;
mod probing;
mod programs;
mod residual;
mod seal_record;
mod sealing;
mod secure_boot;
mod selinux;
mod table;
mod tutorial;
mod waiting;
mod watching;
mod weaknesses;

/// Returns every scenario, in the order in which those of one boot are played.
#[must_use]
pub fn all() -> Vec<Scenario> {
    [
        // First, so that `assess` sees the guest as it was booted.
        &flips::all(),
        boots::SCENARIOS,
        table::SCENARIOS,
        enforcement::SCENARIOS,
        hosts::SCENARIOS,
        killed::SCENARIOS,
        bad_input::SCENARIOS,
        probing::SCENARIOS,
        weaknesses::SCENARIOS,
        attacks::scenarios(),
        attacks::ON_SEALING,
        watching::SCENARIOS,
        load::SCENARIOS,
        cgroups::SCENARIOS,
        namespaces::SCENARIOS,
        compat::SCENARIOS,
        &sealing::all(),
        native::SCENARIOS,
        fallback::SCENARIOS,
        secure_boot::SCENARIOS,
        conformance::SCENARIOS,
        residual::SCENARIOS,
        programs::SCENARIOS,
        apparmor::SCENARIOS,
        selinux::SCENARIOS,
        seal_record::SCENARIOS,
        &policy::all(),
        tutorial::SCENARIOS,
        flips::traces::SCENARIOS,
    ]
    .concat()
}

/// A mount that is removed when this is dropped.
struct Mounted(CString);

impl Mounted {
    /// Mounts an empty tmpfs over a folder.
    fn tmpfs(path: &str) -> Result<Self> {
        let path = CString::new(path)?;
        // SAFETY: the strings live through the call; tmpfs needs no data.
        let answer =
            unsafe { libc::mount(c"none".as_ptr(), path.as_ptr(), c"tmpfs".as_ptr(), 0, std::ptr::null()) };
        ensure!(answer == 0, "mount a tmpfs at {path:?}: {}", std::io::Error::last_os_error());
        Ok(Self(path))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // SAFETY: the path lives through the call. MNT_DETACH, since open files may still use the mount.
        unsafe { libc::umount2(self.0.as_ptr(), libc::MNT_DETACH) };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    #[test]
    fn names_are_unique() {
        let all = super::all();
        let names: HashSet<_> = all.iter().map(|s| s.name).collect();
        assert_eq!(names.len(), all.len());
    }
}
