//! The checks, one file for each defence of the kernel.

use crate::runner::Feature;

mod ksm;
mod lockdown;
mod modules;

/// Every feature, in the order in which they are told.
pub const ALL: &[Feature] = &[lockdown::FEATURE, modules::FEATURE, ksm::FEATURE];
