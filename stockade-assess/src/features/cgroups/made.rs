/*!
A temporary cgroup for a trial. The process that creates it holds a lock on it, so that the next run finds and removes a cgroup whose creator was
killed.
*/
use std::{
    fs::{self, File},
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    time::Duration,
};

/// The prefix of the cgroup's name, followed by the id of the process that created it.
pub(super) const NAME: &str = "stockade-assess.";

/// A cgroup that exists while this value lives, locked so that other runs leave it alone.
pub(super) struct Cgroup {
    pub(super) folder: PathBuf,
    lock: File,
}

impl Cgroup {
    pub(super) fn make(place: &Path) -> io::Result<Self> {
        sweep(place);
        let folder = place.join(format!("{NAME}{}", std::process::id()));
        fs::create_dir(&folder)?;
        let lock =
            File::open(&folder).and_then(|lock| lock.try_lock().map(|()| lock).map_err(io::Error::from));
        match lock {
            Ok(lock) => Ok(Self { folder, lock }),
            Err(error) => {
                let _ = fs::remove_dir(&folder);
                Err(error)
            }
        }
    }

    /// Moves this process into it.
    pub(super) fn enter(&self) -> io::Result<()> {
        fs::write(self.folder.join("cgroup.procs"), "0")
    }

    /// Closes the lock in a child, so that only the parent keeps it locked.
    pub(super) fn leave_to_parent(&self) {
        // SAFETY: the child has its own file descriptor table and exits without running destructors, so the descriptor is not closed twice.
        unsafe { libc::close(self.lock.as_raw_fd()) };
    }

    /// Removes it; returns the error if that fails.
    pub(super) fn remove(self) -> Option<io::Error> {
        remove(&self.folder).err()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
    }
}

/// Removes a cgroup, retrying while killed processes in it still exit: on a busy machine that takes seconds.
fn remove(folder: &Path) -> io::Result<()> {
    const ATTEMPTS: u32 = 2000;
    let mut last = fs::remove_dir(folder);
    for _ in 0..ATTEMPTS {
        match &last {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            _ => break,
        }
        std::thread::sleep(Duration::from_millis(5));
        last = fs::remove_dir(folder);
    }
    last
}

/// Removes cgroups of earlier runs that no process holds a lock on, and kills the processes in them.
pub(super) fn sweep(place: &Path) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_ours =
            name.to_str().and_then(|name| name.strip_prefix(NAME)).is_some_and(|n| n.parse::<u32>().is_ok());
        let folder = entry.path();
        if !is_ours || !File::open(&folder).is_ok_and(|lock| lock.try_lock().is_ok()) {
            continue;
        }
        for pid in fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default().lines() {
            if let Ok(pid @ 1..) = pid.parse::<i32>() {
                // SAFETY: kill(2) takes two numbers; the process is in a cgroup that this program created.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
        }
        let _ = remove(&folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_left_is_removed_and_what_somebody_holds_is_not() {
        let place = tempfile::tempdir().unwrap();
        let left = place.path().join(format!("{NAME}1"));
        let foreign = place.path().join("stockade-assess.of-somebody");
        for folder in [&left, &foreign] {
            fs::create_dir(folder).unwrap();
        }
        let held = Cgroup::make(place.path()).unwrap();
        assert!(!left.exists() && foreign.exists());
        sweep(place.path());
        let folder = held.folder.clone();
        assert!(folder.exists());
        assert!(held.remove().is_none() && !folder.exists());
    }
}
