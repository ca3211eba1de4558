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
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use aya::maps::{Array, Map, MapData, PerCpuArray, PerCpuValues, RingBuf};
use stockade_common::{COUNTERS, LAST_BIT, LAYOUT, LOST, MAGIC, Policy, Verdict, counter_index};

use crate::{
    Error, host,
    object::{Duty, LABELS, MAPS},
    sys,
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

// SAFETY: `repr(C)`, integers only, padding explicit: any bytes are a value.
unsafe impl aya::Pod for PolicyValue {}

/// Held while state is read and changed. Two commands at once take turns.
pub(crate) struct Lock(#[expect(dead_code, reason = "closing it releases the lock")] fs::File);

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
            // SAFETY: an open descriptor.
            if unsafe { libc::flock(folder.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
                return Ok(Self(folder));
            }
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::EWOULDBLOCK) {
                return Err(Error::io(format!("lock {BPFFS}"), error));
            }
            if Instant::now() > deadline {
                return Err(Error::Busy { seconds: LOCK_SECONDS });
            }
            std::thread::sleep(Duration::from_millis(5));
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
    pub policy: Array<MapData, PolicyValue>,
    pub counters: PerCpuArray<MapData, u64>,
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
    let counters = PerCpuArray::try_from(open_map(COUNTS)?).map_err(|e| other_version(&e))?;
    if counters.len() != COUNTERS {
        return Err(other_version(&format!("{} counters", counters.len())));
    }
    // Not read here; but with it gone, what is refused would be told to nobody.
    if !matches!(open_map(EVENTS)?, Map::RingBuf(_)) {
        return Err(other_version(&"events that are no ring buffer"));
    }
    Ok(Pinned::Whole(Box::new(Enforcement { policy, counters, link })))
}

/// Sets the counters that count what was heard while everything was let through to zero.
pub(crate) fn zero(mut counters: PerCpuArray<MapData, u64>) -> Result<(), Error> {
    let broken = |e: aya::maps::MapError| Error::Object(e.to_string());
    let cells = counters.get(&0, 0).map_err(broken)?.len();
    for index in (0..=LAST_BIT).map(|number| counter_index(number, Verdict::Audited)).chain([LOST]) {
        if counters.get(&index, 0).map_err(broken)?.iter().any(|&cell| cell != 0) {
            let zeros =
                PerCpuValues::try_from(vec![0u64; cells]).map_err(|e| Error::io("reset a counter", e))?;
            counters.set(index, zeros, 0).map_err(broken)?;
        }
    }
    Ok(())
}

/// Opens every pinned map, by its name in the object.
pub(crate) fn open_maps() -> Result<HashMap<String, OwnedFd>, Error> {
    let names = MAPS.iter().chain([&LABELS]);
    let maps = names.map(|&(name, pin)| Ok((name.to_owned(), open_fd(pin)?)));
    maps.collect()
}

/// Whether the attachment for a duty is pinned.
pub(crate) fn has(duty: Duty) -> bool {
    path(duty.pin()).exists()
}

/// Whether the attachment for a duty is pinned and does its work: one to a cgroup can be detached while it is.
pub(crate) fn works(duty: Duty) -> bool {
    let attached = || link_info_of(duty).is_some_and(|info| info.cgroup != 0);
    has(duty) && (duty != Duty::Settings || attached())
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

fn open_policy() -> Result<Array<MapData, PolicyValue>, Error> {
    let map = Array::try_from(open_map(POLICY)?).map_err(|e| other_version(&e))?;
    let value: PolicyValue = map.get(&0, 0).map_err(|e| Error::Object(e.to_string()))?;
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
    let mut map = open_policy()?;
    let mut value: PolicyValue = map.get(&0, 0).map_err(|e| Error::Object(e.to_string()))?;
    value.0.layout = layout;
    map.set(0, value, 0).map_err(|e| Error::Object(e.to_string()))
}

fn open_fd(name: &'static str) -> Result<OwnedFd, Error> {
    sys::open_pin(&c_path(name)).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Error::Damaged { path: FOLDER.into(), missing: name },
        _ => Error::bpf("opening a pinned map", e),
    })
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
    if let Ok(entries) = fs::read_dir(FOLDER) {
        for entry in entries.flatten().filter(|e| !kept.iter().any(|name| e.file_name() == *name)) {
            gone(fs::remove_file(entry.path()), &entry.path())?;
        }
    }
    if kept.is_empty() { gone(fs::remove_dir(FOLDER), Path::new(FOLDER)) } else { Ok(()) }
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
