//! The BTF reader. Its input is the running kernel's /sys/kernel/btf/vmlinux.

use stockade_kernel::btf::KernelTypes;

/// Reads BTF or refuses it. Every reason has a number below the marker of its level.
pub fn btf_is_read(bytes: &[u8]) {
    let types = match KernelTypes::parse(bytes) {
        Ok(types) => types,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let reasons = types.kernel_reasons();
    assert_eq!(reasons.len(), types.reasons.len());
    for reason in &types.reasons {
        assert!(!reason.enum_name.ends_with("_MAX"));
        // A name may occur twice; the first one counts.
        let number = types.number(&reason.enum_name).expect("a reason that was read has a number");
        assert!(types.enum_name(number).is_some());
    }
}
