/*!
Prepares a policy for this machine: compiles it, resolves its programs, describes it, and determines which BPF programs it needs.
*/
use stockade_common::{Sets, Slot};
use stockade_policy::{
    compile::{CompileError, Tables, compile},
    finder::Finder,
    model::Policy,
};
use stockade_reasons::Level;

use crate::{
    Error,
    machine::{
        btf::KernelTypes,
        cgroups,
        executables::{self, Executable},
        host,
    },
    pinned::{
        description::{self, Description},
        pins,
        tables::Maps,
    },
    program::duty::Duty,
    sys::step,
};

/// A policy that is ready for this machine.
pub(crate) struct Ready {
    pub tables: Tables,
    pub executables: Vec<Executable>,
    pub slot: Slot,
    pub description: Description,
    described: description::Bytes,
}

impl Ready {
    pub fn new(types: &KernelTypes, policy: Policy, auto: Level) -> Result<Self, Error> {
        let policy = policy.try_with_units(cgroups::of_unit)?;
        let tables = compile(&policy, auto, &types.kernel_reasons(), host::now())
            .map_err(|e: CompileError| Error::Request(e.to_string()))?;
        if !tables.places.is_empty() {
            cgroups::root()?;
        }
        if !tables.settings.is_empty() && !pins::works(Duty::Settings) {
            cgroups::open_root()?;
        }
        let needs_fields = !tables.places.is_empty() || !tables.programs.is_empty();
        if needs_fields {
            has_fields(types, "scopes and exceptions do")?;
        }
        if !tables.programs.is_empty() {
            types.find_late_fields()?;
        }
        let mut mounts = executables::Mounts::default();
        let look_up = |program| executables::look_up(program, &mut mounts);
        let executables: Vec<Executable> = tables.programs.iter().map(look_up).collect::<Result<_, _>>()?;
        let programs = tables.programs.iter().zip(&executables).map(|(program, seen)| description::Program {
            path: program.path.clone(),
            inode: seen.inode,
            device: seen.device,
            changed: (seen.program.ctime, seen.program.ctime_nsec),
        });
        let description = Description {
            auto: auto.into(),
            places: tables.places.iter().map(|place| place.place.clone()).collect(),
            programs: programs.collect(),
            policy: policy.without_origins(),
        };
        let described = description.bytes()?;
        let slot = Slot { digest: described.digest, ..slot(&tables, &description.policy, auto, types) };
        Ok(Self { tables, executables, slot, description, described })
    }

    /// Returns the deciding program that the policy needs.
    pub fn decider(&self) -> Duty {
        // Settings have a program of their own.
        let whole = !self.tables.places.is_empty() || !self.tables.exceptions.is_empty();
        if whole { Duty::DecideScoped } else { Duty::Decide }
    }

    /// Returns the duties that the policy needs beside the deciding program.
    pub fn duties(&self) -> Vec<Duty> {
        let mut duties = Vec::new();
        if !self.tables.places.is_empty() {
            duties.extend(Duty::PLACES);
        }
        if !self.tables.programs.is_empty() {
            duties.extend(Duty::LABELS);
        }
        if !self.tables.settings.is_empty() {
            duties.push(Duty::Settings);
        }
        duties
    }

    /// Returns the duties of the sealed policy, the deciding program last.
    pub fn sealed_duties(&self) -> Vec<Duty> {
        let mut duties = Vec::new();
        if !self.tables.programs.is_empty() {
            duties.extend(Duty::SEALED_LABELS);
        }
        if !self.tables.settings.is_empty() {
            duties.push(Duty::Settings);
        }
        let whole = self.decider() == Duty::DecideScoped || self.has_room();
        duties.push(if whole { Duty::SealedScoped } else { Duty::Sealed });
        duties
    }

    /// Reports whether the policy has `room-for-scopes`, so that scopes and exceptions can be added to its seal.
    fn has_room(&self) -> bool {
        self.description.policy.seal.room_for_scopes.value
    }

    /// Reports whether a seal of the policy gives new cgroups their places: because it has places, or so that places can be added.
    ///
    /// # Errors
    /// [`Error::Request`] if this machine does not support added places.
    pub fn is_sealed_with_places(&self, types: &KernelTypes) -> Result<bool, Error> {
        if self.has_room() {
            cgroups::root()?;
            has_fields(types, "room for scopes in a seal does")?;
        }
        Ok(self.has_room() || !self.tables.places.is_empty())
    }

    /// Reports whether the policy refuses nothing anywhere.
    pub fn refuses_nothing(&self) -> bool {
        self.slot.words.deny == 0 && self.tables.places.iter().all(|place| place.sets.deny == 0)
    }

    /// Returns the watched reasons for this process.
    pub fn watched_here(&self) -> u64 {
        self.here().map_or(self.slot.words.watched, |sets| sets.watched)
    }

    /// Returns the sets of the place that decides for this process.
    fn here(&self) -> Option<Sets> {
        Finder::new(&self.tables.places).nearest(&cgroups::own()?)
    }

    /// Writes tables and description under a generation.
    pub fn write(&mut self, maps: &Maps, generation: u64) -> Result<(), Error> {
        maps.write(&self.tables, &self.executables, generation)?;
        self.describe(generation)
    }

    /// Writes the description under a generation.
    pub fn describe(&mut self, generation: u64) -> Result<(), Error> {
        self.slot.words.generation = generation;
        self.described.write(generation)?;
        step("tables-written");
        Ok(())
    }
}

/// Fails if the kernel lacks a field that places and exceptions need.
fn has_fields(types: &KernelTypes, they_do: &str) -> Result<(), Error> {
    types.missing.first().map_or(Ok(()), |(owner, field)| {
        Err(Error::Request(format!(
            "this kernel keeps no {owner}.{field} that could be found, so {they_do} not work here; levels and [reasons] do"
        )))
    })
}

fn slot(tables: &Tables, policy: &Policy, auto: Level, types: &KernelTypes) -> Slot {
    use stockade_policy::model::{Mode, Verdict};
    let named = |verdict| {
        policy.reasons.iter().filter(|(_, said)| said.value == verdict).fold(0, |set, (id, _)| {
            let number = types.number(stockade_policy::model::known(id).enum_name);
            set | number.map_or(0, stockade_policy::compile::bit)
        })
    };
    Slot {
        words: tables.words,
        allow: named(Verdict::Allow),
        deny_extra: named(Verdict::Deny),
        audit_extra: named(Verdict::Audit),
        applied_boot_ns: host::boot_ns(),
        digest: 0,
        level: match policy.level.value.settled(auto) {
            Level::None => 0,
            Level::Integrity => 1,
            Level::Confidentiality => 2,
        },
        audit: u8::from(policy.mode.value == Mode::Audit),
        has_tables: u8::from(
            !tables.places.is_empty() || !tables.exceptions.is_empty() || !tables.settings.is_empty(),
        ),
        pad: [0; 5],
    }
}
