//! `cargo xtask fuzz` runs this. The property is in src/assess.rs.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| stockade_fuzz::assess::event_log_is_replayed(bytes));
