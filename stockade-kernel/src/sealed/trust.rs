/*!
Programs of others that a seal trusts: the policy names them by tag, whether loaded or not; the sealing command names loaded ones.
*/
use stockade_common::{KnownProgram, TRUSTED_MAX, kinds};
use stockade_policy::{
    model::Policy,
    trusted::{ProgramHook, ProgramKind, TrustedProgram},
};

use crate::{
    Error,
    machine::btf,
    sealed::foreign::{self, Foreign, Others},
};

/// The programs of others that a seal trusts.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    /// Loaded programs that the command names.
    pub named: Vec<Foreign>,
    /// Loaded programs that the command names by id, and of which another guard refuses a descriptor.
    pub by_id: Vec<u32>,
    /// Trusted programs that cannot be loaded on this kernel: name and hook.
    pub without_hook: Vec<(String, String)>,
    /// All trusted programs in the form that the guard on programs compares.
    pub known: Vec<KnownProgram>,
}

impl Trust {
    /// Returns the programs that the policy trusts and those that the command names, each by id or tag.
    ///
    /// # Errors
    /// [`Error::Request`] for a word that names no loaded program of such a kind, and for more than a seal has room for.
    pub fn look(policy: &Policy, names: &[String], others: &Others) -> Result<Self, Error> {
        let mut trust = Self::default();
        let hooks = hooks(&policy.seal.trusted)?;
        for program in &policy.seal.trusted {
            let hook = match program.hook.as_ref().map(|said| &said.value) {
                None => 0,
                Some(ProgramHook::Number(number)) => *number,
                Some(ProgramHook::Name(name)) => {
                    let function = program.kind.value.kernel_function(name);
                    let Some((_, id)) =
                        function.and_then(|function| hooks.iter().find(|(name, _)| *name == function))
                    else {
                        trust.without_hook.push((program.name.value.clone(), name.clone()));
                        continue;
                    };
                    *id
                }
            };
            for tag in &program.tags {
                let tag = u64::from_ne_bytes(tag.value.0);
                trust.add(KnownProgram { tag, kind: kind(program.kind.value), hook });
            }
        }
        for name in names {
            if let Some(id) = name.parse().ok().filter(|id| others.hidden.contains(id)) {
                trust.by_id.push(id);
                trust.add(foreign::by_id(id));
            } else {
                let program = others.named(name)?;
                trust.add(program.known().unwrap_or_else(|| foreign::by_id(program.id)));
                trust.named.push(program);
            }
        }
        let count = trust.known.len();
        if count > TRUSTED_MAX {
            return Err(Error::Request(format!(
                "not sealed: {count} programs are trusted, by tag, kind and hook, and a seal has room for {TRUSTED_MAX}: name fewer with \
                 --trust, or remove tags of other kernels and versions from [[seal.trust]] in the policy"
            )));
        }
        Ok(trust)
    }

    fn add(&mut self, program: KnownProgram) {
        if !self.known.contains(&program) {
            self.known.push(program);
        }
    }

    /// Returns the programs of others that run on accesses to sysctls and that are neither trusted nor among `ours`.
    pub fn untrusted_sysctl_programs(&self, others: &Others, ours: &[u32]) -> Vec<Foreign> {
        let runs = others.seen.iter().filter(|program| {
            program.number == kinds::CGROUP_SYSCTL && !ours.contains(&program.id) && !self.has(program)
        });
        runs.cloned().collect()
    }

    /// Reports whether a program is trusted.
    pub fn has(&self, program: &Foreign) -> bool {
        program.known().is_some_and(|known| self.known.contains(&known)) || self.is_named(program.id)
    }

    /// Reports whether the sealing command names the program.
    pub fn is_named(&self, id: u32) -> bool {
        self.by_id.contains(&id) || self.named.iter().any(|foreign| foreign.id == id)
    }
}

/// Returns the number of a kind in [`KnownProgram::kind`].
fn kind(kind: ProgramKind) -> u32 {
    match kind {
        ProgramKind::Lsm => kinds::of(kinds::LSM, kinds::ATTACH_LSM),
        ProgramKind::LsmCgroup => kinds::of(kinds::LSM, kinds::ATTACH_LSM_CGROUP),
        ProgramKind::ModifyReturn => kinds::TRACING,
        ProgramKind::Ext => kinds::EXT,
        ProgramKind::CgroupSysctl => kinds::CGROUP_SYSCTL,
    }
}

/// Returns the kernel functions for the hooks that these programs name, each with its BTF id. Functions that this kernel lacks are left out.
fn hooks(trusted: &[TrustedProgram]) -> Result<Vec<(String, u32)>, Error> {
    let functions: Vec<String> = trusted
        .iter()
        .filter_map(|program| match program.hook.as_ref().map(|said| &said.value)? {
            ProgramHook::Name(name) => program.kind.value.kernel_function(name),
            ProgramHook::Number(_) => None,
        })
        .collect();
    if functions.is_empty() {
        return Ok(Vec::new());
    }
    let wanted: Vec<_> = functions.iter().map(|function| (btf::FUNC, function.as_str())).collect();
    let ids = btf::ids(&wanted)?;
    Ok(functions.iter().cloned().zip(ids).filter_map(|(function, id)| Some((function, id?))).collect())
}
