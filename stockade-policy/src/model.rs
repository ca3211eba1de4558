/*!
A policy, read and merged: every value has its type, and knows where it was said.

Nothing here depends on the kernel or the machine it will be applied to. What each value means is
written down once, in [`crate::interpret`], and proven of what [`crate::compile`] makes of it.
*/
use std::{collections::BTreeMap, fmt, path::PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use stockade_reasons::{Level, Reason};

pub use crate::said::{Origin, Said};
use crate::{trusted::TrustedProgram, words::Word};

/// The verdict on a request, in the order of strictness.
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
    /// Refuses requests that could change the running kernel.
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

/// The verdict on a reason of this kernel that the table does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unknown {
    /// By the level, like the kernel's own lockdown: by its position between the level markers.
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
    /// Exceptions. Names are unique.
    pub exceptions: Vec<Exception>,
    /// Findings of the check that were looked at and accepted.
    pub accepted: Vec<Accepted>,
    /// How a seal is recorded, what can be added to it, and what it lets in.
    pub seal: Seal,
}

/// `[seal]`: how it is recorded that a policy was sealed, what can be added to the seal, and which programs of others it lets in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// The TPM's register that the record is measured into, none where nobody said one. One of [`Seal::PCRS`].
    pub pcr: Option<Said<u8>>,
    /// Whether nothing is sealed where no TPM takes the record.
    pub require_tpm: Said<bool>,
    /// Whether scopes and exceptions can be added to a seal of this policy. They always can where it has scopes.
    pub room_for_scopes: Said<bool>,
    /// Programs of others that may stay and may be loaded. Names are unique.
    pub trusted: Vec<TrustedProgram>,
}

impl Seal {
    /// The registers that the operating system may measure into and that nobody can reset before the next boot.
    pub const PCRS: std::ops::RangeInclusive<u8> = 8..=15;

    /// Returns the default.
    #[must_use]
    pub fn unsaid(place: &str) -> Self {
        let no = || Said::at(false, place);
        Self { pcr: None, require_tpm: no(), room_for_scopes: no(), trusted: Vec::new() }
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

/// An exception. Its subject is the conjunction of the parts that are given: at least one of `exe` and `place`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exception {
    /// Unique among exceptions.
    pub name: Said<String>,
    /// For which reasons, by id of the reasons table.
    pub reasons: Vec<Said<String>>,
    /// The program, by absolute path.
    pub exe: Option<Said<PathBuf>>,
    /// The digest that the program's content has to have when the policy is applied.
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
    /// When it ends, in nanoseconds since boot with suspend included, once it was granted or applied: setting the clock
    /// moves it not at all. What `expires` says is then for people.
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
                let end = i128::from(now.boot_ns) + expires.value.duration_since(now.wall).as_nanos();
                // What ends in some centuries does not end.
                u64::try_from(end.max(0)).unwrap_or(u64::MAX)
            }
        })
    }

    /// Puts the end of an exception with a date on the clock since boot. An end that was worked out before stays where it is as
    /// long as the clock still says nearly the same, so that applying a policy again changes nothing; it is another one when
    /// the clock was set.
    pub fn settle(&mut self, now: Clock, before: Option<u64>) {
        // A grant has its end from the start.
        if self.granted || self.expires.is_none() {
            return;
        }
        self.ends_boot_ns = None;
        let end = self.ends(now);
        self.ends_boot_ns = Some(match before {
            Some(before) if before.abs_diff(end) <= SAME_END_NS => before,
            // Whatever has ended has the same end.
            _ if end <= now.boot_ns => 0,
            _ => end,
        });
    }

    /// Whether it says the same of when it ends as one that is in force.
    #[must_use]
    pub fn is_dated_as(&self, other: &Self) -> bool {
        let date = |exception: &Self| exception.expires.as_ref().map(|said| said.value);
        self.granted == other.granted && self.name.value == other.name.value && date(self) == date(other)
    }

    /// For how long it still lets through, in nanoseconds on the clock since boot, whatever the date is; `None` for ever.
    #[must_use]
    pub fn left_ns(&self, now: Clock) -> Option<u64> {
        match self.ends(now) {
            u64::MAX => None,
            end => Some(end.saturating_sub(now.boot_ns)),
        }
    }
}

/// Two ends that were worked out one after the other are the same within this: clocks are corrected by some seconds.
const SAME_END_NS: u64 = 60_000_000_000;

/// One moment on two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// The one that people read and root can set.
    pub wall: Timestamp,
    /// Nanoseconds since boot, suspend included, which nobody can set. Root can slow it: see [`SLOWEST_PERCENT`].
    pub boot_ns: u64,
}

/// The clock since boot is slowed by adjtimex(2) to no less than this share of its rate: 10 % by the length of a tick, 12.5 % by a
/// correction of the phase, 0.05 % each by the frequency and by adjtime(3). Every clock that a BPF program can read is slowed
/// alike, jiffies too: `tick_do_update_jiffies64()` counts them by that clock. Source: kernel/time/ntp.c, timekeeping.c and
/// tick-sched.c of 6.12.
pub const SLOWEST_PERCENT: u64 = 77;

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

    /// Returns the policy after its audit period: every mode is enforce. Single reasons stay.
    #[must_use]
    pub fn enforcing(mut self) -> Self {
        for mode in self.scopes.iter_mut().filter_map(|scope| scope.mode.as_mut()).chain([&mut self.mode]) {
            mode.value = Mode::Enforce;
        }
        self
    }

    /// Returns the policy with every unit replaced by its cgroup.
    #[must_use]
    pub fn with_units(self, find: impl Fn(&str) -> String) -> Self {
        let Ok(policy) = self.try_with_units(|unit| Ok::<_, std::convert::Infallible>(find(unit)));
        policy
    }

    /// Returns the policy with every unit replaced by its cgroup, if that is known for each.
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

impl Word for LevelChoice {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("none", Self::None),
        ("integrity", Self::Integrity),
        ("confidentiality", Self::Confidentiality),
        ("auto", Self::Auto),
    ];
}

impl Word for Mode {
    const WORDS: &'static [(&'static str, Self)] = &[("enforce", Self::Enforce), ("audit", Self::Audit)];
}

impl Word for Verdict {
    const WORDS: &'static [(&'static str, Self)] =
        &[("allow", Self::Allow), ("audit", Self::Audit), ("deny", Self::Deny)];
}

impl Word for Unknown {
    const WORDS: &'static [(&'static str, Self)] =
        &[("level", Self::Level), ("allow", Self::Allow), ("audit", Self::Audit), ("deny", Self::Deny)];
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

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn dated(expires: &str) -> Exception {
        let text =
            format!("[[exception]]\nname = \"e\"\nreasons = [\"msr\"]\nexe = \"/a\"\nexpires = {expires}\n");
        crate::read(&crate::Source::new("f", text)).unwrap().exceptions.remove(0)
    }

    fn at(wall: &str, boot: u64) -> Clock {
        Clock { wall: wall.parse().unwrap(), boot_ns: boot * SECOND }
    }

    #[test]
    fn an_end_is_worked_out_once_and_again_when_the_clock_was_set() {
        let mut exception = dated("2027-01-01T01:00:00Z");
        exception.settle(at("2027-01-01T00:00:00Z", 100), None);
        let first = exception.ends_boot_ns;
        assert_eq!(first, Some(3700 * SECOND));
        // Ten seconds later, of which the clock was corrected by three.
        exception.settle(at("2027-01-01T00:00:13Z", 110), first);
        assert_eq!(exception.ends_boot_ns, first, "the same policy once more");
        exception.settle(at("2026-12-01T00:00:00Z", 120), first);
        assert!(exception.ends_boot_ns > first, "set back, and applied anew");
        exception.settle(at("2027-06-01T00:00:00Z", 130), first);
        assert_eq!(exception.ends_boot_ns, Some(0), "the date is past");
        exception.settle(at("2027-06-01T00:00:00Z", 140), Some(0));
        assert_eq!(exception.ends_boot_ns, Some(0));
    }

    #[test]
    fn the_date_hides_nothing_that_is_in_force() {
        let mut exception = dated("2019-01-01T00:00:00Z");
        exception.settle(at("2018-12-31T23:00:00Z", 50), None);
        let right = at("2026-11-30T00:00:00Z", 60);
        assert!(!exception.has_ended(right), "the kernel lets it through");
        assert_eq!(exception.left_ns(right), Some(3590 * SECOND));
        exception.settle(right, exception.ends_boot_ns);
        assert!(exception.has_ended(right), "applied again");
    }

    #[test]
    fn an_end_in_a_thousand_years_is_none() {
        let mut exception = dated("3999-01-01T00:00:00Z");
        let now = at("2027-01-01T00:00:00Z", 1);
        assert!(!exception.has_ended(now));
        exception.settle(now, None);
        assert_eq!(exception.left_ns(now), None);
    }
}
