//! The fuzzed property of the BTF reader, played on seeds, corpora and mutations. `cargo xtask fuzz` looks for new inputs.
//!
//! The seeds are cut from the BTF of Debian's kernels: `enum lockdown_reason`, the hook, and the structures of `Offsets::FIELDS` with a part of
//! their members.

#[path = "../../fuzz/src/btf.rs"]
mod properties;
#[path = "../../fuzz/src/replay.rs"]
mod replay;

use stockade_kernel::btf::KernelTypes;

#[test]
fn btf_is_replayed() {
    replay::replay("btf", properties::btf_is_read, 20_000);
}

#[test]
fn the_seeds_are_read_whole() {
    for seed in replay::inputs("seeds/btf") {
        let types = KernelTypes::parse(&seed).unwrap();
        assert!(types.hook.is_some() && types.number("LOCKDOWN_DEV_MEM").is_some());
        assert_ne!(types.offsets.task_pid, 0);
        assert_ne!(types.offsets.superblock_device, 0);
    }
}
