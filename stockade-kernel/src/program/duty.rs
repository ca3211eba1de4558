/*!
Duties: the purpose of each BPF program of Stockade, its hook, and its names in the object and in the kernel.
*/
use std::collections::HashMap;

use stockade_common::{GuardOffsets, Seal, kinds};

use crate::{
    Error,
    machine::btf::{self, KernelTypes},
    sys,
};

/// Names of the deciding programs in the kernel, as `bpftool prog` shows them: without and with places and exceptions.
pub(crate) const PROGRAM_NAMES: [&[u8; 16]; 2] = [b"stockade\0\0\0\0\0\0\0\0", b"stockade_whole\0\0"];

/// The purpose of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Duty {
    /// Decides for policies without places and exceptions.
    Decide,
    /// Decides for all policies.
    DecideScoped,
    /// Gives new cgroups their places.
    PlaceNew,
    /// Removes the entries of released cgroups.
    ForgetPlace,
    /// Labels processes when they execute a program.
    Label,
    /// Labels child processes.
    HandOn,
    /// Voids labels of traced processes.
    Traced,
    /// Voids labels of processes that call PTRACE_TRACEME.
    TraceMe,
    /// Holds settings.
    Settings,
    /// [`Duty::Decide`] on the root cgroup.
    Sealed,
    /// [`Duty::DecideScoped`] on the root cgroup.
    SealedScoped,
    /// [`Duty::Label`] on the root cgroup.
    SealedLabel,
    /// [`Duty::HandOn`] on the root cgroup.
    SealedHandOn,
    /// [`Duty::Traced`] on the root cgroup; refuses instead.
    SealedTraced,
    /// [`Duty::TraceMe`] on the root cgroup; refuses instead.
    SealedTraceMe,
    /// Refuses to load programs that could override those of a seal.
    GuardPrograms,
    /// Refuses descriptors of the maps of a seal.
    GuardMaps,
    /// Refuses to open files of other security modules for writing.
    GuardFiles,
    /// Refuses to detach the programs of a seal from the root cgroup.
    GuardCalls,
    /// Lists the kernel stack of every task, while a seal is made.
    ListTasks,
}

impl Duty {
    /// Duties that a policy with places needs.
    pub const PLACES: [Self; 2] = [Self::PlaceNew, Self::ForgetPlace];
    /// Duties that a policy with exceptions by program needs.
    pub const LABELS: [Self; 4] = [Self::Label, Self::HandOn, Self::Traced, Self::TraceMe];
    /// Duties that a sealed policy with exceptions by program needs.
    pub const SEALED_LABELS: [Self; 4] =
        [Self::SealedLabel, Self::SealedHandOn, Self::SealedTraced, Self::SealedTraceMe];
    /// Duties whose links can be pinned.
    pub const PINNED: [Self; 9] = [
        Self::Decide,
        Self::DecideScoped,
        Self::Settings,
        Self::PlaceNew,
        Self::ForgetPlace,
        Self::Label,
        Self::HandOn,
        Self::Traced,
        Self::TraceMe,
    ];
    /// Duties that the root cgroup can hold without a link.
    pub const SEALED: [Self; 11] = [
        Self::Settings,
        Self::Sealed,
        Self::SealedScoped,
        Self::SealedLabel,
        Self::SealedHandOn,
        Self::SealedTraced,
        Self::SealedTraceMe,
        Self::GuardPrograms,
        Self::GuardMaps,
        Self::GuardFiles,
        Self::GuardCalls,
    ];

    /// Returns the program's name in the object.
    pub fn program(self) -> &'static str {
        match self {
            Self::Decide => "locked_down",
            Self::DecideScoped => "locked_down_whole",
            Self::PlaceNew => "cgroup_mkdir",
            Self::ForgetPlace => "cgroup_release",
            Self::Label => "bprm_committed_creds",
            Self::HandOn => "task_alloc",
            Self::Traced => "ptrace_access_check",
            Self::TraceMe => "ptrace_traceme",
            Self::Settings => "settings",
            Self::Sealed => "sealed",
            Self::SealedScoped => "sealed_whole",
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

    /// Returns the name of the pin of its link. Sealed programs have none.
    pub fn pin(self) -> &'static str {
        match self {
            Self::Decide | Self::DecideScoped => "link",
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

    /// Returns the name of its hook in the kernel's sources.
    pub fn hook_name(self) -> &'static str {
        let name = self.hook().map_or("sysctl", |(_, name)| name);
        name.strip_prefix("bpf_lsm_").or_else(|| name.strip_prefix("btf_trace_")).unwrap_or(name)
    }

    /// Returns the `enum bpf_attach_type` of its attachment to the root cgroup.
    pub fn held_as(self) -> u32 {
        debug_assert!(Self::SEALED.contains(&self), "{self:?} is attached by a link");
        if self == Self::Settings { kinds::ATTACH_CGROUP_SYSCTL } else { kinds::ATTACH_LSM_CGROUP }
    }

    /// Returns BTF kind and BTF name of its hook; `None` for a CGROUP_SYSCTL program.
    fn hook(self) -> Option<(u32, &'static str)> {
        Some(match self {
            Self::Decide | Self::DecideScoped | Self::Sealed | Self::SealedScoped => {
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

    /// Returns the program's name in the kernel.
    pub fn shown(self) -> [u8; 16] {
        let name = match self {
            Self::Decide => return *PROGRAM_NAMES[0],
            Self::DecideScoped => return *PROGRAM_NAMES[1],
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

    /// Returns the targets of these duties on the running kernel.
    pub fn targets(duties: &[Self]) -> Result<Vec<sys::Target>, Error> {
        let hooks: Vec<_> = duties.iter().filter_map(|duty| duty.hook()).collect();
        // Reading BTF takes most of the time, so all hooks are looked up in one pass.
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

/// The hooks of a seal's programs on the running kernel, and the offsets of fields that they read.
pub(crate) struct Sealing {
    targets: HashMap<Duty, sys::Target>,
    /// Offsets for the guards.
    pub offsets: GuardOffsets,
}

impl Sealing {
    /// Looks up the hooks and fields.
    ///
    /// # Errors
    /// [`Error::TooOld`] if the kernel lacks one.
    pub fn look() -> Result<Self, Error> {
        let (found, offsets) = btf::ids_and_offsets(&Self::hooks(), &GuardOffsets::FIELDS)?;
        Self::new(found, offsets)
    }

    /// [`Sealing::look`] and [`KernelTypes::of_running_kernel`] in one pass over the kernel's BTF.
    ///
    /// # Errors
    /// The errors of [`KernelTypes::of_running_kernel`]; in the inner result, those of [`Sealing::look`].
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

    /// Makes the value from what was found for each hook and each field.
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

    /// Returns a seal with the hooks and flags for these duties, and nothing else.
    pub fn seal_on(&self, duties: &[Duty], is_bounded: bool) -> Seal {
        let flags = if is_bounded { Seal::BOUNDED } else { 0 };
        let mut seal = Seal { flags, dialogue_hook: self.target(Duty::GuardCalls).hook(), ..Seal::NONE };
        for (hook, duty) in seal.hooks.iter_mut().zip(Duty::SEALED).filter(|(_, duty)| duties.contains(duty))
        {
            *hook = self.target(duty).hook();
        }
        seal
    }

    /// Returns the target of a duty's program.
    pub fn target(&self, duty: Duty) -> sys::Target {
        self.targets[&duty]
    }
}
