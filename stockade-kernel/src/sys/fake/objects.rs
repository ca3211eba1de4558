/*!
What the kernel has: objects with ids, and who holds each. One that nobody holds is gone.

```text
held by    a descriptor of any process | a pin | for maps: a program | for programs: a link, the root cgroup
```
*/
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io,
    os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd},
    path::{Path, PathBuf},
};

use stockade_common::Words;

use super::Table;
use crate::program::{duty::Duty, object::MapName};

/// A map.
#[derive(Clone)]
pub(crate) struct Map {
    pub kind: u32,
    pub name: [u8; 16],
    pub key_size: usize,
    pub value_size: usize,
    pub room: u32,
    pub frozen: bool,
    /// Of an array every entry is there.
    pub entries: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// A program.
#[derive(Clone)]
pub(crate) struct Program {
    pub kind: u32,
    pub attach_type: u32,
    pub hook: u32,
    pub name: [u8; 16],
    pub tag: [u8; 8],
    pub maps: Vec<u32>,
    /// Of a first guard: the id of the newest map or program that it does not keep.
    pub newest: u32,
}

/// What an object is.
#[derive(Clone)]
pub(crate) enum What {
    Map(Map),
    Program(Program),
    Link {
        program: u32,
        attach_type: u32,
        cgroup: u64,
    },
    Types,
    /// The file of an iterator.
    Iterator {
        program: u32,
    },
    Process(u32),
    RootCgroup,
}

pub(crate) struct Object {
    pub what: What,
    /// One for each descriptor that the kernel gave out; those that are copies of another have the same.
    ends: Vec<End>,
}

/// The end of a pipe that is read: its other end is the descriptor.
struct End {
    end: OwnedFd,
    inode: u64,
}

impl End {
    /// And the descriptor.
    fn new() -> (Self, OwnedFd) {
        let (end, other) = pipe();
        let inode = inode(end.as_raw_fd()).expect("it is open");
        (Self { end, inode }, other)
    }
}

/// The kernel.
pub(crate) struct Kernel {
    root: PathBuf,
    pub objects: BTreeMap<u32, Object>,
    newest: u32,
    newest_file: u32,
    /// By kind of attachment and program, in the order of attachment.
    pub root_cgroup: Vec<(u32, u32)>,
    /// Objects that pins name; none where files have changed since.
    pins: Option<BTreeSet<u32>>,
    /// The type of the function that asks the BPF security module about lockdown.
    pub lockdown_hook: u32,
    /// Decisions that began with these words and are still under way, and what they have to come to.
    pub under_way: Vec<(u32, Words, Table)>,
    /// Whether somebody else calls while a command is running.
    pub is_other: bool,
    /// Moves with every change that a decision could see.
    pub changes: u64,
    /// Ids of programs that a guard of another's gives no descriptor of.
    pub hidden_by_others: BTreeSet<u32>,
    /// Ids of programs of which a program of another's on bpf(2) says that there are none.
    pub denied_by_others: BTreeSet<u32>,
    /// Reasons for which this kernel does not ask its security modules: requests go through.
    pub unasked: BTreeSet<u32>,
}

impl Kernel {
    pub fn new(root: PathBuf, lockdown_hook: u32) -> Self {
        Self {
            root,
            objects: BTreeMap::new(),
            newest: 0,
            newest_file: 1 << 31,
            root_cgroup: Vec::new(),
            pins: None,
            lockdown_hook,
            under_way: Vec::new(),
            is_other: false,
            changes: 0,
            hidden_by_others: BTreeSet::new(),
            denied_by_others: BTreeSet::new(),
            unasked: BTreeSet::new(),
        }
    }

    /// Where a path of the machine lies.
    pub fn at(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").expect("pins have absolute paths"))
    }

    /// Whatever pins there are is looked for anew.
    pub fn files_change(&mut self) {
        self.pins = None;
    }

    /// The same without processes. Cgroups are other ones in other files, so entries for them move.
    pub fn copy(&self, root: PathBuf) -> Self {
        let ids = |kernel: &Self| kernel.cgroup_ids();
        let mut copy = Self {
            newest: self.newest,
            newest_file: self.newest_file,
            root_cgroup: self.root_cgroup.clone(),
            hidden_by_others: self.hidden_by_others.clone(),
            denied_by_others: self.denied_by_others.clone(),
            unasked: self.unasked.clone(),
            ..Self::new(root, self.lockdown_hook)
        };
        let moved: Vec<(u64, u64)> = ids(self).into_iter().zip(ids(&copy)).collect();
        for (&id, object) in &self.objects {
            let mut what = object.what.clone();
            if let What::Map(map) = &mut what
                && map.name.starts_with(b"CGROUPS\0")
            {
                map.entries = std::mem::take(&mut map.entries)
                    .into_iter()
                    .map(|(key, value)| (moved_key(key, &moved), value))
                    .collect();
            }
            copy.objects.insert(id, Object { what, ends: Vec::new() });
        }
        copy
    }

    /// Ids of the cgroups that policies name, and of one below.
    pub fn cgroup_ids(&self) -> Vec<u64> {
        use std::os::unix::fs::MetadataExt;
        let id = |path| std::fs::metadata(self.at(Path::new(path))).map_or(0, |metadata| metadata.ino());
        ["/sys/fs/cgroup/cage", "/sys/fs/cgroup/cage/below"].map(id).to_vec()
    }

    /// Makes an object, and the first descriptor of it.
    pub fn make(&mut self, what: What) -> i32 {
        let (end, other) = End::new();
        // BTF objects, iterators, pidfds and the root cgroup have no id in the tables of programs, maps and links.
        let is_file =
            matches!(what, What::Types | What::Iterator { .. } | What::Process(_) | What::RootCgroup);
        let newest = if is_file { &mut self.newest_file } else { &mut self.newest };
        *newest += 1;
        self.objects.insert(*newest, Object { what, ends: vec![end] });
        self.changes += 1;
        other.into_raw_fd()
    }

    /// Another descriptor of an object.
    pub fn descriptor(&mut self, id: u32) -> Result<i32, i32> {
        let object = self.objects.get_mut(&id).ok_or(libc::ENOENT)?;
        let (end, other) = End::new();
        object.ends.push(end);
        Ok(other.into_raw_fd())
    }

    /// How many descriptors of an object there are, in all processes.
    pub fn descriptors(&self, id: u32) -> u64 {
        self.objects.get(&id).map_or(0, |object| object.ends.len() as u64)
    }

    /// The object of a descriptor.
    pub fn find(&self, fd: u32) -> Result<u32, i32> {
        let inode = inode(fd.cast_signed()).ok_or(libc::EBADF)?;
        let is_it = |object: &Object| object.ends.iter().any(|end| end.inode == inode);
        let found = self.objects.iter().find(|(_, object)| is_it(object));
        found.map(|(&id, _)| id).ok_or(libc::EINVAL)
    }

    pub fn program(&self, id: u32) -> Option<&Program> {
        match &self.objects.get(&id)?.what {
            What::Program(program) => Some(program),
            _ => None,
        }
    }

    pub fn map(&self, id: u32) -> Option<&Map> {
        match &self.objects.get(&id)?.what {
            What::Map(map) => Some(map),
            _ => None,
        }
    }

    pub fn map_mut(&mut self, id: u32) -> Option<&mut Map> {
        match &mut self.objects.get_mut(&id)?.what {
            What::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The map of this name that a program uses. The kernel keeps 15 bytes of a name.
    pub fn map_of(&self, program: &Program, name: MapName) -> Option<u32> {
        let name = name.name().as_bytes();
        let name = &name[..name.len().min(15)];
        let is_it = |id: &u32| {
            self.map(*id).is_some_and(|map| map.name.starts_with(name) && map.name[name.len()] == 0)
        };
        program.maps.iter().copied().find(is_it)
    }

    /// Ids of the maps.
    pub fn maps(&self) -> Vec<u32> {
        let maps = self.objects.iter().filter(|(_, object)| matches!(object.what, What::Map(_)));
        maps.map(|(id, _)| *id).collect()
    }

    /// Ids of the programs with this name.
    pub fn programs_named(&self, name: [u8; 16]) -> Vec<u32> {
        let is_it = |object: &Object| matches!(&object.what, What::Program(program) if program.name == name);
        self.objects.iter().filter(|(_, object)| is_it(object)).map(|(id, _)| *id).collect()
    }

    /// Ids of the programs that a seal has, or will have.
    pub fn sealed_programs(&self) -> Vec<u32> {
        Duty::SEALED.into_iter().flat_map(|duty| self.programs_named(duty.shown())).collect()
    }

    /// Everything that links attach: the kind of attachment and the program.
    pub fn linked(&self) -> impl Iterator<Item = (u32, u32)> {
        self.objects.values().filter_map(|object| match object.what {
            What::Link { program, attach_type, .. } => Some((attach_type, program)),
            _ => None,
        })
    }

    /// Lets go of what nobody holds.
    pub fn collect(&mut self) {
        let pins = self.pinned().clone();
        let ends = self.objects.values().flat_map(|object| &object.ends);
        let mut polls: Vec<libc::pollfd> =
            ends.map(|end| libc::pollfd { fd: end.end.as_raw_fd(), events: 0, revents: 0 }).collect();
        // SAFETY: as many live entries as are told.
        unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, 0) };
        let mut polls = polls.into_iter();
        for object in self.objects.values_mut() {
            object.ends.retain(|_| polls.next().is_some_and(|poll| poll.revents & libc::POLLHUP == 0));
        }
        let open = self.objects.iter().filter(|(_, object)| !object.ends.is_empty());
        let mut left: Vec<u32> = open.map(|(&id, _)| id).chain(pins).collect();
        left.extend(self.root_cgroup.iter().map(|(_, program)| *program));
        let mut held = HashSet::new();
        while let Some(id) = left.pop() {
            if held.insert(id) {
                match self.objects.get(&id).map(|object| &object.what) {
                    Some(What::Link { program, .. } | What::Iterator { program }) => left.push(*program),
                    Some(What::Program(program)) => left.extend(&program.maps),
                    _ => {}
                }
            }
        }
        let before = self.objects.len();
        self.objects.retain(|id, _| held.contains(id));
        self.changes += u64::from(self.objects.len() != before);
    }

    /// Ids of the objects that are pinned.
    fn pinned(&mut self) -> &BTreeSet<u32> {
        if self.pins.is_none() {
            let mut found = BTreeSet::new();
            let mut folders = vec![self.at(Path::new(crate::pinned::pins::BPFFS))];
            while let Some(folder) = folders.pop() {
                for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                    if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                        folders.push(entry.path());
                    } else {
                        found.extend(named(&entry.path()));
                    }
                }
            }
            self.pins = Some(found);
        }
        self.pins.as_ref().expect("just set")
    }

    /// Gives an object a name.
    pub fn pin(&mut self, id: u32, path: &Path) -> Result<(), i32> {
        use std::io::Write;
        self.pins = None;
        let file = std::fs::OpenOptions::new().write(true).create_new(true).open(self.at(path));
        let errno = |e: io::Error| e.raw_os_error().unwrap_or(libc::EIO);
        file.and_then(|mut file| write!(file, "{id}")).map_err(errno)
    }

    /// The object of this name.
    pub fn pinned_at(&self, path: &Path) -> Result<u32, i32> {
        named(&self.at(path)).ok_or(libc::ENOENT)
    }

    pub fn process(&mut self, pid: u32) -> OwnedFd {
        let fd = self.make(What::Process(pid));
        // SAFETY: just made.
        unsafe { OwnedFd::from_raw_fd(fd) }
    }

    pub fn root_cgroup(&mut self) -> OwnedFd {
        let fd = self.make(What::RootCgroup);
        // SAFETY: just made.
        unsafe { OwnedFd::from_raw_fd(fd) }
    }
}

/// The end of a pipe that is read, and the other one.
fn pipe() -> (OwnedFd, OwnedFd) {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }, 0, "no pipe");
    // SAFETY: the kernel has just made both for us.
    ends.map(|end| unsafe { OwnedFd::from_raw_fd(end) }).into()
}

/// Keys of that table are a generation and a cgroup's id.
fn moved_key(mut key: Vec<u8>, moved: &[(u64, u64)]) -> Vec<u8> {
    let id = u64::from_ne_bytes(key[8..].try_into().expect("eight bytes"));
    if let Some((_, to)) = moved.iter().find(|(from, _)| *from == id) {
        key[8..].copy_from_slice(&to.to_ne_bytes());
    }
    key
}

/// Returns the object that a pin names.
fn named(path: &Path) -> Option<u32> {
    std::fs::read_to_string(path).ok()?.parse().ok()
}

fn inode(fd: RawFd) -> Option<u64> {
    // SAFETY: stat is plain data, for which zeros are a value.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: a live buffer; a descriptor that is none is an error.
    (unsafe { libc::fstat(fd, &raw mut stat) } == 0).then_some(stat.st_ino)
}
