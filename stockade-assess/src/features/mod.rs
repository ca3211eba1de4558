//! The checks, one file for each defence of the kernel.

use crate::runner::Feature;

mod cgroups;
mod ksm;
mod seccomp;

/// Every feature, in the order in which they are told.
pub const ALL: &[Feature] = &[cgroups::FEATURE, ksm::FEATURE, seccomp::FEATURE];
