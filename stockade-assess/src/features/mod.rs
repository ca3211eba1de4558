//! The checks, one file for each defence of the kernel.

use crate::runner::Feature;

mod apparmor;
mod cgroups;
mod crypto_api;
mod encryption;
mod ksm;
mod lockdown;
mod lsm;
mod seccomp;
mod selinux;
mod tpm;

/// Every feature, in the order in which they are told.
pub const ALL: &[Feature] = &[
    lockdown::FEATURE,
    lsm::FEATURE,
    selinux::FEATURE,
    apparmor::FEATURE,
    cgroups::FEATURE,
    ksm::FEATURE,
    seccomp::FEATURE,
    tpm::FEATURE,
    crypto_api::FEATURE,
    encryption::FEATURE,
];
