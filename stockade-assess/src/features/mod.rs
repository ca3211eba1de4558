//! The checks, one file for each defence of the kernel.

use crate::runner::Feature;

mod aes;
mod apparmor;
mod aslr;
mod cgroups;
mod cmdline;
mod cpu;
mod crypto_api;
mod dma;
mod encryption;
mod ipsec;
mod ksm;
mod lockdown;
mod lsm;
mod modules;
mod nx;
mod random;
mod rsa;
mod seccomp;
pub(crate) mod secure_boot;
mod selinux;
mod settings;
mod sha;
mod tpm;

/// Readers of bytes from the firmware and the kernel, for fuzz targets. No part of the API.
#[doc(hidden)]
pub mod fuzzed {
    pub use super::{ipsec::judge_answer, secure_boot::count_signatures, tpm::replay_log};
}

/// Every feature, in the order in which they are told.
pub const ALL: &[Feature] = &[
    lockdown::FEATURE,
    secure_boot::FEATURE,
    modules::FEATURE,
    dma::FEATURE,
    selinux::FEATURE,
    apparmor::FEATURE,
    lsm::FEATURE,
    cgroups::FEATURE,
    ksm::FEATURE,
    nx::FEATURE,
    aslr::FEATURE,
    seccomp::FEATURE,
    tpm::FEATURE,
    aes::FEATURE,
    sha::FEATURE,
    rsa::FEATURE,
    random::FEATURE,
    crypto_api::FEATURE,
    encryption::FEATURE,
    ipsec::FEATURE,
    settings::FEATURE,
    cpu::FEATURE,
    cmdline::FEATURE,
];
