/*!
What a scenario is, and the ways a guest can be booted for it.
*/
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    firmware::{self, Image},
    guest::Guest,
};

/// One story played in a guest: given a guest booted so, when root does this, then that.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Unique; a sentence that is true when the scenario passes.
    pub name: &'static str,
    /// How the guest is booted. Scenarios of one kind of boot share a guest and run in the order of [`crate::scenarios::all`].
    pub boot: Boot,
    /// The story. Any error, panic or hang is a failure, except [`Skip`].
    pub run: fn(&Guest) -> anyhow::Result<()>,
}

/// A way to boot a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Boot {
    /// As distributed.
    Plain,
    /// The same with two processors, for what happens at once.
    TwoProcessors,
    /// As distributed, for attacks on enforcement that lives in pins: some leave the guest in disorder.
    PinsAttacked,
    /// The same with two processors.
    PinsAttackedTwoProcessors,
    /// The kernel's own lockdown at integrity.
    NativeIntegrity,
    /// The kernel's own lockdown at confidentiality.
    NativeConfidentiality,
    /// Without the bpf LSM.
    NoBpfLsm,
    /// As distributed, for scenarios that raise native lockdown, which no later one could lower.
    Raised,
    /// As [`Boot::Raised`], for the scenario that raises it over Stockade's integrity.
    RaisedOverIntegrity,
    /// As [`Boot::Raised`], for the scenario that raises it over Stockade's confidentiality.
    RaisedOverConfidentiality,
    /// As distributed, for scenarios that end sealed, which no later one could lift.
    Sealed,
    /// As [`Boot::Sealed`], for a command that is killed right after the seal was closed.
    SealedKilled,
    /// As [`Boot::Sealed`], for a seal beside programs of others.
    SealedTrusting,
    /// As [`Boot::Sealed`], for a policy with exceptions by program.
    SealedPrograms,
    /// As [`Boot::Sealed`], for a policy with scopes.
    SealedScopes,
    /// As [`Boot::Sealed`], with cgroups of version 1 alone.
    SealedLegacy,
    /// As [`Boot::Sealed`], for a policy with settings.
    SealedSettings,
    /// As distributed, for attacks on the seal, which only a reboot ends.
    SealAttacked,
    /// The same, for attacks on exceptions and grants of what is sealed.
    SealAttackedExceptions,
    /// The same with two processors.
    SealAttackedTwoProcessors,
    /// As distributed, for scenarios in which `seal` fails, the last of which may succeed.
    SealStarved,
    /// The same for one that meddles with what `seal` makes.
    SealMeddled,
    /// By EFI firmware without keys: Secure Boot is off.
    Efi,
    /// By EFI firmware with an enrolled key, from an image signed with it: Secure Boot is on.
    SecureBoot,
    /// By EFI firmware with an enrolled key, from an image without a signature: it must not boot at all.
    Unsigned,
    /// By EFI firmware with an enrolled key, from a signed image that was altered: it must not boot at all.
    Altered,
    /// As distributed, with Debian's programs and modules for them.
    Programs,
    /// The same with AppArmor, as distributed, and its tools.
    AppArmor,
    /// The same with SELinux enforcing, before any policy is loaded.
    Selinux,
    /// As distributed, on a machine with a TPM 2.0.
    Tpm,
}

impl Boot {
    /// Every way to boot.
    pub const ALL: [Boot; 30] = [
        Boot::Plain,
        Boot::TwoProcessors,
        Boot::PinsAttacked,
        Boot::PinsAttackedTwoProcessors,
        Boot::NativeIntegrity,
        Boot::NativeConfidentiality,
        Boot::NoBpfLsm,
        Boot::Raised,
        Boot::RaisedOverIntegrity,
        Boot::RaisedOverConfidentiality,
        Boot::Sealed,
        Boot::SealedKilled,
        Boot::SealedTrusting,
        Boot::SealedPrograms,
        Boot::SealedScopes,
        Boot::SealedLegacy,
        Boot::SealedSettings,
        Boot::SealAttacked,
        Boot::SealAttackedExceptions,
        Boot::SealAttackedTwoProcessors,
        Boot::SealStarved,
        Boot::SealMeddled,
        Boot::Efi,
        Boot::SecureBoot,
        Boot::Unsigned,
        Boot::Altered,
        Boot::Programs,
        Boot::AppArmor,
        Boot::Selinux,
        Boot::Tpm,
    ];

    /// The word for it on the guest's command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Boot::Plain => "plain",
            Boot::TwoProcessors => "two-processors",
            Boot::PinsAttacked => "pins-attacked",
            Boot::PinsAttackedTwoProcessors => "pins-attacked-two",
            Boot::NativeIntegrity => "native-integrity",
            Boot::NativeConfidentiality => "native-confidentiality",
            Boot::NoBpfLsm => "no-bpf-lsm",
            Boot::Raised => "raised",
            Boot::RaisedOverIntegrity => "raised-over-integrity",
            Boot::RaisedOverConfidentiality => "raised-over-confid",
            Boot::Sealed => "sealed",
            Boot::SealedKilled => "sealed-killed",
            Boot::SealedTrusting => "sealed-trusting",
            Boot::SealedPrograms => "sealed-programs",
            Boot::SealedScopes => "sealed-scopes",
            Boot::SealedLegacy => "sealed-legacy",
            Boot::SealedSettings => "sealed-settings",
            Boot::SealAttacked => "seal-attacked",
            Boot::SealAttackedExceptions => "seal-attacked-except",
            Boot::SealAttackedTwoProcessors => "seal-attacked-two",
            Boot::SealStarved => "seal-starved",
            Boot::SealMeddled => "seal-meddled",
            Boot::Efi => "efi",
            Boot::SecureBoot => "secure-boot",
            Boot::Unsigned => "unsigned",
            Boot::Altered => "altered",
            Boot::Programs => "programs",
            Boot::AppArmor => "app-armor",
            Boot::Selinux => "selinux",
            Boot::Tpm => "tpm",
        }
    }

    /// The way of booting with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Boot> {
        Boot::ALL.into_iter().find(|boot| boot.name() == name)
    }

    /// The firmware it takes; without, QEMU loads the kernel by itself.
    #[must_use]
    pub fn firmware(self) -> Option<firmware::Setup> {
        match self {
            Boot::Efi => Some(firmware::Setup { secure_boot: false, image: Image::Unsigned }),
            Boot::SecureBoot => Some(firmware::Setup { secure_boot: true, image: Image::Signed }),
            Boot::Unsigned => Some(firmware::Setup { secure_boot: true, image: Image::Unsigned }),
            Boot::Altered => Some(firmware::Setup { secure_boot: true, image: Image::Altered }),
            _ => None,
        }
    }

    /// Whether firmware may say something before the guest does.
    #[must_use]
    pub fn has_firmware(self) -> bool {
        self.firmware().is_some() || self == Boot::Tpm
    }

    /// Whether the firmware has to refuse it: the scenario is then played by the host.
    #[must_use]
    pub fn is_refused(self) -> bool {
        matches!(self, Boot::Unsigned | Boot::Altered)
    }

    /// What it adds to the kernel's command line.
    #[must_use]
    pub fn cmdline(self) -> &'static str {
        match self {
            Boot::Plain
            | Boot::TwoProcessors
            | Boot::PinsAttacked
            | Boot::PinsAttackedTwoProcessors
            | Boot::Raised
            | Boot::RaisedOverIntegrity
            | Boot::RaisedOverConfidentiality
            | Boot::Sealed
            | Boot::SealedKilled
            | Boot::SealedTrusting
            | Boot::SealedPrograms
            | Boot::SealedScopes
            | Boot::SealedLegacy
            | Boot::SealedSettings
            | Boot::SealAttacked
            | Boot::SealAttackedExceptions
            | Boot::SealAttackedTwoProcessors
            | Boot::SealStarved
            | Boot::SealMeddled
            | Boot::Efi
            | Boot::Programs
            | Boot::Tpm
            | Boot::SecureBoot
            | Boot::Unsigned
            | Boot::Altered => "",
            Boot::NativeIntegrity => "lockdown=integrity",
            Boot::NativeConfidentiality => "lockdown=confidentiality",
            // The lockdown LSM is early: it is there even when a list omits it.
            Boot::NoBpfLsm => "lsm=landlock,yama,apparmor",
            Boot::AppArmor => "security=apparmor",
            Boot::Selinux => "security=selinux enforcing=1",
        }
    }

    /// How many processors its guest has. Emulated ones take turns with the host's few, so one is the rule.
    #[must_use]
    pub fn processors(self) -> u32 {
        let two = matches!(
            self,
            Boot::TwoProcessors | Boot::PinsAttackedTwoProcessors | Boot::SealAttackedTwoProcessors
        );
        if two { 2 } else { 1 }
    }

    /// Whether one flavour of each kernel series is enough, the generic one: what is played there is long, and the flavours
    /// differ in drivers alone.
    #[must_use]
    pub fn wants_generic(self) -> bool {
        matches!(
            self,
            Boot::PinsAttacked
                | Boot::PinsAttackedTwoProcessors
                | Boot::SealAttacked
                | Boot::SealAttackedExceptions
                | Boot::SealAttackedTwoProcessors
                | Boot::SealStarved
                | Boot::SealMeddled
                | Boot::SealedKilled
                | Boot::SealedTrusting
                | Boot::SealedPrograms
                | Boot::SealedScopes
                | Boot::SealedLegacy
                | Boot::SealedSettings
                | Boot::Tpm
                | Boot::Programs
                | Boot::AppArmor
                | Boot::Selinux
        )
    }

    /// Whether its guest has [`crate::userland`]'s disk.
    #[must_use]
    pub fn has_userland(self) -> bool {
        matches!(self, Boot::Programs | Boot::AppArmor | Boot::Selinux)
    }
}

impl fmt::Display for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Returned by a scenario that cannot be played on this kernel, with the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skip(pub String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

#[cfg(test)]
mod tests {
    use super::Boot;

    #[test]
    fn names_lead_back() {
        for boot in Boot::ALL {
            assert_eq!(Boot::from_name(boot.name()), Some(boot));
        }
        assert_eq!(Boot::from_name("sideways"), None);
    }
}
