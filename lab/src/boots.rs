/*!
The ways a guest can be booted: one entry each.
*/
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    boot::Hardware,
    firmware::{self, Image},
    kernels::Role,
};

/// The properties of a way to boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is so or not, whatever the others are")]
pub struct Facts {
    /// Words that it adds to the kernel's command line.
    pub cmdline: &'static str,
    /// The hardware of its guest.
    pub hardware: Hardware,
    /// The firmware that boots it; without firmware, QEMU loads the kernel itself.
    pub firmware: Option<firmware::Setup>,
    /// Whether the guest has a TPM 2.0.
    pub tpm: bool,
    /// Whether the BIOS boots the bzImage of the package. Only then does the kernel find the firmware tables of a TPM or an IOMMU, and only
    /// then can KASLR choose its address.
    pub packaged: bool,
    /// Whether the guest has the disk of [`crate::userland`].
    pub userland: bool,
    /// Whether the generic flavour of each kernel series is enough: these scenarios take long, and the flavours differ only in drivers.
    pub generic: bool,
}

/// Default boot: the kernel with its default command line.
const USUAL: Facts = Facts {
    cmdline: "",
    hardware: Hardware::USUAL,
    firmware: None,
    tpm: false,
    packaged: false,
    userland: false,
    generic: false,
};

/// Default boot, on the generic flavour of each series only.
const GENERIC: Facts = Facts { generic: true, ..USUAL };

/// [`GENERIC`] with Debian's programs and the modules that they need.
const WITH_PROGRAMS: Facts = Facts { userland: true, ..GENERIC };

/// Returns a boot by EFI firmware, with or without an enrolled key.
const fn by_firmware(secure_boot: bool, image: Image) -> Facts {
    Facts { firmware: Some(firmware::Setup { secure_boot, image }), ..GENERIC }
}

/// Boot of the packaged bzImage by the BIOS, on the generic flavours only.
const ASSESSED: Facts = Facts { packaged: true, ..GENERIC };

/// The word on the kernel's command line that makes a guest mount cgroup v1 instead of cgroup v2.
pub const LEGACY_CGROUPS: &str = "stockade.cgroups=1";

/// Returns [`ASSESSED`] with these words on the command line.
const fn assessed(cmdline: &'static str) -> Facts {
    Facts { cmdline, ..ASSESSED }
}

/// Returns [`ASSESSED`] with this processor model.
const fn on_cpu(cpu: &'static str) -> Facts {
    Facts { hardware: Hardware { cpu, ..Hardware::USUAL }, ..ASSESSED }
}

/// Returns [`ASSESSED`] with these words on the command line, Debian's programs and a writable disk.
const fn assessed_programs(cmdline: &'static str) -> Facts {
    Facts { userland: true, hardware: Hardware { scratch: true, ..Hardware::USUAL }, ..assessed(cmdline) }
}

/// Returns [`ASSESSED`] with this board, these devices and these words on the command line.
const fn with_device(board: &'static str, devices: &'static [&'static str], cmdline: &'static str) -> Facts {
    Facts { hardware: Hardware { board, devices, ..Hardware::USUAL }, cmdline, ..ASSESSED }
}

/// Makes the enum and its table from one list.
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

            /// Returns the name on the guest's command line and in reports.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Boot::$boot => $name,)* }
            }

            /// Returns its properties.
            #[must_use]
            pub fn facts(self) -> Facts {
                match self { $(Boot::$boot => $facts,)* }
            }
        }
    };
}

boots! {
    /// Default boot.
    Plain "plain" USUAL;
    /// Default boot with two processors, for scenarios with concurrent processes.
    TwoProcessors "two-processors" Facts { hardware: Hardware::TWO_PROCESSORS, ..USUAL };
    /// Default boot, for attacks on enforcement that hangs on pins: some leave the guest in disorder.
    PinsAttacked "pins-attacked" GENERIC;
    /// [`Boot::PinsAttacked`] with two processors.
    PinsAttackedTwoProcessors "pins-attacked-two" Facts { hardware: Hardware::TWO_PROCESSORS, ..GENERIC };
    /// Native lockdown at integrity.
    NativeIntegrity "native-integrity" Facts { cmdline: "lockdown=integrity", ..USUAL };
    /// Native lockdown at confidentiality.
    NativeConfidentiality "native-confidentiality" Facts { cmdline: "lockdown=confidentiality", ..USUAL };
    /// Without the bpf LSM. Lockdown is an early LSM: it is active even when `lsm=` omits it.
    NoBpfLsm "no-bpf-lsm" Facts { cmdline: "lsm=landlock,yama,apparmor", ..USUAL };
    /// Default boot, for scenarios that raise native lockdown: the kernel cannot lower it, so no other scenario can follow.
    Raised "raised" USUAL;
    /// [`Boot::Raised`], for the scenario that raises native lockdown while Stockade enforces integrity.
    RaisedOverIntegrity "raised-over-integrity" USUAL;
    /// [`Boot::Raised`], for the scenario that raises native lockdown while Stockade enforces confidentiality.
    RaisedOverConfidentiality "raised-over-confid" USUAL;
    /// Default boot, for scenarios that end sealed: a seal lasts until reboot, so no other scenario can follow.
    Sealed "sealed" USUAL;
    /// A guest that the tutorial seals: a seal lasts until reboot.
    SealedTutorial "sealed-tutorial" USUAL;
    /// [`Boot::Sealed`], for a seal of confidentiality.
    SealedConfidentiality "sealed-confid" GENERIC;
    /// [`Boot::Sealed`], for a command that is killed right after the commit of the seal.
    SealedKilled "sealed-killed" GENERIC;
    /// [`Boot::Sealed`], for a seal that trusts foreign BPF programs.
    SealedTrusting "sealed-trusting" GENERIC;
    /// [`Boot::Sealed`], for a policy that trusts foreign BPF programs before they are loaded.
    SealedTrustingPolicy "sealed-trust-policy" GENERIC;
    /// [`Boot::Sealed`], beside BPF programs that a foreign guard hides.
    SealedHidden "sealed-hidden" GENERIC;
    /// [`Boot::Sealed`], for a policy with exceptions by program.
    SealedPrograms "sealed-programs" GENERIC;
    /// [`Boot::Sealed`], with a disk for a file system with fs-verity.
    SealedVerity "sealed-verity" Facts { hardware: Hardware { scratch: true, ..Hardware::USUAL }, ..WITH_PROGRAMS };
    /// [`Boot::Sealed`], for a policy with scopes.
    SealedScopes "sealed-scopes" GENERIC;
    /// [`Boot::Sealed`], for a policy that leaves room for scopes.
    SealedRoom "sealed-room" GENERIC;
    /// [`Boot::Sealed`], for a scenario that unmounts cgroup v2 and mounts only cgroup v1.
    SealedLegacy "sealed-legacy" GENERIC;
    /// [`Boot::Sealed`], for a policy with settings.
    SealedSettings "sealed-settings" GENERIC;
    /// Default boot, for attacks on the seal, which lasts until reboot.
    SealAttacked "seal-attacked" GENERIC;
    /// [`Boot::SealAttacked`], for attacks on sealed exceptions and grants.
    SealAttackedExceptions "seal-attacked-except" GENERIC;
    /// [`Boot::SealAttacked`], for attacks on programs to which a sealed policy gives an exception.
    SealAttackedPrograms "seal-attacked-programs" GENERIC;
    /// [`Boot::SealAttacked`] with two processors.
    SealAttackedTwoProcessors "seal-attacked-two" Facts { hardware: Hardware::TWO_PROCESSORS, ..GENERIC };
    /// Default boot, for scenarios in which `seal` fails; the last of them may succeed.
    SealStarved "seal-starved" GENERIC;
    /// [`Boot::SealStarved`], for a scenario that tampers with the programs and maps that `seal` makes.
    SealMeddled "seal-meddled" GENERIC;
    /// Boot by EFI firmware without enrolled keys: Secure Boot is off.
    Efi "efi" by_firmware(false, Image::Unsigned);
    /// Boot by EFI firmware with an enrolled key, of an image signed with it: Secure Boot is on.
    SecureBoot "secure-boot" by_firmware(true, Image::Signed);
    /// Boot by EFI firmware with an enrolled key, of an unsigned image: the firmware must refuse it.
    Unsigned "unsigned" by_firmware(true, Image::Unsigned);
    /// Boot by EFI firmware with an enrolled key, of an image altered after it was signed: the firmware must refuse it.
    Altered "altered" by_firmware(true, Image::Altered);
    /// Default boot, with Debian's programs and the modules that they need.
    Programs "programs" WITH_PROGRAMS;
    /// [`Boot::Programs`] with AppArmor, which is the default, and its tools.
    AppArmor "app-armor" Facts { cmdline: "security=apparmor", ..WITH_PROGRAMS };
    /// [`Boot::AppArmor`], for a scenario that seals the guest.
    AppArmorSealed "app-armor-sealed" Facts { cmdline: "security=apparmor", ..WITH_PROGRAMS };
    /// [`Boot::Programs`] with SELinux enforcing, before any SELinux policy is loaded.
    Selinux "selinux" Facts { cmdline: "security=selinux enforcing=1", ..WITH_PROGRAMS };
    /// Boot of the packaged bzImage, on a machine with a TPM 2.0.
    Tpm "tpm" Facts { tpm: true, packaged: true, ..GENERIC };
    /// The base that most other boots are compared with, and the boot for changes in a running guest.
    Assessed "assessed" ASSESSED;
    /// Without KASLR: the kernel runs at its link address.
    AssessedNoKaslr "assessed-nokaslr" assessed("nokaslr");
    /// Without address space randomization of processes.
    AssessedNoRandomMaps "assessed-norandmaps" assessed("norandmaps");
    /// Without NX: the processor cannot mark a page as not executable.
    AssessedNoNx "assessed-no-nx" on_cpu("max,-nx");
    /// Without mitigations of processor vulnerabilities.
    AssessedNoMitigations "assessed-mitigations" assessed("mitigations=off");
    /// Modules need a valid signature.
    AssessedSignedModules "assessed-sig-enforce" assessed("module.sig_enforce=1");
    /// Native lockdown at integrity.
    AssessedIntegrity "assessed-integrity" assessed("lockdown=integrity");
    /// Native lockdown at confidentiality.
    AssessedConfidentiality "assessed-confid" assessed("lockdown=confidentiality");
    /// FIPS mode.
    AssessedFips "assessed-fips" assessed("fips=1");
    /// SELinux instead of AppArmor.
    AssessedSelinux "assessed-selinux" assessed("security=selinux");
    /// Cgroup v1 only, with the pids controller only.
    AssessedLegacy "assessed-cgroup1" assessed(LEGACY_CGROUPS);
    /// Slab caches are not merged.
    AssessedSlabs "assessed-slabs" assessed("slab_nomerge");
    /// Memory is not zeroed when it is allocated.
    AssessedNotZeroed "assessed-not-zeroed" assessed("init_on_alloc=0");
    /// Memory is zeroed when it is freed.
    AssessedZeroed "assessed-zeroed" assessed("init_on_free=1");
    /// The page allocator's free lists are shuffled.
    AssessedShuffled "assessed-shuffled" assessed("page_alloc.shuffle=1");
    /// The vsyscall page is mapped at its fixed address.
    AssessedVsyscall "assessed-vsyscall" assessed("vsyscall=emulate");
    /// Without debugfs.
    AssessedNoDebugfs "assessed-debugfs" assessed("debugfs=off");
    /// The kernel stack offset is not randomized at system calls.
    AssessedStack "assessed-kstack" assessed("randomize_kstack_offset=off");
    /// A processor without RDRAND and RDSEED.
    AssessedNoGenerator "assessed-no-rdrand" on_cpu("max,-rdrand,-rdseed");
    /// A hypervisor with a VM generation ID, which tells a guest that it was copied.
    AssessedCopied "assessed-vmgenid" with_device("pc", &["edu", "vmgenid,guid=auto"], "");
    /// A machine with an IOMMU that the kernel uses.
    AssessedIommu "assessed-iommu" with_device("q35", &["edu", "intel-iommu"], "");
    /// [`Boot::AssessedIommu`] in strict mode: the IOTLB is flushed at every unmap.
    AssessedIommuStrict "assessed-strict" with_device("q35", &["edu", "intel-iommu"], "iommu.strict=1");
    /// [`Boot::AssessedIommu`] with an IOMMU that the kernel does not use.
    AssessedIommuOff "assessed-iommu-off" with_device("q35", &["edu", "intel-iommu"], "intel_iommu=off");
    /// Without AppArmor, which is active by default, and without SELinux in its place.
    AssessedNoAppArmor "assessed-no-apparmor" assessed("lsm=lockdown,landlock,yama,tomoyo,bpf");
    /// With a TPM into which the BIOS measures.
    AssessedTpm "assessed-tpm" Facts { tpm: true, ..ASSESSED };
    /// With Debian's programs, for changes that need them.
    AssessedPrograms "assessed-programs" assessed_programs("");
    /// [`Boot::AssessedPrograms`] with SELinux enforcing, before any SELinux policy is loaded.
    AssessedPolicy "assessed-policy" assessed_programs("security=selinux enforcing=1");
    /// [`Boot::Assessed`], for changes that only a reboot undoes.
    AssessedForGood "assessed-for-good" ASSESSED;
    /// Default boot, for scenarios about the traces that `stockade assess` leaves.
    AssessedTwice "assessed-twice" GENERIC;
    /// Default boot, for kernels on which Stockade refuses to enforce.
    TooOld "too-old" USUAL;
}

impl Boot {
    /// Reports whether guests with this boot are played on a kernel with this role.
    #[must_use]
    pub fn is_played_on(self, role: Role) -> bool {
        (self == Self::TooOld) == (role == Role::Refused)
    }

    /// Reports whether firmware may write to a serial port before the guest does.
    #[must_use]
    pub fn has_firmware(self) -> bool {
        self.facts().firmware.is_some() || self.facts().packaged
    }

    /// Reports whether the firmware has to refuse the image: such a scenario is played by the host.
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

    use super::{Boot, Role};

    #[test]
    fn a_kernel_that_is_too_old_plays_refusals_alone() {
        assert!(Boot::TooOld.is_played_on(Role::Refused) && !Boot::Plain.is_played_on(Role::Refused));
        for role in [Role::Enforces, Role::OnRequest, crate::kernels::role("given")] {
            assert!(Boot::Plain.is_played_on(role) && !Boot::TooOld.is_played_on(role));
        }
    }

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
