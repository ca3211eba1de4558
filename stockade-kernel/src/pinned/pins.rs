/*!
The pins, which keep a policy in force without a process of Stockade.

```text
/sys/fs/bpf/stockade/
  policy    map: the policy                           pinned first
  counters  map: refusals and audits per processor
  events    ring buffer
  cgroups, paths, patterns, exceptions, until, programs, settings, labels     maps of policies that need them
  link-…    attachments that such policies need
  link      the attachment of the deciding program  pinned last: the commit; removed first
```

A folder without `link` is a leftover of an interrupted start and enforces nothing.
*/
use std::{
    collections::HashMap,
    ffi::CString,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use aya::maps::{Map, MapData, RingBuf};
use stockade_common::{COUNTERS, LAST_BIT, LAYOUT, LOST, MAGIC, Policy, Verdict, counter_index};

use crate::{
    Error,
    machine::host,
    program::{duty::Duty, object::MapName},
    sys::{self, Counters, fs, held},
};

/// The BPF file system with the pins.
pub const BPFFS: &str = "/sys/fs/bpf";
/// The folder with the pins.
pub const FOLDER: &str = host::PINS;

const LINK: &str = "link";

/// Maximum time that another command may hold the lock, in seconds. The kernel releases the lock when that command ends. A large policy takes a
/// second, and much longer on a busy machine.
const LOCK_SECONDS: u64 = 30;

/// [`Policy`] as a map value.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct PolicyValue(pub Policy);

impl Default for PolicyValue {
    fn default() -> Self {
        Self(Policy::EMPTY)
    }
}

impl PolicyValue {
    /// Reads the value of the policy map.
    pub fn read(map: BorrowedFd<'_>) -> Result<Self, Error> {
        let failed = |e| Error::io("read the policy map", e);
        sys::lookup(map, &0u32).map_err(failed)?.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))
    }

    /// Writes the whole value.
    pub fn write(&self, map: BorrowedFd<'_>) -> Result<(), Error> {
        sys::update(map, &0u32, self).map_err(|e| Error::io("write the policy map", e))
    }
}

/// A lock that a command holds while it reads and changes the state.
pub(crate) struct Lock(#[expect(dead_code, reason = "closing it releases the lock")] OwnedFd);

impl Lock {
    /// Takes the lock on the BPF file system itself, which exists whenever there are pins. The kernel releases the lock when the process ends.
    pub fn take() -> Result<Self, Error> {
        let path = Path::new(BPFFS);
        if !host::is_bpffs(path) {
            return Err(Error::NoBpffs { path: path.into() });
        }
        let folder = fs::File::open(path).map_err(|e| open_error(path, e))?;
        let deadline = Instant::now() + Duration::from_secs(LOCK_SECONDS);
        loop {
            match sys::lock(&folder) {
                Ok(()) => return Ok(Self(folder.into())),
                Err(error) if error.raw_os_error() == Some(libc::EWOULDBLOCK) => {}
                Err(error) => return Err(Error::io(format!("lock {BPFFS}"), error)),
            }
            if Instant::now() > deadline {
                return Err(Error::Busy { seconds: LOCK_SECONDS });
            }
            sys::sleep(Duration::from_millis(5));
        }
    }
}

fn open_error(path: &Path, error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::PermissionDenied {
        Error::no_privilege("reading /sys/fs/bpf")
    } else {
        Error::io(format!("open {}", path.display()), error)
    }
}

/// The state of the pins.
pub(crate) enum Pinned {
    /// No policy is in force; `leftovers` if an interrupted start left pins.
    Nothing { leftovers: bool },
    /// A policy is in force.
    Whole(Box<Enforcement>),
}

/// The pinned objects, opened.
pub(crate) struct Enforcement {
    pub policy: OwnedFd,
    pub counters: Counters,
    pub link: OwnedFd,
}

pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

/// Opens the pins. Fails in a container, whose mounts do not show the machine's pins.
pub(crate) fn open() -> Result<Pinned, Error> {
    if host::in_container() {
        return Err(Error::Container { what: "reading what is enforced" });
    }
    match fs::read_dir(FOLDER) {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            if !host::is_bpffs(Path::new(BPFFS)) {
                return Err(Error::NoBpffs { path: BPFFS.into() });
            }
            return Ok(Pinned::Nothing { leftovers: false });
        }
        Err(e) => return Err(open_error(Path::new(FOLDER), e)),
    }
    let link = match sys::open_pin(&c_path(LINK)) {
        Ok(link) => link,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Pinned::Nothing { leftovers: true }),
        Err(e) => return Err(Error::bpf("opening the pinned link", e)),
    };
    let policy = open_policy()?;
    let (counters, info) = open_as(MapName::Counters, sys::PERCPU_ARRAY, size_of::<u64>())?;
    if info.entries != COUNTERS {
        return Err(other_version(&format!("{} counters", info.entries)));
    }
    let counters = Counters::of(counters);
    // Not read here, but without it no event would be readable.
    open_as(MapName::Events, sys::RINGBUF, 0)?;
    Ok(Pinned::Whole(Box::new(Enforcement { policy, counters, link })))
}

/// Resets the counters of requests that were heard while the trial policy allowed everything.
pub(crate) fn zero(counters: &Counters) -> Result<(), Error> {
    let mut heard = (0..=LAST_BIT).map(|number| counter_index(number, Verdict::Audited)).chain([LOST]);
    heard.try_for_each(|index| counters.zero(index)).map_err(|e| Error::io("reset a counter", e))
}

/// Opens every pinned map.
pub(crate) fn open_maps() -> Result<HashMap<MapName, OwnedFd>, Error> {
    MapName::PINNED.into_iter().map(|map| Ok((map, open_fd(map)?))).collect()
}

/// Reports whether the attachment for a duty is pinned.
pub(crate) fn has(duty: Duty) -> bool {
    fs::exists(path(duty.pin())).is_ok_and(|there| there)
}

/// Reports whether the attachment for a duty is certainly not pinned.
pub(crate) fn lacks(duty: Duty) -> bool {
    fs::exists(path(duty.pin())).is_ok_and(|there| !there)
}

/// Reports whether the attachment for a duty is pinned and works: a link to a cgroup can be detached while it is pinned.
pub(crate) fn works(duty: Duty) -> bool {
    let attached = || link_info_of(duty).is_some_and(|info| info.cgroup != 0);
    has(duty) && (duty != Duty::Settings || attached())
}

/// Returns the ids of the programs of all pinned links.
pub(crate) fn programs() -> Vec<u32> {
    Duty::PINNED.into_iter().filter_map(|duty| link_info_of(duty).map(|link| link.program)).collect()
}

/// Returns the kernel's information on the pinned link for a duty.
pub(crate) fn link_info_of(duty: Duty) -> Option<sys::LinkInfo> {
    let link = sys::open_pin(&c_path(duty.pin())).ok()?;
    sys::link_info(link.as_fd()).ok()
}

/// Removes the pin of a duty's attachment, if there is one, which detaches it.
pub(crate) fn end(duty: Duty) -> Result<(), Error> {
    gone(fs::remove_file(path(duty.pin())), &path(duty.pin()))
}

/// The pin of the next deciding program's link.
const NEXT: &str = "link-next";

/// Pins the link of the next deciding program.
pub(crate) fn pin_next(link: &impl AsFd) -> Result<(), Error> {
    pin(link, NEXT)
}

/// Replaces the pin of the deciding link by the next one, atomically.
pub(crate) fn next_takes_over() -> Result<(), Error> {
    fs::rename(path(NEXT), path(LINK))
        .map_err(|e| Error::io(format!("rename {} over {}", path(NEXT).display(), path(LINK).display()), e))
}

/// Removes the pin of a link that a killed command left.
pub(crate) fn end_next() -> Result<(), Error> {
    gone(fs::remove_file(path(NEXT)), &path(NEXT))
}

/// Returns the kernel's information on the pinned link of the deciding program.
pub(crate) fn link_info() -> Option<sys::LinkInfo> {
    link_info_of(Duty::Decide)
}

/// Opens the ring buffer.
pub(crate) fn open_events() -> Result<RingBuf<MapData>, Error> {
    RingBuf::try_from(open_map(MapName::Events)?).map_err(|e| other_version(&e))
}

pub(crate) fn open_policy() -> Result<OwnedFd, Error> {
    let (map, _) = open_as(MapName::Policy, sys::ARRAY, size_of::<PolicyValue>())?;
    let value = PolicyValue::read(map.as_fd())?;
    if value.0.magic != MAGIC || value.0.layout != LAYOUT {
        return Err(other_version(&format!("layout {}", value.0.layout)));
    }
    Ok(map)
}

fn open_fd(map: MapName) -> Result<OwnedFd, Error> {
    sys::open_pin(&c_path(map.pin())).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Error::Damaged { path: FOLDER.into(), missing: map.pin() },
        _ => Error::bpf("opening a pinned map", e),
    })
}

/// Opens a pinned map and fails unless it has this kind and this size of values.
fn open_as(name: MapName, kind: u32, size: usize) -> Result<(OwnedFd, held::MapInfo), Error> {
    let map = open_fd(name)?;
    let name = name.pin();
    let info = held::map_info(map.as_fd()).map_err(|e| Error::io(format!("ask for the map {name}"), e))?;
    if info.kind != kind || info.sizes.1 as usize != size {
        let found = format!("a map {name} of kind {} with values of {} bytes", info.kind, info.sizes.1);
        return Err(other_version(&found));
    }
    Ok((map, info))
}

fn open_map(name: MapName) -> Result<Map, Error> {
    let fd = open_fd(name)?;
    let data = MapData::from_fd(fd).map_err(|e| Error::Object(e.to_string()))?;
    Map::from_map_data(data).map_err(|e| other_version(&e))
}

fn other_version(found: &dyn std::fmt::Display) -> Error {
    Error::OtherVersion { path: FOLDER.into(), found: found.to_string() }
}

/// Pins an object in the folder.
pub(crate) fn pin(object: &impl AsFd, name: &str) -> Result<(), Error> {
    sys::pin(object.as_fd(), &c_path(name)).map_err(|e| Error::io(format!("pin {}", path(name).display()), e))
}

/// Creates the folder, readable by root alone.
pub(crate) fn make_folder() -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().mode(0o700).create(FOLDER).map_err(|e| Error::io(format!("create {FOLDER}"), e))
}

/// Removes all pins, the deciding link first: from then on nothing is refused.
pub(crate) fn remove() -> Result<(), Error> {
    remove_all_but(&[])
}

/// Removes all pins except these.
pub(crate) fn remove_all_but(kept: &[&str]) -> Result<(), Error> {
    gone(fs::remove_file(path(LINK)), &path(LINK))?;
    let mut folders = false;
    if let Ok(entries) = fs::read_dir(FOLDER) {
        for entry in entries.flatten().filter(|e| !kept.iter().any(|name| e.file_name() == *name)) {
            // A subfolder of another program has no pin of Stockade, and stays if it is not empty.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders |= fs::remove_dir(entry.path()).is_err();
                continue;
            }
            gone(fs::remove_file(entry.path()), &entry.path())?;
        }
    }
    if kept.is_empty() && !folders { gone(fs::remove_dir(FOLDER), Path::new(FOLDER)) } else { Ok(()) }
}

/// Returns the name of the pin that a sealed link has until the commit.
fn waiting(duty: Duty) -> String {
    format!("{}-sealed", duty.pin())
}

/// Pins a sealed link beside the one for the same duty: both are in effect.
pub(crate) fn pin_waiting(link: &impl AsFd, duty: Duty) -> Result<(), Error> {
    pin(link, &waiting(duty))
}

/// Replaces the pin of a duty's link by that of the sealed link, atomically.
pub(crate) fn waiting_takes_over(duty: Duty) -> Result<(), Error> {
    fs::rename(path(&waiting(duty)), path(duty.pin()))
        .map_err(|e| Error::io(format!("rename {} to {}", waiting(duty), duty.pin()), e))
}

/// Removes the pin of a sealed link that a killed command left.
pub(crate) fn end_waiting(duty: Duty) -> Result<(), Error> {
    let waiting = path(&waiting(duty));
    gone(fs::remove_file(&waiting), &waiting)
}

fn gone(result: io::Result<()>, what: &Path) -> Result<(), Error> {
    match result {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", what.display()), e))
        }
        _ => Ok(()),
    }
}

fn c_path(name: &str) -> CString {
    CString::new(path(name).as_os_str().as_bytes()).expect("our names have no zero bytes")
}
