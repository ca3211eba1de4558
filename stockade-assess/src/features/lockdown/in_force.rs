/*!
The levels in force, the kernel's own and Stockade's, and the reasons that each refuses.
*/
use std::{collections::BTreeMap, io};

use stockade_kernel::{
    Error,
    attach::Attachment,
    btf::KernelTypes,
    host,
    read_back::{self, read_back},
};
use stockade_reasons::Level;

use crate::{System, Unread, mandatory};

/// The file with the kernel's own levels, the one in force in brackets.
pub(in crate::features) const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

/// The kernel's own level and Stockade's.
pub(super) struct InForce {
    pub(super) native: Result<Level, Unread>,
    /// The file that showed the kernel's own level, and its content.
    pub(super) seen: (String, String),
    /// Stockade's policy, none where it has none in force; or the reason why it is not known.
    pub(super) stockade: Result<Option<Stockade>, String>,
    /// The kernel's reasons, where it has BTF.
    pub(super) types: Option<KernelTypes>,
}

/// The state of Stockade's policy, as far as the findings need it.
#[derive(Debug)]
pub(super) struct Stockade {
    pub(super) level: Level,
    /// Whether the mode is audit: nothing is refused, only reported.
    pub(super) audit: bool,
    /// The reasons that are refused everywhere.
    pub(super) refused: Vec<String>,
    /// The reasons of the level that are not refused.
    pub(super) open: Vec<String>,
    /// Whether it is attached without BPF LSM, in the way that can miss a request.
    pub(super) weaker: bool,
    /// Whether the kernel does not run its BPF programs (kernel.ftrace_enabled = 0).
    pub(super) silent: bool,
    /// The gaps of the seal; none if there is no seal.
    pub(super) sealed: Option<Vec<String>>,
    /// The number of refusals by reason.
    pub(super) counts: BTreeMap<String, u64>,
    /// The id of its deciding program.
    pub(super) program: Option<u32>,
}

/// A policy that refuses nothing.
impl Default for Stockade {
    fn default() -> Self {
        Self {
            level: Level::None,
            audit: false,
            refused: Vec::new(),
            open: Vec::new(),
            weaker: false,
            silent: false,
            sealed: None,
            counts: BTreeMap::new(),
            program: None,
        }
    }
}

impl Stockade {
    fn from_state(state: &read_back::InForce, types: &KernelTypes) -> Self {
        let level = match state.slot.level {
            0 => Level::None,
            1 => Level::Integrity,
            _ => Level::Confidentiality,
        };
        let covered = |number| match level {
            Level::None => false,
            Level::Integrity => types.is_integrity(number),
            Level::Confidentiality => true,
        };
        let denied = |number: u32| state.slot.words.deny >> number & 1 == 1;
        let ids = |wanted: &dyn Fn(u32) -> bool| {
            let numbers = types.reasons.iter().map(|reason| reason.number);
            numbers.filter(|number| wanted(*number)).map(|number| types.reason_id(number)).collect()
        };
        Self {
            level,
            audit: state.slot.audit == 1,
            refused: ids(&denied),
            open: ids(&|number| covered(number) && !denied(number)),
            weaker: state.attachment == Attachment::ModifyReturn,
            silent: host::tracing_is_off(),
            sealed: state.sealed.as_ref().map(|seal| seal.open.iter().map(ToString::to_string).collect()),
            counts: state.counts.iter().map(|count| (count.reason.clone(), count.refused)).collect(),
            program: Some(state.program_id),
        }
    }

    /// Reports whether it refuses a reason everywhere.
    pub(super) fn refuses(&self, reason: &str) -> bool {
        !self.silent && self.refused.iter().any(|refused| refused == reason)
    }

    /// Describes the policy in one line.
    pub(super) fn summary(&self) -> String {
        let audited = if self.audit { ", audit mode" } else { "" };
        let sealed = if self.sealed.is_some() { ", sealed" } else { ", not sealed" };
        format!("level {}{audited}, {} reasons refused{sealed}", self.level, self.refused.len())
    }
}

impl InForce {
    pub(super) fn read(system: &System) -> Self {
        let types = system.is_live().then(KernelTypes::of_running_kernel);
        let stockade = match (system.lacks_root(), &types) {
            (_, None) => Err(super::NOT_LIVE.into()),
            (Some(lacks), _) => Err(lacks.to_owned()),
            (None, Some(Ok(types))) => read_stockade(types),
            // Stockade cannot run on such a kernel, so it has nothing in force.
            (None, Some(Err(Error::TooOld(_)))) => Ok(None),
            (None, Some(Err(Error::NoBtf { source, .. })))
                if source.kind() == io::ErrorKind::NotFound && system.exists("/sys/kernel") =>
            {
                Ok(None)
            }
            (None, Some(Err(error))) => Err(join_lines(error)),
        };
        let types = types.and_then(Result::ok);
        let (native, seen) = match native(system) {
            Ok(level) => (Ok(level), (LOCKDOWN.to_owned(), level.to_string())),
            Err(unread) => match built_in(system) {
                Some((level, seen)) if unread.is_missing() => (Ok(level), seen),
                _ => {
                    let words = unread.to_string();
                    (Err(unread), (LOCKDOWN.to_owned(), words))
                }
            },
        };
        Self { native, seen, stockade, types }
    }

    /// Reports whether the kernel's own lockdown refuses a reason.
    pub(super) fn native_covers(&self, reason: &str) -> bool {
        self.native.as_ref().is_ok_and(|native| *native >= self.level_of(reason))
    }

    /// Reports whether the kernel's own lockdown or Stockade refuses a reason everywhere.
    pub(super) fn refuses(&self, reason: &str) -> bool {
        let by_stockade = self.stockade.as_ref().ok().and_then(Option::as_ref);
        self.native_covers(reason) || by_stockade.is_some_and(|stockade| stockade.refuses(reason))
    }

    /// Returns the lowest level that refuses a reason on this kernel, by the kernel's own numbers where they are known.
    pub(super) fn level_of(&self, reason: &str) -> Level {
        let Some(reason) = stockade_reasons::by_id(reason) else { return Level::Confidentiality };
        match self.types.as_ref().and_then(|types| Some((types, types.number(reason.enum_name)?))) {
            Some((types, number)) if types.is_integrity(number) => Level::Integrity,
            Some(_) => Level::Confidentiality,
            None => reason.level,
        }
    }
}

pub(super) fn read_stockade(types: &KernelTypes) -> Result<Option<Stockade>, String> {
    match read_back(types) {
        Ok(state) => Ok(state.map(|state| Stockade::from_state(&state, types))),
        Err(error) => Err(join_lines(&error)),
    }
}

/// Joins the lines of an error, whose remedy is on a line of its own.
fn join_lines(error: &Error) -> String {
    error.to_string().split('\n').map(str::trim).collect::<Vec<_>>().join("; ")
}

/// Returns the level that is compiled into the kernel, and its option, for machines where securityfs is not mounted. The kernel never lowers a level.
fn built_in(system: &System) -> Option<(Level, (String, String))> {
    let config = system.config().ok()?;
    let (level, option) = if !config.has("CONFIG_SECURITY_LOCKDOWN_LSM") {
        (Level::None, "CONFIG_SECURITY_LOCKDOWN_LSM is not set")
    } else if !config.has("CONFIG_SECURITY_LOCKDOWN_LSM_EARLY") {
        // lsm= can have left it out of the active modules.
        return None;
    } else if config.has("CONFIG_LOCK_DOWN_KERNEL_FORCE_CONFIDENTIALITY") {
        (Level::Confidentiality, "CONFIG_LOCK_DOWN_KERNEL_FORCE_CONFIDENTIALITY=y")
    } else if config.has("CONFIG_LOCK_DOWN_KERNEL_FORCE_INTEGRITY") {
        (Level::Integrity, "CONFIG_LOCK_DOWN_KERNEL_FORCE_INTEGRITY=y (the level may have been raised since)")
    } else {
        return None;
    };
    Some((level, (config.path.clone(), option.to_owned())))
}

/// Reports whether lockdown is known not to be among the active security modules. Without CONFIG_SECURITY_LOCKDOWN_LSM_EARLY, lsm= can leave it out;
/// older kernels show its file even then, and accept a level that refuses nothing.
pub(super) fn is_inactive(system: &System) -> bool {
    system
        .text(mandatory::LIST)
        .is_ok_and(|list| !list.is_empty() && list.split(',').all(|name| name != "lockdown"))
}

/// Reads the kernel's own level: [`Level::None`] where lockdown is not built in or not active.
pub(in crate::features) fn native(system: &System) -> Result<Level, Unread> {
    match system.text(LOCKDOWN) {
        Ok(_) if is_inactive(system) => Ok(Level::None),
        Ok(text) => {
            let level =
                text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(level, _)| level);
            level.and_then(|level| level.parse().ok()).ok_or_else(|| Unread::not_understood(LOCKDOWN, &text))
        }
        Err(unread) if unread.is_missing() && system.exists(mandatory::LIST) => Ok(Level::None),
        Err(unread) => Err(unread),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bracketed_level_is_in_force() {
        let native = |text| native(&System::fake(&[(LOCKDOWN, text)]));
        assert_eq!(native("[none] integrity confidentiality\n"), Ok(Level::None));
        assert_eq!(native("none integrity [confidentiality]\n"), Ok(Level::Confidentiality));
        assert!(native("none integrity\n").is_err());
        assert!(native("[").is_err());
    }

    #[test]
    fn a_kernel_without_lockdown_has_no_level() {
        assert_eq!(native(&System::fake(&[(mandatory::LIST, "capability\n")])), Ok(Level::None));
        assert!(native(&System::fake(&[])).unwrap_err().is_missing());
    }

    #[test]
    fn a_level_of_a_module_that_is_not_active_refuses_nothing() {
        let of = |list| {
            native(&System::fake(&[
                (LOCKDOWN, "none [integrity] confidentiality\n"),
                (mandatory::LIST, list),
            ]))
        };
        assert_eq!(of("lockdown,capability,yama\n"), Ok(Level::Integrity));
        assert_eq!(of("capability,yama\n"), Ok(Level::None));
    }

    #[test]
    fn without_securityfs_the_way_the_kernel_was_built_may_tell() {
        let of = |options: &str| {
            let files = [("/proc/sys/kernel/osrelease", "6.12"), ("/boot/config-6.12", options)];
            InForce::read(&System::fake(&files)).native
        };
        let lsm = "CONFIG_SECURITY_LOCKDOWN_LSM=y\n";
        let early = "CONFIG_SECURITY_LOCKDOWN_LSM=y\nCONFIG_SECURITY_LOCKDOWN_LSM_EARLY=y\n";
        let forced = "CONFIG_LOCK_DOWN_KERNEL_FORCE_INTEGRITY=y\n";
        assert_eq!(of("CONFIG_X=y"), Ok(Level::None));
        assert_eq!(of(&format!("{early}{forced}")), Ok(Level::Integrity));
        assert!(of(&format!("{lsm}{forced}")).is_err());
        assert!(of(early).is_err());
    }

    #[test]
    fn who_refuses_is_told_by_level_and_by_reason() {
        let mut in_force = InForce {
            native: Ok(Level::Integrity),
            seen: Default::default(),
            stockade: Ok(None),
            types: None,
        };
        assert!(in_force.refuses("dev-mem"));
        assert!(!in_force.refuses("kcore"));
        in_force.stockade = Ok(Some(Stockade { refused: vec!["kcore".into()], ..Stockade::default() }));
        assert!(in_force.refuses("kcore") && !in_force.native_covers("kcore"));
    }
}
