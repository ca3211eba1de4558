//! Ways to boot that differ in one thing each, and what flips with it.

use super::{
    Booted,
    Verdict::{Fail, NotApplicable, Pass, Warn},
    flip,
};
use crate::boots::Boot;

/// The ways to boot that others are compared with.
pub const BASES: &[Boot] = &[Boot::Assessed, Boot::AssessedIommu, Boot::Efi];

/// What differs from [`Boot::Assessed`].
const fn booted(boot: Boot, flips: &'static [super::Flip], also: &'static [&'static str]) -> Booted {
    Booted { boot, base: Boot::Assessed, measured: false, flips, also }
}

/// Findings that say how much of something that is refused is still open, or who refuses: they follow the level.
const WITH_A_LEVEL: &[&str] = &[
    "lockdown.doors",
    "lockdown.residual",
    "lockdown.sealed",
    "modules.kexec-signature",
    "modules.signature",
];

/// Every difference.
pub const BOOTED: &[Booted] = &[
    booted(Boot::AssessedNoKaslr, &[flip("aslr.kernel", Pass, Fail, "nokaslr")], &[]),
    booted(
        Boot::AssessedNoRandomMaps,
        &[
            flip("aslr.enabled", Pass, Fail, ""),
            flip("aslr.stack", Pass, Fail, ""),
            flip("aslr.mmap", Pass, Fail, ""),
            flip("aslr.heap", Pass, Fail, ""),
            flip("aslr.executable", Pass, Fail, ""),
            flip("aslr.vdso", Pass, Fail, ""),
        ],
        &["aslr.compat"],
    ),
    booted(
        Boot::AssessedNoNx,
        &[flip("nx.cpu", Pass, Fail, ""), flip("nx.stack", Pass, Fail, ""), flip("nx.heap", Pass, Fail, "")],
        // Without it no page of the kernel can be kept from being executed.
        &["nx.kernel"],
    ),
    booted(
        Boot::AssessedNoMitigations,
        &[
            flip("cpu.mitigations", Pass, Fail, "mitigations=off"),
            flip("cpu.vulnerabilities", Pass, Fail, "spectre_v2"),
        ],
        &[],
    ),
    booted(Boot::AssessedSignedModules, &[flip("modules.signature", Fail, Pass, "")], &[]),
    booted(
        Boot::AssessedIntegrity,
        &[
            flip("lockdown.level", Fail, Pass, "integrity"),
            flip("lockdown.doors", Fail, Pass, ""),
            flip("lockdown.sealed", NotApplicable, Pass, ""),
            flip("modules.kexec-signature", Fail, Pass, ""),
        ],
        WITH_A_LEVEL,
    ),
    booted(
        Boot::AssessedConfidentiality,
        &[
            flip("lockdown.level", Fail, Pass, "confidentiality"),
            flip("lockdown.confidentiality-doors", Warn, Pass, ""),
        ],
        WITH_A_LEVEL,
    ),
    booted(
        Boot::AssessedFips,
        &[flip("crypto-api.fips", NotApplicable, Pass, "").or(Fail, "built without")],
        &["crypto-api.self-tests"],
    ),
    booted(
        Boot::AssessedSelinux,
        &[
            flip("selinux.enabled", NotApplicable, Pass, ""),
            flip("apparmor.enabled", Pass, NotApplicable, ""),
        ],
        &[
            "apparmor.confinement",
            "apparmor.profiles",
            "apparmor.unconfined",
            "selinux.booleans",
            "selinux.denial",
            "selinux.enforcing",
            "selinux.permissive-domains",
            "selinux.policy",
            "selinux.unconfined",
        ],
    ),
    booted(
        Boot::AssessedLegacy,
        &[
            flip("cgroups.version", Pass, Warn, "version 1"),
            flip("cgroups.controllers", Pass, Fail, "memory"),
        ],
        // Without version 2 nothing has to be handed down before it can be tried.
        &["cgroups.memory-limit", "cgroups.pids-limit"],
    ),
    booted(
        Boot::AssessedNoAppArmor,
        &[flip("apparmor.enabled", Pass, Fail, "")],
        // No other module takes its place.
        &[
            "apparmor.confinement",
            "apparmor.profiles",
            "apparmor.unconfined",
            "lsm.active",
            "selinux.enabled",
        ],
    ),
    booted(
        Boot::AssessedTpm,
        &[
            flip("tpm.present", Warn, Pass, ""),
            flip("tpm.banks", NotApplicable, Pass, "sha256"),
            flip("tpm.event-log", NotApplicable, Pass, ""),
        ],
        &["tpm.extended", "random.hardware", "random.sources"],
    ),
    booted(Boot::AssessedSlabs, &[flip("cmdline.slab-nomerge", Warn, Pass, "slab_nomerge")], &[]),
    booted(Boot::AssessedNotZeroed, &[flip("cmdline.init-on-alloc", Pass, Fail, "init_on_alloc=0")], &[]),
    booted(Boot::AssessedZeroed, &[flip("cmdline.init-on-free", Warn, Pass, "init_on_free=1")], &[]),
    booted(Boot::AssessedShuffled, &[flip("cmdline.page-shuffle", Warn, Pass, "")], &[]),
    booted(Boot::AssessedVsyscall, &[flip("cmdline.vsyscall", Pass, Fail, "")], &[]),
    booted(
        Boot::AssessedNoDebugfs,
        &[flip("cmdline.debugfs", Warn, Pass, "")],
        // A door that is not there lets nobody through, and the others are counted.
        &[],
    ),
    booted(Boot::AssessedStack, &[flip("cmdline.kstack-offset", Pass, Warn, "")], &[]),
    booted(
        Boot::AssessedNoGenerator,
        &[flip("random.hardware", Pass, Warn, ""), flip("random.sources", Pass, Warn, "")],
        // So soon after the start nothing else has seeded the generator.
        &["random.ready", "random.health"],
    ),
    booted(Boot::AssessedCopied, &[flip("random.vm-fork", Warn, Pass, "")], &[]),
    booted(
        Boot::AssessedIommu,
        &[flip("dma.iommu", NotApplicable, Pass, ""), flip("dma.strict", NotApplicable, Warn, "lazy")],
        // Another board has other devices.
        &["dma.groups", "dma.preboot"],
    ),
    Booted {
        base: Boot::AssessedIommu,
        ..booted(Boot::AssessedIommuStrict, &[flip("dma.strict", Warn, Pass, "strict")], &[])
    },
    Booted {
        base: Boot::AssessedIommu,
        ..booted(Boot::AssessedIommuOff, &[flip("dma.iommu", Pass, Fail, "")], &["dma.strict", "dma.groups"])
    },
    Booted {
        base: Boot::Efi,
        ..booted(
            Boot::SecureBoot,
            &[
                flip("secure-boot.enabled", Fail, Pass, ""),
                flip("secure-boot.setup-mode", Fail, Pass, ""),
                flip("lockdown.level", Fail, Pass, "integrity"),
            ],
            &[
                "lockdown.doors",
                "lockdown.residual",
                "lockdown.sealed",
                "modules.kexec-signature",
                "modules.signature",
                "secure-boot.chain",
                "secure-boot.keys",
                "secure-boot.revocations",
                "secure-boot.shim",
            ],
        )
    },
];
