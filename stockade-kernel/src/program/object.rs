/*!
The compiled kernel side, loaded. Aya's object crate parses and relocates the ELF file, and Aya creates the maps; [`crate::sys`] loads programs
with the ids and offsets of [`crate::machine::btf`].

Each duty has a program of its own. The deciding program is always loaded, the others when a policy needs them, with the same maps.
*/
use std::{
    collections::{HashMap, HashSet},
    fmt, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::OnceLock,
};

use aya_obj::{EbpfSectionKind, Object as ElfObject, generated::bpf_insn};
use sha1::{Digest, Sha1};
use sha2::Sha256;
use stockade_common::{GuardOffsets, Label};

use crate::{
    Error,
    machine::{
        btf::KernelTypes,
        cgroups,
        host::{self, Tracing},
    },
    program::duty::Duty,
    sys::{self, Counters},
};

/// `cargo xtask bpf` builds it from the folder stockade-ebpf.
static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/stockade.bpf.o"));

/// Returns the SHA-256 digest of the compiled kernel side.
#[must_use]
pub fn digest() -> [u8; 32] {
    Sha256::digest(OBJECT).into()
}

/// A map of the kernel side. The constants of its programs are in one more map, without a name here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum MapName {
    /// The policy: read-only for programs.
    Policy,
    /// Refusals and audits.
    Counters,
    /// The ring buffer.
    Events,
    /// The sets of each cgroup with a place.
    Cgroups,
    /// Places by the path of a cgroup.
    Paths,
    /// Places by a pattern of a cgroup's name.
    Patterns,
    /// Exceptions by subject.
    Exceptions,
    /// Ends of exceptions.
    Until,
    /// Programs that exceptions name.
    Programs,
    /// Settings that are held.
    Settings,
    /// Task storage with the labels of processes.
    Labels,
    /// A seal: read-only for programs.
    Seal,
    /// Additions to a seal, written by its programs.
    Added,
    /// Policies with scopes or exceptions that were added to a seal, written by its programs.
    AddedPolicies,
    /// Reference counts, written by the guards of a seal.
    Seen,
}

impl MapName {
    /// The pinned maps, in the order in which they are pinned.
    pub const PINNED: [Self; 11] = [
        Self::Policy,
        Self::Counters,
        Self::Events,
        Self::Cgroups,
        Self::Paths,
        Self::Patterns,
        Self::Exceptions,
        Self::Until,
        Self::Programs,
        Self::Settings,
        Self::Labels,
    ];
    /// The maps that only the programs of a seal use.
    pub const SEALED: [Self; 4] = [Self::Seal, Self::Added, Self::AddedPolicies, Self::Seen];
    /// Maps that decide nothing: processes may open them while the machine is sealed.
    pub const SHOWN: [Self; 2] = [Self::Counters, Self::Events];
    /// The hash maps of a policy, whose keys begin with its generation.
    pub const TABLES: [Self; 7] = [
        Self::Cgroups,
        Self::Paths,
        Self::Patterns,
        Self::Exceptions,
        Self::Until,
        Self::Programs,
        Self::Settings,
    ];

    /// Returns the map's name in the object.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Policy => ".data.policy",
            Self::Counters => "COUNTS",
            Self::Events => "EVENTS",
            Self::Cgroups => "CGROUPS",
            Self::Paths => "PATHS",
            Self::Patterns => "PATTERNS_BELOW",
            Self::Exceptions => "EXCEPTIONS",
            Self::Until => "UNTIL",
            Self::Programs => "PROGRAMS",
            Self::Settings => "SETTINGS",
            Self::Labels => "LABELS",
            Self::Seal => ".data.seal",
            Self::Added => ".data.added",
            Self::AddedPolicies => ".data.stacked",
            Self::Seen => ".data.seen",
        }
    }

    /// Returns the name of the map's pin. Maps of [`MapName::SEALED`] have none.
    pub fn pin(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Counters => "counters",
            Self::Events => "events",
            Self::Cgroups => "cgroups",
            Self::Paths => "paths",
            Self::Patterns => "patterns",
            Self::Exceptions => "exceptions",
            Self::Until => "until",
            Self::Programs => "programs",
            Self::Settings => "settings",
            Self::Labels => "labels",
            Self::Seal | Self::Added | Self::AddedPolicies | Self::Seen => {
                unreachable!("the map {self} is not pinned")
            }
        }
    }

    /// Returns the map with this name in the object.
    fn find(name: &str) -> Option<Self> {
        Self::PINNED.into_iter().chain(Self::SEALED).find(|map| map.name() == name)
    }
}

impl fmt::Display for MapName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The object with its maps. When it is dropped, the kernel frees the maps that are not pinned.
pub(crate) struct Object {
    elf: ElfObject,
    maps: HashMap<String, OwnedFd>,
}

impl Object {
    /// Creates the maps that are not in `there`.
    pub fn open(types: &KernelTypes, there: HashMap<MapName, OwnedFd>) -> Result<Self, Error> {
        Self::open_with(types, None, there, &mut || Ok(()))
    }

    /// Opens the object for a seal, whose programs write some of the maps; `has_room` allows adding policies with scopes or exceptions. Creates the
    /// maps of [`MapName::SHOWN`], which any process may open, calls `attach_guard`, and creates the others.
    pub fn open_sealing(
        types: &KernelTypes,
        offsets: GuardOffsets,
        has_room: bool,
        attach_guard: &mut dyn FnMut() -> Result<(), Error>,
    ) -> Result<Self, Error> {
        Self::open_with(types, Some((offsets, has_room)), HashMap::new(), attach_guard)
    }

    fn open_with(
        types: &KernelTypes,
        sealing: Option<(GuardOffsets, bool)>,
        mut there: HashMap<MapName, OwnedFd>,
        attach_guard: &mut dyn FnMut() -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let broken = |e: &dyn std::fmt::Display| Error::Object(e.to_string());
        let mut elf = ElfObject::parse(OBJECT).map_err(|e| broken(&e))?;
        let (programs, has_room) = sealing.unwrap_or_default();
        let offsets: Vec<u8> =
            types.known_offsets().words().iter().flat_map(|word| word.to_ne_bytes()).collect();
        let programs: Vec<u8> = programs.words().iter().flat_map(|word| word.to_ne_bytes()).collect();
        let lookups = u32::from(lookups_can_be_busy(&host::kernel_release())).to_ne_bytes();
        let has_room = u32::from(has_room).to_ne_bytes();
        elf.patch_map_data(HashMap::from([
            ("OFFSETS", (&offsets[..], true)),
            ("GUARD_OFFSETS", (&programs[..], true)),
            ("LOOKUPS_CAN_BE_BUSY", (&lookups[..], true)),
            ("HAS_ROOM", (&has_room[..], true)),
        ]))
        .map_err(|e| broken(&e))?;

        let (shown, kept): (Vec<_>, Vec<_>) =
            elf.maps.drain().partition(|(name, _)| MapName::SHOWN.iter().any(|shown| shown.name() == name));
        let mut maps = HashMap::new();
        for (name, map) in &shown {
            if let Some(known) = MapName::find(name)
                && !there.contains_key(&known)
            {
                let fd = sys::create(name, map).map_err(|e| Error::bpf("creating a BPF map", e))?;
                there.insert(known, fd);
            }
        }
        attach_guard()?;
        let mut plan = Vec::new();
        for (name, mut map) in shown.into_iter().chain(kept) {
            let known = MapName::find(&name);
            set_writers(known, &mut map, sealing.is_some());
            let fd = match known.and_then(|known| there.remove(&known)) {
                Some(fd) => fd,
                None if known == Some(MapName::Labels) => create_despite_openers(task_storage, is_eperm)
                    .map_err(|e| Error::bpf("creating a BPF map for labels", e))?,
                None if sealing.is_some() => create_despite_openers(|| sys::create(&name, &map), is_eperm)
                    .map_err(|e| Error::bpf("creating a BPF map", e))?,
                None => sys::create(&name, &map).map_err(|e| Error::bpf("creating a BPF map", e))?,
            };
            if map.section_kind() == EbpfSectionKind::Rodata {
                sys::held::fill_and_freeze(fd.as_fd(), map.data())
                    .map_err(|e| Error::bpf("writing the program's constants", e))?;
            }
            plan.push((name.clone(), fd.as_raw_fd(), map));
            maps.insert(name, fd);
        }
        let text: HashSet<usize> = elf.functions.keys().map(|(section, _)| *section).collect();
        elf.relocate_maps(plan.iter().map(|(name, fd, map)| (name.as_str(), *fd, map)), &text)
            .map_err(|e| broken(&e))?;
        elf.relocate_calls(&text).map_err(|e| broken(&e))?;
        Ok(Self { elf, maps })
    }

    /// Returns every map with its name in the object.
    pub fn maps(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        self.maps.iter().map(|(name, map)| (name.as_str(), map.as_fd()))
    }

    /// Returns a map.
    pub fn map(&self, name: MapName) -> Result<BorrowedFd<'_>, Error> {
        let map = self.maps.get(name.name()).ok_or_else(|| Error::Object(format!("it has no map {name}")))?;
        Ok(map.as_fd())
    }

    /// Returns the counters.
    pub fn counters(&self) -> Result<Counters, Error> {
        let map = self.map(MapName::Counters)?.try_clone_to_owned();
        map.map(Counters::of).map_err(|e| Error::io("duplicate the descriptor of the counters", e))
    }

    /// Loads and attaches the programs for these duties.
    pub fn attach_all(&self, duties: &[Duty]) -> Result<Vec<(Duty, OwnedFd)>, Error> {
        let targets = Duty::targets(duties)?;
        duties.iter().zip(targets).map(|(&duty, target)| Ok((duty, self.attach(duty, target)?))).collect()
    }

    /// Loads the program for a duty and attaches it. The attachment lasts as long as the returned link.
    pub fn attach(&self, duty: Duty, target: sys::Target) -> Result<OwnedFd, Error> {
        let program = self.load(duty, target)?;
        if target.is_cgroup() {
            let root = cgroups::open_root()?;
            return sys::attach_to_cgroup(program.as_fd(), root.as_fd(), target)
                .map_err(|e| Error::bpf("attaching the BPF program to the root of the cgroup tree", e));
        }
        sys::attach(program.as_fd()).map_err(|source| {
            if host::tracing() == Tracing::Missing {
                Error::NoTracer { source }
            } else {
                Error::bpf("attaching the BPF program", source)
            }
        })
    }

    /// Loads the program for a duty.
    pub fn load(&self, duty: Duty, target: sys::Target) -> Result<OwnedFd, Error> {
        let name = duty.program();
        let program = self.elf.programs.get(name);
        let program = program.ok_or_else(|| Error::Object(format!("it has no program {name}")))?;
        let instructions = &self.elf.functions[&program.function_key()].instructions;
        let shown = duty.shown();
        let starts = functions(instructions);
        let types = match starts[..] {
            [_] => None,
            _ => Some(sys::load_types(&types()).map_err(|e| Error::bpf("describing the BPF program", e))?),
        };
        let list: Vec<[u32; 2]> = starts.into_iter().map(|start| [start, FUNCTION]).collect();
        let functions = types.as_ref().map(|types| sys::Functions { types: types.as_fd(), list: &list });
        let load = |log: &mut [u8]| {
            sys::load(instructions, &self.elf.license, &shown, target, functions.as_ref(), log)
        };
        load(&mut []).map_err(|first| {
            if first.raw_os_error() == Some(libc::EPERM) {
                return Error::bpf("loading the BPF program", first);
            }
            // Loads it again to get the verifier's log.
            let mut log = vec![0; 1 << 20];
            match load(&mut log) {
                Ok(_) => Error::Rejected { source: first, log: "the second try succeeded".into() },
                Err(source) => Error::Rejected { source, log: format!("{name}:\n{}", last_lines(&log)) },
            }
        })
    }
}

/// Returns the tags that the kernel gives to Stockade's programs, except those that only list: by SHA-1, and by SHA-256 as in kernels since 6.18.
pub(crate) fn tags() -> io::Result<&'static [(Duty, [u8; 8])]> {
    static TAGS: OnceLock<Vec<(Duty, [u8; 8])>> = OnceLock::new();
    if let Some(tags) = TAGS.get() {
        return Ok(tags);
    }
    let made = make_tags()?;
    Ok(TAGS.get_or_init(|| made))
}

fn make_tags() -> io::Result<Vec<(Duty, [u8; 8])>> {
    let broken = |e: &dyn std::fmt::Display| io::Error::other(e.to_string());
    let mut elf = ElfObject::parse(OBJECT).map_err(|e| broken(&e))?;
    // The tag does not depend on the descriptors of the maps.
    let maps: Vec<_> = elf.maps.drain().collect();
    let text: HashSet<usize> = elf.functions.keys().map(|(section, _)| *section).collect();
    elf.relocate_maps(maps.iter().map(|(name, map)| (name.as_str(), 0, map)), &text)
        .map_err(|e| broken(&e))?;
    elf.relocate_calls(&text).map_err(|e| broken(&e))?;
    let mut tags = Vec::new();
    for duty in Duty::SEALED.into_iter().chain(Duty::PINNED) {
        let program = elf.programs.get(duty.program()).ok_or_else(|| io::Error::other(duty.program()))?;
        let instructions = &elf.functions[&program.function_key()].instructions;
        tags.extend([false, true].map(|sha256| (duty, tag(instructions, sha256))));
    }
    Ok(tags)
}

/// Creates a map or loads a program; retries a refused call, at most 32 times. If another process opens the object by its id before this process
/// has a descriptor, it adds a reference, and the first guards of a seal then refuse the object to this process.
pub(crate) fn create_despite_openers<T, E>(
    create: impl Fn() -> Result<T, E>,
    is_refused: impl Fn(&E) -> bool,
) -> Result<T, E> {
    for _ in 0..32 {
        match create() {
            Err(error) if is_refused(&error) => {}
            answer => return answer,
        }
    }
    create()
}

fn is_eperm(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EPERM)
}

/// Reports whether a lookup in task storage fails while another one runs on the same processor. Since 6.2 only creation and deletion can fail so.
fn lookups_can_be_busy(release: &str) -> bool {
    !host::is_release_at_least(release, 6, 2)
}

/// Sets which maps programs may write: never the policy and the seal; the maps to which policies can be added, while sealing.
fn set_writers(name: Option<MapName>, map: &mut aya_obj::Map, sealing: bool) {
    const BPF_F_RDONLY_PROG: u32 = 1 << 7;
    if let aya_obj::Map::Legacy(map) = map {
        if let Some(MapName::Policy | MapName::Seal) = name {
            map.def.map_flags |= BPF_F_RDONLY_PROG;
        }
        let is_added_to = matches!(
            name,
            Some(
                MapName::Paths | MapName::Patterns | MapName::Exceptions | MapName::Until | MapName::Settings
            )
        );
        if sealing && is_added_to {
            map.def.map_flags &= !BPF_F_RDONLY_PROG;
        }
    }
}

/// Returns the result of the kernel's `bpf_prog_calc_tag()`: a digest of the instructions, with zeros in place of the maps' descriptors.
pub(crate) fn tag(instructions: &[bpf_insn], sha256: bool) -> [u8; 8] {
    const LOAD_ADDRESS: u8 = 0x18;
    const PSEUDO_MAP_FD: u8 = 1;
    const PSEUDO_MAP_VALUE: u8 = 2;
    let mut bytes = Vec::with_capacity(instructions.len() * 8);
    let mut is_map = false;
    for instruction in instructions {
        let second = is_map;
        is_map = instruction.code == LOAD_ADDRESS
            && matches!(instruction.src_reg(), PSEUDO_MAP_FD | PSEUDO_MAP_VALUE);
        let number = if is_map || second { 0 } else { instruction.imm };
        let registers = instruction.dst_reg() | instruction.src_reg() << 4;
        bytes.extend([instruction.code, registers]);
        bytes.extend(instruction.off.to_ne_bytes());
        bytes.extend(number.to_ne_bytes());
    }
    let digest = if sha256 { Sha256::digest(&bytes).to_vec() } else { Sha1::digest(&bytes).to_vec() };
    digest[..8].try_into().expect("digests are longer")
}

/// Type ids in [`types`].
const INT: u32 = 1;
const ARRAY: u32 = 2;
const FUNCTION: u32 = 4;

/// Returns the minimal BTF that the kernel requires. It checks the sizes of a map's key and value, and needs the linkage of functions: it verifies
/// a static one where it is called. Arguments and results of functions it determines itself.
fn types() -> Vec<u8> {
    let words = u32::try_from(size_of::<Label>() / 4).expect("a label is small");
    let names = b"\0u32\0f\0";
    #[rustfmt::skip]
    let types = [
        // INT: name, kind, size; unsigned, 32 bits
        1, 1 << 24, 4, 32,
        // ARRAY: no name, kind, no size; element type, index type, length
        0, 3 << 24, 0, INT, INT, words,
        // FUNC_PROTO: no name, kind, return type
        0, 13 << 24, INT,
        // FUNC: name, kind and static linkage, the prototype above
        5, 12 << 24, FUNCTION - 1,
    ];
    let length = |bytes: usize| u32::try_from(bytes).expect("a few bytes");
    let header = [
        // Magic number and version 1
        0x0001_eb9f,
        24,
        0,
        length(size_of_val(&types)),
        length(size_of_val(&types)),
        length(names.len()),
    ];
    let words: Vec<u32> = header.into_iter().chain(types).collect();
    let mut btf: Vec<u8> = words.iter().flat_map(|word: &u32| word.to_ne_bytes()).collect();
    btf.extend(names);
    btf
}

/// Creates the task storage for labels.
fn task_storage() -> io::Result<OwnedFd> {
    let size = u32::try_from(size_of::<Label>()).expect("a label is small");
    sys::create_task_storage(&types(), INT, ARRAY, size)
}

/// Returns the start of each function of a linked program, the first at 0: of functions that are called or passed to a helper.
fn functions(instructions: &[bpf_insn]) -> Vec<u32> {
    const CALL: u8 = 0x85;
    const LOAD_ADDRESS: u8 = 0x18;
    const PSEUDO_CALL: u8 = 1;
    const PSEUDO_FUNC: u8 = 4;
    let mut starts = vec![0];
    for (at, instruction) in (0i64..).zip(instructions) {
        if matches!(
            (instruction.code, instruction.src_reg()),
            (CALL, PSEUDO_CALL) | (LOAD_ADDRESS, PSEUDO_FUNC)
        ) {
            starts.extend(u32::try_from(at + 1 + i64::from(instruction.imm)));
        }
    }
    starts.sort_unstable();
    starts.dedup();
    starts
}

fn last_lines(log: &[u8]) -> String {
    let end = log.iter().position(|&b| b == 0).unwrap_or(log.len());
    let text = String::from_utf8_lossy(&log[..end]);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
