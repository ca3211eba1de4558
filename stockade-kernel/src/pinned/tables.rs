/*!
Writes a compiled policy into the kernel's hash maps.

Every key begins with the generation of its policy. Writing a new policy therefore does not change what the policy in force reads, and entries of a
killed command can be recognised.
*/
use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use stockade_common::{
    CgroupKey, Exception, ExceptionKey, NAME_PART_MAX, NamePart, PATTERNS, PathKey, Pattern, Program,
    ProgramKey, Sets, SettingKey, SettingRule, Until, UntilKey,
};
use stockade_policy::{
    compile::{CompiledPlace, CompiledSetting, Tables},
    model::Place,
};

use crate::{
    Error,
    machine::{cgroups, executables::Executable},
    pinned::pins,
    program::object::{MapName, Object},
    sys::held,
};

/// The hash maps of a policy.
pub(crate) struct Maps {
    maps: HashMap<MapName, OwnedFd>,
    /// The written entries as bytes, for [`Maps::check`].
    written: Option<RefCell<HashMap<MapName, Written>>>,
}

/// Keys and values of one map.
type Written = BTreeMap<Vec<u8>, Vec<u8>>;

/// Returns the error for a map with other entries than those written.
pub(crate) fn meddled(map: MapName) -> Error {
    Error::Request(format!(
        "not sealed: another process has written into the map {map} while it was made; find out who it is, and seal again"
    ))
}

/// Returns the bytes of a value as they are in a map. The types have no implicit padding.
pub(crate) fn bytes<T: Copy>(value: &T) -> Vec<u8> {
    // SAFETY: plain data with explicit padding, borrowed for the call.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast::<u8>(), size_of::<T>()) }.to_vec()
}

impl Maps {
    /// Returns the maps of a loaded object.
    pub fn of(object: &Object) -> Result<Self, Error> {
        let maps = MapName::TABLES.into_iter().map(|name| {
            let map = object.map(name)?.try_clone_to_owned().map_err(|e| Error::io("keep a map", e))?;
            Ok((name, map))
        });
        Ok(Self { maps: maps.collect::<Result<_, Error>>()?, written: None })
    }

    /// Returns the maps of a loaded object, and records what is written for [`Maps::check`].
    pub fn to_be_checked(object: &Object) -> Result<Self, Error> {
        Ok(Self { written: Some(RefCell::default()), ..Self::of(object)? })
    }

    /// Returns the pinned maps.
    pub fn pinned() -> Result<Self, Error> {
        let mut there = pins::open_maps()?;
        let maps = MapName::TABLES.into_iter().filter_map(|name| Some((name, there.remove(&name)?)));
        Ok(Self { maps: maps.collect(), written: None })
    }

    fn map(&self, name: MapName) -> BorrowedFd<'_> {
        self.maps[&name].as_fd()
    }

    /// Writes all tables except `cgroups`, see [`place`].
    pub fn write(&self, tables: &Tables, executables: &[Executable], generation: u64) -> Result<(), Error> {
        write_scopes_and_exceptions(self, tables, executables, generation)?;
        self.write_settings(&tables.settings, generation)?;
        let programs = executables.iter().zip(&tables.programs).map(|(executable, program)| {
            let inherit = if program.inherit { Program::INHERIT } else { 0 };
            let key = ProgramKey { generation, inode: executable.inode, device: executable.device, pad: 0 };
            let seen = executable.program;
            (key, Program { flags: seen.flags | inherit, ..seen })
        });
        // Two paths may be one file: children inherit if either exception says so, and a digest that either requires is required.
        let mut by_key: HashMap<ProgramKey, Program> = HashMap::new();
        for (key, program) in programs {
            let entry = by_key.entry(key).or_insert(program);
            entry.flags |= program.flags;
            if program.flags & Program::VERITY != 0 {
                entry.digest = program.digest;
            }
        }
        self.put(MapName::Programs, Entries::of(by_key))
    }

    fn write_settings(&self, settings: &[CompiledSetting], generation: u64) -> Result<(), Error> {
        let entries = settings.iter().map(|setting| {
            let key = SettingKey::new(generation, &setting.name).ok_or_else(|| {
                Error::Request(format!("{} is too long for the kernel's table", setting.name))
            })?;
            Ok((key, setting.rule))
        });
        self.put(MapName::Settings, Entries::of(entries.collect::<Result<Vec<_>, Error>>()?))
    }

    /// Reads back the settings that a policy holds, sorted by name.
    pub fn settings(&self, generation: u64) -> Result<Vec<CompiledSetting>, Error> {
        Self::settings_in(self.map(MapName::Settings), generation)
    }

    /// Reads back the settings that a policy holds from this map.
    pub fn settings_in(map: BorrowedFd<'_>, generation: u64) -> Result<Vec<CompiledSetting>, Error> {
        let failed = |e: io::Error| Error::io(format!("read the table {}", MapName::Settings), e);
        let mut settings = Vec::new();
        for key in crate::sys::keys::<SettingKey, SettingRule>(map).map_err(failed)? {
            if key.generation == generation
                && let Some(rule) = crate::sys::lookup(map, &key).map_err(failed)?
            {
                let end = key.name.iter().position(|&byte| byte == 0).unwrap_or(key.name.len());
                let name = String::from_utf8_lossy(&key.name[..end]).into_owned();
                settings.push(CompiledSetting { name, rule, named: false });
            }
        }
        settings.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(settings)
    }

    /// Deletes the entries of all other policies.
    pub fn keep_only(&self, generation: u64) -> Result<(), Error> {
        self.sweep::<CgroupKey, Sets>(MapName::Cgroups, |key| key.generation == generation)?;
        self.sweep::<PathKey, Sets>(MapName::Paths, |key| key.generation == generation)?;
        self.sweep::<PathKey, [Pattern; PATTERNS]>(MapName::Patterns, |key| key.generation == generation)?;
        self.sweep::<ExceptionKey, Exception>(MapName::Exceptions, |key| key.generation == generation)?;
        self.sweep::<UntilKey, Until>(MapName::Until, |key| key.subject.generation == generation)?;
        self.sweep::<ProgramKey, Program>(MapName::Programs, |key| key.generation == generation)?;
        self.sweep::<SettingKey, SettingRule>(MapName::Settings, |key| key.generation == generation)
    }

    fn sweep<K: Copy + Default, V: Copy + Default>(
        &self,
        name: MapName,
        keep: impl Fn(&K) -> bool,
    ) -> Result<(), Error> {
        let failed = |e: io::Error| Error::io(format!("clear the table {name}"), e);
        let map = self.map(name);
        let mut old = crate::sys::keys::<K, V>(map).map_err(failed)?;
        old.retain(|key| !keep(key));
        crate::sys::delete_all(map, &old).map_err(failed)
    }

    /// Fails unless the frozen maps have exactly the entries that were written: between the creation of a map and its freezing, root can open it by
    /// its id and write to it.
    pub fn check(&self) -> Result<(), Error> {
        let mut written = self.written.as_ref().map(RefCell::borrow_mut).expect("made to be checked");
        // The kernel side writes places of new cgroups, too.
        for name in MapName::TABLES.into_iter().filter(|name| *name != MapName::Cgroups) {
            let there = held::entries(self.map(name))
                .map_err(|e| Error::io(format!("read back the table {name}"), e))?;
            if there != written.remove(&name).unwrap_or_default() {
                return Err(meddled(name));
            }
        }
        Ok(())
    }
}

/// Entries of a table as bytes: all keys, and all values.
pub(crate) struct Entries {
    pub count: usize,
    keys: Vec<u8>,
    values: Vec<u8>,
}

impl Entries {
    fn of<K: Copy, V: Copy>(entries: impl IntoIterator<Item = (K, V)>) -> Self {
        let mut all = Self { count: 0, keys: Vec::new(), values: Vec::new() };
        for (key, value) in entries {
            all.count += 1;
            all.keys.extend(bytes(&key));
            all.values.extend(bytes(&value));
        }
        all
    }

    /// Returns key and value of each entry.
    pub fn each(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let size = |all: &[u8]| (all.len() / self.count.max(1)).max(1);
        self.keys.chunks_exact(size(&self.keys)).zip(self.values.chunks_exact(size(&self.values)))
    }
}

/// Receives the entries of a policy.
pub(crate) trait Sink {
    /// Receives entries of a table.
    fn put(&self, table: MapName, entries: Entries) -> Result<(), Error>;
}

impl Sink for Maps {
    fn put(&self, name: MapName, entries: Entries) -> Result<(), Error> {
        if let Some(written) = &self.written {
            let entries = entries.each().map(|(key, value)| (key.to_vec(), value.to_vec()));
            written.borrow_mut().entry(name).or_default().extend(entries);
        }
        let Entries { count, keys, values } = entries;
        crate::sys::update_all(self.map(name), count, &keys, &values).map_err(|e| match e.raw_os_error() {
            Some(libc::E2BIG) => Error::Request(format!(
                "the policy needs more entries than the kernel's table {name} takes, beside those of the policy in force"
            )),
            _ => Error::io(format!("write the table {name}"), e),
        })
    }
}

/// Writes the tables for scopes and exceptions, except `cgroups`, see [`place`].
pub(crate) fn write_scopes_and_exceptions(
    sink: &dyn Sink,
    tables: &Tables,
    executables: &[Executable],
    generation: u64,
) -> Result<(), Error> {
    write_paths(sink, &tables.places, generation)?;
    write_exceptions(sink, tables, executables, generation)
}

/// Gives existing cgroups their places. The kernel side places new ones, so that it needs the paths first.
pub(crate) fn place(sink: &dyn Sink, places: &[CompiledPlace], generation: u64) -> Result<(), Error> {
    if places.is_empty() {
        return Ok(());
    }
    let found = cgroups::place(places)?;
    let entries = found.into_iter().map(|(cgroup, sets)| (CgroupKey { generation, cgroup }, sets));
    sink.put(MapName::Cgroups, Entries::of(entries))
}

fn write_paths(sink: &dyn Sink, places: &[CompiledPlace], generation: u64) -> Result<(), Error> {
    let too_long = |place: &Place| Error::Request(format!("{place} is too long for the kernel's table"));
    let mut paths = Vec::new();
    let mut patterns: HashMap<PathKey, [Pattern; PATTERNS]> = HashMap::new();
    // The most specific place comes first: a place inside another has a longer path.
    let mut sorted: Vec<_> = places.iter().collect();
    sorted.sort_by_key(|place| std::cmp::Reverse(place.place.to_string().len()));
    for CompiledPlace { place, sets } in sorted {
        let key = |path: &str| PathKey::new(generation, path).ok_or_else(|| too_long(place));
        match place {
            Place::Path(path) => paths.push((key(path)?, *sets)),
            Place::Glob { prefix, suffix } => {
                let above = if place.above().is_empty() { "/" } else { place.above() };
                let head = &prefix[place.above().len() + 1..];
                let part = |text: &str| NamePart::new(text).ok_or_else(|| too_long(place));
                let length = |text: &str| u32::try_from(text.len()).unwrap_or(u32::MAX);
                let pattern = Pattern {
                    head: part(head)?,
                    tail: part(suffix)?,
                    tail_length: length(suffix),
                    // No cgroup has an empty name.
                    least: (length(head) + length(suffix)).max(1),
                    sets: *sets,
                };
                debug_assert!(suffix.len() <= NAME_PART_MAX);
                let siblings = patterns.entry(key(above)?).or_insert([Pattern::UNUSED; PATTERNS]);
                let free = siblings.iter_mut().find(|sibling| sibling.least == u32::MAX);
                *free.expect("the compiler has counted them") = pattern;
            }
            Place::Unit(unit) => return Err(Error::Request(format!("the unit {unit} was not found"))),
        }
    }
    sink.put(MapName::Paths, Entries::of(paths))?;
    sink.put(MapName::Patterns, Entries::of(patterns))
}

fn write_exceptions(
    sink: &dyn Sink,
    tables: &Tables,
    executables: &[Executable],
    generation: u64,
) -> Result<(), Error> {
    let mut exceptions: HashMap<ExceptionKey, Exception> = HashMap::new();
    let mut until: HashMap<UntilKey, Until> = HashMap::new();
    for (subject, excepted) in &tables.exceptions {
        let executable = subject.program.map(|at| &executables[at]);
        let key = ExceptionKey {
            generation,
            inode: executable.map_or(0, |e| e.inode),
            device: executable.map_or(0, |e| e.device),
            place: subject.place,
            uid: subject.uid,
            pad: 0,
        };
        // Two paths may be one file.
        let entry = exceptions.entry(key).or_default();
        entry.always |= excepted.always;
        entry.inherited |= excepted.inherited;
        for &(reason, itself, inherited) in &excepted.timed {
            entry.timed |= stockade_policy::compile::bit(reason);
            let until = until.entry(UntilKey { subject: key, reason: u64::from(reason) }).or_default();
            until.itself = until.itself.max(itself);
            until.inherited = until.inherited.max(inherited);
        }
    }
    sink.put(MapName::Until, Entries::of(until))?;
    sink.put(MapName::Exceptions, Entries::of(exceptions))
}

/// Removes the settings that are files of other security modules, which only a seal holds.
pub(crate) fn held_unsealed(mut settings: Vec<CompiledSetting>) -> Vec<CompiledSetting> {
    let is_file = |name: &str| stockade_policy::settings::FILES.iter().any(|files| files.kernel_name == name);
    settings.retain(|setting| !is_file(&setting.name));
    settings
}
