//! Programs that were loaded before a seal and hide from it, and a process whose write to a sysctl began before the program that would refuse it was
//! attached.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    process::Command,
    ptr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::{
    as_before, enforced_unsealed,
    foreign::{Foreign, Kind},
    lift_all, would_seal,
};
use crate::{
    attacks::bpf::{self, ObjectType},
    guest::Guest,
    program::stockade,
    scenario::{Boot, Depends, Scenario, Skip},
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "seal: a program of which another says that there is none is noticed",
        boot: Boot::Sealed,
        depends: Depends::Series,
        run: denied,
    },
    Scenario {
        name: "seal: who answers before its first guards gets nothing, by whatever way and however briefly",
        boot: Boot::Sealed,
        depends: Depends::Series,
        run: in_front,
    },
    Scenario {
        name: "seal: an answer in the kernel's place is not taken for a new descriptor",
        boot: Boot::Sealed,
        depends: Depends::Series,
        run: answered,
    },
    Scenario {
        name: "seal: whoever has been at a setting since before is waited for",
        boot: Boot::Sealed,
        depends: Depends::Series,
        run: setting,
    },
];

fn denied(_: &Guest) -> Result<()> {
    lift_all()?;
    stockade(&["enforce", "integrity"])?.exits(0)?;
    let program = Foreign::load(Kind::LsmCgroup, 51)?;
    let denier = Foreign::load(Kind::Denier, program.id)?;
    let attached = denier.attach()?;
    ensure!(bpf::by_id(ObjectType::Program, program.id).is_err(), "it can be opened");
    // The seal is refused also if the program that hides it is trusted.
    for trust in [&[][..], &["--trust", &denier.tag]] {
        let answer = stockade(&[&["seal"], trust].concat())?.exits(2)?;
        answer.says(&format!("program {}: it is loaded, and bpf(2) says that there is none", program.id))?;
        enforced_unsealed()?;
    }
    drop((attached, denier, program));
    would_seal(&[])?;
    as_before()
}

/// A way in which a program can answer before an LSM program on the same hook.
#[derive(Clone, Copy)]
struct InFront {
    kind: bpf::Kind,
    function: &'static str,
    returned: u32,
}

const IN_FRONT: &[InFront] = &[
    InFront { kind: bpf::MODIFY_RETURN, function: "security_bpf_map", returned: 0 },
    InFront { kind: bpf::LSM_CGROUP, function: "bpf_lsm_bpf_map", returned: 1 },
    InFront { kind: bpf::MODIFY_RETURN, function: "security_bpf_prog", returned: 0 },
];

const IN_FRONT_CGROUP: &str = "/sys/fs/cgroup/in-front";

/// Maps of a seal that every program may open.
const SHOWN: &[&str] = &["COUNTS", "EVENTS", "st_newest"];

/// Enters a cgroup whose attached programs are called for this process.
fn enter_cgroup() -> Result<OwnedFd> {
    fs::create_dir_all(IN_FRONT_CGROUP)?;
    fs::write(format!("{IN_FRONT_CGROUP}/cgroup.procs"), "0")?;
    Ok(File::open(IN_FRONT_CGROUP)?.into())
}

fn leave_cgroup() -> Result<()> {
    fs::write("/sys/fs/cgroup/cgroup.procs", "0")?;
    Ok(fs::remove_dir(IN_FRONT_CGROUP)?)
}

impl InFront {
    /// Loads and attaches the program. Returns none if either is refused.
    fn load(self) -> Result<Option<[OwnedFd; 2]>> {
        let Ok(program) = bpf::load_for(self.kind, self.function, self.returned)? else { return Ok(None) };
        let link = if self.kind == bpf::LSM_CGROUP {
            bpf::link(&program, Some(&enter_cgroup()?), self.kind)
        } else {
            bpf::attach(&program)
        };
        Ok(link.ok().map(|link| [link, program]))
    }

    /// Keeps the program attached and opens every newer map. Detaches it once a map of the seal was opened, so that a later list of programs does
    /// not show it. Returns the names of the opened maps; none if the program could not be loaded.
    fn meddle(self, over: &AtomicBool, ready: &AtomicBool) -> Result<Option<Vec<String>>> {
        let mut newest = bpf::ids(ObjectType::Map).into_iter().max().unwrap_or(0);
        let mut held = self.load()?;
        ready.store(true, Ordering::Relaxed);
        let mut was_loaded = false;
        let mut caught = Vec::new();
        while !over.load(Ordering::Relaxed) {
            was_loaded |= held.is_some();
            for id in bpf::ids(ObjectType::Map).into_iter().filter(|id| *id > newest).collect::<Vec<_>>() {
                let Ok(map) = bpf::by_id(ObjectType::Map, id) else { continue };
                newest = id;
                let name = bpf::map_info(&map)?.name;
                if !SHOWN.contains(&name.as_str()) {
                    held = None;
                }
                caught.push(name);
            }
            if caught.is_empty() && held.is_none() {
                held = self.load()?;
            }
        }
        Ok(was_loaded.then_some(caught))
    }
}

fn in_front(_: &Guest) -> Result<()> {
    for &way in IN_FRONT {
        let function = way.function;
        lift_all()?;
        stockade(&["enforce", "integrity"])?.exits(0)?;
        let [over, ready] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let seen = (Arc::clone(&over), Arc::clone(&ready));
        let thread = thread::spawn(move || way.meddle(&seen.0, &seen.1));
        while !ready.load(Ordering::Relaxed) && !thread.is_finished() {
            thread::sleep(Duration::from_millis(10));
        }
        let answer = stockade(&["seal"]);
        over.store(true, Ordering::Relaxed);
        let caught = thread.join().map_err(|_| anyhow::anyhow!("the thread died"))??;
        let caught = caught.with_context(|| format!("no program on {function} can be loaded"))?;
        ensure!(
            caught.iter().all(|name| SHOWN.contains(&name.as_str())),
            "by a program on {function} root got {caught:?}"
        );
        answer?.exits(2)?.says("to keep it: --trust")?;
        enforced_unsealed()?;
    }
    leave_cgroup()?;
    as_before()
}

/// A program on a hook of each load makes bpf(2) return the number of a file descriptor that the command already has.
fn answered(_: &Guest) -> Result<()> {
    lift_all()?;
    stockade(&["enforce", "integrity"])?.exits(0)?;
    // Kernels before 6.9 have the hooks with `alloc`.
    let mut program = Err(io::ErrorKind::NotFound.into());
    for hook in ["bpf_prog_load", "bpf_map_create", "bpf_prog_alloc_security", "bpf_map_alloc_security"] {
        if program.is_err() {
            program = bpf::load_answering(&format!("bpf_lsm_{hook}"), 2)?;
        }
    }
    let program = program.map_err(|_| Skip("this kernel lets no program of a cgroup answer there".into()))?;
    let link = bpf::link(&program, Some(&enter_cgroup()?), bpf::LSM_CGROUP)?;
    stockade(&["seal"])?.exits(2)?.says("answered with a descriptor that is not new")?;
    drop((link, program));
    leave_cgroup()?;
    enforced_unsealed()?;
    would_seal(&[])?;
    as_before()
}

/// A page without content, registered with a userfaultfd: a read of it blocks until the file descriptor is closed.
struct Missing {
    handler: OwnedFd,
    page: *mut u8,
}

impl Missing {
    const SIZE: usize = 4096;

    fn new() -> Result<Self> {
        const API: (libc::c_ulong, u64) = (0xc018_aa3f, 0xaa);
        const REGISTER: libc::c_ulong = 0xc020_aa00;
        const MODE_MISSING: u64 = 1;
        let checked = |answer: i64| {
            if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
        };
        // SAFETY: userfaultfd takes flags only.
        let fd = checked(unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) })
            .context("make a userfaultfd")?;
        // SAFETY: the kernel has just created the descriptor, and nothing else owns it.
        let handler = unsafe { OwnedFd::from_raw_fd(i32::try_from(fd)?) };
        let mut api = [API.1, 0, 0];
        // SAFETY: the block lives through the call and has the size of `struct uffdio_api`.
        checked(unsafe { libc::ioctl(handler.as_raw_fd(), API.0, api.as_mut_ptr()) }.into())?;
        let (rights, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: an anonymous mapping at an address that the kernel chooses replaces no mapping.
        let page = unsafe { libc::mmap(ptr::null_mut(), Self::SIZE, rights, flags, -1, 0) };
        ensure!(page != libc::MAP_FAILED, "map a page: {}", io::Error::last_os_error());
        let mut range = [page as u64, Self::SIZE as u64, MODE_MISSING, 0];
        // SAFETY: the block lives through the call and has the size of `struct uffdio_register`.
        checked(unsafe { libc::ioctl(handler.as_raw_fd(), REGISTER, range.as_mut_ptr()) }.into())
            .context("have faults of a page handled")?;
        Ok(Self { handler, page: page.cast() })
    }
}

fn setting(_: &Guest) -> Result<()> {
    lift_all()?;
    stockade(&["enforce", "integrity"])?.exits(0)?;
    let missing = Missing::new()?;
    let page = missing.page as usize;
    let writer = thread::spawn(move || -> io::Result<usize> {
        let mut file = OpenOptions::new().write(true).open("/proc/sys/kernel/ftrace_enabled")?;
        // SAFETY: the page is mapped with a larger size and never unmapped; only the kernel reads it.
        file.write(unsafe { std::slice::from_raw_parts(page as *const u8, 2) })
    });
    // Time for the thread to block in the write, which the seal waits for.
    thread::sleep(Duration::from_millis(500));
    ensure!(!writer.is_finished(), "the write did not wait for its page");
    stockade(&["seal"])?.exits(2)?.says("has been reading or writing a file below /proc/sys for")?;
    enforced_unsealed()?;
    drop(missing.handler);
    // The page is read as zeros, which are not a number.
    let wrote = writer.join().map_err(|_| anyhow::anyhow!("the thread died"))?;
    ensure!(wrote.is_err_and(|e| e.raw_os_error() == Some(libc::EINVAL)), "zeros were taken for a number");
    // A zombie, which has no kernel stack, does not block the seal.
    let mut ended = Command::new("/bin/busybox").arg("true").spawn()?;
    thread::sleep(Duration::from_millis(200));
    would_seal(&[])?;
    ended.wait()?;
    as_before()
}
