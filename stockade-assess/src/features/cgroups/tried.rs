/*!
Limits, tried: a cgroup is made beside or below this process's own, gets a limit, and a child moves into it and reaches for more.

What memory is asked for is the kernel's own, for a pipe, in a piece so large that the kernel refuses it when it does not fit. A piece
of the usual size would have the kernel end the child for lack of memory instead, with a page of text in the log.
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

/// So many processes fit: the child and two of its own.
const PROCESSES: u32 = 3;

/// Somewhat more than can fit, where a limit does not hold.
const ATTEMPTS: u32 = 8;

/// As much memory fits, in bytes.
const BYTES: u32 = 512 << 10;

/// A pipe of so many pages takes twice as much: the kernel keeps 40 bytes for each, in one piece, rounded up to 1 MiB.
const PAGES: usize = 16 << 10;

pub(super) fn pids(system: &System, hierarchies: &Hierarchies) -> Finding {
    let (place, hierarchy) = match place(system, hierarchies, "pids", PIDS) {
        Ok(found) => found,
        Err(finding) => return *finding,
    };
    let source = format!("a child in a cgroup with pids.max {PROCESSES}");
    let said = within(&place, "pids.max", PROCESSES, |out, cgroup| {
        enter(cgroup, out)?;
        // Children that have ended count until they are asked for, unless they are not to be asked for.
        // SAFETY: sets the default action.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
        let mut forks = 0;
        let refused = loop {
            if forks == ATTEMPTS {
                break None;
            }
            // SAFETY: the child does nothing but end.
            match unsafe { libc::fork() } {
                // SAFETY: it ends at once.
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
        Err(error) => return not_tried(PIDS, "pids", hierarchy, &error),
    };
    let left = cgroup.remove();
    let finding = if said == format!("forks {}, then {}", PROCESSES - 1, libc::EAGAIN) {
        let found = "forks beyond pids.max are refused (which the kernel notes in its log)";
        Finding::new(PIDS, Verdict::Pass, How::Tried, found)
    } else if said == format!("forks {ATTEMPTS}, none refused") {
        Finding::new(PIDS, Verdict::Fail, How::Tried, "forks beyond pids.max are not refused")
    } else {
        Finding::unknown(PIDS, How::Tried, unclear(&said))
    };
    noted(finding.seen(source, plain(&said)), left)
}

pub(super) fn memory(system: &System, hierarchies: &Hierarchies) -> Finding {
    let (place, hierarchy) = match place(system, hierarchies, "memory", MEMORY) {
        Ok(found) => found,
        Err(finding) => return *finding,
    };
    let (limit, usage, hits) = match hierarchy.version {
        1 => ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.failcnt"),
        _ => ("memory.max", "memory.current", "memory.events"),
    };
    let source = format!("a child in a cgroup with {limit} {BYTES}, which asks for twice as much");
    let said = within(&place, limit, BYTES, |out, cgroup| {
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
        Err(error) => return not_tried(MEMORY, "memory", hierarchy, &error),
    };
    let hits = times_hit(&read(&cgroup, hits));
    let left = cgroup.remove();
    let seen = format!("{}; limit hit {hits} times", plain(&said));
    noted(judge_memory(&said, hits).seen(source, seen), left)
}

fn read(cgroup: &Cgroup, file: &str) -> String {
    fs::read_to_string(cgroup.folder.join(file)).unwrap_or_default()
}

const REFUSED: &str = "more refused";

/// How often a request ran into the limit: all there is in `memory.failcnt`, and the line `max` in `memory.events`.
fn times_hit(text: &str) -> u64 {
    let number = text.lines().find_map(|line| line.strip_prefix("max ")).unwrap_or(text);
    number.trim().parse().unwrap_or_default()
}

/// By what the child said and how often the limit was hit: memory is refused and processes are ended for other reasons, too.
fn judge_memory(said: &str, hits: u64) -> Finding {
    let refused = said == format!("{REFUSED} {}", libc::ENOMEM);
    let used = said.strip_prefix("not refused, ").and_then(|rest| rest.strip_suffix(" bytes used"));
    if refused && hits == 0 {
        Finding::unknown(
            MEMORY,
            How::Tried,
            "memory was refused, though not for the limit: the machine may be short of it",
        )
    } else if refused {
        Finding::new(MEMORY, Verdict::Pass, How::Tried, "memory beyond the limit is refused")
    } else if said == ENDED && hits > 0 {
        // A kernel that gets the memory in smaller pieces ends who asks, as it does with a program's own memory.
        Finding::new(MEMORY, Verdict::Pass, How::Tried, "a process that takes more than the limit is ended")
    } else if let Some(used) = used {
        if used.parse::<u64>().is_ok_and(|used| used > u64::from(BYTES)) {
            Finding::new(MEMORY, Verdict::Fail, How::Tried, "memory beyond the limit is not refused")
        } else {
            let missing = "this kernel does not count what it needs itself for a process, \
                           as it would without cgroup.memory=nokmem on its command line";
            Finding::unknown(MEMORY, How::Tried, missing)
        }
    } else {
        Finding::unknown(MEMORY, How::Tried, unclear(said))
    }
}

/// A pipe of [`PAGES`] pages.
fn enlarge_pipe() -> io::Result<(io::PipeReader, io::PipeWriter)> {
    let pipe = io::pipe()?;
    let size = i32::try_from(PAGES * rustix::param::page_size()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is ours, and the rest a number.
    match unsafe { libc::fcntl(pipe.1.as_raw_fd(), libc::F_SETPIPE_SZ, size) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(pipe),
    }
}

/// The folder in which to make a cgroup, or what there is to say without.
fn place<'a>(
    system: &System,
    hierarchies: &'a Hierarchies,
    controller: &str,
    id: &'static str,
) -> Result<(PathBuf, &'a Hierarchy), Box<Finding>> {
    let unknown = |missing: String| Box::new(Finding::unknown(id, How::Tried, missing));
    if hierarchies.all.is_empty() {
        return Err(unknown("no hierarchy of cgroups is mounted".into()));
    }
    let Some(hierarchy) = hierarchies.with(controller) else {
        if !super::is_whole_machine(system) {
            return Err(unknown(format!(
                "this container is not given the controller {controller}; run this on the machine itself"
            )));
        }
        if let Some(unread) = &hierarchies.unread {
            return Err(unknown(unread.to_string()));
        }
        let found =
            format!("no limit can be set: no hierarchy that is mounted has a controller for {controller}");
        return Err(Box::new(
            Finding::new(id, Verdict::Fail, How::Read, found)
                .seen(super::MOUNTS, format!("none with {controller}")),
        ));
    };
    if !system.is_live() {
        return Err(unknown(child::NOT_TRIED.into()));
    }
    let Some(place) = hands_down(system, hierarchy, controller) else {
        return Err(unknown(format!(
            "no cgroup above this process hands the controller {controller} down to those below it (cgroup.subtree_control)"
        )));
    };
    Ok((PathBuf::from(place), hierarchy))
}

/// Where a cgroup with this controller may be made. In version 1 at the top, out of the way of whoever manages those below. In version 2
/// in the nearest one at or above this process's own that hands the controller down, which one with processes of its own cannot.
fn hands_down(system: &System, hierarchy: &Hierarchy, controller: &str) -> Option<String> {
    if hierarchy.version == 1 {
        return Some(hierarchy.mount.clone());
    }
    hierarchy.own_and_above().into_iter().find(|folder| {
        let text = |file: &str| system.text(&format!("{folder}/{file}"));
        let handed = text("cgroup.subtree_control").unwrap_or_default();
        // The root has no type. A child of a threaded one could hold no process.
        handed.split_whitespace().any(|has| has == controller)
            && text("cgroup.type").map_or(true, |kind| kind == "domain")
    })
}

/// Moves a child into it, or has it say why not.
fn enter(cgroup: &Cgroup, out: &mut dyn Write) -> io::Result<()> {
    cgroup.enter().inspect_err(|error| {
        let _ = write!(out, "entering {}", errno(error));
    })
}

/// A child that was killed.
const ENDED: &str = "ended by signal 9";

/// Has a child do this with a cgroup that has a limit. What the child said, and the cgroup it has left.
fn within(
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

/// After a check that was killed: whatever it made.
pub(super) fn clean_up() {
    let system = System::live(false);
    let Ok(hierarchies) = Hierarchies::of(&system) else { return };
    for place in ["pids", "memory"].into_iter().filter_map(|controller| {
        hierarchies.with(controller).and_then(|hierarchy| hands_down(&system, hierarchy, controller))
    }) {
        sweep(Path::new(&place));
    }
}

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or_default()
}

/// What a child said, with the kernel's words in place of numbers of errors.
fn plain(said: &str) -> String {
    match said.rsplit_once(' ').map(|(words, number)| (words, number.parse::<i32>())) {
        Some((words, Ok(number))) if number > 0 && !words.ends_with("signal") => {
            format!("{words}: {}", io::Error::from_raw_os_error(number))
        }
        _ => said.to_owned(),
    }
}

fn unclear(said: &str) -> String {
    match said.split_once(' ') {
        Some(("outside", "1")) => {
            "asking for so much takes CAP_SYS_RESOURCE, which root has and this process lacks".into()
        }
        Some(("outside", _)) => format!("without a limit it is refused as well; {}", plain(said)),
        Some(("entering", _)) => {
            format!("a child may not move into a cgroup that was made for it; {}", plain(said))
        }
        _ => format!("the child that tried it did not come to an answer: {}", plain(said)),
    }
}

fn not_tried(id: &'static str, controller: &str, hierarchy: &Hierarchy, error: &io::Error) -> Finding {
    let mount = &hierarchy.mount;
    let missing = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!(
                "a cgroup with the controller {controller} may not be made below {mount}; run this as root"
            )
        }
        _ => format!("a cgroup with the controller {controller} could not be made below {mount}: {error}"),
    };
    Finding::unknown(id, How::Tried, missing)
}

fn noted(finding: Finding, left: Option<io::Error>) -> Finding {
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
        // The whole machine may have been out of memory.
        assert_eq!(verdict(ENDED, 0), Verdict::Unknown);
        assert_eq!(verdict("not refused, 1310720 bytes used", 0), Verdict::Fail);
        assert_eq!(verdict("not refused, 4096 bytes used", 0), Verdict::Unknown);
        for unclear in ["outside 1", "entering 13", "more refused 1", "no answer: it hangs", ""] {
            assert_eq!(verdict(unclear, 1), Verdict::Unknown, "{unclear}");
        }
        assert_eq!(plain("outside 1"), "outside: Operation not permitted (os error 1)");
        assert_eq!(plain(ENDED), ENDED);
    }
}
