/*!
What the root of the cgroup tree holds: the programs of a seal.

```text
root cgroup, by BPF_PROG_ATTACH
  locked_down           decides                  one for each generation, the newest last
  labels' four hooks    for policies that speak of programs
  bpf_prog, bpf_map,    guards
  file_open
  sysctl                holds settings: a kind of attachment of its own
  bpf                   the guard that keeps all of them there     attached last: the commit
```

No pin, link, descriptor, mount or process is needed to keep them, and none is needed to find them: the kernel lists
what a cgroup holds. What was attached before the commit can be taken off again: leftovers of a command that was killed.
Ours are known by their tags, which the kernel makes from their instructions, and not by their names, which anybody can give.
*/
use std::{
    collections::BTreeMap,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
};

use aya::maps::{Map, MapData, RingBuf};
use stockade_common::{LAYOUT, MAGIC, Policy, Seal, kinds};
use stockade_policy::compile::CompiledSetting;

use crate::{
    Error,
    cgroups::ROOT_ID,
    elsewhere, host,
    object::{self, Duty, MAPS, SEAL},
    pins, programs,
    sys::{self, Counters, fs, held},
    tables::{Maps, SETTINGS},
};

/// What is attached to the root cgroup by BPF_PROG_ATTACH, by the kind of attachment.
pub(crate) const KINDS: [u32; 2] = [kinds::ATTACH_CGROUP_SYSCTL, kinds::ATTACH_LSM_CGROUP];

/// The root of the cgroup hierarchy of version 2, open.
pub(crate) struct Root(OwnedFd);

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Root {
    /// Opens it wherever it is mounted; where it is not, by a mount that nobody sees.
    pub fn open() -> io::Result<Self> {
        #[cfg(test)]
        if let Some(root) = sys::fake::root_cgroup() {
            return root.map(Self);
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        for line in mounts.lines().filter(|line| line.contains(" - cgroup2 ")) {
            // Spaces in it are written as \040: such a mount is passed over.
            let Some(path) = line.split(' ').nth(4) else { continue };
            if let Ok(folder) = fs::File::open(path)
                && is_root(&folder, Path::new(path))
            {
                return Ok(Self(folder.into()));
            }
        }
        let folder = std::fs::File::from(mounted_apart()?);
        if folder.metadata()?.ino() == ROOT_ID {
            return Ok(Self(folder.into()));
        }
        Err(io::Error::other("this process is in a cgroup namespace of its own, as in a container"))
    }

    /// Has it hold a program.
    pub fn attach(&self, duty: Duty, program: BorrowedFd<'_>) -> io::Result<()> {
        held::attach_to_cgroup(self.as_fd(), program, duty.held_as())
    }

    /// Everything it holds of the kinds that we use, apart from what ends with a link. Empty where the kernel knows no such kind.
    pub fn holds(&self) -> io::Result<Vec<Held>> {
        let known = object::tags()?;
        let linked = programs_with_links()?;
        let mut all = Vec::new();
        for kind in KINDS {
            let ids = match held::programs_of_cgroup(self.as_fd(), kind) {
                Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL)) => continue,
                ids => ids?,
            };
            for id in ids.into_iter().filter(|id| !linked.contains(id)) {
                let program = match sys::program_by_id(id) {
                    // One of another's, which a guard keeps from being opened: ours are not.
                    Err(e) if e.raw_os_error() == Some(libc::EPERM) => {
                        let name = "one that a guard keeps from being opened".into();
                        all.push(Held {
                            id,
                            kind,
                            duty: None,
                            name,
                            tag: [0; 8],
                            maps: Vec::new(),
                            program: None,
                        });
                        continue;
                    }
                    program => program?,
                };
                let (info, maps) = held::program_and_maps(program.as_fd())?;
                let duty = known.iter().find(|(_, tag)| *tag == info.tag).map(|(duty, _)| *duty);
                all.push(Held {
                    id,
                    kind,
                    duty,
                    name: programs::text(&info.name.map(libc::c_char::cast_unsigned)),
                    tag: info.tag,
                    maps,
                    program: Some(program),
                });
            }
        }
        Ok(all)
    }
}

/// Ids of the programs that links attach.
fn programs_with_links() -> io::Result<Vec<u32>> {
    let mut programs = Vec::new();
    let mut id = 0;
    while let Some(next) = sys::next_link(id)? {
        id = next;
        // It may have ended meanwhile.
        if let Ok(info) = sys::link_by_id(id).and_then(|link| sys::link_info(link.as_fd())) {
            programs.push(info.program);
        }
    }
    Ok(programs)
}

fn is_root(folder: &std::fs::File, path: &Path) -> bool {
    host::is_cgroup2(path) && folder.metadata().is_ok_and(|metadata| metadata.ino() == ROOT_ID)
}

/// Mounts the hierarchy nowhere and opens it. With the options that systemd gives, since the last mount's options hold for
/// the hierarchy.
fn mounted_apart() -> io::Result<OwnedFd> {
    use rustix::{
        fs::{Mode, OFlags, openat},
        mount::{
            FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsmount, fsopen,
        },
    };
    let context = fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for option in ["nsdelegate", "memory_recursiveprot"] {
        fsconfig_set_flag(context.as_fd(), option)?;
    }
    fsconfig_create(context.as_fd())?;
    let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    Ok(openat(mount, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// A program that the root cgroup holds.
pub(crate) struct Held {
    /// As `bpftool prog` shows it.
    pub id: u32,
    /// How it is attached.
    pub kind: u32,
    /// What it is for, if it is one of ours of this version.
    pub duty: Option<Duty>,
    /// The name it was loaded under.
    pub name: String,
    /// What the kernel made of its instructions.
    pub tag: [u8; 8],
    /// Ids of its maps.
    pub maps: Vec<u32>,
    program: Option<OwnedFd>,
}

/// A policy with the program that decides it.
pub(crate) struct Generation {
    /// Id of the program.
    pub program: u32,
    /// What its programs know of the seal.
    pub seal: Seal,
    /// The policy.
    pub policy: Policy,
    maps: Vec<(OwnedFd, [u8; 16])>,
}

impl Generation {
    fn of(decides: &Held) -> Result<Self, Error> {
        let failed = |e| Error::io("read the maps of a sealed program", e);
        let mut maps = Vec::new();
        for &id in &decides.maps {
            // Those that are kept from others are kept from us too.
            match held::map_by_id(id) {
                Err(e) if e.raw_os_error() == Some(libc::EPERM) => {}
                map => {
                    let map = map.map_err(failed)?;
                    let name = held::map_info(map.as_fd()).map_err(failed)?.name;
                    maps.push((map, name));
                }
            }
        }
        let mut generation = Self { program: decides.id, seal: Seal::NONE, policy: Policy::EMPTY, maps };
        let missing = || Error::Object("a sealed program without its maps".into());
        generation.policy = read::<PolicyBytes>(generation.map(MAPS[0].0).ok_or_else(missing)?)?.0;
        generation.seal = read::<SealBytes>(generation.map(SEAL).ok_or_else(missing)?)?.0;
        let known = (generation.seal.magic, generation.seal.layout) == (MAGIC, LAYOUT);
        if known { Ok(generation) } else { Err(Error::SealedByOther) }
    }

    /// The counters.
    pub fn counters(&self) -> Result<Counters, Error> {
        let map = self.map(MAPS[1].0);
        crate::enforce::counters_of(
            map.ok_or_else(|| Error::Object("a sealed program without counters".into()))?,
        )
    }

    /// The ring buffer.
    pub fn events(&self) -> Result<RingBuf<MapData>, Error> {
        let broken = |e: &dyn std::fmt::Display| Error::Object(e.to_string());
        let map = self.map(MAPS[2].0).ok_or_else(|| broken(&"a sealed program without events"))?;
        let map = map.try_clone_to_owned().map_err(|e| Error::io("keep a map", e))?;
        let data = MapData::from_fd(map).map_err(|e| broken(&e))?;
        RingBuf::try_from(Map::from_map_data(data).map_err(|e| broken(&e))?).map_err(|e| broken(&e))
    }

    /// One of its maps, by the name in the object.
    pub fn map(&self, name: &str) -> Option<BorrowedFd<'_>> {
        let mut wanted = [0; 16];
        // As Aya cuts it off.
        for (to, byte) in wanted[..15].iter_mut().zip(name.bytes()) {
            *to = byte;
        }
        self.maps.iter().find(|(_, name)| *name == wanted).map(|(map, _)| map.as_fd())
    }
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct PolicyBytes(Policy);

impl Default for PolicyBytes {
    fn default() -> Self {
        Self(Policy::EMPTY)
    }
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct SealBytes(Seal);

impl Default for SealBytes {
    fn default() -> Self {
        Self(Seal::NONE)
    }
}

fn read<T: Copy + Default>(map: BorrowedFd<'_>) -> Result<T, Error> {
    let value = sys::lookup::<u32, T>(map, &0).map_err(|e| Error::io("read a sealed map", e))?;
    value.ok_or_else(|| Error::Object("a sealed map is empty".into()))
}

/// What is found on the root cgroup.
pub(crate) enum Found {
    /// Nothing of ours.
    Nothing,
    /// Programs of ours without the last guard: left behind by a command that was killed. They can be taken off.
    Leftovers(Root, Vec<Held>),
    /// A seal.
    Sealed(Box<Sealed>),
}

/// A seal.
pub(crate) struct Sealed {
    /// The root cgroup.
    pub root: Root,
    /// Everything that it holds, programs of others too.
    pub held: Vec<Held>,
    /// The newest is the last.
    pub generations: Vec<Generation>,
}

impl Sealed {
    /// The settings that are held, by all policies together.
    pub fn settings(&self) -> Result<Vec<CompiledSetting>, Error> {
        let mut by_name = BTreeMap::new();
        for generation in &self.generations {
            let number = generation.policy.slots[0].words.generation;
            let Some(map) = generation.map(SETTINGS) else { continue };
            for setting in Maps::settings_in(map, number)? {
                let there = by_name.entry(setting.name.clone()).or_insert_with(|| setting.clone());
                if setting.rule.is_at_least(&there.rule) {
                    *there = setting;
                }
            }
        }
        Ok(by_name.into_values().collect())
    }

    /// The generation that decides most strictly.
    pub fn newest(&self) -> &Generation {
        self.generations.last().expect("there is at least one")
    }
}

/// Looks what the root cgroup holds. Whoever may not ask is told of nothing: what else they ask for says why.
pub(crate) fn look() -> Result<Found, Error> {
    if !host::is_root() {
        return Ok(Found::Nothing);
    }
    let Ok(root) = Root::open() else { return nothing_out_of_sight().map(|()| Found::Nothing) };
    let held = match root.holds() {
        // Kernels before 5.2 aside, it is always answered.
        Err(e) if e.raw_os_error() == Some(libc::EPERM) => return Ok(Found::Nothing),
        held => held.map_err(|e| Error::io("ask which programs the root cgroup holds", e))?,
    };
    let commits = |program: &&Held| program.name == COMMITS;
    match held.iter().find(commits) {
        Some(guard) if guard.duty != Some(Duty::GuardCalls) => return Err(Error::SealedByOther),
        Some(_) => {}
        None if held.iter().any(|program| program.duty.is_some()) => return Ok(Found::Leftovers(root, held)),
        None => return Ok(Found::Nothing),
    }
    let decides = |program: &&Held| matches!(program.duty, Some(Duty::Sealed | Duty::SealedWhole));
    let mut generations: Vec<_> =
        held.iter().filter(decides).map(Generation::of).collect::<Result<_, _>>()?;
    if generations.is_empty() {
        return Err(Error::SealedByOther);
    }
    generations.sort_by_key(|generation| generation.seal.number);
    Ok(Found::Sealed(Box::new(Sealed { root, held, generations })))
}

/// Name of the guard whose attachment is the commit.
const COMMITS: &str = "st_guard_calls";

/// Says that no seal is there to be seen from elsewhere, where this process does not see the root cgroup. Who may not list
/// programs is not told of any.
fn nothing_out_of_sight() -> Result<(), Error> {
    let mut id = 0;
    while let Ok(Some(next)) = sys::next_program(id) {
        id = next;
        if elsewhere::name(id).is_ok_and(|name| name[..COMMITS.len()] == *COMMITS.as_bytes()) {
            return Err(Error::Request(
                "this machine is sealed, and this process does not see the root of its cgroup tree: it is in a cgroup namespace \
                 of its own, as in a container\n  run stockade on the host, for instance: nsenter -t 1 -m -C stockade status"
                    .into(),
            ));
        }
    }
    Ok(())
}

/// Takes ours off the root cgroup again: works as long as the last guard is not attached.
pub(crate) fn take_off(root: &Root, held: &[Held]) -> Result<(), Error> {
    for held in held.iter().filter(|held| held.duty.is_some()) {
        let Some(program) = &held.program else { continue };
        held::detach_from_cgroup(root.as_fd(), program.as_fd(), held.kind)
            .map_err(|e| Error::io("take a program off the root cgroup", e))?;
    }
    Ok(())
}

/// Takes off what a command left behind that was killed before the commit.
pub(crate) fn tidy_up() -> Result<(), Error> {
    match look()? {
        Found::Leftovers(root, held) => {
            take_off(&root, &held)?;
            Duty::PLACES.into_iter().try_for_each(pins::end_waiting)
        }
        Found::Nothing | Found::Sealed(_) => Ok(()),
    }
}
