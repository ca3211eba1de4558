/*!
The ways a guest can be booted: one entry each.
*/
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    boot::Hardware,
    firmware::{self, Image},
};

/// What there is to know of a way to boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is so or not, whatever the others are")]
pub struct Facts {
    /// What it adds to the kernel's command line.
    pub cmdline: &'static str,
    /// What its guest's machine is made of.
    pub hardware: Hardware,
    /// The firmware it takes; without, QEMU loads the kernel by itself.
    pub firmware: Option<firmware::Setup>,
    /// Whether there is a TPM 2.0.
    pub tpm: bool,
    /// Whether the BIOS boots the kernel as it is packaged. Only so does it find the tables that tell of a TPM or an IOMMU, and
    /// move itself to a random address.
    pub packaged: bool,
    /// Whether its guest has [`crate::userland`]'s disk.
    pub userland: bool,
    /// Whether one flavour of each kernel series is enough, the generic one: what is played there is long, and the flavours
    /// differ in drivers alone.
    pub generic: bool,
}

/// As distributed.
const USUAL: Facts = Facts {
    cmdline: "",
    hardware: Hardware::USUAL,
    firmware: None,
    tpm: false,
    packaged: false,
    userland: false,
    generic: false,
};

/// As distributed, where one flavour of each series is enough.
const GENERIC: Facts = Facts { generic: true, ..USUAL };

/// The same with Debian's programs and modules for them.
const WITH_PROGRAMS: Facts = Facts { userland: true, ..GENERIC };

/// By EFI firmware, with an enrolled key or without.
const fn by_firmware(secure_boot: bool, image: Image) -> Facts {
    Facts { firmware: Some(firmware::Setup { secure_boot, image }), ..GENERIC }
}

/// As distributed, and as machines boot it.
const ASSESSED: Facts = Facts { packaged: true, ..GENERIC };

/// The word by which a guest mounts cgroups of version 1 in place of those of version 2.
pub const LEGACY_CGROUPS: &str = "stockade.cgroups=1";

/// The same with this on the command line.
const fn assessed(cmdline: &'static str) -> Facts {
    Facts { cmdline, ..ASSESSED }
}

/// The same on this model of a processor.
const fn on_cpu(cpu: &'static str) -> Facts {
    Facts { hardware: Hardware { cpu, ..Hardware::USUAL }, ..ASSESSED }
}

/// The same with Debian's programs, and a disk to write on.
const fn assessed_programs(cmdline: &'static str) -> Facts {
    Facts { userland: true, hardware: Hardware { scratch: true, ..Hardware::USUAL }, ..assessed(cmdline) }
}

/// The same on this board, with these devices.
const fn with_device(board: &'static str, devices: &'static [&'static str], cmdline: &'static str) -> Facts {
    Facts { hardware: Hardware { board, devices, ..Hardware::USUAL }, cmdline, ..ASSESSED }
}

/// Makes the type and its table of one list.
macro_rules! boots {
    ($($(#[$about:meta])* $boot:ident $name:literal $facts:expr;)*) => {
        /// A way to boot a guest.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Boot {
            $($(#[$about])* #[serde(rename = $name)] $boot,)*
        }

        impl Boot {
            /// Every way to boot.
            pub const ALL: &[Boot] = &[$(Boot::$boot),*];

            /// The word for it on the guest's command line and in reports.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Boot::$boot => $name,)* }
            }

            /// What there is to know of it.
            #[must_use]
            pub fn facts(self) -> Facts {
                match self { $(Boot::$boot => $facts,)* }
            }
        }
    };
}

boots! {
    /// As distributed.
    Plain "plain" USUAL;
    /// The same with two processors, for what happens at once.
    TwoProcessors "two-processors" Facts { hardware: Hardware::TWO_PROCESSORS, ..USUAL };
    /// As distributed, for attacks on enforcement that lives in pins: some leave the guest in disorder.
    PinsAttacked "pins-attacked" GENERIC;
    /// The same with two processors.
    PinsAttackedTwoProcessors "pins-attacked-two" Facts { hardware: Hardware::TWO_PROCESSORS, ..GENERIC };
    /// The kernel's own lockdown at integrity.
    NativeIntegrity "native-integrity" Facts { cmdline: "lockdown=integrity", ..USUAL };
    /// The kernel's own lockdown at confidentiality.
    NativeConfidentiality "native-confidentiality" Facts { cmdline: "lockdown=confidentiality", ..USUAL };
    /// Without the bpf LSM. The lockdown LSM is early: it is there even when a list omits it.
    NoBpfLsm "no-bpf-lsm" Facts { cmdline: "lsm=landlock,yama,apparmor", ..USUAL };
    /// As distributed, for scenarios that raise native lockdown, which no later one could lower.
    Raised "raised" USUAL;
    /// As [`Boot::Raised`], for the scenario that raises it over Stockade's integrity.
    RaisedOverIntegrity "raised-over-integrity" USUAL;
    /// As [`Boot::Raised`], for the scenario that raises it over Stockade's confidentiality.
    RaisedOverConfidentiality "raised-over-confid" USUAL;
    /// As distributed, for scenarios that end sealed, which no later one could lift.
    Sealed "sealed" USUAL;
    /// As [`Boot::Sealed`], for the tutorial, which ends sealed.
    SealedTutorial "sealed-tutorial" USUAL;
    /// As [`Boot::Sealed`], for a seal of confidentiality.
    SealedConfidentiality "sealed-confid" GENERIC;
    /// As [`Boot::Sealed`], for a command that is killed right after the seal was closed.
    SealedKilled "sealed-killed" GENERIC;
    /// As [`Boot::Sealed`], for a seal beside programs of others.
    SealedTrusting "sealed-trusting" GENERIC;
    /// As [`Boot::Sealed`], for a policy that trusts programs of others before they are loaded.
    SealedTrustingPolicy "sealed-trust-policy" GENERIC;
    /// As [`Boot::Sealed`], beside programs that a guard of another's hides.
    SealedHidden "sealed-hidden" GENERIC;
    /// As [`Boot::Sealed`], for a policy with exceptions by program.
    SealedPrograms "sealed-programs" GENERIC;
    /// As [`Boot::Sealed`], with a disk for a file system with fs-verity.
    SealedVerity "sealed-verity" Facts { hardware: Hardware { scratch: true, ..Hardware::USUAL }, ..WITH_PROGRAMS };
    /// As [`Boot::Sealed`], for a policy with scopes.
    SealedScopes "sealed-scopes" GENERIC;
    /// As [`Boot::Sealed`], for a policy that leaves room for scopes.
    SealedRoom "sealed-room" GENERIC;
    /// As [`Boot::Sealed`], with cgroups of version 1 alone.
    SealedLegacy "sealed-legacy" GENERIC;
    /// As [`Boot::Sealed`], for a policy with settings.
    SealedSettings "sealed-settings" GENERIC;
    /// As distributed, for attacks on the seal, which only a reboot ends.
    SealAttacked "seal-attacked" GENERIC;
    /// The same, for attacks on exceptions and grants of what is sealed.
    SealAttackedExceptions "seal-attacked-except" GENERIC;
    /// As distributed, for attacks on programs to which a sealed policy gives an exception.
    SealAttackedPrograms "seal-attacked-programs" GENERIC;
    /// The same with two processors.
    SealAttackedTwoProcessors "seal-attacked-two" Facts { hardware: Hardware::TWO_PROCESSORS, ..GENERIC };
    /// As distributed, for scenarios in which `seal` fails, the last of which may succeed.
    SealStarved "seal-starved" GENERIC;
    /// The same for one that meddles with what `seal` makes.
    SealMeddled "seal-meddled" GENERIC;
    /// By EFI firmware without keys: Secure Boot is off.
    Efi "efi" by_firmware(false, Image::Unsigned);
    /// By EFI firmware with an enrolled key, from an image signed with it: Secure Boot is on.
    SecureBoot "secure-boot" by_firmware(true, Image::Signed);
    /// By EFI firmware with an enrolled key, from an image without a signature: it must not boot at all.
    Unsigned "unsigned" by_firmware(true, Image::Unsigned);
    /// By EFI firmware with an enrolled key, from a signed image that was altered: it must not boot at all.
    Altered "altered" by_firmware(true, Image::Altered);
    /// As distributed, with Debian's programs and modules for them.
    Programs "programs" WITH_PROGRAMS;
    /// The same with AppArmor, as distributed, and its tools.
    AppArmor "app-armor" Facts { cmdline: "security=apparmor", ..WITH_PROGRAMS };
    /// With AppArmor and Debian's programs, for a scenario that seals the guest.
    AppArmorSealed "app-armor-sealed" Facts { cmdline: "security=apparmor", ..WITH_PROGRAMS };
    /// With Debian's programs and SELinux enforcing, before any policy is loaded.
    Selinux "selinux" Facts { cmdline: "security=selinux enforcing=1", ..WITH_PROGRAMS };
    /// As distributed, on a machine with a TPM 2.0.
    Tpm "tpm" Facts { tpm: true, packaged: true, ..GENERIC };
    /// As distributed, for what is assessed without a difference, and for changes while it runs.
    Assessed "assessed" ASSESSED;
    /// The kernel stays where it is linked to.
    AssessedNoKaslr "assessed-nokaslr" assessed("nokaslr");
    /// Programs get everything where everybody expects it.
    AssessedNoRandomMaps "assessed-norandmaps" assessed("norandmaps");
    /// The processor knows no memory that must not be executed.
    AssessedNoNx "assessed-no-nx" on_cpu("max,-nx");
    /// Without mitigations for processors.
    AssessedNoMitigations "assessed-mitigations" assessed("mitigations=off");
    /// Modules have to be signed.
    AssessedSignedModules "assessed-sig-enforce" assessed("module.sig_enforce=1");
    /// The kernel's own lockdown at integrity.
    AssessedIntegrity "assessed-integrity" assessed("lockdown=integrity");
    /// The kernel's own lockdown at confidentiality.
    AssessedConfidentiality "assessed-confid" assessed("lockdown=confidentiality");
    /// FIPS mode.
    AssessedFips "assessed-fips" assessed("fips=1");
    /// SELinux in place of AppArmor.
    AssessedSelinux "assessed-selinux" assessed("security=selinux");
    /// Cgroups of version 1 alone, of which only the controller for processes is mounted.
    AssessedLegacy "assessed-cgroup1" assessed(LEGACY_CGROUPS);
    /// Caches of the kernel are not merged.
    AssessedSlabs "assessed-slabs" assessed("slab_nomerge");
    /// Memory is not zeroed when it is given out.
    AssessedNotZeroed "assessed-not-zeroed" assessed("init_on_alloc=0");
    /// Memory is zeroed when it is given back.
    AssessedZeroed "assessed-zeroed" assessed("init_on_free=1");
    /// Free pages are shuffled.
    AssessedShuffled "assessed-shuffled" assessed("page_alloc.shuffle=1");
    /// A page for system calls at a fixed address.
    AssessedVsyscall "assessed-vsyscall" assessed("vsyscall=emulate");
    /// Without debugfs.
    AssessedNoDebugfs "assessed-debugfs" assessed("debugfs=off");
    /// System calls begin where the stack does.
    AssessedStack "assessed-kstack" assessed("randomize_kstack_offset=off");
    /// A processor without a generator of random numbers.
    AssessedNoGenerator "assessed-no-rdrand" on_cpu("max,-rdrand,-rdseed");
    /// A hypervisor that tells when the machine was copied.
    AssessedCopied "assessed-vmgenid" with_device("pc", &["edu", "vmgenid,guid=auto"], "");
    /// A machine with an IOMMU that is in use.
    AssessedIommu "assessed-iommu" with_device("q35", &["edu", "intel-iommu"], "");
    /// The same, and what is taken back from a device is out of its reach at once.
    AssessedIommuStrict "assessed-strict" with_device("q35", &["edu", "intel-iommu"], "iommu.strict=1");
    /// The same, and the kernel leaves it alone.
    AssessedIommuOff "assessed-iommu-off" with_device("q35", &["edu", "intel-iommu"], "intel_iommu=off");
    /// Without AppArmor, which is active as distributed, and without what would take its place.
    AssessedNoAppArmor "assessed-no-apparmor" assessed("lsm=lockdown,landlock,yama,tomoyo,bpf");
    /// With a TPM, into which the BIOS measures.
    AssessedTpm "assessed-tpm" Facts { tpm: true, ..ASSESSED };
    /// With Debian's programs, for changes that they make.
    AssessedPrograms "assessed-programs" assessed_programs("");
    /// The same with SELinux enforcing, before any policy is loaded.
    AssessedPolicy "assessed-policy" assessed_programs("security=selinux enforcing=1");
    /// As [`Boot::Assessed`], for changes that only a reboot undoes.
    AssessedForGood "assessed-for-good" ASSESSED;
    /// As [`Boot::Assessed`], for what `stockade assess` leaves behind.
    AssessedTwice "assessed-twice" GENERIC;
    /// As distributed, for kernels on which Stockade refuses to enforce.
    TooOld "too-old" USUAL;
}

impl Boot {
    /// Whether firmware may say something before the guest does.
    #[must_use]
    pub fn has_firmware(self) -> bool {
        self.facts().firmware.is_some() || self.facts().packaged
    }

    /// Whether the firmware has to refuse it: the scenario is then played by the host.
    #[must_use]
    pub fn is_refused(self) -> bool {
        self.facts().firmware.is_some_and(|setup| setup.secure_boot && setup.image != Image::Signed)
    }
}

impl fmt::Display for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Boot;

    #[test]
    fn names_are_unique() {
        let names: BTreeSet<_> = Boot::ALL.iter().map(|boot| boot.name()).collect();
        assert_eq!(names.len(), Boot::ALL.len());
    }

    #[test]
    fn what_is_refused_is_refused_by_firmware() {
        let refused: Vec<_> = Boot::ALL.iter().filter(|boot| boot.is_refused()).collect();
        assert_eq!(refused, [&Boot::Unsigned, &Boot::Altered]);
    }
}
