/*!
Gaps of a seal: `seal` refuses to leave one without `--best-effort`, and `status` lists them until reboot.
*/
use std::fmt;

use stockade_common::{ReasonSet, Seal, Slot};
use stockade_policy::{
    compile::{CompiledPlace, bit, compile},
    model::{Exception, Policy, Said},
};

use crate::{
    machine::{btf::KernelTypes, host},
    sealed::Sealed,
};

/// A gap that the seal does not close.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gap {
    /// Root can detach the programs that give new cgroups their places.
    NewCgroups,
    /// These programs of others run on accesses to sysctls. They stay, and run before ours; none can be attached any more.
    Sysctl(Vec<String>),
    /// A policy with scopes was added. Its verdicts hold in its scopes, which any process of root may have written.
    AddedScopes,
    /// These exceptions let integrity reasons through, and root can become their subject: by moving into a unit or a cgroup, by becoming
    /// a user, by replacing a program without a digest, or by uprobes in its memory.
    Exceptions(Vec<String>),
    /// These exceptions end, and root can put that off: by keeping the kernel from counting time.
    Ends(Vec<String>),
    /// These reasons of the integrity level are not refused outside of scopes: with them root changes the kernel, and so the seal.
    Reasons(Vec<String>),
    /// Scopes that refuse fewer reasons of the integrity level than the policy does outside of them, each with these reasons. Root can move a process into the cgroup.
    Scopes(Vec<String>),
    /// Which reasons the scopes of the sealed policy refuse is not known, since its description is lost.
    UnknownScopes,
}

impl Gap {
    /// Returns a word or two for a record: `new-cgroups`, or the reasons.
    #[must_use]
    pub fn word(&self) -> String {
        match self {
            Self::NewCgroups => "new-cgroups".into(),
            Self::AddedScopes => "added-scopes".into(),
            Self::Sysctl(programs) => format!("sysctl-programs {}", programs.join(" ")),
            Self::Exceptions(names) => format!("exceptions {}", names.join(" ")),
            Self::Ends(names) => format!("ends {}", names.join(" ")),
            Self::Reasons(reasons) => reasons.join(" "),
            Self::Scopes(scopes) => format!("scopes {}", scopes.join("; ")),
            Self::UnknownScopes => "scopes unknown".into(),
        }
    }

    /// Returns the gaps of a seal.
    pub(crate) fn of_seal(sealed: &Sealed, types: &KernelTypes) -> Vec<Self> {
        let mut slot = sealed.slot();
        slot.words.deny |= sealed.added.deny;
        let places = sealed.policies().any(|policy| policy.words.places != 0);
        let mut open = Self::of(&slot, places && sealed.seal.flags & Seal::NEW_CGROUPS != 0, types);
        if sealed.policies().skip(1).any(|policy| policy.words.places != 0) {
            open.push(Self::AddedScopes);
        }
        let staying: Vec<_> = sealed.seal.staying.iter().filter(|id| **id != 0).map(u32::to_string).collect();
        if !staying.is_empty() {
            open.push(Self::Sysctl(staying));
        }
        if let Some(description) = sealed.description() {
            let policy = &description.policy;
            open.extend(Self::exceptions(policy, types));
            open.extend(Self::ends(policy));
            // What is added without scopes is refused everywhere.
            let deny = sealed.slot().words.deny & !sealed.added.deny;
            let places = compile(policy, description.auto.into(), &types.kernel_reasons(), host::now());
            open.extend(
                places.map_or(Some(Self::UnknownScopes), |tables| Self::scopes(deny, &tables.places, types)),
            );
        } else if slot.words.places != 0 {
            open.push(Self::UnknownScopes);
        }
        open
    }

    /// The scopes among these places that do not refuse all integrity reasons that are in `deny`.
    pub(crate) fn scopes(deny: ReasonSet, places: &[CompiledPlace], types: &KernelTypes) -> Option<Self> {
        let laxer = |place: &CompiledPlace| {
            let free =
                types.reasons.iter().map(|reason| reason.number).filter(|&number| {
                    types.is_integrity(number) && deny & !place.sets.deny & bit(number) != 0
                });
            let free: Vec<_> = free.map(|number| types.reason_id(number)).collect();
            (!free.is_empty()).then(|| format!("{}: {}", place.place, free.join(", ")))
        };
        let scopes: Vec<_> = places.iter().filter_map(laxer).collect();
        (!scopes.is_empty()).then_some(Self::Scopes(scopes))
    }

    /// Returns the exceptions of a policy that end.
    pub(crate) fn ends(policy: &Policy) -> Option<Self> {
        let now = host::now();
        let end = policy.exceptions.iter().filter(|exception| exception.ends(now) != u64::MAX);
        let names: Vec<_> = end.map(|exception| exception.name.value.clone()).collect();
        (!names.is_empty()).then_some(Self::Ends(names))
    }

    /// Returns the exceptions of a policy that void the level.
    pub(crate) fn exceptions(policy: &Policy, types: &KernelTypes) -> Option<Self> {
        let is_integrity = |reason: &Said<String>| {
            let number =
                stockade_reasons::by_id(&reason.value).and_then(|reason| types.number(reason.enum_name));
            number.is_some_and(|number| types.is_integrity(number))
        };
        // Those by program with a digest of fs-verity as well: root can change what a process does by uprobes.
        let voids = |exception: &&Exception| exception.reasons.iter().any(is_integrity);
        let names: Vec<_> =
            policy.exceptions.iter().filter(voids).map(|exception| exception.name.value.clone()).collect();
        (!names.is_empty()).then_some(Self::Exceptions(names))
    }

    /// Returns the gaps that a seal of a policy with this slot has.
    pub(crate) fn of(slot: &Slot, new_cgroups: bool, types: &KernelTypes) -> Vec<Self> {
        let mut open = Vec::new();
        let reasons = types.reasons.iter().map(|reason| reason.number);
        let free: Vec<_> = reasons
            .filter(|&number| types.is_integrity(number) && slot.words.deny & bit(number) == 0)
            .map(|number| types.reason_id(number))
            .collect();
        if !free.is_empty() {
            open.push(Self::Reasons(free));
        }
        if new_cgroups {
            open.push(Self::NewCgroups);
        }
        open
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NewCgroups => f.write_str(
                "new cgroups get their scopes from programs that root can end (unlink the pins, unmount /sys/fs/bpf): \
                 what surrounds such a cgroup then decides for it",
            ),
            Self::AddedScopes => f.write_str(
                "a policy with scopes was added: what it refuses in them is not counted in the level, and was tried only in the cgroup of \
                 this command",
            ),
            Self::Sysctl(programs) => write!(
                f,
                "programs of others that are asked for sysctls stay as they are ({}); whoever loaded them, systemd-networkd for \
                 instance, cannot do so again before the next boot, also not when it is restarted",
                programs.join(", ")
            ),
            Self::Exceptions(names) => write!(
                f,
                "root can be whom these exceptions are for, or change by uprobes what the program does, and change the kernel by what they let \
                 through: {}",
                names.join(", ")
            ),
            Self::Ends(names) => write!(
                f,
                "root can put off when these exceptions end, by keeping the kernel from counting time: {} (`stockade grant --revoke` ends a grant at \
                 once)",
                names.join(", ")
            ),
            Self::Reasons(reasons) => write!(
                f,
                "root can change the kernel, and with it the seal, by what is not refused: {}",
                reasons.join(", ")
            ),
            Self::Scopes(scopes) => write!(
                f,
                "root can change the kernel, and with it the seal, from a process in a cgroup whose scope does not refuse what the policy refuses elsewhere: {}",
                scopes.join("; ")
            ),
            Self::UnknownScopes => f.write_str(
                "which reasons the scopes of the sealed policy refuse is not known, since the description of the policy is lost",
            ),
        }
    }
}
