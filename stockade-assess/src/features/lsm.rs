/*!
Security modules that work beside mandatory access control: which are active, and Landlock, by which a program confines itself.
*/
use std::{fs, io, mem};

use crate::{
    Feature, Finding, How, Report, System, Verdict,
    child::{self, End},
    mandatory,
    processes::is_filtered,
};

pub(super) const FEATURE: Feature = Feature { id: "lsm", title: "Security modules", ..Feature::new(check) };

const ACTIVE: &str = "lsm.active";
const LANDLOCK: &str = "lsm.landlock";

/// Modules that restrict nobody until they are told to, and what is missed without them.
const WANTED: [(&str, &str); 4] = [
    ("lockdown", "keeps root from changing the kernel"),
    ("yama", "keeps processes from reading each other"),
    ("landlock", "lets programs confine themselves"),
    ("bpf", "lets Stockade and others decide"),
];

fn check(system: &System, report: &mut Report) {
    report.add(active(system));
    report.add(landlock(system));
}

fn active(system: &System) -> Finding {
    let list = match system.text(mandatory::LIST) {
        Ok(list) => list,
        Err(unread) if unread.is_missing() => {
            let missing =
                format!("{unread}: securityfs is not mounted, or the kernel has no security modules");
            return Finding::unknown(ACTIVE, How::Read, missing);
        }
        Err(unread) => return Finding::unknown(ACTIVE, How::Read, unread),
    };
    let missing: Vec<String> = WANTED
        .iter()
        .filter(|(name, _)| !list.split(',').any(|active| active == *name))
        .map(|(name, what)| format!("{name}, which {what}"))
        .collect();
    let finding = if missing.is_empty() {
        Finding::new(ACTIVE, Verdict::Pass, How::Read, "lockdown, yama, landlock and bpf are active")
    } else {
        Finding::new(ACTIVE, Verdict::Warn, How::Read, format!("not active: {}", missing.join("; ")))
    };
    finding.seen(mandatory::LIST, list)
}

/// `LANDLOCK_ACCESS_FS_READ_FILE`, part of Landlock's first ABI (linux/landlock.h).
const READ_FILE: u64 = 1 << 2;

/// Asks for the number of the interface instead of making a ruleset.
const VERSION: u32 = 1;

/// From this number on, refusals can be logged, and need not be.
const LOGS: i64 = 7;
const LOG_NOTHING: u32 = 1;

/// The file that the child reads: it exists always.
const FILE: &str = "/proc/self/stat";

/// How the child ends.
const REFUSED: i32 = 10;
const NOT_REFUSED: i32 = 11;
const NOT_READABLE: i32 = 12;
const NO_ANSWER: i32 = 13;
/// The error's number is added.
const NOT_CONFINED: i32 = 100;

fn landlock(system: &System) -> Finding {
    if !system.is_live() {
        return Finding::unknown(LANDLOCK, How::Tried, child::NOT_TRIED);
    }
    // SAFETY: asks for a number; there is no ruleset to point to.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u64>(), 0_usize, VERSION)
    };
    if version < 0 {
        let error = io::Error::last_os_error();
        return absent(&error, is_filtered(system));
    }
    let end = match child::run(child::TRIAL, |_| child::leave(confine(version))) {
        Ok((end, _)) => end,
        Err(error) => {
            return Finding::unknown(LANDLOCK, How::Tried, format!("no child could be started: {error}"));
        }
    };
    judge(end).seen("landlock_create_ruleset(2)", format!("interface {version}"))
}

/// Returns the finding for ENOSYS. A seccomp filter of this process, such as a container's, may have returned it.
fn absent(error: &io::Error, is_filtered: bool) -> Finding {
    let found = match error.raw_os_error() {
        Some(libc::ENOSYS) if is_filtered => {
            let missing = "this kernel has no Landlock, or a seccomp filter on this process hides it";
            return Finding::unknown(LANDLOCK, How::Tried, missing);
        }
        Some(libc::ENOSYS) => "this kernel has no Landlock",
        Some(libc::EOPNOTSUPP) => "this kernel has Landlock, and it was not made active at boot",
        _ => return Finding::unknown(LANDLOCK, How::Tried, format!("landlock_create_ruleset(2): {error}")),
    };
    Finding::new(LANDLOCK, Verdict::Warn, How::Tried, found)
        .seen("landlock_create_ruleset(2)", error.to_string())
}

fn judge(end: End) -> Finding {
    let unknown = |missing: String| Finding::unknown(LANDLOCK, How::Tried, missing);
    let source = "a child that gave up reading files and read one";
    match end {
        End::Exited(REFUSED) => {
            Finding::new(LANDLOCK, Verdict::Pass, How::Tried, "a program can confine itself")
                .seen(source, "refused")
        }
        End::Exited(NOT_REFUSED) => Finding::new(
            LANDLOCK,
            Verdict::Fail,
            How::Tried,
            "a program that confined itself is not confined",
        )
        .seen(source, "not refused"),
        End::Exited(NOT_READABLE) => unknown(format!("{FILE} could not be read without Landlock either")),
        End::Exited(status @ NOT_CONFINED..) => {
            let error = io::Error::from_raw_os_error(status - NOT_CONFINED);
            unknown(format!("a child could not confine itself: {error}"))
        }
        End::Exited(_) | End::Signal(_) | End::TooLong(_) | End::TooMuch | End::Unseen => {
            unknown(format!("the child that confined itself did not come to an answer: it {end}"))
        }
    }
}

fn confine(version: i64) -> i32 {
    if fs::File::open(FILE).is_err() {
        return NOT_READABLE;
    }
    let flags = if version >= LOGS { LOG_NOTHING } else { 0 };
    // SAFETY: the ruleset of the first interface is one number of 64 bits, which lives for the call; the rest are numbers.
    let restricted = unsafe {
        let ruleset =
            libc::syscall(libc::SYS_landlock_create_ruleset, &raw const READ, mem::size_of_val(&READ), 0_u32);
        ruleset >= 0
            && libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::syscall(libc::SYS_landlock_restrict_self, ruleset, flags) == 0
    };
    if !restricted {
        return NOT_CONFINED + io::Error::last_os_error().raw_os_error().unwrap_or_default();
    }
    match fs::File::open(FILE) {
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => REFUSED,
        Ok(_) => NOT_REFUSED,
        Err(_) => NO_ANSWER,
    }
}

static READ: u64 = READ_FILE;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_that_are_missing_are_named() {
        let with = |list| FEATURE.findings(&System::fake(&[(mandatory::LIST, list)]))[ACTIVE].clone();
        assert_eq!(with("lockdown,capability,landlock,yama,apparmor,bpf").verdict, Verdict::Pass);
        let less = with("capability,landlock,yama,bpf");
        assert_eq!(less.verdict, Verdict::Warn);
        assert!(less.found.starts_with("not active: lockdown, which"), "{}", less.found);
        assert_eq!(FEATURE.findings(&System::fake(&[]))[ACTIVE].verdict, Verdict::Unknown);
    }

    #[test]
    fn landlock_that_does_not_hold_is_a_failure_and_none_is_warned_about() {
        let verdict = |status| judge(End::Exited(status)).verdict;
        assert_eq!((verdict(REFUSED), verdict(NOT_REFUSED)), (Verdict::Pass, Verdict::Fail));
        for status in [NOT_CONFINED + libc::EPERM, NOT_READABLE, NO_ANSWER, 1] {
            assert_eq!(verdict(status), Verdict::Unknown);
        }
        let absent = |errno, is_filtered| absent(&io::Error::from_raw_os_error(errno), is_filtered).verdict;
        assert_eq!(
            (absent(libc::ENOSYS, false), absent(libc::ENOSYS, true)),
            (Verdict::Warn, Verdict::Unknown)
        );
        assert_eq!(
            (absent(libc::EOPNOTSUPP, true), absent(libc::EPERM, false)),
            (Verdict::Warn, Verdict::Unknown)
        );
        assert_eq!(landlock(&System::fake(&[])).verdict, Verdict::Unknown);
    }
}
