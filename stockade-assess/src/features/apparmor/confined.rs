/*!
A child takes one of the loaded profiles and loses a capability by it, which leaves no line in the log.

Most of what a profile refuses is logged. Not so a capability that the kernel only asks for to decide what to show: attributes of the
kind `trusted` are listed for CAP_SYS_ADMIN, and left out for everybody else. They are the child's own, on a file in memory.
*/
use std::{ffi::CStr, fs, io, os::fd::RawFd};

use super::{CONFINEMENT, Profiles, processes::label};
use crate::{
    Finding, How, System, Verdict,
    child::{self, End},
};

/// As many profiles are tried: some grant the capability.
const PROFILES: usize = 4;

const ATTRIBUTE: &CStr = c"trusted.stockade";

/// How the child ends.
const REFUSED: i32 = 10;
const GRANTED: i32 = 11;
const NOT_SEEN_BEFORE: i32 = 12;
const NO_FILE: i32 = 13;
const NO_ANSWER: i32 = 14;
/// The error's number is added.
const NOT_TAKEN: i32 = 100;

pub(super) fn confinement(system: &System, profiles: &Profiles) -> Finding {
    let unknown = |missing: &str| Finding::unknown(CONFINEMENT, How::Tried, missing);
    if !system.is_live() {
        return unknown(child::NOT_TRIED);
    }
    if system.lacks_root().is_some() {
        return unknown("only root can try it; run this as root");
    }
    // Somebody who is confined may not take any profile, and that would be logged.
    match label(system, "self") {
        Some(label) if label == "unconfined" => {}
        Some(label) => return unknown(&format!("this process is itself confined, by {label}")),
        None => return unknown("/proc/self/attr/apparmor/current does not tell this process's profile"),
    }
    // Those of other namespaces, and those that are only parts of others, are not for everybody to take.
    let usable = |name: &&String| !name.starts_with(':') && !name.contains("//");
    let names: Vec<&String> = profiles.in_mode("enforce").iter().filter(usable).take(PROFILES).collect();
    if names.is_empty() {
        return unknown("no profile is enforced that could be tried");
    }
    let mut granted = Vec::new();
    for name in names {
        // It ends before it writes anything, which its profile may not grant.
        let end = match child::run(child::TRIAL, |_| child::leave(try_profile(name))) {
            Ok((end, _)) => end,
            Err(error) => return unknown(&format!("no child could be started: {error}")),
        };
        let source = format!("a child that took the profile {name}");
        match end {
            End::Exited(REFUSED) => {
                return Finding::new(
                    CONFINEMENT,
                    Verdict::Pass,
                    How::Tried,
                    "a profile takes what it does not grant",
                )
                .seen(source, "lost CAP_SYS_ADMIN");
            }
            End::Exited(GRANTED) => granted.push(name.as_str()),
            End::Exited(NOT_SEEN_BEFORE) => {
                return unknown("attributes of the kind trusted are not shown to this process as it is");
            }
            End::Exited(NO_FILE) => {
                return unknown("a file in memory takes no attributes of the kind trusted here");
            }
            End::Exited(status @ NOT_TAKEN..) => {
                let error = io::Error::from_raw_os_error(status - NOT_TAKEN);
                return unknown(&format!("a child could not take the profile {name}: {error}"));
            }
            End::Exited(_) | End::Signal(_) | End::TooLong(_) | End::TooMuch | End::Unseen => {
                return unknown(&format!(
                    "the child that took the profile {name} did not come to an answer: it {end}"
                ));
            }
        }
    }
    unknown("every profile that was tried grants CAP_SYS_ADMIN, which is what can be tried without a line in the log")
        .seen("children that took profiles", granted.join(", "))
}

fn try_profile(name: &str) -> i32 {
    // SAFETY: the name is a string that lives for the call.
    let file = unsafe { libc::memfd_create(c"stockade".as_ptr(), libc::MFD_CLOEXEC) };
    // SAFETY: the attribute's name and its value of one byte live for the call.
    let set =
        file >= 0 && unsafe { libc::fsetxattr(file, ATTRIBUTE.as_ptr(), c"1".as_ptr().cast(), 1, 0) } == 0;
    if !set {
        return NO_FILE;
    }
    if is_listed(file) != Some(true) {
        return NOT_SEEN_BEFORE;
    }
    let take = |file| fs::write(file, format!("changeprofile {name}"));
    let taken = match take("/proc/self/attr/apparmor/current") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => take("/proc/self/attr/current"),
        taken => taken,
    };
    if let Err(error) = taken {
        return NOT_TAKEN + error.raw_os_error().unwrap_or_default();
    }
    match is_listed(file) {
        Some(true) => GRANTED,
        Some(false) => REFUSED,
        None => NO_ANSWER,
    }
}

/// None if the kernel lists no attributes at all.
fn is_listed(file: RawFd) -> Option<bool> {
    let mut names = [0_u8; 1024];
    // SAFETY: the buffer is live and of this length.
    let length = unsafe { libc::flistxattr(file, names.as_mut_ptr().cast(), names.len()) };
    let names = usize::try_from(length).ok().and_then(|length| names.get(..length))?;
    Some(names.split(|byte| *byte == 0).any(|name| name == ATTRIBUTE.to_bytes()))
}
