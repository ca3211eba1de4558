/*!
A child enters one of the loaded profiles and so loses a capability, without a line in the log.

The kernel logs most denials of a profile, but not that of a capability which only decides what is shown: `trusted.*` extended attributes are listed
with CAP_SYS_ADMIN and left out without it. The child sets one on a memfd of its own.
*/
use std::{ffi::CStr, fs, io, os::fd::RawFd};

use super::{CONFINEMENT, Profiles, processes::label};
use crate::{
    Finding, How, System, Verdict,
    child::{self, End},
};

/// The number of profiles that are tried, as some grant the capability.
const PROFILES: usize = 4;

const ATTRIBUTE: &CStr = c"trusted.stockade";

/// Exit statuses of the child.
const REFUSED: i32 = 10;
const GRANTED: i32 = 11;
const NOT_SEEN_BEFORE: i32 = 12;
const NO_FILE: i32 = 13;
const NO_ANSWER: i32 = 14;
/// The errno is added to this.
const NOT_TAKEN: i32 = 100;

pub(super) fn confinement(system: &System, profiles: &Profiles) -> Finding {
    let unknown = |missing: &str| Finding::unknown(CONFINEMENT, How::Tried, missing);
    if !system.is_live() {
        return unknown(child::NOT_TRIED);
    }
    if system.lacks_root().is_some() {
        return unknown("only root can enter a profile; run this as root");
    }
    // A confined process may not enter any profile, and the denial would be logged.
    match label(system, "self") {
        Some(label) if label == "unconfined" => {}
        Some(label) => return unknown(&format!("this process is itself confined by the profile {label}")),
        None => return unknown("/proc/self/attr/apparmor/current does not show the profile of this process"),
    }
    // Profiles of other policy namespaces and child profiles cannot be entered from here.
    let usable = |name: &&String| !name.starts_with(':') && !name.contains("//");
    let names: Vec<&String> = profiles.in_mode("enforce").iter().filter(usable).take(PROFILES).collect();
    if names.is_empty() {
        return unknown("no profile in enforce mode can be tried");
    }
    let mut granted = Vec::new();
    for name in names {
        // The child exits without writing, as its profile may not allow it.
        let end = match child::run(child::TRIAL, |_| child::leave(try_profile(name))) {
            Ok((end, _)) => end,
            Err(error) => return unknown(&format!("no child could be started: {error}")),
        };
        let source = format!("child under the profile {name}");
        match end {
            End::Exited(REFUSED) => {
                return Finding::new(
                    CONFINEMENT,
                    Verdict::Pass,
                    How::Tried,
                    "a child under a profile lost a capability that the profile does not grant",
                )
                .seen(source, "lost CAP_SYS_ADMIN");
            }
            End::Exited(GRANTED) => granted.push(name.as_str()),
            End::Exited(NOT_SEEN_BEFORE) => {
                return unknown(
                    "trusted.* extended attributes are not listed for this process even without a profile",
                );
            }
            End::Exited(NO_FILE) => {
                return unknown("this kernel sets no trusted.* extended attributes on a memfd");
            }
            End::Exited(status @ NOT_TAKEN..) => {
                let error = io::Error::from_raw_os_error(status - NOT_TAKEN);
                return unknown(&format!("a child could not enter the profile {name}: {error}"));
            }
            End::Exited(_) | End::Signal(_) | End::TooLong(_) | End::TooMuch | End::Unseen => {
                return unknown(&format!("the child under the profile {name} gave no result: it {end}"));
            }
        }
    }
    unknown("every profile that was tried grants CAP_SYS_ADMIN, the only capability that can be tested without a line in the log")
        .seen("children under profiles", granted.join(", "))
}

fn try_profile(name: &str) -> i32 {
    // SAFETY: the name is a NUL-terminated string that lives for the call.
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

/// Reports whether the attribute is listed; none if the kernel lists no attributes at all.
fn is_listed(file: RawFd) -> Option<bool> {
    let mut names = [0_u8; 1024];
    // SAFETY: the buffer is live and of this length.
    let length = unsafe { libc::flistxattr(file, names.as_mut_ptr().cast(), names.len()) };
    let names = usize::try_from(length).ok().and_then(|length| names.get(..length))?;
    Some(names.split(|byte| *byte == 0).any(|name| name == ATTRIBUTE.to_bytes()))
}
