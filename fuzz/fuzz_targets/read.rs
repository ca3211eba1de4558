//! `cargo xtask fuzz` runs this. The property is in src/policy.rs.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| stockade_fuzz::policy::policy_survives_show(bytes));
