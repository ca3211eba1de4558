/*!
Where enforcement lives while no process of ours does.

```text
/sys/fs/bpf/stockade/
  policy    map: what is decided                     pinned first
  counters  map: refusals and audits per processor
  events    ring buffer
  cgroups, paths, patterns, exceptions, until, programs, settings, labels     tables of policies that need them
  link-…    attachments that such policies need
  link      the attachment that decides              pinned last: the commit; removed first
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
    duty::Duty,
    host,
    object::{LABELS, MAPS},
    sys::{self, Counters, fs, held},
};

/// The BPF file system that pins go to.
pub const BPFFS: &str = "/sys/fs/bpf";
/// The folder of our pins.
pub const FOLDER: &str = "/sys/fs/bpf/stockade";

const POLICY: &str = "policy";
const COUNTS: &str = "counters";
const EVENTS: &str = "events";
const LINK: &str = "link";

/// How long another command may hold the lock. The kernel releases it when that command ends, however it ends; a large policy takes
/// a second, and a machine that is busy many times as long.
const LOCK_SECONDS: u64 = 30;

/// [`Policy`] as map value.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct PolicyValue(pub Policy);

impl Default for PolicyValue {
    fn default() -> Self {
        Self(Policy::EMPTY)
    }
}

impl PolicyValue {
    /// The value of the policy map.
    pub fn read(map: BorrowedFd<'_>) -> Result<Self, Error> {
        let failed = |e| Error::io("read the policy map", e);
        sys::lookup(map, &0u32).map_err(failed)?.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))
    }

    /// Writes it whole.
    pub fn write(&self, map: BorrowedFd<'_>) -> Result<(), Error> {
        sys::update(map, &0u32, self).map_err(|e| Error::io("write the policy map", e))
    }
}

/// Held while state is read and changed. Two commands at once take turns.
pub(crate) struct Lock(#[expect(dead_code, reason = "closing it releases the lock")] OwnedFd);

impl Lock {
    /// Takes the lock on the BPF file system itself: it is there whenever there is something to guard,
    /// and the kernel releases it with the process.
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

/// What is pinned.
pub(crate) enum Pinned {
    /// Nothing, or the leftovers of an interrupted start.
    Nothing { leftovers: bool },
    /// Enforcement.
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

/// Opens what is pinned. In a container nothing is claimed: what is mounted there says nothing of the machine.
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
    let (counters, info) = open_as(COUNTS, sys::PERCPU_ARRAY, size_of::<u64>())?;
    if info.entries != COUNTERS {
        return Err(other_version(&format!("{} counters", info.entries)));
    }
    let counters = Counters::of(counters);
    // Not read here; but with it gone, what is refused would be told to nobody.
    open_as(EVENTS, sys::RINGBUF, 0)?;
    Ok(Pinned::Whole(Box::new(Enforcement { policy, counters, link })))
}

/// Sets the counters that count what was heard while everything was let through to zero.
pub(crate) fn zero(counters: &Counters) -> Result<(), Error> {
    let mut heard = (0..=LAST_BIT).map(|number| counter_index(number, Verdict::Audited)).chain([LOST]);
    heard.try_for_each(|index| counters.zero(index)).map_err(|e| Error::io("reset a counter", e))
}

/// Opens every pinned map, by its name in the object.
pub(crate) fn open_maps() -> Result<HashMap<String, OwnedFd>, Error> {
    let names = MAPS.iter().chain([&LABELS]);
    let maps = names.map(|&(name, pin)| Ok((name.to_owned(), open_fd(pin)?)));
    maps.collect()
}

/// Whether the attachment for a duty is pinned.
pub(crate) fn has(duty: Duty) -> bool {
    fs::exists(path(duty.pin())).is_ok_and(|there| there)
}

/// Whether the attachment for a duty is certainly not pinned.
pub(crate) fn lacks(duty: Duty) -> bool {
    fs::exists(path(duty.pin())).is_ok_and(|there| !there)
}

/// Whether the attachment for a duty is pinned and does its work: one to a cgroup can be detached while it is.
pub(crate) fn works(duty: Duty) -> bool {
    let attached = || link_info_of(duty).is_some_and(|info| info.cgroup != 0);
    has(duty) && (duty != Duty::Settings || attached())
}

/// Ids of the programs behind the pins.
pub(crate) fn programs() -> Vec<u32> {
    Duty::PINNED.into_iter().filter_map(|duty| link_info_of(duty).map(|link| link.program)).collect()
}

/// What the kernel says of the pinned link for a duty.
pub(crate) fn link_info_of(duty: Duty) -> Option<sys::LinkInfo> {
    let link = sys::open_pin(&c_path(duty.pin())).ok()?;
    sys::link_info(link.as_fd()).ok()
}

/// Ends the attachment for a duty, if it is pinned.
pub(crate) fn end(duty: Duty) -> Result<(), Error> {
    gone(fs::remove_file(path(duty.pin())), &path(duty.pin()))
}

/// Where the next link waits until it takes over.
const NEXT: &str = "link-next";

/// Pins a link that is to take over.
pub(crate) fn pin_next(link: &impl AsFd) -> Result<(), Error> {
    pin(link, NEXT)
}

/// Puts it in the place of the link that decides, in one step.
pub(crate) fn next_takes_over() -> Result<(), Error> {
    fs::rename(path(NEXT), path(LINK))
        .map_err(|e| Error::io(format!("rename {} over {}", path(NEXT).display(), path(LINK).display()), e))
}

/// Ends a link that never took over: left behind by a command that was killed.
pub(crate) fn end_next() -> Result<(), Error> {
    gone(fs::remove_file(path(NEXT)), &path(NEXT))
}

/// What the kernel says of the pinned link, whatever else is pinned beside it.
pub(crate) fn link_info() -> Option<sys::LinkInfo> {
    link_info_of(Duty::Decide)
}

/// Opens the ring buffer.
pub(crate) fn open_events() -> Result<RingBuf<MapData>, Error> {
    RingBuf::try_from(open_map(EVENTS)?).map_err(|e| other_version(&e))
}

fn open_policy() -> Result<OwnedFd, Error> {
    let (map, _) = open_as(POLICY, sys::ARRAY, size_of::<PolicyValue>())?;
    let value = PolicyValue::read(map.as_fd())?;
    if value.0.magic != MAGIC || value.0.layout != LAYOUT {
        return Err(other_version(&format!("layout {}", value.0.layout)));
    }
    Ok(map)
}

/// Changes the version number in the pinned policy: what a program of another version would leave. For
/// the lab; nothing in the program calls it.
///
/// # Errors
/// When nothing is pinned or the map cannot be written.
#[doc(hidden)]
pub fn rewrite_layout(layout: u32) -> Result<(), Error> {
    let map = open_policy()?;
    let mut value = PolicyValue::read(map.as_fd())?;
    value.0.layout = layout;
    value.write(map.as_fd())
}

fn open_fd(name: &'static str) -> Result<OwnedFd, Error> {
    sys::open_pin(&c_path(name)).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Error::Damaged { path: FOLDER.into(), missing: name },
        _ => Error::bpf("opening a pinned map", e),
    })
}

/// Opens a pinned map that has to be of this kind, with values of this size.
fn open_as(name: &'static str, kind: u32, size: usize) -> Result<(OwnedFd, held::MapInfo), Error> {
    let map = open_fd(name)?;
    let info = held::map_info(map.as_fd()).map_err(|e| Error::io(format!("ask for the map {name}"), e))?;
    if info.kind != kind || info.sizes.1 as usize != size {
        let found = format!("a map {name} of kind {} with values of {} bytes", info.kind, info.sizes.1);
        return Err(other_version(&found));
    }
    Ok((map, info))
}

fn open_map(name: &'static str) -> Result<Map, Error> {
    let fd = open_fd(name)?;
    let data = MapData::from_fd(fd).map_err(|e| Error::Object(e.to_string()))?;
    Map::from_map_data(data).map_err(|e| other_version(&e))
}

fn other_version(found: &dyn std::fmt::Display) -> Error {
    Error::OtherVersion { path: FOLDER.into(), found: found.to_string() }
}

/// Pins a descriptor under our folder.
pub(crate) fn pin(object: &impl AsFd, name: &str) -> Result<(), Error> {
    sys::pin(object.as_fd(), &c_path(name)).map_err(|e| Error::io(format!("pin {}", path(name).display()), e))
}

/// Makes the folder, readable by root alone.
pub(crate) fn make_folder() -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().mode(0o700).create(FOLDER).map_err(|e| Error::io(format!("create {FOLDER}"), e))
}

/// Removes everything of ours, the link first: from then on nothing is refused.
pub(crate) fn remove() -> Result<(), Error> {
    remove_all_but(&[])
}

/// The same, apart from these pins.
pub(crate) fn remove_all_but(kept: &[&str]) -> Result<(), Error> {
    gone(fs::remove_file(path(LINK)), &path(LINK))?;
    let mut folders = false;
    if let Ok(entries) = fs::read_dir(FOLDER) {
        for entry in entries.flatten().filter(|e| !kept.iter().any(|name| e.file_name() == *name)) {
            // Somebody else's folder keeps no pin of ours there, and is left where it is not empty.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders |= fs::remove_dir(entry.path()).is_err();
                continue;
            }
            gone(fs::remove_file(entry.path()), &entry.path())?;
        }
    }
    if kept.is_empty() && !folders { gone(fs::remove_dir(FOLDER), Path::new(FOLDER)) } else { Ok(()) }
}

/// Where the sealed link for a duty waits until the seal is closed.
fn waiting(duty: Duty) -> String {
    format!("{}-sealed", duty.pin())
}

/// Pins a link beside the one for the same duty: both do their work.
pub(crate) fn pin_waiting(link: &impl AsFd, duty: Duty) -> Result<(), Error> {
    pin(link, &waiting(duty))
}

/// Puts it in the place of the other, in one step.
pub(crate) fn waiting_takes_over(duty: Duty) -> Result<(), Error> {
    fs::rename(path(&waiting(duty)), path(duty.pin()))
        .map_err(|e| Error::io(format!("rename {} to {}", waiting(duty), duty.pin()), e))
}

/// Ends it, if it is there: left behind by a command that was killed.
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
