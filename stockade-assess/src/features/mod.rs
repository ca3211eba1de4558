//! The checks, one file for each defence of the kernel.

use crate::runner::Feature;

mod crypto_api;
mod ksm;
mod random;

/// Every feature, in the order in which they are told.
pub const ALL: &[Feature] = &[ksm::FEATURE, random::FEATURE, crypto_api::FEATURE];
