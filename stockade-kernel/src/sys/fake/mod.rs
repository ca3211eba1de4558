/*!
A model of the machine behind the seam, for unit tests: what commands ask of bpf(2), files and the rest of the kernel is
answered from memory and from a temporary folder, and every such call can be the last one, fail, or let another process go
first.

| file | what it models |
|---|---|
| `mod.rs` | processes that play on one machine: their calls counted, killed, failed, interleaved |
| `errnos.rs` | with what each kind of call can fail |
| `files.rs` | `std::fs` below a temporary folder; pins are files there that name their object |
| `objects.rs` | maps, programs, links: their ids, who holds them, when they go |
| `calls.rs` | bpf(2): from a command and its attributes to an effect on the objects |
| `maps.rs`, `programs.rs` | the calls on maps; those on programs, links and cgroups, with what the guards refuse |
| `dialogue.rs` | what a seal tells, and what is added to it |
| `decide.rs` | what a request gets, by the programs that are attached |

**An object's descriptors** are real: each is the write end of a pipe, whose read end the model keeps. The kernel says when it is closed,
duplicates included, and the inode of the pipe says which object it is of.

Not modelled: the verifier and what the programs' instructions do. A program decides here by `stockade_common::decide` on the
maps that its instructions name, as the compiled one does. The kernel's types are a few made-up ones in BTF's format. Objects
without holders go at once, where the kernel takes a moment. Ring buffers have no memory, so events are not read. Files of other
security modules (`Duty::GuardFiles`) and processes with labels are not there.
*/
#![allow(clippy::cast_possible_truncation, reason = "unit tests run on 64-bit machines")]
#![allow(clippy::unnecessary_wraps, reason = "every call of the model has the same form")]
mod calls;
mod decide;
mod dialogue;
mod errnos;
pub(crate) mod files;
mod maps;
mod objects;
mod programs;

use std::{
    cell::RefCell,
    io,
    ops::Range,
    os::fd::OwnedFd,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU32, Ordering},
    },
};

pub(crate) use self::{decide::Table, objects::Kernel};
use crate::machine::executables::Executable;

/// How many processors the machine has.
pub(crate) const PROCESSORS: usize = 2;

/// The kind of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    MapCreate,
    Lookup,
    Update,
    Delete,
    LookupBatch,
    UpdateBatch,
    DeleteBatch,
    Freeze,
    Load,
    LoadTypes,
    Attach,
    LinkCreate,
    Iterate,
    CgroupAttach,
    CgroupDetach,
    Query,
    Pin,
    OpenPin,
    NextId,
    ById,
    Info,
    Read,
    Stat,
    List,
    OpenFile,
    OpenCgroup,
    Write,
    Remove,
    Rename,
    MakeFolder,
    Lock,
    GracePeriod,
    Process,
    Ask,
    Told,
    Add,
}

/// The fate of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It ends by itself.
    Lives,
    /// It is killed instead of its nth call.
    Killed(usize),
    /// Its nth call fails with an errno: which of those that such a call can have.
    Fails(usize, usize),
    /// From its nth call on it is short of something: each call fails that can fail with this errno.
    Starves(usize, i32),
}

/// How a process ended.
#[derive(Debug)]
pub(crate) enum Ended<T> {
    /// With this.
    Done(T),
    /// It was killed.
    Killed,
    /// It would sleep until another process has gone on.
    Waits,
}

impl<T> Ended<T> {
    /// Returns the result; panics if the process was killed.
    #[track_caller]
    pub fn done(self) -> T {
        match self {
            Self::Done(value) => value,
            Self::Killed => panic!("killed"),
            Self::Waits => panic!("it waits for another process"),
        }
    }
}

/// The calls of a process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Account {
    /// How many calls it made.
    pub calls: usize,
    /// The call that was killed or failed: kind, object, errno.
    pub hit: Option<(Kind, String, i32)>,
    /// The first call that was hit: its number, kind, and on what.
    pub first: Option<(usize, Kind, String)>,
}

/// Runs before each call, with its number from 1 and its kind.
type Before<'a> = dyn FnMut(usize, Kind) + 'a;

struct Process {
    machine: Arc<Machine>,
    fate: Fate,
    before: Option<Box<Before<'static>>>,
    account: Account,
    slept: usize,
}

/// How often a process sleeps until nothing can be expected to change any more.
const PATIENCE: usize = 3;

thread_local! {
    static CURRENT: RefCell<Option<Process>> = const { RefCell::new(None) };
}

struct Dies;
struct Sleeps;

/// A machine that processes play on.
pub(crate) struct Machine {
    root: PathBuf,
    kernel: Mutex<Kernel>,
    last: Mutex<Account>,
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

impl Machine {
    /// A machine with these files, each path with its content; folders end in a slash.
    pub fn new(files: &[(&str, &[u8])], hook: u32) -> Arc<Self> {
        let root = new_root();
        for (path, content) in files {
            let there = root.join(&path[1..]);
            if path.ends_with('/') {
                std::fs::create_dir_all(there).unwrap();
            } else {
                std::fs::create_dir_all(there.parent().unwrap()).unwrap();
                std::fs::write(there, content).unwrap();
            }
        }
        std::fs::create_dir_all(root.join("proc/self/ns")).unwrap();
        std::os::unix::fs::symlink("user:[4026531837]", root.join("proc/self/ns/user")).unwrap();
        std::os::unix::fs::symlink("pid:[4026531836]", root.join("proc/self/ns/pid")).unwrap();
        let kernel = Mutex::new(Kernel::new(root.clone(), hook));
        Arc::new(Self { root, kernel, last: Mutex::default() })
    }

    /// Where a path of the machine lies.
    pub fn at(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").expect("paths of the machine are absolute"))
    }

    /// A machine in the same state, where no process is left on either.
    pub fn copy(&self) -> Arc<Self> {
        let root = new_root();
        copy_files(&self.root, &root);
        let kernel = Mutex::new(self.kernel().copy(root.clone()));
        Arc::new(Self { root, kernel, last: Mutex::default() })
    }

    /// The kernel, with what nobody holds gone.
    pub fn kernel(&self) -> MutexGuard<'_, Kernel> {
        let mut kernel = self.kernel.lock().expect("no call panics with it");
        kernel.collect();
        kernel
    }

    /// Returns the calls of the process that ended last.
    pub fn last(&self) -> Account {
        self.last.lock().unwrap().clone()
    }

    /// Lets a process of its own do this.
    pub fn run<T>(self: &Arc<Self>, fate: Fate, command: impl FnOnce() -> T) -> Ended<T> {
        self.run_with(fate, None, command)
    }

    /// Runs a process, with `meddles` before each of its calls.
    pub fn run_beside<'a, T>(
        self: &Arc<Self>,
        before: impl FnMut(usize, Kind) + 'a,
        command: impl FnOnce() -> T,
    ) -> Ended<T> {
        let before: Box<Before<'a>> = Box::new(before);
        // SAFETY: `run_with` drops it with the process that it makes, before it returns or unwinds.
        let before = unsafe { std::mem::transmute::<Box<Before<'a>>, Box<Before<'static>>>(before) };
        self.run_with(Fate::Lives, Some(before), command)
    }

    fn run_with<T>(
        self: &Arc<Self>,
        fate: Fate,
        before: Option<Box<Before<'static>>>,
        command: impl FnOnce() -> T,
    ) -> Ended<T> {
        let process =
            Process { machine: Arc::clone(self), fate, before, account: Account::default(), slept: 0 };
        let previous = CURRENT.replace(Some(process));
        let is_other = std::mem::replace(&mut self.kernel().is_other, previous.is_some());
        // Unwinding closes its descriptors, as the kernel does for a process that is killed, and does nothing else.
        let answer = catch_unwind(AssertUnwindSafe(command));
        let process = CURRENT.replace(previous).expect("set above");
        self.kernel().is_other = is_other;
        *self.last.lock().unwrap() = process.account;
        drop(process.before);
        match answer {
            Ok(value) => Ended::Done(value),
            Err(why) if why.is::<Dies>() => Ended::Killed,
            Err(why) if why.is::<Sleeps>() => Ended::Waits,
            Err(why) => resume_unwind(why),
        }
    }
}

fn new_root() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let shm = Path::new("/dev/shm");
    let above = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let root = above.join(format!("stockade-fake-{}-{number}", std::process::id()));
    std::fs::create_dir(&root).unwrap();
    root
}

fn copy_files(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let there = to.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            std::fs::create_dir(&there).unwrap();
            copy_files(&entry.path(), &there);
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(std::fs::read_link(entry.path()).unwrap(), there).unwrap();
        } else {
            std::fs::copy(entry.path(), there).unwrap();
        }
    }
}

/// Whether this thread plays on a machine.
pub(crate) fn is_there() -> bool {
    CURRENT.with_borrow(Option::is_some)
}

fn machine() -> Option<Arc<Machine>> {
    CURRENT.with_borrow(|process| process.as_ref().map(|process| Arc::clone(&process.machine)))
}

/// Every call comes by here before it does anything.
pub(crate) fn passes(kind: Kind, what: &str) -> io::Result<()> {
    let before = CURRENT.with_borrow_mut(|process| {
        let process = process.as_mut()?;
        process.account.calls += 1;
        Some((process.account.calls, process.fate, process.before.take()))
    });
    let Some((number, fate, before)) = before else { return Ok(()) };
    assert!(!std::thread::panicking(), "{kind:?} {what} by a process that is dead");
    if let Some(mut before) = before {
        before(number, kind);
        CURRENT.with_borrow_mut(|process| process.as_mut().expect("as above").before = Some(before));
    }
    let hit = |errno| {
        CURRENT.with_borrow_mut(|process| {
            let account = &mut process.as_mut().expect("as above").account;
            account.hit = Some((kind, what.to_owned(), errno));
            account.first.get_or_insert((number, kind, what.to_owned()));
        });
    };
    let errno = match fate {
        Fate::Killed(at) if at == number => {
            hit(0);
            resume_unwind(Box::new(Dies))
        }
        Fate::Fails(at, which) if at == number => errnos::of(kind).get(which).copied(),
        Fate::Starves(from, errno) if number >= from && errnos::of(kind).contains(&errno) => Some(errno),
        _ => None,
    };
    match errno {
        None => Ok(()),
        Some(errno) => {
            hit(errno);
            Err(io::Error::from_raw_os_error(errno))
        }
    }
}

/// A call of bpf(2).
pub(crate) fn bpf(command: i64, attr: *mut u8) -> Option<io::Result<i64>> {
    let machine = machine()?;
    let (kind, what) = calls::kind(command, attr);
    if let Err(error) = passes(kind, &what) {
        return Some(Err(error));
    }
    // SAFETY: the caller's attributes are of the size that the command takes, and what they point at is live.
    let answer = unsafe { machine.kernel().call(command, calls::Attributes::of(attr)) };
    Some(answer.map_err(io::Error::from_raw_os_error))
}

/// What a seal tells: all of it by one call here, where there is one for each byte.
pub(crate) fn told(what: u32, key: u64, range: Range<usize>) -> Option<io::Result<Option<Vec<u8>>>> {
    let machine = machine()?;
    Some(passes(Kind::Told, "").map(|()| {
        let mut kernel = machine.kernel();
        kernel.closes();
        kernel.tells(what, key, range)
    }))
}

/// Whether file systems are mounted here: all of those that are asked for are, where their folder is.
pub(crate) fn is_mounted(path: &Path) -> Option<bool> {
    Some(machine()?.at(path).is_dir())
}

/// A process that sleeps waits for others. Where they do not go on however often it looks, it ends: whoever plays it comes back
/// to it, instead of waiting for its deadline.
pub(crate) fn waits() -> bool {
    let slept = CURRENT.with_borrow_mut(|process| {
        process.as_mut().map(|process| {
            process.slept += 1;
            process.slept
        })
    });
    if slept.is_some_and(|slept| slept > PATIENCE) {
        resume_unwind(Box::new(Sleeps));
    }
    slept.is_some()
}

/// A grace period.
pub(crate) fn grace_period() -> Option<io::Result<()>> {
    let machine = machine()?;
    Some(passes(Kind::GracePeriod, "").map(|()| machine.kernel().grace_period()))
}

/// What an iterator writes. Tasks sleep, but for those that a file of the machine's names.
pub(crate) fn list(file: u32) -> Option<String> {
    let machine = machine()?;
    let others = std::fs::read_to_string(machine.at(Path::new("/tasks"))).unwrap_or_default();
    machine.kernel().read_iterator(file, &format!("\n1 1 2 __schedule+0x2e schedule+0x5d\n{others}"))
}

/// A descriptor of a process.
pub(crate) fn process(pid: u32) -> Option<io::Result<OwnedFd>> {
    let machine = machine()?;
    Some(passes(Kind::Process, "").map(|()| machine.kernel().process(pid)))
}

/// The root of the cgroup tree, open.
pub(crate) fn root_cgroup() -> Option<io::Result<OwnedFd>> {
    let machine = machine()?;
    Some(passes(Kind::OpenCgroup, "").map(|()| machine.kernel().root_cgroup()))
}

/// A program that a policy names, as the kernel will know it.
pub(crate) fn executable(path: &Path) -> Option<Executable> {
    is_there().then(|| Executable {
        inode: 1000 + path.as_os_str().len() as u64,
        device: 7,
        program: stockade_common::Program::default(),
    })
}

/// This process asks for something that lockdown guards.
pub(crate) fn asks(reason: u32) -> Option<io::Result<()>> {
    let machine = machine()?;
    Some(passes(Kind::Ask, "").and_then(|()| {
        let refused = machine.kernel().asks(reason);
        if refused { Err(io::Error::from_raw_os_error(libc::EPERM)) } else { Ok(()) }
    }))
}
