//! Boots that differ from their base in one thing, and the findings that flip with it.

use super::{
    Booted,
    Verdict::{Fail, NotApplicable, Pass, Warn},
    flip,
};
use crate::boots::Boot;

/// The boots that others are compared with.
pub const BASES: &[Boot] = &[Boot::Assessed, Boot::AssessedIommu, Boot::Efi];

/// Makes a difference from [`Boot::Assessed`].
const fn booted(boot: Boot, flips: &'static [super::Flip], also: &'static [&'static str]) -> Booted {
    Booted { boot, base: Boot::Assessed, measured: false, flips, also }
}

/// Findings about operations that are still possible and about the owner of a refusal: they change with the level.
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
        // Without NX the kernel cannot make any of its pages non-executable.
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
        // On version 1 no controller has to be enabled in cgroup.subtree_control before a limit can be tried.
        &["cgroups.memory-limit", "cgroups.pids-limit"],
    ),
    booted(
        Boot::AssessedNoAppArmor,
        &[flip("apparmor.enabled", Pass, Fail, "")],
        // No other module replaces it.
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
        // The door of debugfs is absent, and `lockdown.doors` does not change since the other doors are open.
        &[],
    ),
    booted(Boot::AssessedStack, &[flip("cmdline.kstack-offset", Pass, Warn, "")], &[]),
    booted(
        Boot::AssessedNoGenerator,
        &[flip("random.hardware", Pass, Warn, ""), flip("random.sources", Pass, Warn, "")],
        // This early after boot nothing else has seeded the random number generator.
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
