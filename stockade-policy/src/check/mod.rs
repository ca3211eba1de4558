/*!
The arguments against a policy: what it says that it does not do, and what it lets through that it does not say.

[`check()`] takes a policy and a [`Machine`] and returns findings, each with a [`Code`] and the place in the policy that is
to blame. It changes nothing and refuses nothing: what to do about a finding is for a person.

| file | what it argues about, or owns |
|---|---|
| `falls.rs` | 0: what falls with what is let through |
| `subject.rs` | 1: who is excepted |
| `program.rs` | 2: the program's file |
| `effect.rs` | 3: what has no effect |
| `scopes.rs` | 0 and 3, where they are about scopes |
| `settings.rs` | 3, where they are about settings |
| `time.rs` | 4: what has ended or will |
| `accept.rs` | 5: what was looked at and accepted |
| `seal.rs` | 6: how a seal is recorded, and what it trusts |
| `code.rs`, `page.rs` | the codes of `codes.toml`, and their pages in docs/checks |
| `places.rs` | how places in the cgroup tree lie to each other |
| `verdicts.rs` | what becomes of each reason, on the host and in each scope |
| `tools.rs` | programs that are known to do anybody's bidding |
| `scene.rs`, `trials.rs`, `anything.rs` | tests: a machine, the arguments played on it, policies nobody would write |
| `machine.rs`, `disk.rs`, `content.rs`, `cgroups.rs` | what is known of the machine, its files and cgroups |
*/
mod accept;
#[cfg(test)]
mod anything;
mod cgroups;
mod code;
pub mod content;
mod disk;
mod effect;
mod falls;
mod machine;
#[cfg(test)]
mod page;
mod places;
mod program;
#[cfg(test)]
mod scene;
mod scopes;
mod seal;
mod settings;
mod subject;
mod time;
pub(crate) mod tools;
#[cfg(test)]
mod trials;
mod verdicts;

use std::{collections::BTreeSet, fmt};

pub use cgroups::Cgroups;
pub use code::*;
pub use disk::Disk;
pub use machine::{FileSystem, Files, Keeper, Machine, Now, Program, Step, Unseen};

use stockade_reasons::Level;

use crate::model::{Exception, Origin, Place, Policy, Scope, Verdict, known};
use verdicts::{InScope, Verdicts, enforcing, settled};

/// One argument against a policy.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Which argument.
    pub code: &'static Code,
    /// How bad it is here.
    pub severity: Severity,
    /// The part of the policy that it is about.
    pub about: About,
    /// The fault, in one line.
    pub message: String,
    /// Why that matters here.
    pub why: String,
    /// The remedy.
    pub remedy: String,
    /// The sentence that is to blame.
    pub origin: Origin,
    /// A few words for that place; may be empty.
    pub label: String,
    /// Other places that have to do with it, each with a few words.
    pub related: Vec<(Origin, String)>,
    /// Why somebody accepted it.
    pub accepted: Option<String>,
}

/// The part of a policy that a finding is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// The value of this key of the policy: `level`, `reasons.msr`.
    Key(String),
    /// The scope of this name.
    Scope(String),
    /// The exception of this name.
    Exception(String),
}

impl About {
    /// The name as an `accept` entry has it.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Key(name) | Self::Scope(name) | Self::Exception(name) => name,
        }
    }

    /// `key`, `scope` or `exception`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Key(_) => "key",
            Self::Scope(_) => "scope",
            Self::Exception(_) => "exception",
        }
    }
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(name) => f.write_str(name),
            Self::Scope(name) | Self::Exception(name) => write!(f, "{} {name:?}", self.kind()),
        }
    }
}

impl Finding {
    /// With the code's own severity, explanation and remedy.
    fn new(code: &'static Code, about: About, origin: &Origin, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: code.severity,
            about,
            message: message.into(),
            why: String::new(),
            remedy: code.remedy.into(),
            origin: origin.clone(),
            label: String::new(),
            related: Vec::new(),
            accepted: None,
        }
    }

    fn severity(self, severity: Severity) -> Self {
        Self { severity, ..self }
    }

    fn why(self, why: impl Into<String>) -> Self {
        Self { why: why.into(), ..self }
    }

    fn remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: remedy.into(), ..self }
    }

    fn label(self, label: impl Into<String>) -> Self {
        Self { label: label.into(), ..self }
    }

    fn related(mut self, origin: &Origin, words: impl Into<String>) -> Self {
        self.related.push((origin.clone(), words.into()));
        self
    }
}

/// The result of a check.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The worst first, then in the order of the policy. Accepted ones last.
    pub findings: Vec<Finding>,
    /// Parts of the machine that could not be read; the check draws no conclusion about them.
    pub unseen: Vec<String>,
}

impl Report {
    /// The findings of this severity that nobody accepted.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|f| f.accepted.is_none() && f.severity == severity).count()
    }

    /// The findings that somebody accepted.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.findings.iter().filter(|f| f.accepted.is_some()).count()
    }

    /// The worst that nobody accepted.
    #[must_use]
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().filter(|f| f.accepted.is_none()).map(|f| f.severity).max()
    }
}

/// The facts that every argument starts from.
struct Case<'a> {
    policy: &'a Policy,
    machine: &'a Machine<'a>,
    /// The verdict of each reason outside all scopes.
    host: Verdicts,
    /// The verdicts outside all scopes with every mode set to enforce: the policy's purpose.
    meant: Verdicts,
    /// Where each scope is, units that are there by their paths.
    places: Vec<Place>,
    /// In each scope, in the policy's order.
    scopes: Vec<InScope>,
    /// Each scope and those around it, the nearest first.
    chains: Vec<Vec<usize>>,
    /// The verdicts in each scope with every mode set to enforce.
    meant_scopes: Vec<Verdicts>,
    /// Reasons that are meant to be refused on the host or in a scope.
    denied: BTreeSet<&'static str>,
    /// Reasons that are refused or reported on the host or in a scope.
    watched: BTreeSet<&'static str>,
    /// The file of each exception's program, in the policy's order.
    programs: Vec<Option<Result<Program, Unseen>>>,
}

impl<'a> Case<'a> {
    fn new(policy: &'a Policy, machine: &'a Machine<'a>) -> Self {
        let place = |scope: &Scope| resolved(&scope.place.value, machine);
        let places: Vec<Place> = policy.scopes.iter().map(place).collect();
        let chains: Vec<_> = (0..places.len()).map(|scope| places::chain(&places, scope)).collect();
        let enforcing = enforcing(policy);
        let scopes = |policy| chains.iter().map(move |chain| InScope::of(policy, chain, machine));
        let look = |exception: &Exception| {
            let exe = exception.exe.as_ref().filter(|_| !ended(exception, machine))?;
            Some(machine.files.program(&exe.value))
        };
        let host = Verdicts::of_host(policy, machine);
        let meant = Verdicts::of_host(&enforcing, machine);
        let meant_scopes: Vec<_> = scopes(&enforcing).map(|scope| scope.effective).collect();
        let scopes: Vec<_> = scopes(policy).collect();
        let somewhere = |host: &Verdicts, scopes: &mut dyn Iterator<Item = &Verdicts>, least: Verdict| {
            let mut found = host.at_least(least);
            scopes.for_each(|scope| found.extend(scope.at_least(least)));
            found
        };
        Self {
            policy,
            machine,
            denied: somewhere(&meant, &mut meant_scopes.iter(), Verdict::Deny),
            watched: somewhere(&host, &mut scopes.iter().map(|scope| &scope.effective), Verdict::Audit),
            host,
            meant,
            places,
            scopes,
            chains,
            meant_scopes,
            programs: policy.exceptions.iter().map(look).collect(),
        }
    }

    /// Exceptions that have not expired: the others let nothing through.
    fn active_exceptions(&self) -> impl Iterator<Item = &'a Exception> {
        let machine = self.machine;
        self.policy.exceptions.iter().filter(move |exception| !ended(exception, machine))
    }

    /// Whether the kernel has this reason, as far as that is known.
    fn has(&self, id: &str) -> bool {
        self.machine.reasons.as_ref().is_none_or(|reasons| reasons.contains(id))
    }

    /// Whether the kernel's own lockdown is known to refuse this reason.
    fn native_refuses(&self, id: &str) -> bool {
        self.machine.native.is_some_and(|native| native >= known(id).level)
    }

    /// Whether Stockade is ever asked about this reason.
    fn can_happen(&self, id: &str) -> bool {
        self.has(id) && !self.native_refuses(id)
    }

    /// The meant verdicts in a scope, or outside all of them.
    fn meant_at(&self, scope: Option<usize>) -> &Verdicts {
        scope.map_or(&self.meant, |scope| &self.meant_scopes[scope])
    }

    /// The level in a scope, or outside all of them.
    fn level_at(&self, scope: Option<usize>) -> Level {
        scope.map_or_else(|| settled(self.policy.level.value, self.machine), |scope| self.scopes[scope].level)
    }
}

/// A unit as the path of its cgroup, where it runs or where systemd would start it.
fn resolved(place: &Place, machine: &Machine<'_>) -> Place {
    let Place::Unit(unit) = place else { return place.clone() };
    let placed = machine.files.unit(unit);
    let running = (machine.cgroups)(&Place::Unit(placed.name)).unwrap_or_default();
    match (&running[..], placed.path) {
        ([path], _) => Place::Path(path.clone()),
        (_, Ok(path)) => Place::Path(path),
        _ => place.clone(),
    }
}

/// Whether an exception is past its end.
fn ended(exception: &Exception, machine: &Machine<'_>) -> bool {
    exception.expires.as_ref().is_some_and(|end| end.value <= machine.now)
}

/// Argues against a policy.
///
/// ```
/// use stockade_policy::{Source, check::{Disk, Machine, Now, check}, merge::merge, read};
///
/// let text = "version = 1\nlevel = \"integrity\"\nreasons.dev-mem = \"allow\"\n";
/// let policy = merge([read(&Source::new("policy.toml", text))?]).expect("one file cannot contradict another");
/// let folder = tempfile::tempdir()?;
/// let machine = Machine {
///     native: None,
///     auto: None,
///     reasons: None,
///     now: "2026-06-01T12:00:00Z".parse()?,
///     files: &Disk::new(folder.path())?,
///     cgroups: &|_| None,
///     function: &|_| None,
///     setting: &|_| Now::Unknown,
/// };
/// // Writing kernel memory voids every other reason of the level.
/// let report = check(&policy, &machine);
/// assert!(report.findings.iter().any(|finding| finding.code.id == "SP001"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn check(policy: &Policy, machine: &Machine<'_>) -> Report {
    let case = Case::new(policy, machine);
    let mut report = Report::default();
    for argue in [
        falls::argue,
        scopes::argue,
        subject::argue,
        program::argue,
        effect::argue,
        settings::argue,
        time::argue,
        seal::argue,
    ] {
        argue(&case, &mut report);
    }
    accept::settle(policy, &mut report.findings);
    for finding in &mut report.findings {
        if finding.why.is_empty() {
            finding.why =
                finding.code.explanation.split("\n\n").next().unwrap_or_default().replace('\n', " ");
        }
    }
    report.findings.sort_by(|a, b| {
        (a.accepted.is_some(), std::cmp::Reverse(a.severity), &a.origin.file, a.origin.span, a.code.id).cmp(
            &(b.accepted.is_some(), std::cmp::Reverse(b.severity), &b.origin.file, b.origin.span, b.code.id),
        )
    });
    report.unseen.sort();
    report.unseen.dedup();
    report
}

/// `a, b and c`.
fn list<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<_> = words.into_iter().collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => words.concat(),
    }
}
