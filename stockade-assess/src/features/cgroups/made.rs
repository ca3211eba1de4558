/*!
A cgroup that is made to try something in, and does not stay: whoever makes it holds a lock on it, so that one whose maker was killed is
found and removed by whoever comes next.
*/
use std::{
    fs::{self, File},
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    time::Duration,
};

/// What a cgroup is called, with the number of the process that made it behind it.
pub(super) const NAME: &str = "stockade-assess.";

/// A cgroup of ours, there as long as this lives, and locked, so that others can tell.
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

    /// In a child, whose life is not what keeps it locked.
    pub(super) fn leave_to_parent(&self) {
        // SAFETY: the child has a table of descriptors of its own, and leaves without closing what is in it.
        unsafe { libc::close(self.lock.as_raw_fd()) };
    }

    /// What keeps it from being removed, if anything does.
    pub(super) fn remove(self) -> Option<io::Error> {
        remove(&self.folder).err()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
    }
}

/// Removes a cgroup. Processes that were killed in it may take an instant to go, and some seconds where many wait for a processor.
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

/// Removes cgroups of ours that nobody holds any more, with what is in them.
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
                // SAFETY: a signal to a process in a cgroup that this program made.
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
