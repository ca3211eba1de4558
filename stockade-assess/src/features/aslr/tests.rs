use super::*;

fn of(id: &str, files: &[(&str, &str)]) -> Verdict {
    FEATURE.findings(&System::fake(files))[id].verdict
}

#[test]
fn what_is_set_is_read() {
    const KPTR: &str = "/proc/sys/kernel/kptr_restrict";
    const PERF: &str = "/proc/sys/kernel/perf_event_paranoid";
    let enabled = |value| of("aslr.enabled", &[("/proc/sys/kernel/randomize_va_space", value)]);
    assert_eq!([enabled("2"), enabled("1"), enabled("0")], [Verdict::Pass, Verdict::Warn, Verdict::Fail]);
    assert_eq!([enabled("x"), of("aslr.enabled", &[])], [Verdict::Unknown; 2]);

    let pointers = |kptr, perf| of("aslr.pointers", &[(KPTR, kptr), (PERF, perf)]);
    assert_eq!([pointers("2", "0"), pointers("1", "0")], [Verdict::Pass; 2]);
    assert_eq!([pointers("0", "1"), pointers("0", "2")], [Verdict::Fail, Verdict::Warn]);
    assert_eq!([pointers("0", "x"), pointers("9", "2")], [Verdict::Unknown; 2]);

    let bits = |bits, config| {
        let files = [
            ("/proc/sys/vm/mmap_rnd_bits", bits),
            ("/proc/sys/kernel/osrelease", "6.1.0"),
            ("/boot/config-6.1.0", config),
        ];
        of("aslr.mmap-bits", &files)
    };
    assert_eq!(bits("28", "CONFIG_ARCH_MMAP_RND_BITS_MAX=32"), Verdict::Warn);
    assert_eq!(bits("32", "CONFIG_ARCH_MMAP_RND_BITS_MAX=32"), Verdict::Pass);
    assert_eq!(bits("32", ""), Verdict::Unknown);
    assert_eq!(of("aslr.mmap-bits", &[("/proc/sys/vm/", "")]), Verdict::NotApplicable);
}

#[test]
fn a_kernel_that_was_not_moved_is_found() {
    const GOOD: &str = "CONFIG_RANDOMIZE_BASE=y\nCONFIG_PHYSICAL_START=0x1000000\n";
    let started = |loadflags, line, config, symbols: &str| {
        let files = [
            ("/proc/cmdline", line),
            ("/proc/sys/kernel/osrelease", "6.1.0"),
            ("/boot/config-6.1.0", config),
            ("/proc/kallsyms", symbols),
        ];
        let mut with = vec![0_u8; 4096];
        with[0x211] = loadflags;
        let system = System::fake(&files).with("/sys/kernel/boot_params/data", &with);
        let finding = FEATURE.findings(&system)["aslr.kernel"].clone();
        assert!(!format!("{finding:?}").contains("9a0"), "an address is shown");
        finding.verdict
    };
    let kernel = |line, config, symbols: &str| started(0x81, line, config, symbols);
    let first = "0000000000000000 A fixed_percpu_data\n";
    let moved = format!("{first}ffffffff9a000000 T _text\n");
    assert_eq!(kernel("quiet", GOOD, &moved), Verdict::Pass);
    assert_eq!(kernel("quiet", GOOD, "ffffffff81000000 T _text\n"), Verdict::Fail);
    // KASLR was done, with the offset 0.
    assert_eq!(started(0x83, "quiet", GOOD, "ffffffff81000000 T _text\n"), Verdict::Pass);
    let untold = [
        ("/proc/cmdline", ""),
        ("/proc/sys/kernel/osrelease", "6.1.0"),
        ("/boot/config-6.1.0", GOOD),
        ("/proc/kallsyms", "ffffffff81000000 T _text\n"),
    ];
    assert_eq!(of("aslr.kernel", &untold), Verdict::Unknown);
    assert_eq!(kernel("quiet nokaslr", GOOD, &moved), Verdict::Fail);
    assert_eq!(kernel("quiet", "CONFIG_X=y\n", &moved), Verdict::Fail);
    assert_eq!(kernel("quiet", GOOD, "0000000000000000 T _text\n"), Verdict::Unknown);
    assert_eq!(kernel("quiet", GOOD, "ffff800080000000 T _text\n"), Verdict::Unknown);
    assert_eq!(kernel("quiet", GOOD, ""), Verdict::Unknown);
}

/// Makes layouts in which each part has this many bits of entropy.
fn layouts(count: usize, bits: u32) -> Vec<Layout> {
    let mut seed = 12_345_u64;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((seed >> 24) & ((1 << bits) - 1)) << 12
    };
    (0..count)
        .map(|_| {
            let executable = 0x5555_0000_0000 + next();
            Layout {
                stack: 0x7ff0_0000_0000 + next(),
                mmap: 0x7f00_0000_0000 + next(),
                executable,
                heap: executable + 0x1000 + next(),
                vdso: Some(0x7ff8_0000_0000 + next()),
            }
        })
        .collect()
}

#[test]
fn bits_are_held_against_what_should_be() {
    let part = &PARTS[1];
    let of = |bits, expected| {
        let layouts = layouts(MANY, bits);
        judge(part, &sampled(part, &layouts).unwrap(), expected, &layouts)
    };
    assert_eq!(of(28, Some(28.0)).verdict, Verdict::Pass);
    assert_eq!(of(20, Some(28.0)).verdict, Verdict::Warn);
    assert_eq!(of(9, Some(28.0)).verdict, Verdict::Fail);
    assert_eq!(of(0, Some(28.0)).verdict, Verdict::Fail);
    assert_eq!(of(28, None).verdict, Verdict::Unknown);
    let measure = &of(28, Some(28.0)).measures[0];
    assert_eq!((measure.name.as_str(), measure.expected), ("mmap", Some(28.0)));
    assert!((measure.value - 28.0).abs() < 0.11);
}

#[test]
fn a_glance_says_whether_and_not_how_much() {
    let part = &PARTS[0];
    let of = |bits| {
        let layouts = layouts(SOME, bits);
        judge(part, &sampled(part, &layouts).unwrap(), Some(30.0), &layouts)
    };
    assert_eq!((of(0).verdict, of(28).verdict), (Verdict::Fail, Verdict::Pass));
    assert!(of(28).measures.is_empty());
}

#[test]
fn the_worst_part_of_32_bit_programs_counts() {
    let compat = |bits, count, mmap| {
        let system = System::fake(&[("/proc/sys/vm/mmap_rnd_compat_bits", mmap)]);
        compat(&system, &layouts(count, bits))
    };
    assert_eq!(compat(0, MANY, "8").verdict, Verdict::Fail);
    assert_eq!(compat(0, SOME, "8").verdict, Verdict::Fail);
    assert_eq!(compat(12, SOME, "8").verdict, Verdict::Pass);
    if cfg!(target_arch = "x86_64") {
        assert_eq!(compat(20, MANY, "16").verdict, Verdict::Pass);
        assert_eq!(compat(14, MANY, "8").verdict, Verdict::Warn);
        assert_eq!(compat(20, MANY, "16").measures.len(), 5);
    }
}

#[test]
fn programs_of_this_machine_are_started() {
    let system = System::live(false);
    match sample::sample(&system, Width::Native, 50) {
        Ok(layouts) => {
            assert_eq!(layouts.len(), 50);
            let places = sampled(&PARTS[1], &layouts).unwrap().places;
            // ASLR may be off on this machine.
            let on = system.setting("kernel.randomize_va_space").is_ok_and(|value| value != "0");
            assert!(places > 40 || !on, "{places}");
        }
        Err(trouble) => panic!("{trouble:?}"),
    }
}
