/*!
From a policy to the tables that the kernel side reads, for one kernel's numbering of the reasons.

What a place decides is worked out here for every place, with all that surrounds it, so that the kernel asks
one entry: that of the nearest cgroup which has one. A verdict is two bits, and the stricter of two
verdicts is the union of their bits.

```text
             watched  deny
    allow       0       0
    audit       1       0
    deny        1       1
```
*/
use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
};

use stockade_common::{
    ANY_UID, EXCEPTIONS_MAX, LAST_BIT, NO_PLACE, PATHS_MAX, PATTERNS, ReasonSet, SETTINGS_MAX, Sets, Words,
    decide::{BY_PLACE, BY_PROGRAM, BY_UID},
};
use stockade_reasons::Level;

pub use crate::settings::CompiledSetting;
use crate::{
    interpret::{Descent, KernelReason},
    model::{Clock, Digest, Exception, Place, Policy, Scope, Verdict},
    place, settings,
};

/// A policy for one kernel. Identities of cgroups and programs are the machine's business and not in here.
#[derive(Clone, Debug)]
pub struct Tables {
    /// The words that decisions read first. The generation is not set.
    pub words: Words,
    /// Places, in the order of their numbers, the first of which is 1.
    pub places: Vec<CompiledPlace>,
    /// Subjects with the reasons that they are excepted from.
    pub exceptions: Vec<(Subject, Excepted)>,
    /// Programs that exceptions speak of.
    pub programs: Vec<CompiledProgram>,
    /// Settings that are held, each once.
    pub settings: Vec<CompiledSetting>,
}

/// A place and what it decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledPlace {
    /// A path or a pattern.
    pub place: Place,
    /// The verdicts in that place.
    pub sets: Sets,
}

/// A program that exceptions speak of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledProgram {
    /// Its path.
    pub path: PathBuf,
    /// The digest that its content has to have.
    pub digest: Option<Digest>,
    /// Whether an exception says that children inherit.
    pub inherit: bool,
    /// The exception that is to blame when it cannot be found.
    pub named_by: String,
}

/// The subject of exceptions: program, place and user, all of which have to fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject {
    /// Index among the programs.
    pub program: Option<usize>,
    /// Number of the place, or [`NO_PLACE`].
    pub place: u32,
    /// User id, or [`ANY_UID`].
    pub uid: u32,
}

impl Subject {
    /// The shape, as [`stockade_common::decide`] has it.
    #[must_use]
    pub fn shape(self) -> u32 {
        let part = |said: bool, bit: u32| if said { bit } else { 0 };
        part(self.program.is_some(), BY_PROGRAM)
            + part(self.place != NO_PLACE, BY_PLACE)
            + part(self.uid != ANY_UID, BY_UID)
    }
}

/// From what a subject is excepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Excepted {
    /// Without end.
    pub always: ReasonSet,
    /// Without end, for children too.
    pub inherited: ReasonSet,
    /// For a time: number of the reason, and nanoseconds since boot when it ends for itself and for children; 0
    /// where it never was, the largest number where it never ends.
    pub timed: Vec<(u32, u64, u64)>,
}

/// A policy that cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// Two patterns share names, and nothing says which decides.
    #[error(
        "{first} and {second} can name the same cgroup, and neither is part of the other: nothing says which decides there\n  \
         make one of them part of the other, or let them differ before the star"
    )]
    Ambiguous {
        /// One.
        first: Place,
        /// The other.
        second: Place,
    },
    /// More patterns for the children of one cgroup than the kernel side looks at.
    #[error(
        "more than {PATTERNS} patterns name children of {parent}; use fewer, or a scope for {parent} itself"
    )]
    TooManyPatterns {
        /// The cgroup above.
        parent: String,
    },
    /// More than the kernel's tables take.
    #[error("the policy needs {needed} entries for {what}, and the kernel's table takes {most}")]
    TooLarge {
        /// The name of the table.
        what: &'static str,
        /// How many.
        needed: usize,
        /// How many fit.
        most: usize,
    },
    /// A unit that was not looked up.
    #[error("the unit {0} was not looked up")]
    Unit(String),
}

/// Compiles a policy whose units were found, see [`Policy::with_units`]. Exceptions that ended before `now` are left out.
///
/// ```
/// use stockade_policy::{Source, compile::compile, merge::merge, model::Clock, read};
/// use stockade_reasons::Level;
///
/// let text = "version = 1\nlevel = \"integrity\"\n[[scope]]\nname = \"pods\"\ncgroup = \"/pods\"\nlevel = \"confidentiality\"\n";
/// let policy = merge([read(&Source::new("policy.toml", text))?]).expect("one file cannot contradict another");
/// let now = Clock { wall: "2026-06-01T12:00:00Z".parse()?, boot_ns: 0 };
/// assert_eq!(compile(&policy, Level::None, &[], now)?.places.len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`CompileError`] says which.
pub fn compile(
    policy: &Policy,
    auto: Level,
    reasons: &[KernelReason],
    now: Clock,
) -> Result<Tables, CompileError> {
    let kernel = Kernel::new(reasons);
    let host = kernel.decide(policy, auto, &[]);
    let index = Index::new(policy)?;
    let mut places = Vec::with_capacity(index.places.len());
    for (number, &place) in (1..).zip(&index.places) {
        let scopes: Vec<_> = index.scopes_of(place).into_iter().map(|at| &policy.scopes[at]).collect();
        let Decided { watched, deny } = kernel.decide(policy, auto, &scopes);
        places.push(CompiledPlace {
            place: place.clone(),
            sets: Sets { watched, deny, place: number, pad: 0 },
        });
    }
    let (exceptions, programs) = exceptions(policy, &index, &kernel, now);
    let settings = settings::compile(policy, auto);

    let excepted = exceptions.iter().fold(0, |set, (_, e)| {
        e.timed.iter().fold(set | e.always | e.inherited, |set, &(number, ..)| set | bit(number))
    });
    let words = Words {
        watched_anywhere: places.iter().fold(host.watched, |set, place| set | place.sets.watched),
        watched: host.watched,
        deny: host.deny,
        quiet: kernel.quiet,
        excepted,
        generation: 0,
        shapes: exceptions.iter().fold(0, |shapes, (subject, _)| shapes | 1 << subject.shape()),
        places: u32::from(!places.is_empty()),
    };
    let entries = exceptions.iter().map(|(_, e)| e.timed.len().max(1)).sum();
    for (what, needed, most) in [
        ("places", places.len(), PATHS_MAX),
        ("exceptions", entries, EXCEPTIONS_MAX),
        ("programs", programs.len(), EXCEPTIONS_MAX),
        ("settings", settings.len(), SETTINGS_MAX),
    ] {
        // Half of it: the other half is for the policy in force, or for the next one.
        let most = most as usize / 2;
        if needed > most {
            return Err(CompileError::TooLarge { what, needed, most });
        }
    }
    Ok(Tables { words, places, exceptions, programs, settings })
}

/// The bit of a reason with this number.
#[must_use]
pub fn bit(number: u32) -> ReasonSet {
    1 << number.min(LAST_BIT)
}

/// The verdicts of all reasons as sets.
struct Decided {
    watched: ReasonSet,
    deny: ReasonSet,
}

/// The reasons of a kernel.
struct Kernel<'a> {
    reasons: &'a [KernelReason],
    numbers: HashMap<&'static str, u32>,
    /// Stands for the numbers beyond the sets, which share the last bit. No policy can name it, so that the level decides: confidentiality refuses them.
    beyond: KernelReason,
    quiet: ReasonSet,
}

impl<'a> Kernel<'a> {
    fn new(reasons: &'a [KernelReason]) -> Self {
        Self {
            reasons,
            numbers: reasons.iter().filter_map(|reason| Some((reason.id?, reason.number))).collect(),
            beyond: KernelReason {
                number: LAST_BIT,
                id: Some(""),
                enum_name: String::new(),
                level: Level::Confidentiality,
                debugger: false,
            },
            quiet: reasons
                .iter()
                .filter(|reason| reason.debugger)
                .fold(0, |set, reason| set | bit(reason.number)),
        }
    }

    /// Decides about every reason within these scopes, the outermost first.
    fn decide(&self, policy: &Policy, auto: Level, scopes: &[&Scope]) -> Decided {
        let mut decided = Decided { watched: 0, deny: 0 };
        for reason in self.reasons.iter().chain([&self.beyond]) {
            let mut descent = Descent::new(policy, auto, reason);
            for scope in scopes {
                descent.enter(scope);
            }
            if descent.ruling.verdict >= Verdict::Audit {
                decided.watched |= bit(reason.number);
            }
            if descent.ruling.verdict == Verdict::Deny {
                decided.deny |= bit(reason.number);
            }
        }
        decided
    }
}

/// Finds places by what they name.
struct Index<'a> {
    places: Vec<&'a Place>,
    paths: HashMap<&'a str, usize>,
    /// Patterns by the cgroup above, the most specific first.
    patterns: HashMap<&'a str, Vec<usize>>,
    scopes: HashMap<&'a Place, usize>,
}

impl<'a> Index<'a> {
    fn new(policy: &'a Policy) -> Result<Self, CompileError> {
        let scopes = policy.scopes.iter().map(|scope| &scope.place.value);
        let exceptions = policy.exceptions.iter().filter_map(|e| Some(&e.place.as_ref()?.value));
        let mut index = Self {
            places: Vec::new(),
            paths: HashMap::new(),
            patterns: HashMap::new(),
            scopes: policy.scopes.iter().enumerate().map(|(at, s)| (&s.place.value, at)).collect(),
        };
        for place in scopes.chain(exceptions) {
            let number = index.places.len();
            match place {
                Place::Path(path) => {
                    if index.paths.insert(path, number).is_some_and(|known| {
                        index.paths.insert(path, known);
                        true
                    }) {
                        continue;
                    }
                }
                Place::Glob { .. } => {
                    let siblings = index.patterns.entry(place.above()).or_default();
                    if siblings.iter().any(|&at| index.places[at] == place) {
                        continue;
                    }
                    if let Some(&at) = siblings.iter().find(|&&at| index.places[at].is_ambiguous_with(place))
                    {
                        let first = index.places[at].clone();
                        return Err(CompileError::Ambiguous { first, second: place.clone() });
                    }
                    if siblings.len() == PATTERNS {
                        let parent = if place.above().is_empty() { "/" } else { place.above() };
                        return Err(CompileError::TooManyPatterns { parent: parent.to_owned() });
                    }
                    let at = siblings.iter().position(|&at| index.places[at].contains(place));
                    siblings.insert(at.unwrap_or(siblings.len()), number);
                }
                Place::Unit(unit) => return Err(CompileError::Unit(unit.clone())),
            }
            index.places.push(place);
        }
        Ok(index)
    }

    /// Every place that names this cgroup, the most specific first.
    fn naming<'s>(&'s self, path: &str) -> impl Iterator<Item = usize> + use<'s, 'a> {
        let above = place::parent(path).map(|above| if above == "/" { "" } else { above });
        let patterns = above.and_then(|above| self.patterns.get(above)).map_or(&[][..], |found| found);
        let path_of_it = path.to_owned();
        let matching = patterns.iter().copied().filter(move |&at| self.places[at].names(&path_of_it));
        self.paths.get(path).copied().into_iter().chain(matching)
    }

    /// Every place that contains this one at its own level, the most specific first.
    fn containing(&self, place: &Place) -> Vec<usize> {
        if let Place::Path(path) = place {
            return self.naming(path).collect();
        }
        let siblings = self.patterns.get(place.above()).map_or(&[][..], |found| found);
        siblings.iter().copied().filter(|&at| self.places[at].contains(place)).collect()
    }

    /// The cgroups above what a place names.
    fn above(place: &Place) -> Vec<&str> {
        match place {
            Place::Path(path) => place::parent(path).map(place::chain).unwrap_or_default(),
            _ if place.above().is_empty() => vec!["/"],
            _ => place::chain(place.above()),
        }
    }

    /// Scopes that decide at a place, the outermost first.
    fn scopes_of(&self, place: &Place) -> Vec<usize> {
        let scope = |at: usize| self.scopes.get(self.places[at]).copied();
        let mut scopes: Vec<usize> =
            Self::above(place).into_iter().filter_map(|path| self.naming(path).find_map(scope)).collect();
        scopes.extend(self.containing(place).into_iter().find_map(scope));
        scopes
    }

    /// Every place that covers whatever this one names.
    fn covering(&self, place: &Place) -> Vec<usize> {
        let mut covering: Vec<usize> =
            Self::above(place).into_iter().flat_map(|path| self.naming(path)).collect();
        covering.extend(self.containing(place));
        covering
    }
}

type Exceptions = Vec<(Subject, Excepted)>;

/// Subjects with their reasons, and the programs they name.
fn exceptions(
    policy: &Policy,
    index: &Index<'_>,
    kernel: &Kernel<'_>,
    now: Clock,
) -> (Exceptions, Vec<CompiledProgram>) {
    let mut programs: Vec<CompiledProgram> = Vec::new();
    let mut by_path: HashMap<PathBuf, usize> = HashMap::new();
    let mut by_place: HashMap<&Place, Vec<&Exception>> = HashMap::new();
    let mut ends: BTreeMap<Subject, BTreeMap<u32, (u64, u64)>> = BTreeMap::new();
    let mut add = |exception: &Exception, place: u32, ends: &mut BTreeMap<_, BTreeMap<u32, (u64, u64)>>| {
        let program = exception.exe.as_ref().map(|exe| {
            let at = *by_path.entry(exe.value.clone()).or_insert_with(|| {
                programs.push(CompiledProgram {
                    path: exe.value.clone(),
                    digest: None,
                    inherit: false,
                    named_by: exception.name.value.clone(),
                });
                programs.len() - 1
            });
            if let Some(digest) = &exception.digest {
                programs[at].digest = Some(digest.value.clone());
            }
            programs[at].inherit |= exception.inherit.value;
            at
        });
        let subject =
            Subject { program, place, uid: exception.uid.as_ref().map_or(ANY_UID, |uid| uid.value) };
        let end = exception.ends(now);
        // Who is no child of a program has nothing to inherit.
        let inherited = if exception.inherit.value || program.is_none() { end } else { 0 };
        let reasons: &mut BTreeMap<_, _> = ends.entry(subject).or_default();
        for id in &exception.reasons {
            let Some(&number) = kernel.numbers.get(id.value.as_str()) else { continue };
            let known: &mut (u64, u64) = reasons.entry(number).or_default();
            *known = (known.0.max(end), known.1.max(inherited));
        }
    };
    for exception in policy.exceptions.iter().filter(|e| !e.has_ended(now)) {
        match &exception.place {
            None => add(exception, NO_PLACE, &mut ends),
            Some(place) => by_place.entry(&place.value).or_default().push(exception),
        }
    }
    if !by_place.is_empty() {
        for (number, place) in (1..).zip(&index.places) {
            for covering in index.covering(place) {
                for exception in by_place.get(index.places[covering]).into_iter().flatten() {
                    add(exception, number, &mut ends);
                }
            }
        }
    }
    let exceptions = ends.into_iter().map(|(subject, reasons)| (subject, excepted(reasons))).collect();
    debug_assert!(kernel.reasons.len() <= 64);
    (exceptions, programs)
}

fn excepted(reasons: BTreeMap<u32, (u64, u64)>) -> Excepted {
    let mut excepted = Excepted::default();
    for (number, (itself, inherited)) in reasons {
        let for_a_time = |end: u64| end != 0 && end != u64::MAX;
        if itself == u64::MAX {
            excepted.always |= bit(number);
        }
        if inherited == u64::MAX {
            excepted.inherited |= bit(number);
        }
        if for_a_time(itself) || for_a_time(inherited) {
            excepted.timed.push((number, itself, inherited));
        }
    }
    excepted
}
