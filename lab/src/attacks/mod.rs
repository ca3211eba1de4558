/*!
Attacks of root on enforcement, each in one small function.

```text
pins only                                sealed, once for all attacks of a boot
  mount_namespace                          prepared
    a mount namespace with a BPF file        enforce, take the first step of
    system of its own                        prepared attacks, seal
  begin   enforce confidentiality
  THEME   the attack                       THEME   the attack, the same function
  proof   try every door by new processes in the root cgroup and below it
```

An attack names its effect on enforcement that hangs on pins, and the suite requires exactly this effect: the table in SECURITY.md is
generated from this list. Against the seal no attack may succeed, and for some the attempt itself must be refused. An attack that cannot be
tried on a kernel is skipped with the reason, never passed.

No attack uses a bug of a kernel. The programs that attacks load are harmless: where loading one is the attack, the test is that loading is
refused.
*/
use std::{any::Any, sync::LazyLock};

use anyhow::Result;

use crate::scenario::{Boot, Depends, Scenario};

mod anchors;
mod begin;
pub(crate) mod bpf;
mod calls;
mod cgroups;
mod clocks;
mod dialogue;
mod elsewhere;
mod exceptions;
mod exhaustion;
mod ftrace;
mod kernel;
mod later_programs;
mod maps;
mod mount_namespace;
mod pins;
mod play;
mod prepared;
mod processes;
mod proof;
mod ring;
mod spelled;
mod starved;
mod table;
mod trampoline;
mod usermode;

pub(crate) use dialogue::add_lax;
pub use exceptions::play_excepted;
pub use proof::answer;

/// An attempt of root to end enforcement or to get past it.
#[derive(Clone, Copy, Debug)]
pub struct Attack {
    /// Unique, in small letters and hyphens.
    pub name: &'static str,
    /// The attempt, as a phrase without subject or full stop.
    pub tries: &'static str,
    /// Its effect on enforcement that hangs on pins.
    pub pins_only: Pins,
    /// The requirement on the seal.
    pub sealed: Sealed,
    play: Play,
    setting: Setting,
    processors: u32,
}

/// The effect of an attack on enforcement that hangs on pins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pins {
    /// Enforcement ends or stops deciding.
    Falls,
    /// Enforcement ends or stops deciding on kernels before this release; later ones refuse the attempt.
    FallsBefore(u32, u32),
    /// Enforcement goes on.
    Holds,
    /// A program that could interfere is let in. The attack's own program is harmless, so enforcement goes on.
    Open,
}

/// The requirement on the seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealed {
    /// Enforcement goes on.
    Holds,
    /// Enforcement goes on, and the attempt itself is refused.
    Refused,
    /// Enforcement goes on. On kernels before this release the attempt itself is refused; on later ones the program is loaded, since the
    /// verifier ensures that it can only refuse.
    RefusedBefore(u32, u32),
}

/// The way in which an attack is played.
#[derive(Clone, Copy, Debug)]
enum Play {
    /// In one step.
    Now(fn() -> Result<Attempt>),
    /// In two steps of the same process: one before the seal, one after it.
    Prepared(fn() -> Result<Later>),
    /// It kills every process but PID 1, which starts the proof afterwards.
    EndsEveryone(fn() -> Result<Attempt>),
}

/// The second step of a prepared attack.
type Later = Box<dyn FnOnce() -> Result<Attempt>>;

/// The policy that is enforced, and the mounts around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setting {
    /// Confidentiality; pins in a BPF file system in a mount namespace for the attack.
    Usual,
    /// [`Setting::Usual`], with /sys/fs/bpf a folder that can be removed.
    RemovableMountPoint,
    /// Confidentiality with exceptions and grants.
    Exceptions,
    /// Confidentiality with an exception by program.
    Programs,
    /// Confidentiality, in the guest's own mount namespace.
    Guest,
}

/// An attempt. Resources that it took, such as links and frozen processes, are held until this is dropped.
struct Attempt {
    outcome: Outcome,
    held: Vec<Box<dyn Any>>,
}

/// The outcome of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
enum Outcome {
    /// The attempt succeeded. The doors show whether enforcement goes on.
    Through,
    /// The attempt was refused, with this error.
    Refused(String),
    /// The attempt reached this, which confidentiality refuses.
    Reached(String),
    /// The attempt is not possible on this kernel, and why.
    Impossible(String),
}

#[expect(
    clippy::unnecessary_wraps,
    clippy::needless_pass_by_value,
    reason = "attacks end with these, with a literal, words made for it or an error"
)]
impl Attempt {
    fn through() -> Result<Self> {
        Ok(Outcome::Through.into())
    }

    fn refused(what: impl ToString) -> Result<Self> {
        Ok(Outcome::Refused(what.to_string()).into())
    }

    fn impossible(why: impl ToString) -> Result<Self> {
        Ok(Outcome::Impossible(why.to_string()).into())
    }

    /// Converts a result: through, or refused with this error.
    fn from_result<T>(answer: std::io::Result<T>) -> Result<Self> {
        match answer {
            Ok(_) => Self::through(),
            Err(error) => Self::refused(error),
        }
    }

    fn holding(mut self, what: impl Any) -> Self {
        self.held.push(Box::new(what));
        self
    }
}

impl From<Outcome> for Attempt {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, held: Vec::new() }
    }
}

impl Attack {
    const fn new(
        name: &'static str,
        tries: &'static str,
        pins_only: Pins,
        run: fn() -> Result<Attempt>,
    ) -> Self {
        Self {
            name,
            tries,
            pins_only,
            sealed: Sealed::Holds,
            play: Play::Now(run),
            setting: Setting::Usual,
            processors: 1,
        }
    }

    const fn prepared(
        name: &'static str,
        tries: &'static str,
        pins_only: Pins,
        prepare: fn() -> Result<Later>,
    ) -> Self {
        let mut attack = Self::new(name, tries, pins_only, Attempt::through);
        attack.play = Play::Prepared(prepare);
        attack
    }

    const fn ends_everyone(name: &'static str, tries: &'static str, run: fn() -> Result<Attempt>) -> Self {
        let mut attack = Self::new(name, tries, Pins::Holds, run);
        attack.play = Play::EndsEveryone(run);
        attack.setting = Setting::Guest;
        attack
    }

    const fn refused_when_sealed(mut self) -> Self {
        self.sealed = Sealed::Refused;
        self
    }

    const fn refused_when_sealed_before(mut self, major: u32, minor: u32) -> Self {
        self.sealed = Sealed::RefusedBefore(major, minor);
        self
    }

    const fn under(mut self, setting: Setting) -> Self {
        self.setting = setting;
        self
    }

    const fn with_two_processors(mut self) -> Self {
        self.processors = 2;
        self
    }

    /// Returns the boot for the attack on pins or on the seal.
    fn boot(&self, sealed: bool) -> Boot {
        match (sealed, self.processors, self.setting) {
            (false, 1, _) => Boot::PinsAttacked,
            (false, ..) => Boot::PinsAttackedTwoProcessors,
            (true, 1, Setting::Exceptions) => Boot::SealAttackedExceptions,
            (true, 1, Setting::Programs) => Boot::SealAttackedPrograms,
            (true, 1, _) => Boot::SealAttacked,
            (true, ..) => Boot::SealAttackedTwoProcessors,
        }
    }
}

/// Returns every attack, by theme. Those that kill every process come last, since they also kill the processes of prepared attacks.
#[must_use]
pub fn all() -> Vec<Attack> {
    by_theme().flat_map(|(_, attacks)| attacks.to_vec()).collect()
}

/// Returns the attacks by theme, each with the part of a kernel that its outcome depends on. A seal needs no pin and no mount, and the
/// sysctl program sees every form of a write, so the newest series is enough for these themes. The verifier, the hooks and the order of
/// attachments differ between series.
fn by_theme() -> impl Iterator<Item = (Depends, &'static [Attack])> {
    [
        (Depends::NewestSeries, pins::ATTACKS),
        (Depends::Series, maps::ATTACKS),
        (Depends::Series, dialogue::ATTACKS),
        (Depends::Series, later_programs::ATTACKS),
        (Depends::Series, anchors::ATTACKS),
        (Depends::Series, ftrace::ATTACKS),
        (Depends::NewestSeries, spelled::ATTACKS),
        (Depends::NewestSeries, cgroups::ATTACKS),
        (Depends::Series, trampoline::ATTACKS),
        (Depends::NewestSeries, exhaustion::ATTACKS),
        (Depends::Series, kernel::ATTACKS),
        (Depends::NewestSeries, usermode::ATTACKS),
        (Depends::NewestSeries, elsewhere::ATTACKS),
        (Depends::Series, clocks::ATTACKS),
        (Depends::Series, exceptions::ATTACKS),
        (Depends::Series, processes::ATTACKS),
    ]
    .into_iter()
}

/// Attacks while a seal is being made.
pub const ON_SEALING: &[Scenario] = starved::SCENARIOS;

/// Returns every attack as two scenarios, against pins and against the seal.
#[must_use]
pub fn scenarios() -> &'static [Scenario] {
    static ALL: LazyLock<Vec<Scenario>> = LazyLock::new(|| {
        let scenario = |prefix: &str, sealed, depends, run, attack: &Attack| Scenario {
            // The name is made once and lives until the program ends.
            name: Box::leak(format!("{prefix}{}", attack.name).into_boxed_str()),
            boot: attack.boot(sealed),
            depends,
            run,
        };
        // SECURITY.md says that root can end enforcement that hangs on pins; a seal promises to hold.
        let on_pins = by_theme().flat_map(|(_, attacks)| attacks).map(|attack| {
            // An attack that fails against pins too proves nothing about the seal.
            let depends =
                if attack.pins_only == Pins::Holds { Depends::FullTest } else { Depends::NewestSeries };
            scenario(PINS_ONLY, false, depends, play::pins_only as fn(&_) -> _, attack)
        });
        let on_seal =
            by_theme().flat_map(|(depends, attacks)| attacks.iter().map(move |attack| (depends, attack)));
        let on_seal = on_seal.map(|(depends, attack)| scenario(SEALED, true, depends, play::sealed, attack));
        on_pins.chain(on_seal).collect()
    });
    &ALL
}

const PINS_ONLY: &str = "attack-on-pins: ";
const SEALED: &str = "attack-on-the-seal: ";

/// Returns the attack that a scenario plays.
fn of_scenario(name: &str) -> Option<Attack> {
    let name = name.strip_prefix(PINS_ONLY).or_else(|| name.strip_prefix(SEALED))?;
    all().into_iter().find(|attack| attack.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::all;

    #[test]
    fn attacks_have_names_of_their_own_and_read_as_a_list() {
        let attacks = all();
        let names: HashSet<_> = attacks.iter().map(|attack| attack.name).collect();
        assert_eq!(names.len(), attacks.len());
        for attack in attacks {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(attack.name.chars().all(plain), "{}", attack.name);
            assert!(!attack.tries.ends_with('.') && !attack.tries.contains('|'), "{}", attack.tries);
        }
    }
}
