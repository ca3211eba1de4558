//! The properties that are fuzzed: each function returns whatever its input is.
//!
//! The fuzz targets feed them what libFuzzer makes. The tests `fuzzed.rs` of stockade-policy, stockade-kernel and stockade-assess replay seeds,
//! corpora and mutations of them (`replay.rs`), so that every run of the tests plays them without building a fuzzer.

pub mod assess;
pub mod btf;
pub mod policy;
