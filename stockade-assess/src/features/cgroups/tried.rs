/*!
Trials of limits: a temporary cgroup gets a limit, and a child moves into it and tries to exceed it.

The child asks for kernel memory, for a pipe, in one allocation so large that the kernel returns ENOMEM if it does not fit. With small allocations
the OOM killer would kill the child instead, with a page of text in the log.
*/
use std::{
    fs,
    io::{self, Write},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use super::{
    MEMORY, PIDS,
    hierarchy::{Hierarchies, Hierarchy},
    made::{Cgroup, NAME, sweep},
};
use crate::{
    Finding, How, System, Verdict,
    child::{self, End},
};

/// The limit on processes: the child and two children of its own.
const PROCESSES: u32 = 3;

/// The number of forks tried, more than the limit allows.
const ATTEMPTS: u32 = 8;

/// The memory limit in bytes.
const BYTES: u32 = 512 << 10;

/// The size of the pipe in pages. It needs twice the limit: the kernel allocates 40 bytes for each page, in one piece, rounded up to 1 MiB.
const PAGES: usize = 16 << 10;

pub(super) fn pids(system: &System, hierarchies: &Hierarchies) -> Finding {
    let (place, hierarchy) = match parent_cgroup(system, hierarchies, "pids", PIDS) {
        Ok(found) => found,
        Err(finding) => return *finding,
    };
    let source = format!("child in a cgroup with pids.max {PROCESSES}");
    let said = run_in_cgroup(&place, "pids.max", PROCESSES, |out, cgroup| {
        enter(cgroup, out)?;
        // With the default action, exited children stay zombies and count until they are waited for.
        // SAFETY: the default action runs no code of this process.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
        let mut forks = 0;
        let refused = loop {
            if forks == ATTEMPTS {
                break None;
            }
            // SAFETY: the child only calls _exit(2), which is async-signal-safe.
            match unsafe { libc::fork() } {
                // SAFETY: _exit(2) takes a number and does not return.
                0 => unsafe { libc::_exit(0) },
                -1 => break Some(io::Error::last_os_error()),
                _ => forks += 1,
            }
        };
        match refused {
            None => write!(out, "forks {forks}, none refused"),
            Some(error) => write!(out, "forks {forks}, then {}", errno(&error)),
        }
    });
    let (said, cgroup) = match said {
        Ok(said) => said,
        Err(error) => return cannot_create(PIDS, "pids", hierarchy, &error),
    };
    let left = cgroup.remove();
    let finding = if said == format!("forks {}, then {}", PROCESSES - 1, libc::EAGAIN) {
        let found = "pids.max is enforced: forks beyond it fail (the kernel logs this)";
        Finding::new(PIDS, Verdict::Pass, How::Tried, found)
    } else if said == format!("forks {ATTEMPTS}, none refused") {
        Finding::new(PIDS, Verdict::Fail, How::Tried, "pids.max is not enforced: forks beyond it succeed")
    } else {
        Finding::unknown(PIDS, How::Tried, explain_failure(&said))
    };
    note_leftover(finding.seen(source, with_error_text(&said)), left)
}

pub(super) fn memory(system: &System, hierarchies: &Hierarchies) -> Finding {
    let (place, hierarchy) = match parent_cgroup(system, hierarchies, "memory", MEMORY) {
        Ok(found) => found,
        Err(finding) => return *finding,
    };
    let (limit, usage, hits) = match hierarchy.version {
        1 => ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.failcnt"),
        _ => ("memory.max", "memory.current", "memory.events"),
    };
    let source = format!("child in a cgroup with {limit} {BYTES} that asks for twice as much");
    let said = run_in_cgroup(&place, limit, BYTES, |out, cgroup| {
        if let Err(error) = enlarge_pipe() {
            return write!(out, "outside {}", errno(&error));
        }
        enter(cgroup, out)?;
        match enlarge_pipe() {
            Err(error) => write!(out, "{REFUSED} {}", errno(&error)),
            Ok(_pipe) => write!(out, "not refused, {} bytes used", read(cgroup, usage).trim()),
        }
    });
    let (said, cgroup) = match said {
        Ok(said) => said,
        Err(error) => return cannot_create(MEMORY, "memory", hierarchy, &error),
    };
    let hits = times_hit(&read(&cgroup, hits));
    let left = cgroup.remove();
    let seen = format!("{}; limit hit {hits} times", with_error_text(&said));
    note_leftover(judge_memory(&said, hits).seen(source, seen), left)
}

fn read(cgroup: &Cgroup, file: &str) -> String {
    fs::read_to_string(cgroup.folder.join(file)).unwrap_or_default()
}

const REFUSED: &str = "more refused";

/// Returns how often an allocation hit the limit: the whole of `memory.failcnt`, or the line `max` of `memory.events`.
fn times_hit(text: &str) -> u64 {
    let number = text.lines().find_map(|line| line.strip_prefix("max ")).unwrap_or(text);
    number.trim().parse().unwrap_or_default()
}

/// Judges the message of the child and how often the limit was hit: memory is also refused, and processes killed, for other reasons.
fn judge_memory(said: &str, hits: u64) -> Finding {
    let refused = said == format!("{REFUSED} {}", libc::ENOMEM);
    let used = said.strip_prefix("not refused, ").and_then(|rest| rest.strip_suffix(" bytes used"));
    if refused && hits == 0 {
        Finding::unknown(
            MEMORY,
            How::Tried,
            "memory was refused, but not because of the limit: the machine may be out of memory",
        )
    } else if refused {
        Finding::new(
            MEMORY,
            Verdict::Pass,
            How::Tried,
            "the memory limit is enforced: more memory is refused",
        )
    } else if said == ENDED && hits > 0 {
        // A kernel that allocates in smaller pieces kills the child, as it does for a program's own memory.
        Finding::new(
            MEMORY,
            Verdict::Pass,
            How::Tried,
            "the memory limit is enforced: a process that exceeds it is killed",
        )
    } else if let Some(used) = used {
        if used.parse::<u64>().is_ok_and(|used| used > u64::from(BYTES)) {
            Finding::new(
                MEMORY,
                Verdict::Fail,
                How::Tried,
                "the memory limit is not enforced: memory beyond it is granted",
            )
        } else {
            let missing = "kernel memory is not charged to cgroups, so the limit could not be tried \
                           (cgroup.memory=nokmem on the kernel command line?)";
            Finding::unknown(MEMORY, How::Tried, missing)
        }
    } else {
        Finding::unknown(MEMORY, How::Tried, explain_failure(said))
    }
}

/// Creates a pipe of [`PAGES`] pages.
fn enlarge_pipe() -> io::Result<(io::PipeReader, io::PipeWriter)> {
    let pipe = io::pipe()?;
    let size = i32::try_from(PAGES * rustix::param::page_size()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open and owned by `pipe`; F_SETPIPE_SZ takes a number.
    match unsafe { libc::fcntl(pipe.1.as_raw_fd(), libc::F_SETPIPE_SZ, size) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(pipe),
    }
}

/// Returns the folder in which to create a cgroup, or the finding if there is none.
fn parent_cgroup<'a>(
    system: &System,
    hierarchies: &'a Hierarchies,
    controller: &str,
    id: &'static str,
) -> Result<(PathBuf, &'a Hierarchy), Box<Finding>> {
    let unknown = |missing: String| Box::new(Finding::unknown(id, How::Tried, missing));
    if hierarchies.all.is_empty() {
        return Err(unknown("no cgroup file system is mounted".into()));
    }
    let Some(hierarchy) = hierarchies.with(controller) else {
        if !super::is_whole_machine(system) {
            return Err(unknown(format!(
                "this container has no controller {controller}; run this on the host"
            )));
        }
        if let Some(unread) = &hierarchies.unread {
            return Err(unknown(unread.to_string()));
        }
        let found = format!("no limit can be set: the cgroup controller {controller} is missing");
        return Err(Box::new(
            Finding::new(id, Verdict::Fail, How::Read, found)
                .seen(super::MOUNTS, format!("none with {controller}")),
        ));
    };
    if !system.is_live() {
        return Err(unknown(child::NOT_TRIED.into()));
    }
    let Some(place) = parent_with(system, hierarchy, controller) else {
        return Err(unknown(format!(
            "no ancestor cgroup of this process enables the controller {controller} for its children (cgroup.subtree_control)"
        )));
    };
    Ok((PathBuf::from(place), hierarchy))
}

/// Returns the folder in which a cgroup with this controller may be created. In version 1 that is the root, where no manager of cgroups interferes.
/// In version 2 it is the nearest ancestor that enables the controller for its children, which a cgroup with processes of its own cannot.
fn parent_with(system: &System, hierarchy: &Hierarchy, controller: &str) -> Option<String> {
    if hierarchy.version == 1 {
        return Some(hierarchy.mount.clone());
    }
    hierarchy.own_and_above().into_iter().find(|folder| {
        let text = |file: &str| system.text(&format!("{folder}/{file}"));
        let handed = text("cgroup.subtree_control").unwrap_or_default();
        // The root has no cgroup.type. A child of a threaded cgroup cannot hold a process.
        handed.split_whitespace().any(|has| has == controller)
            && text("cgroup.type").map_or(true, |kind| kind == "domain")
    })
}

/// Moves this child into the cgroup; writes the error if that fails.
fn enter(cgroup: &Cgroup, out: &mut dyn Write) -> io::Result<()> {
    cgroup.enter().inspect_err(|error| {
        let _ = write!(out, "entering {}", errno(error));
    })
}

/// The message for a killed child.
const ENDED: &str = "ended by signal 9";

/// Runs `duty` in a child with a cgroup that has a limit. Returns the message of the child, and the cgroup.
fn run_in_cgroup(
    place: &Path,
    file: &str,
    limit: u32,
    duty: impl FnOnce(&mut dyn Write, &Cgroup) -> io::Result<()>,
) -> io::Result<(String, Cgroup)> {
    let cgroup = Cgroup::make(place)?;
    fs::write(cgroup.folder.join(file), limit.to_string())?;
    let (end, said) = child::run(child::TRIAL, |out| {
        cgroup.leave_to_parent();
        let _ = duty(out, &cgroup);
    })?;
    let said = match end {
        End::Exited(_) => String::from_utf8_lossy(&said).into_owned(),
        End::Signal(signal) => format!("ended by signal {signal}"),
        End::TooLong(_) | End::TooMuch | End::Unseen => format!("no answer: it {end}"),
    };
    Ok((said, cgroup))
}

/// Removes the cgroups that a killed check left behind.
pub(super) fn clean_up() {
    let system = System::live(false);
    let Ok(hierarchies) = Hierarchies::read(&system) else { return };
    for place in ["pids", "memory"].into_iter().filter_map(|controller| {
        hierarchies.with(controller).and_then(|hierarchy| parent_with(&system, hierarchy, controller))
    }) {
        sweep(Path::new(&place));
    }
}

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or_default()
}

/// Returns the message of a child with the text of the error in place of its errno.
fn with_error_text(said: &str) -> String {
    match said.rsplit_once(' ').map(|(words, number)| (words, number.parse::<i32>())) {
        Some((words, Ok(number))) if number > 0 && !words.ends_with("signal") => {
            let what = match words {
                "outside" => "without the limit",
                "entering" => "moving into the cgroup",
                words => words,
            };
            format!("{what}: {}", io::Error::from_raw_os_error(number))
        }
        _ => said.to_owned(),
    }
}

fn explain_failure(said: &str) -> String {
    match said.split_once(' ') {
        Some(("outside", "1")) => {
            "a pipe large enough to exceed the limit needs CAP_SYS_RESOURCE, which this process lacks; run this as root with all capabilities".into()
        }
        Some(("outside", _)) => format!("the memory is refused, also {}", with_error_text(said)),
        Some(("entering", _)) => {
            format!("a child failed {}", with_error_text(said))
        }
        _ => format!("the child that tried to exceed the limit gave no result: {}", with_error_text(said)),
    }
}

fn cannot_create(id: &'static str, controller: &str, hierarchy: &Hierarchy, error: &io::Error) -> Finding {
    let mount = &hierarchy.mount;
    let missing = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!(
                "no permission to create a cgroup with the controller {controller} below {mount}; run this as root"
            )
        }
        _ => format!("cannot create a cgroup with the controller {controller} below {mount}: {error}"),
    };
    Finding::unknown(id, How::Tried, missing)
}

fn note_leftover(finding: Finding, left: Option<io::Error>) -> Finding {
    match left {
        Some(error) => finding
            .seen(format!("removing {NAME}{}", std::process::id()), format!("{error}: it is still there")),
        None => finding,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_judged_by_what_became_of_the_child() {
        let verdict = |said: &str, hits| judge_memory(said, hits).verdict;
        assert_eq!(verdict("more refused 12", 34), Verdict::Pass);
        assert_eq!(verdict("more refused 12", 0), Verdict::Unknown);
        assert_eq!(
            (times_hit("low 0\nhigh 0\nmax 34\noom 1\n"), times_hit("7\n"), times_hit("")),
            (34, 7, 0)
        );
        assert_eq!(verdict(ENDED, 1), Verdict::Pass);
        // The machine itself may have been out of memory.
        assert_eq!(verdict(ENDED, 0), Verdict::Unknown);
        assert_eq!(verdict("not refused, 1310720 bytes used", 0), Verdict::Fail);
        assert_eq!(verdict("not refused, 4096 bytes used", 0), Verdict::Unknown);
        for unclear in ["outside 1", "entering 13", "more refused 1", "no answer: it hangs", ""] {
            assert_eq!(verdict(unclear, 1), Verdict::Unknown, "{unclear}");
        }
        assert_eq!(with_error_text("outside 1"), "without the limit: Operation not permitted (os error 1)");
        assert_eq!(with_error_text(ENDED), ENDED);
    }
}
