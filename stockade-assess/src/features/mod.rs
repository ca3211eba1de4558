//! The checks, one file for each defence of the kernel.

use crate::runner::Feature;

mod dma;
mod ksm;
mod lockdown;
mod modules;
mod secure_boot;

/// Every feature, in the order in which they are told.
pub const ALL: &[Feature] =
    &[lockdown::FEATURE, secure_boot::FEATURE, modules::FEATURE, dma::FEATURE, ksm::FEATURE];
