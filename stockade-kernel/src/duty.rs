/*!
What each program of ours is for, what it is attached to, and what it is called in the kernel.
*/
use std::collections::HashMap;

use stockade_common::{GuardOffsets, Seal, kinds};

use crate::{
    Error,
    btf::{self, KernelTypes},
    sys,
};

/// Names of the deciding programs in the kernel, as `bpftool prog` shows them: without and with places and exceptions.
pub(crate) const PROGRAM_NAMES: [&[u8; 16]; 2] = [b"stockade\0\0\0\0\0\0\0\0", b"stockade_whole\0\0"];

/// What a program is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Duty {
    /// Decides, for policies without places and exceptions.
    Decide,
    /// Decides, for all policies.
    DecideWhole,
    /// Gives new cgroups their place.
    PlaceNew,
    /// Forgets cgroups that are gone.
    ForgetPlace,
    /// Labels processes when they execute a program.
    Label,
    /// Hands labels on to children.
    HandOn,
    /// Takes labels from processes that are traced.
    Traced,
    /// The same where they ask for it.
    TraceMe,
    /// Holds settings.
    Settings,
    /// As [`Duty::Decide`], held by the root cgroup.
    Sealed,
    /// As [`Duty::DecideWhole`], held by the root cgroup.
    SealedWhole,
    /// As [`Duty::Label`], held by the root cgroup.
    SealedLabel,
    /// As [`Duty::HandOn`], held by the root cgroup.
    SealedHandOn,
    /// As [`Duty::Traced`], held by the root cgroup.
    SealedTraced,
    /// As [`Duty::TraceMe`], held by the root cgroup.
    SealedTraceMe,
    /// Keeps foreign programs out that could reach ours.
    GuardPrograms,
    /// Keeps maps that programs write from others.
    GuardMaps,
    /// Keeps files of other security modules from being written.
    GuardFiles,
    /// Keeps our programs on the root cgroup.
    GuardCalls,
    /// Lists where every task of the machine is, while a seal is made.
    ListTasks,
}

impl Duty {
    /// What a policy with places needs.
    pub const PLACES: [Self; 2] = [Self::PlaceNew, Self::ForgetPlace];
    /// What a policy with exceptions by program needs.
    pub const LABELS: [Self; 4] = [Self::Label, Self::HandOn, Self::Traced, Self::TraceMe];
    /// The same, held by the root cgroup.
    pub const SEALED_LABELS: [Self; 4] =
        [Self::SealedLabel, Self::SealedHandOn, Self::SealedTraced, Self::SealedTraceMe];
    /// All that pins can hold.
    pub const PINNED: [Self; 9] = [
        Self::Decide,
        Self::DecideWhole,
        Self::Settings,
        Self::PlaceNew,
        Self::ForgetPlace,
        Self::Label,
        Self::HandOn,
        Self::Traced,
        Self::TraceMe,
    ];
    /// All that the root cgroup can hold without a link.
    pub const SEALED: [Self; 11] = [
        Self::Settings,
        Self::Sealed,
        Self::SealedWhole,
        Self::SealedLabel,
        Self::SealedHandOn,
        Self::SealedTraced,
        Self::SealedTraceMe,
        Self::GuardPrograms,
        Self::GuardMaps,
        Self::GuardFiles,
        Self::GuardCalls,
    ];

    /// The program's name in the object.
    pub fn program(self) -> &'static str {
        match self {
            Self::Decide => "locked_down",
            Self::DecideWhole => "locked_down_whole",
            Self::PlaceNew => "cgroup_mkdir",
            Self::ForgetPlace => "cgroup_release",
            Self::Label => "bprm_committed_creds",
            Self::HandOn => "task_alloc",
            Self::Traced => "ptrace_access_check",
            Self::TraceMe => "ptrace_traceme",
            Self::Settings => "settings",
            Self::Sealed => "sealed",
            Self::SealedWhole => "sealed_whole",
            Self::SealedLabel => "sealed_label",
            Self::SealedHandOn => "sealed_hand_on",
            Self::SealedTraced => "sealed_traced",
            Self::SealedTraceMe => "sealed_trace_me",
            Self::GuardPrograms => "guard_programs",
            Self::GuardMaps => "guard_maps",
            Self::GuardFiles => "guard_files",
            Self::GuardCalls => "guard_calls",
            Self::ListTasks => "list_tasks",
        }
    }

    /// The name of its link's pin. What the root cgroup holds has none.
    pub fn pin(self) -> &'static str {
        match self {
            Self::Decide | Self::DecideWhole => "link",
            Self::PlaceNew => "link-place-new",
            Self::ForgetPlace => "link-forget-place",
            Self::Label => "link-label",
            Self::HandOn => "link-hand-on",
            Self::Traced => "link-traced",
            Self::TraceMe => "link-trace-me",
            Self::Settings => "link-settings",
            _ => unreachable!("held by the root cgroup or by a process, not by a pin"),
        }
    }

    /// The hook it is attached to, as the kernel's own code calls it.
    pub fn hook_name(self) -> &'static str {
        let name = self.hook().map_or("sysctl", |(_, name)| name);
        name.strip_prefix("bpf_lsm_").or_else(|| name.strip_prefix("btf_trace_")).unwrap_or(name)
    }

    /// How the root cgroup holds it: one of `enum bpf_attach_type`.
    pub fn held_as(self) -> u32 {
        debug_assert!(Self::SEALED.contains(&self), "{self:?} is attached by a link");
        if self == Self::Settings { kinds::ATTACH_CGROUP_SYSCTL } else { kinds::ATTACH_LSM_CGROUP }
    }

    /// Kind and name, in the kernel's types, of what it is attached to; none for the root of the cgroup tree.
    fn hook(self) -> Option<(u32, &'static str)> {
        Some(match self {
            Self::Decide | Self::DecideWhole | Self::Sealed | Self::SealedWhole => {
                (btf::FUNC, "bpf_lsm_locked_down")
            }
            Self::PlaceNew => (btf::TYPEDEF, "btf_trace_cgroup_mkdir"),
            Self::ForgetPlace => (btf::TYPEDEF, "btf_trace_cgroup_release"),
            Self::Label | Self::SealedLabel => (btf::FUNC, "bpf_lsm_bprm_committed_creds"),
            Self::HandOn | Self::SealedHandOn => (btf::FUNC, "bpf_lsm_task_alloc"),
            Self::Traced | Self::SealedTraced => (btf::FUNC, "bpf_lsm_ptrace_access_check"),
            Self::TraceMe | Self::SealedTraceMe => (btf::FUNC, "bpf_lsm_ptrace_traceme"),
            Self::GuardPrograms => (btf::FUNC, "bpf_lsm_bpf_prog"),
            Self::GuardMaps => (btf::FUNC, "bpf_lsm_bpf_map"),
            Self::GuardFiles => (btf::FUNC, "bpf_lsm_file_open"),
            Self::GuardCalls => (btf::FUNC, "bpf_lsm_bpf"),
            Self::ListTasks => (btf::FUNC, "bpf_iter_task"),
            Self::Settings => return None,
        })
    }

    /// The program's name in the kernel.
    pub fn shown(self) -> [u8; 16] {
        let name = match self {
            Self::Decide => return *PROGRAM_NAMES[0],
            Self::DecideWhole => return *PROGRAM_NAMES[1],
            held if Self::SEALED.contains(&held) || held == Self::ListTasks => {
                format!("st_{}", held.program())
            }
            linked => format!("st{}", linked.pin()["link".len()..].replace('-', "_")),
        };
        let mut shown = [0; 16];
        // The last byte is a zero.
        for (to, byte) in shown[..15].iter_mut().zip(name.bytes()) {
            *to = byte;
        }
        shown
    }

    /// Where these are attached on the running kernel.
    pub fn targets(duties: &[Self]) -> Result<Vec<sys::Target>, Error> {
        let hooks: Vec<_> = duties.iter().filter_map(|duty| duty.hook()).collect();
        // Reading the kernel's types is most of the work.
        let mut found = if hooks.is_empty() { Vec::new() } else { btf::ids(&hooks)? }.into_iter();
        let targets = duties.iter().map(|duty| {
            let Some((kind, name)) = duty.hook() else { return Ok(sys::Target::cgroup_sysctl()) };
            match found.next().flatten() {
                Some(id) if kind == btf::TYPEDEF => Ok(sys::Target::tracepoint(id)),
                Some(id) => Ok(sys::Target::lsm(id)),
                None => Err(Error::TooOld(name)),
            }
        });
        targets.collect()
    }
}

/// Where the programs of a seal are attached on the running kernel, and where it keeps what they read.
pub(crate) struct Sealing {
    targets: HashMap<Duty, sys::Target>,
    /// For the guards.
    pub offsets: GuardOffsets,
}

impl Sealing {
    /// Looks the hooks and the fields up.
    ///
    /// # Errors
    /// [`Error::TooOld`] where the kernel lacks one.
    pub fn look() -> Result<Self, Error> {
        let (found, offsets) = btf::ids_and_offsets(&Self::hooks(), &GuardOffsets::FIELDS)?;
        Self::new(found, offsets)
    }

    /// [`Sealing::look`] and [`KernelTypes::of_running_kernel`] in one pass over the kernel's BTF.
    ///
    /// # Errors
    /// As [`KernelTypes::of_running_kernel`]; within, as [`Sealing::look`].
    pub fn look_with_types() -> Result<(KernelTypes, Result<Self, Error>), Error> {
        let (types, found, offsets) = btf::types_ids_and_offsets(&Self::hooks(), &GuardOffsets::FIELDS)?;
        Ok((types, Self::new(found, offsets)))
    }

    fn duties() -> impl Iterator<Item = Duty> {
        Duty::SEALED.into_iter().chain([Duty::ListTasks])
    }

    fn hooks() -> Vec<(u32, &'static str)> {
        Self::duties().filter_map(Duty::hook).collect()
    }

    /// Of what was found for each hook and each field.
    fn new(found: Vec<Option<u32>>, offsets: Vec<Option<u32>>) -> Result<Self, Error> {
        let words = offsets.into_iter().collect::<Option<Vec<_>>>().and_then(|words| words.try_into().ok());
        let words =
            words.ok_or(Error::TooOld("fields of programs, maps, files and credentials that guards read"))?;
        let mut found = found.into_iter();
        let target = |duty: Duty| {
            let Some((_, name)) = duty.hook() else { return Ok((duty, sys::Target::cgroup_sysctl())) };
            let id = found.next().flatten().ok_or(Error::TooOld(name))?;
            Ok((
                duty,
                if duty == Duty::ListTasks {
                    sys::Target::iterator(id)
                } else {
                    sys::Target::lsm_of_cgroup(id)
                },
            ))
        };
        let targets = Self::duties().map(target).collect::<Result<_, Error>>()?;
        Ok(Self { targets, offsets: GuardOffsets::from_words(words) })
    }

    /// The hooks and flags of a seal that has the programs for these duties.
    pub fn seal_on(&self, duties: &[Duty], is_bounded: bool) -> Seal {
        let flags = if is_bounded { Seal::BOUNDED } else { 0 };
        let mut seal = Seal { flags, dialogue_hook: self.target(Duty::GuardCalls).hook(), ..Seal::NONE };
        for (hook, duty) in seal.hooks.iter_mut().zip(Duty::SEALED).filter(|(_, duty)| duties.contains(duty))
        {
            *hook = self.target(duty).hook();
        }
        seal
    }

    /// Where the program for a duty is attached.
    pub fn target(&self, duty: Duty) -> sys::Target {
        self.targets[&duty]
    }
}
