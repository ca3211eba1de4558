//! Compiled tables, and the comparison of two policies, agree with the interpreter: a million random pairs of policy and request each.

use std::{collections::HashMap, path::PathBuf};

use jiff::{SignedDuration, Timestamp};
use stockade_common::{
    ANY_UID, Exception as Entry, ExceptionKey, Label, Sets, Until, UntilKey, Verdict as KernelVerdict, Words,
    decide::{World, decide},
};
use stockade_policy::{
    compile::{CompileError, Tables, bit, compile},
    finder::Finder,
    interpret::{By, KernelReason, Request, interpret},
    laxer::laxer,
    model::{Clock, Exception, LevelChoice, Mode, Place, Policy, Said, Scope, Unknown, Verdict},
};
use stockade_reasons::Level;

/// Numbers that look random and are the same every time (splitmix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % end as u64).expect("it fits")
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn of<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())].clone()
    }
}

const PATHS: [&str; 12] = [
    "/", "/a", "/b", "/a/x", "/a/xy", "/a/xyz", "/a/x/q", "/a/xy/q", "/b/x", "/b/x/y/z", "/a/zx", "/c.slice",
];
const GLOBS: [&str; 9] =
    ["/a/*", "/a/x*", "/a/xy*", "/a/*z", "/*", "/*.slice", "/b/*", "/a/x/*", "/b/x/y/*z"];
const PROGRAMS: [&str; 3] = ["/bin/one", "/bin/two", "/bin/three"];
const IDS: [&str; 4] = ["dev-mem", "msr", "kcore", "perf"];
const LEVELS: [LevelChoice; 4] =
    [LevelChoice::None, LevelChoice::Integrity, LevelChoice::Confidentiality, LevelChoice::Auto];
const MODES: [Mode; 2] = [Mode::Enforce, Mode::Audit];
const VERDICTS: [Verdict; 3] = [Verdict::Allow, Verdict::Audit, Verdict::Deny];

fn said<T>(value: T) -> Said<T> {
    Said::at(value, "test")
}

fn place(chance: &mut Chance) -> Place {
    if chance.one_in(2) {
        return Place::Path(chance.of(&PATHS).into());
    }
    let (prefix, suffix) = chance.of(&GLOBS).split_once('*').expect("a star");
    Place::Glob { prefix: prefix.into(), suffix: suffix.into() }
}

fn policy(chance: &mut Chance, now: Timestamp) -> Policy {
    let mut policy = Policy::level(chance.of(&LEVELS), "test");
    policy.mode = said(chance.of(&MODES));
    policy.unknown_reasons =
        said(chance.of(&[Unknown::Level, Unknown::Allow, Unknown::Audit, Unknown::Deny]));
    for id in IDS {
        if chance.one_in(4) {
            policy.reasons.insert(id.into(), said(chance.of(&VERDICTS)));
        }
    }
    for number in 0..chance.below(5) {
        let mut scope = Scope {
            name: said(format!("s{number}")),
            place: said(place(chance)),
            level: chance.one_in(2).then(|| said(chance.of(&LEVELS))),
            mode: chance.one_in(3).then(|| said(chance.of(&MODES))),
            reasons: [].into(),
            loosen: said(chance.one_in(2)),
        };
        for id in IDS {
            if chance.one_in(4) {
                scope.reasons.insert(id.into(), said(chance.of(&VERDICTS)));
            }
        }
        // Two scopes at one place are refused when a policy is read.
        if policy.scopes.iter().all(|other| other.place.value != scope.place.value) {
            policy.scopes.push(scope);
        }
    }
    for number in 0..chance.below(6) {
        let exe = chance.one_in(2).then(|| said(PathBuf::from(chance.of(&PROGRAMS))));
        let at = (exe.is_none() || chance.one_in(2)).then(|| said(place(chance)));
        policy.exceptions.push(Exception {
            name: said(format!("e{number}")),
            reasons: IDS.into_iter().filter(|_| chance.one_in(2)).map(|id| said(id.to_owned())).collect(),
            inherit: said(exe.is_some() && chance.one_in(2)),
            exe,
            digest: None,
            place: at,
            uid: chance.one_in(3).then(|| said(u32::try_from(chance.below(2)).expect("it fits") * 1000)),
            expires: chance.one_in(3).then(|| {
                said(now + SignedDuration::from_secs(i64::try_from(chance.below(40)).expect("it fits") - 20))
            }),
            why: None,
            granted: false,
            ends_boot_ns: None,
        });
    }
    policy
}

fn reasons() -> Vec<KernelReason> {
    let reason = |number, id: Option<&'static str>, level, debugger| KernelReason {
        number,
        id,
        enum_name: format!("LOCKDOWN_{number}"),
        level,
        debugger,
    };
    vec![
        reason(2, Some("dev-mem"), Level::Integrity, false),
        reason(7, Some("msr"), Level::Integrity, false),
        reason(8, None, Level::Integrity, false),
        reason(9, Some("dbg-write-kernel"), Level::Integrity, true),
        reason(20, Some("kcore"), Level::Confidentiality, false),
        reason(21, Some("perf"), Level::Confidentiality, false),
        reason(22, None, Level::Confidentiality, false),
    ]
}

/// A kernel's tables, in memory.
struct Kernel<'a> {
    words: Words,
    finder: Finder<'a>,
    exceptions: HashMap<ExceptionKey, Entry>,
    until: HashMap<UntilKey, Until>,
}

impl<'a> Kernel<'a> {
    fn new(tables: &'a Tables) -> Self {
        let (mut exceptions, mut until) = (HashMap::new(), HashMap::new());
        for (subject, excepted) in &tables.exceptions {
            let inode = subject.program.map_or(0, |at| inode(&tables.programs[at].path));
            let key = key(inode, subject.place, subject.uid);
            let timed = excepted.timed.iter().fold(0, |set, &(number, ..)| set | bit(number));
            exceptions.insert(key, Entry { always: excepted.always, inherited: excepted.inherited, timed });
            for &(number, itself, inherited) in &excepted.timed {
                until.insert(UntilKey { subject: key, reason: number.into() }, Until { itself, inherited });
            }
        }
        Self { words: tables.words, finder: Finder::new(&tables.places), exceptions, until }
    }
}

fn key(inode: u64, place: u32, uid: u32) -> ExceptionKey {
    ExceptionKey { inode, place, uid, ..ExceptionKey::default() }
}

fn inode(path: &std::path::Path) -> u64 {
    PROGRAMS.iter().position(|program| path == std::path::Path::new(program)).expect("one of them") as u64 + 1
}

struct Here<'k> {
    kernel: &'k Kernel<'k>,
    request: Request<'k>,
    boot_ns: u64,
}

impl World for Here<'_> {
    fn place(&self, _: u64) -> Option<Sets> {
        self.kernel.finder.nearest(self.request.cgroup)
    }

    fn label(&self) -> Option<Label> {
        let flags = if self.request.inherited { Label::INHERITED } else { 0 };
        self.request.exe.map(|path| Label { inode: inode(path), flags, ..Label::NONE })
    }

    fn uid(&self) -> u32 {
        self.request.uid
    }

    fn boot_ns(&self) -> u64 {
        self.boot_ns
    }

    fn exception(&self, key: &ExceptionKey) -> Option<Entry> {
        self.kernel.exceptions.get(key).copied()
    }

    fn until(&self, key: &UntilKey) -> Option<Until> {
        self.kernel.until.get(key).copied()
    }
}

/// What the kernel side answers.
fn decided(here: &Here<'_>) -> Option<KernelVerdict> {
    let (number, words) = (here.request.reason.number, &here.kernel.words);
    if words.watched_anywhere & bit(number) == 0 {
        return None;
    }
    decide(words, number, bit(number), here).map(|decision| decision.verdict)
}

#[test]
fn compiled_policies_decide_as_interpreted_ones() {
    let reasons = reasons();
    let wall: Timestamp = "2026-06-01T12:00:00Z".parse().expect("it fits");
    let now = Clock { wall, boot_ns: 1_000_000_000_000 };
    let mut chance = Chance(20_261_124);
    let (mut pairs, mut ambiguous, mut seen) = (0u32, 0u32, HashMap::<String, u32>::new());
    while pairs < 1_000_000 {
        let policy = policy(&mut chance, wall);
        let auto = chance.of(&[Level::None, Level::Integrity]);
        let tables = match compile(&policy, auto, &reasons, now) {
            Ok(tables) => tables,
            Err(CompileError::Ambiguous { .. } | CompileError::TooManyPatterns { .. }) => {
                ambiguous += 1;
                continue;
            }
            Err(error) => panic!("{error}: {policy:#?}"),
        };
        let kernel = Kernel::new(&tables);
        for _ in 0..500 {
            let exe = chance.one_in(2).then(|| PathBuf::from(chance.of(&PROGRAMS)));
            let later = chance.below(40);
            let request = Request {
                reason: &reasons[chance.below(reasons.len())],
                cgroup: chance.of(&PATHS),
                exe: exe.as_deref(),
                inherited: chance.one_in(2),
                uid: u32::try_from(chance.below(2)).expect("it fits") * 1000,
                at: wall + SignedDuration::from_secs(i64::try_from(later).expect("it fits")),
            };
            let boot_ns = now.boot_ns + later as u64 * 1_000_000_000;
            let got = decided(&Here { kernel: &kernel, request, boot_ns });
            let ruling = interpret(&policy, auto, &request);
            let wanted = match (ruling.verdict, &ruling.by) {
                (_, By::Exception(_)) => Some(KernelVerdict::Excepted),
                (Verdict::Allow, _) => None,
                (Verdict::Audit, _) => Some(KernelVerdict::Audited),
                (Verdict::Deny, _) => Some(KernelVerdict::Refused),
            };
            assert_eq!(got, wanted, "{request:#?}\n{ruling:#?}\n{policy:#?}\n{tables:#?}");
            *seen.entry(format!("{wanted:?}")).or_default() += 1;
            pairs += 1;
        }
    }
    // Chance has to bring about what is to be tested.
    assert!(seen.len() == 4 && seen.values().all(|&count| count > 10_000), "{seen:?}");
    assert!(ambiguous > 0, "no policy was refused");
    assert_ne!(ANY_UID, 1000);
}

/// A policy that says a little more or less than another one.
fn changed(chance: &mut Chance, old: &Policy, now: Timestamp) -> Policy {
    let (mut new, other) = (old.clone(), policy(chance, now));
    for _ in 0..=chance.below(2) {
        match chance.below(8) {
            0 => new.level = other.level.clone(),
            1 => new.mode = other.mode.clone(),
            2 => new.unknown_reasons = other.unknown_reasons.clone(),
            3 => new.reasons = other.reasons.clone(),
            4 => new.exceptions.clone_from(&other.exceptions),
            5 => drop(new.exceptions.pop()),
            6 => drop(new.scopes.pop()),
            _ => {
                let place = |scope: &Scope| scope.place.value.clone();
                let free = |scope: &&Scope| new.scopes.iter().all(|own| place(own) != place(scope));
                let added = other.scopes.iter().find(free).cloned();
                new.scopes.extend(added.map(|scope| Scope { name: said("added".to_owned()), ..scope }));
            }
        }
    }
    new
}

#[test]
fn a_policy_that_is_called_no_laxer_lets_no_request_through_that_the_other_refuses() {
    let reasons = reasons();
    let wall: Timestamp = "2026-06-01T12:00:00Z".parse().expect("it fits");
    let mut chance = Chance(20_261_201);
    let (mut pairs, mut stricter) = (0u32, 0u32);
    while pairs < 1_000_000 {
        let old = policy(&mut chance, wall);
        let new = changed(&mut chance, &old, wall);
        let auto = chance.of(&[Level::None, Level::Integrity]);
        let compiles = |policy| compile(policy, auto, &reasons, Clock { wall, boot_ns: 1 }).is_ok();
        if !laxer(&old, &new, auto).is_empty() || !compiles(&old) || !compiles(&new) {
            continue;
        }
        for _ in 0..40 {
            let exe = chance.one_in(2).then(|| PathBuf::from(chance.of(&PROGRAMS)));
            let request = Request {
                reason: &reasons[chance.below(reasons.len())],
                cgroup: chance.of(&PATHS),
                exe: exe.as_deref(),
                inherited: chance.one_in(2),
                uid: u32::try_from(chance.below(2)).expect("it fits") * 1000,
                at: wall,
            };
            let (before, after) = (interpret(&old, auto, &request), interpret(&new, auto, &request));
            assert!(
                after.verdict >= before.verdict,
                "{request:#?}\n{before:#?}\n{after:#?}\n{old:#?}\n{new:#?}"
            );
            stricter += u32::from(after.verdict > before.verdict);
            pairs += 1;
        }
    }
    assert!(stricter > 10_000, "{stricter}");
}
