//! The checks, one file for each defence of the kernel.

use crate::runner::Feature;

mod ksm;
mod seccomp;

/// Every feature, in the order in which they are told.
pub const ALL: &[Feature] = &[ksm::FEATURE, seccomp::FEATURE];
