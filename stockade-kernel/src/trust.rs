/*!
Programs of others that a seal lets in: by the policy, before they are loaded, or by the command that seals.
*/
use stockade_common::{KnownProgram, Seal, TRUSTED_MAX, kinds};
use stockade_policy::{
    model::Policy,
    trusted::{ProgramHook, ProgramKind, TrustedProgram},
};

use crate::{
    Error, btf,
    foreign::{Foreign, Others},
};

/// The kind in a [`KnownProgram`] that stands for one program, by its id in place of the tag. No program has this kind, so that the
/// guard lets none in by it: what is loaded stays, and nothing like it can be loaded.
const BY_ID: u32 = u32::MAX;

/// What a seal is told to let in.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    /// Loaded programs that the command names.
    pub named: Vec<Foreign>,
    /// Loaded programs that the command names by id, and that another guard keeps from being looked at.
    pub by_id: Vec<u32>,
    /// Trusted programs that cannot be loaded on this kernel: name and hook.
    pub without_hook: Vec<(String, String)>,
    /// All of that as the guard compares it.
    pub known: Vec<KnownProgram>,
}

impl Trust {
    /// What the policy and these words of a command's name, each an id or a tag.
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
                trust.add(by_id(id));
            } else {
                let program = others.named(name)?;
                trust.add(program.known().unwrap_or_else(|| by_id(program.id)));
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

    /// Whether it lets a program in.
    pub fn has(&self, program: &Foreign) -> bool {
        program.known().is_some_and(|known| self.known.contains(&known)) || self.is_named(program.id)
    }

    /// Whether an administrator named it to the command that seals.
    pub fn is_named(&self, id: u32) -> bool {
        self.by_id.contains(&id) || self.named.iter().any(|foreign| foreign.id == id)
    }
}

/// The entry of [`Seal::trusted`] for the one loaded program with this id.
pub(crate) fn by_id(id: u32) -> KnownProgram {
    KnownProgram { tag: id.into(), kind: BY_ID, hook: 0 }
}

/// Whether a seal trusts the one program with this id.
pub(crate) fn is_by_id(seal: &Seal, id: u32) -> bool {
    seal.trusted.contains(&by_id(id))
}

/// The kernel's number of a kind.
fn kind(kind: ProgramKind) -> u32 {
    match kind {
        ProgramKind::Lsm => kinds::of(kinds::LSM, kinds::ATTACH_LSM),
        ProgramKind::LsmCgroup => kinds::of(kinds::LSM, kinds::ATTACH_LSM_CGROUP),
        ProgramKind::ModifyReturn => kinds::TRACING,
        ProgramKind::Ext => kinds::EXT,
        ProgramKind::CgroupSysctl => kinds::CGROUP_SYSCTL,
    }
}

/// BTF ids of the functions behind the hooks of these programs, as far as this kernel has them.
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
