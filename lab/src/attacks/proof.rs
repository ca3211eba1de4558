/*!
The proof that enforcement goes on: new processes try every door of [`raw`], from the guest's own mount namespace, one in the root cgroup
and one in a cgroup below it.
*/
use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::{fd::AsRawFd, unix::process::CommandExt},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{Attempt, Outcome, calls::in_child};
use crate::{
    guest::patience,
    raw::{self, Caller, Entry},
};

/// The errno of each door, 0 if it is free.
pub(super) type Doors = BTreeMap<String, i32>;

const CHILD: &str = "/sys/fs/cgroup/attack-proof";

/// Returns the output of the process that [`Prover`] starts.
///
/// # Errors
/// When the doors could not be tried.
pub fn answer() -> Result<String> {
    let doors: Doors = here()?;
    Ok(serde_json::to_string(&doors)?)
}

/// Tries every door from this process.
pub(super) fn here() -> Result<Doors> {
    Ok(named(raw::answers(Entry::Native, Caller::Root)?))
}

pub(super) fn named(answers: raw::Answers) -> Doors {
    answers.into_iter().map(|(door, errno)| (door.to_owned(), errno)).collect()
}

/// Starts processes that try every door in the guest's mount namespace, whichever namespace this process is in.
pub(super) struct Prover {
    namespace: File,
}

impl Prover {
    pub(super) fn new() -> Result<Self> {
        let namespace = File::open("/proc/1/ns/mnt").context("open PID 1's mount namespace")?;
        Ok(Self { namespace })
    }

    /// Tries every door from a new process in the root cgroup.
    pub(super) fn root(&self) -> Result<Doors> {
        self.try_doors(None)
    }

    /// Tries every door from a new process in a cgroup that is created for it.
    pub(super) fn child(&self) -> Result<Doors> {
        self.try_doors(Some(CHILD))
    }

    fn try_doors(&self, cgroup: Option<&'static str>) -> Result<Doors> {
        let mut command = Command::new("/init");
        command.arg("--attack-doors").stdin(Stdio::null());
        let namespace = self.namespace.as_raw_fd();
        // SAFETY: a scenario's process has one thread, so the child may allocate; the descriptor is open.
        unsafe {
            command.pre_exec(move || {
                if libc::setns(namespace, libc::CLONE_NEWNS) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
                if let Some(folder) = cgroup {
                    if !Path::new(folder).exists() {
                        fs::create_dir(folder)?;
                    }
                    fs::write(format!("{folder}/cgroup.procs"), "0")?;
                }
                Ok(())
            });
        }
        let output = command.output().context("start a process that tries the doors")?;
        let said = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&said).with_context(|| {
            format!("the process that tries the doors said {said}{}", String::from_utf8_lossy(&output.stderr))
        })
    }
}

/// Returns the doors that are shut with lockdown's errno. An attack is measured against the doors that are shut before it.
pub(super) fn shut(doors: &Doors) -> Result<Vec<String>> {
    let shut: Vec<_> =
        doors.iter().filter(|(_, errno)| **errno == libc::EPERM).map(|(door, _)| door.clone()).collect();
    ensure!(
        shut.len() >= 10 && shut.iter().any(|door| door == "open /proc/kcore"),
        "before the attack only these doors are shut: {shut:?}"
    );
    Ok(shut)
}

/// Returns the doors that were shut and are open now. A missing path, after a file system was unmounted, is no open door; but most doors
/// have to be there, and shut.
pub(super) fn opened(shut: &[String], now: &Doors) -> Result<Vec<String>> {
    let errno = |door: &String| now.get(door).copied();
    let still = shut.iter().filter(|door| errno(door) == Some(libc::EPERM)).count();
    let opened: Vec<_> = shut
        .iter()
        .filter(|door| !matches!(errno(door), Some(libc::EPERM | libc::ENOENT)))
        .cloned()
        .collect();
    ensure!(still >= 6 || !opened.is_empty(), "too few doors could be tried after the attack: {now:?}");
    Ok(opened)
}

/// Waits for a condition, and reports whether it became true in time.
pub(super) fn wait_for(seconds: u64, mut condition: impl FnMut() -> Result<bool>) -> Result<bool> {
    let begin = Instant::now();
    loop {
        if condition()? {
            return Ok(true);
        }
        if begin.elapsed() > patience(seconds) {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Returns the doors that are refused here and open there. A missing path and a missing capability are no open doors.
pub(super) fn reached(here: &Doors, there: &Doors) -> Outcome {
    let closed = [libc::EPERM, libc::ENOENT, libc::EACCES];
    let refused = here.iter().filter(|(_, errno)| **errno == libc::EPERM);
    let through: Vec<_> = refused
        .filter_map(|(door, _)| Some((door, there.get(door)?)))
        .filter(|(_, errno)| !closed.contains(errno))
        .map(|(door, errno)| format!("{door} ({errno})"))
        .collect();
    if through.is_empty() {
        Outcome::Refused("every door".into())
    } else {
        Outcome::Reached(through.join(", "))
    }
}

/// Prepares a child process, and tries every door from it.
pub(super) fn try_doors_after(prepare: impl FnOnce() -> Result<()>) -> Result<Attempt> {
    let before = here()?;
    let outcome = in_child(|| {
        prepare()?;
        Ok(reached(&before, &here()?))
    })?;
    Ok(outcome.into())
}
