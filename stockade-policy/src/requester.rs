/*!
Who asked for what, as far as a policy can name it.
*/
use std::collections::{BTreeMap, BTreeSet};

use stockade_reasons::Reason;

use crate::{
    recorded::{Event, Outcome, Record},
    unit::{Home, Kind, home},
};

/// The suffix that the kernel adds to the path of a deleted program.
const DELETED: &str = " (deleted)";

/// Requests that any policy decides alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asked {
    /// For what.
    pub reason: Wanted,
    /// By which program of the host.
    pub exe: Program,
    /// From which cgroup; none where that could not be looked up.
    pub cgroup: Option<String>,
    /// By which user.
    pub uid: u32,
}

/// A reason in a record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wanted {
    /// One of the table, by its id.
    Known(&'static str),
    /// One that the table lacks.
    Other(String),
}

/// The program of a requester.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Program {
    /// A file of the host.
    Path(String),
    /// A file of a container's, or one that only memory holds: no path of the host names it.
    NotOfHost(String),
    /// The process was gone before it could be looked up. This is what its thread was called.
    Gone(String),
}

impl Asked {
    /// Returns the request of this event. Names are not escaped: the code that prints them does that.
    #[must_use]
    pub fn of(event: &Event) -> Self {
        let reason = match stockade_reasons::by_id(&event.reason) {
            Some(reason) => Wanted::Known(reason.id),
            None => Wanted::Other(event.reason.clone()),
        };
        let contained =
            event.cgroup.as_deref().and_then(home).is_some_and(|home| home.kind == Kind::Container);
        let exe = match event.exe.as_deref().map(|exe| exe.strip_suffix(DELETED).unwrap_or(exe)) {
            Some(exe) if contained || exe.starts_with("/memfd:") || !exe.starts_with('/') => {
                Program::NotOfHost(exe.to_owned())
            }
            Some(exe) => Program::Path(exe.to_owned()),
            None => Program::Gone(event.comm.clone()),
        };
        Self { reason, exe, cgroup: event.cgroup.clone(), uid: event.uid }
    }

    /// The unit, session or container it came from.
    #[must_use]
    pub fn home(&self) -> Option<Home> {
        self.cgroup.as_deref().and_then(home)
    }
}

impl Wanted {
    /// The table's entry.
    #[must_use]
    pub fn known(&self) -> Option<&'static Reason> {
        match self {
            Self::Known(id) => stockade_reasons::by_id(id),
            Self::Other(_) => None,
        }
    }

    /// Its id, or the kernel's name for it.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Known(id) => id,
            Self::Other(name) => name,
        }
    }
}

impl Program {
    /// Its path on the host.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::Path(path) => Some(path),
            Self::NotOfHost(_) | Self::Gone(_) => None,
        }
    }

    /// How it is told.
    #[must_use]
    pub fn told(&self) -> String {
        match self {
            Self::Path(path) => stockade_text::harmless(path),
            Self::NotOfHost(path) => format!("{}, no file of the host", stockade_text::harmless(path)),
            Self::Gone(comm) if comm.is_empty() => "a process that was gone".into(),
            Self::Gone(comm) => format!("{}, a process that was gone", stockade_text::harmless(comm)),
        }
    }
}

/// How often, when and by whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many events.
    pub events: u64,
    /// How many of them had which outcome when they were recorded.
    pub recorded: BTreeMap<Outcome, u64>,
    /// Nanoseconds from boot to the first one.
    pub first_ns: u64,
    /// Nanoseconds from boot to the last one.
    pub last_ns: u64,
    /// User ids.
    pub users: BTreeSet<u32>,
    /// Paths of cgroups, where known.
    pub cgroups: BTreeSet<String>,
    /// Names of threads, which processes choose themselves.
    pub names: BTreeSet<String>,
    /// How many came from a program that had been replaced or deleted while it ran.
    pub deleted: u64,
}

impl Tally {
    fn add(&mut self, event: &Event) {
        let deleted = event.exe.as_ref().is_some_and(|exe| exe.ends_with(DELETED));
        self.merge(&Self {
            events: 1,
            recorded: BTreeMap::from([(event.verdict, 1)]),
            first_ns: event.boot_ns,
            last_ns: event.boot_ns,
            users: BTreeSet::from([event.uid]),
            cgroups: event.cgroup.iter().cloned().collect(),
            names: BTreeSet::from([event.comm.clone()]),
            deleted: u64::from(deleted),
        });
    }

    /// Adds others.
    pub fn merge(&mut self, other: &Self) {
        self.first_ns = if self.events == 0 { other.first_ns } else { self.first_ns.min(other.first_ns) };
        self.last_ns = self.last_ns.max(other.last_ns);
        self.events += other.events;
        for (outcome, events) in &other.recorded {
            *self.recorded.entry(*outcome).or_default() += events;
        }
        self.users.extend(&other.users);
        self.cgroups.extend(other.cgroups.iter().cloned());
        self.names.extend(other.names.iter().cloned());
        self.deleted += other.deleted;
    }
}

/// The events of a record, those together that any policy decides alike.
#[must_use]
pub fn gather(record: &Record, which: impl Fn(&Event) -> bool) -> BTreeMap<Asked, Tally> {
    let mut gathered: BTreeMap<Asked, Tally> = BTreeMap::new();
    for event in record.events.iter().filter(|event| which(event)) {
        gathered.entry(Asked::of(event)).or_default().add(event);
    }
    gathered
}
