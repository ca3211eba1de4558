//! The checks, one file for each defence of the kernel.

use crate::runner::Feature;

mod cgroups;
mod crypto_api;
mod encryption;
mod ksm;
mod lockdown;
mod seccomp;
mod tpm;

/// Every feature, in the order in which they are told.
pub const ALL: &[Feature] = &[
    ksm::FEATURE,
    tpm::FEATURE,
    lockdown::FEATURE,
    cgroups::FEATURE,
    seccomp::FEATURE,
    encryption::FEATURE,
    crypto_api::FEATURE,
];
