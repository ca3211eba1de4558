//! `cargo xtask fuzz` runs this. The property is in src/btf.rs.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| stockade_fuzz::btf::btf_is_read(bytes));
