//! The door to hibernation.

use std::path::Path;

use crate::answer::Outcome;
use crate::file;

const DISK: &str = "/sys/power/disk";

/// Writes a word to /sys/power/disk that is no mode of hibernation. `disk_store()` in `kernel/power/hibernate.c` asks first: EPERM
/// is a refusal; EINVAL comes after the check, and the mode stays as it is. `disk` is never written to /sys/power/state, which would
/// hibernate.
///
/// The kernel answers the same EPERM for `nohibernate` on the command line, which is looked for, and
/// while secret memory (`memfd_secret`) or volatile CXL memory is in use, which cannot be told apart.
pub(crate) fn write_no_mode() -> Outcome {
    if !Path::new(DISK).exists() {
        return Outcome::absent("this kernel has no /sys/power/disk: hibernation is not built in");
    }
    let outcome = file::write_nonsense(Path::new(DISK));
    if outcome.answer == crate::Answer::Refused
        && file::text("/proc/cmdline").is_some_and(|line| turned_off(&line))
    {
        return Outcome::absent("hibernation is turned off on the kernel command line");
    }
    outcome
}

fn turned_off(command_line: &str) -> bool {
    command_line.split_whitespace().any(|word| matches!(word, "nohibernate" | "hibernate=no"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_can_turn_hibernation_off() {
        assert!(turned_off("quiet nohibernate console=ttyS0"));
        assert!(turned_off("hibernate=no"));
        assert!(!turned_off("quiet hibernate=noresume"));
    }
}
