//! The checks, one file for each defence of the kernel.

use crate::runner::Feature;

mod aslr;
mod cmdline;
mod cpu;
mod ksm;
mod nx;
mod settings;
mod tpm;

/// Every feature, in the order in which they are told.
pub const ALL: &[Feature] = &[
    ksm::FEATURE,
    nx::FEATURE,
    aslr::FEATURE,
    tpm::FEATURE,
    settings::FEATURE,
    cpu::FEATURE,
    cmdline::FEATURE,
];
