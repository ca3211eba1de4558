//! The checks, one file for each defence of the kernel.

use crate::runner::Feature;

mod cgroups;
mod crypto_api;
mod dma;
mod encryption;
mod ipsec;
mod ksm;
mod lockdown;
mod modules;
mod random;
mod seccomp;
mod secure_boot;
mod selinux;
mod tpm;

/// Every feature, in the order in which they are told.
pub const ALL: &[Feature] = &[
    lockdown::FEATURE,
    secure_boot::FEATURE,
    modules::FEATURE,
    dma::FEATURE,
    selinux::FEATURE,
    cgroups::FEATURE,
    ksm::FEATURE,
    seccomp::FEATURE,
    tpm::FEATURE,
    random::FEATURE,
    crypto_api::FEATURE,
    encryption::FEATURE,
    ipsec::FEATURE,
];
