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
pub struct Facts {
    /// What it adds to the kernel's command line.
    pub cmdline: &'static str,
    /// What its guest's machine is made of.
    pub hardware: Hardware,
    /// The firmware it takes; without, QEMU loads the kernel by itself.
    pub firmware: Option<firmware::Setup>,
    /// Whether there is a TPM 2.0. The BIOS then boots the kernel as it is packaged.
    pub tpm: bool,
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
    /// As [`Boot::Sealed`], for a command that is killed right after the seal was closed.
    SealedKilled "sealed-killed" GENERIC;
    /// As [`Boot::Sealed`], for a seal beside programs of others.
    SealedTrusting "sealed-trusting" GENERIC;
    /// As [`Boot::Sealed`], for a policy with exceptions by program.
    SealedPrograms "sealed-programs" GENERIC;
    /// As [`Boot::Sealed`], for a policy with scopes.
    SealedScopes "sealed-scopes" GENERIC;
    /// As [`Boot::Sealed`], with cgroups of version 1 alone.
    SealedLegacy "sealed-legacy" GENERIC;
    /// As [`Boot::Sealed`], for a policy with settings.
    SealedSettings "sealed-settings" GENERIC;
    /// As distributed, for attacks on the seal, which only a reboot ends.
    SealAttacked "seal-attacked" GENERIC;
    /// The same, for attacks on exceptions and grants of what is sealed.
    SealAttackedExceptions "seal-attacked-except" GENERIC;
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
    /// The same with SELinux enforcing, before any policy is loaded.
    Selinux "selinux" Facts { cmdline: "security=selinux enforcing=1", ..WITH_PROGRAMS };
    /// As distributed, on a machine with a TPM 2.0.
    Tpm "tpm" Facts { tpm: true, ..GENERIC };
}

impl Boot {
    /// The way of booting with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Boot> {
        Boot::ALL.iter().copied().find(|boot| boot.name() == name)
    }

    /// Whether firmware may say something before the guest does.
    #[must_use]
    pub fn has_firmware(self) -> bool {
        self.facts().firmware.is_some() || self.facts().tpm
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
    use super::Boot;

    #[test]
    fn names_lead_back() {
        for boot in Boot::ALL {
            assert_eq!(Boot::from_name(boot.name()), Some(*boot));
        }
        assert_eq!(Boot::from_name("sideways"), None);
    }

    #[test]
    fn what_is_refused_is_refused_by_firmware() {
        let refused: Vec<_> = Boot::ALL.iter().filter(|boot| boot.is_refused()).collect();
        assert_eq!(refused, [&Boot::Unsigned, &Boot::Altered]);
    }
}
