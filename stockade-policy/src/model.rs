/*!
A policy, read and merged: every value has its type, and knows where it was said.

Nothing here depends on the kernel or the machine it will be applied to. What each value means is
written down once, in [`crate::interpret`], and proven of what [`crate::compile`] makes of it.
*/
use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use stockade_reasons::{Level, Reason};

/// Where something was said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Origin {
    /// The file as it was named, or words such as `command line` and `default`.
    pub file: Arc<str>,
    /// Line, from 1; 0 where there are no lines.
    pub line: u32,
    /// Byte offsets of the value in that file: start and end; both 0 where there are none.
    pub span: (u32, u32),
}

impl Origin {
    /// A place without lines.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self { file: name.into(), line: 0, span: (0, 0) }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 { f.write_str(&self.file) } else { write!(f, "{}:{}", self.file, self.line) }
    }
}

/// A value and where it was said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said<T> {
    /// What.
    pub value: T,
    /// Where.
    pub origin: Origin,
}

impl<T> Said<T> {
    /// A value said at a place without lines.
    pub fn at(value: T, place: &str) -> Self {
        Self { value, origin: Origin::named(place) }
    }
}

/// What happens to a request. The order is that of strictness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Let through.
    Allow,
    /// Let through and reported.
    Audit,
    /// Refused.
    Deny,
}

/// The level as it is said: `auto` is settled when the policy is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LevelChoice {
    /// Refuse nothing.
    None,
    /// What could change the running kernel.
    Integrity,
    /// Also what could read it.
    Confidentiality,
    /// Integrity where EFI Secure Boot is on, otherwise none.
    Auto,
}

/// Whether a level refuses or only reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Refuse.
    Enforce,
    /// Let through and report.
    Audit,
}

/// What happens to a reason of this kernel that the table does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unknown {
    /// As the kernel's own lockdown would: by its position between the level markers.
    #[default]
    Level,
    /// Let through.
    Allow,
    /// Let through and reported.
    Audit,
    /// Refused.
    Deny,
}

/// Verdicts of single reasons, by id of the reasons table.
pub type Reasons = BTreeMap<String, Said<Verdict>>;

/// How a kernel security setting is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hold {
    /// It keeps its value, or gets a stricter one.
    Ratchet,
    /// It keeps its value.
    Freeze,
}

/// Settings that are held, by the name that sysctl(8) has, or [`crate::settings::DEFAULT`].
pub type Settings = BTreeMap<String, Said<Hold>>;

/// A whole policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The level of everything that no scope covers.
    pub level: Said<LevelChoice>,
    /// Whether that level refuses.
    pub mode: Said<Mode>,
    /// Reasons that the table lacks.
    pub unknown_reasons: Said<Unknown>,
    /// Single reasons, over the level.
    pub reasons: Reasons,
    /// Kernel security settings that are held.
    pub settings: Settings,
    /// Parts of the cgroup tree with verdicts of their own. Names are unique.
    pub scopes: Vec<Scope>,
    /// Who is let through where others are not. Names are unique.
    pub exceptions: Vec<Exception>,
    /// Findings of the check that were looked at and accepted.
    pub accepted: Vec<Accepted>,
    /// How a seal is recorded.
    pub seal: Seal,
}

/// `[seal]`: how it is recorded that a policy was sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// The TPM's register that the record is measured into, none where nobody said one. One of [`Seal::PCRS`].
    pub pcr: Option<Said<u8>>,
    /// Whether nothing is sealed where no TPM takes the record.
    pub require_tpm: Said<bool>,
}

impl Seal {
    /// The registers that the operating system may measure into and that nobody can reset before the next boot.
    pub const PCRS: std::ops::RangeInclusive<u8> = 8..=15;

    /// What holds where nothing is said.
    #[must_use]
    pub fn unsaid(place: &str) -> Self {
        Self { pcr: None, require_tpm: Said::at(false, place) }
    }
}

/// A part of the cgroup tree with verdicts of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// Unique among scopes.
    pub name: Said<String>,
    /// Which cgroups, with all below them.
    pub place: Said<Place>,
    /// Its level; the surrounding one's where it says nothing.
    pub level: Option<Said<LevelChoice>>,
    /// Its mode; the surrounding one's where it says nothing.
    pub mode: Option<Said<Mode>>,
    /// Single reasons, over its level.
    pub reasons: Reasons,
    /// Whether it may be laxer than what surrounds it.
    pub loosen: Said<bool>,
}

/// Who is let through where others are not. A subject is the conjunction of what is said: at least one
/// of `exe` and `place`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exception {
    /// Unique among exceptions.
    pub name: Said<String>,
    /// For which reasons, by id of the reasons table.
    pub reasons: Vec<Said<String>>,
    /// The program, by absolute path.
    pub exe: Option<Said<PathBuf>>,
    /// What the program's content has to be when the policy is applied.
    pub digest: Option<Said<Digest>>,
    /// The cgroup, with all below it.
    pub place: Option<Said<Place>>,
    /// The real user id.
    pub uid: Option<Said<u32>>,
    /// Whether children that the program forks are let through as well.
    pub inherit: Said<bool>,
    /// When it ends.
    pub expires: Option<Said<Timestamp>>,
    /// Why, for whoever reads the policy.
    pub why: Option<Said<String>>,
    /// Whether it was granted by command, not written in a policy.
    pub granted: bool,
    /// When a grant ends, in nanoseconds since boot with suspend included: setting the clock moves it not at all.
    /// What `expires` says is then for people.
    pub ends_boot_ns: Option<u64>,
}

impl Exception {
    /// Whether it has ended.
    #[must_use]
    pub fn has_ended(&self, now: Clock) -> bool {
        self.ends(now) <= now.boot_ns
    }

    /// When it ends, in nanoseconds since boot; the largest number for never.
    #[must_use]
    pub fn ends(&self, now: Clock) -> u64 {
        self.ends_boot_ns.unwrap_or_else(|| match &self.expires {
            None => u64::MAX,
            Some(expires) => {
                let left = expires.value.duration_since(now.wall).as_nanos();
                u64::try_from(i128::from(now.boot_ns) + left).unwrap_or(0)
            }
        })
    }
}

/// The same moment on two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// The one that people read and root can set.
    pub wall: Timestamp,
    /// Nanoseconds since boot, suspend included, which nobody can set.
    pub boot_ns: u64,
}

/// A finding of the check that somebody looked at and accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// For instance `SP001`.
    pub code: Said<String>,
    /// Name of the exception or scope it is about; everything with this code where it is left out.
    pub about: Option<Said<String>>,
    /// Why it is acceptable. Demanded.
    pub why: Said<String>,
}

/// Content of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Digest {
    /// `sha256:` and 64 hexadecimal digits: over the file's bytes.
    Sha256([u8; 32]),
    /// `verity:sha256:` and 64 hexadecimal digits: as fs-verity measures it (`fsverity measure`).
    Verity([u8; 32]),
}

/// Cgroups, named by path, unit or pattern. The hierarchy is that of version 2, paths start at its root.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Place {
    /// One cgroup, for instance `/kubepods.slice`: absolute, without a slash at the end. `/` is everything.
    Path(String),
    /// All children of one cgroup whose name begins and ends so: `/system.slice/docker-*.scope`. One star, in
    /// the last component.
    Glob {
        /// Everything before the star, slashes included.
        prefix: String,
        /// Everything after it; has no slash.
        suffix: String,
    },
    /// A systemd unit or slice, for instance `fwupd.service`, wherever systemd puts it.
    Unit(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => f.write_str(path),
            Self::Glob { prefix, suffix } => write!(f, "{prefix}*{suffix}"),
            Self::Unit(unit) => f.write_str(unit),
        }
    }
}

impl Policy {
    /// A level and nothing else, said at this place.
    #[must_use]
    pub fn level(level: LevelChoice, place: &str) -> Self {
        Self {
            level: Said::at(level, place),
            mode: Said::at(Mode::Enforce, place),
            unknown_reasons: Said::at(Unknown::Level, place),
            reasons: Reasons::new(),
            settings: Settings::new(),
            scopes: Vec::new(),
            exceptions: Vec::new(),
            accepted: Vec::new(),
            seal: Seal::unsaid(place),
        }
    }
}

impl Policy {
    /// Whether it says `auto`, so that its meaning hangs on the machine.
    #[must_use]
    pub fn says_auto(&self) -> bool {
        let levels = self.scopes.iter().filter_map(|scope| scope.level.as_ref());
        levels.chain([&self.level]).any(|said| said.value == LevelChoice::Auto)
    }

    /// The same once its audit period is over: every mode refuses. Single reasons stay as they are said.
    #[must_use]
    pub fn enforcing(mut self) -> Self {
        for mode in self.scopes.iter_mut().filter_map(|scope| scope.mode.as_mut()).chain([&mut self.mode]) {
            mode.value = Mode::Enforce;
        }
        self
    }

    /// The same with every unit replaced by the cgroup that it has.
    #[must_use]
    pub fn with_units(self, find: impl Fn(&str) -> String) -> Self {
        let Ok(policy) = self.try_with_units(|unit| Ok::<_, std::convert::Infallible>(find(unit)));
        policy
    }

    /// The same with every unit replaced by the cgroup that it has, where that can be told of each.
    ///
    /// # Errors
    /// The first answer of `find` that is one.
    pub fn try_with_units<E>(mut self, find: impl Fn(&str) -> Result<String, E>) -> Result<Self, E> {
        let places = self.scopes.iter_mut().map(|scope| &mut scope.place);
        for place in places.chain(self.exceptions.iter_mut().filter_map(|e| e.place.as_mut())) {
            if let Place::Unit(unit) = &place.value {
                place.value = Place::Path(find(unit)?);
            }
        }
        Ok(self)
    }
}

impl LevelChoice {
    /// The level; `auto` is what the caller found it to be.
    #[must_use]
    pub fn settled(self, auto: Level) -> Level {
        match self {
            Self::None => Level::None,
            Self::Integrity => Level::Integrity,
            Self::Confidentiality => Level::Confidentiality,
            Self::Auto => auto,
        }
    }
}

/// The table's entry of a reason in a policy: reading has checked that there is one.
///
/// # Panics
/// For an id that is not in the table, which no policy holds.
#[must_use]
pub fn known(id: &str) -> &'static Reason {
    stockade_reasons::by_id(id).expect("a policy names reasons of the table only")
}
