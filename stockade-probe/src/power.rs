//! The door to hibernation.

use std::path::Path;

use crate::answer::Outcome;
use crate::file;

const DISK: &str = "/sys/power/disk";

/// Writes the current hibernation mode back to /sys/power/disk, which changes nothing; what would
/// hibernate, `disk` in /sys/power/state, is never written. `disk_store()` in `kernel/power/hibernate.c`
/// asks and answers EPERM; `disk_show()` asks too and shows `[disabled]`.
///
/// The kernel shows the same `[disabled]` for `nohibernate` on the command line, which is looked for, and
/// while secret memory (`memfd_secret`) or volatile CXL memory is in use, which cannot be told apart.
pub(crate) fn write_mode() -> Outcome {
    let Some(modes) = file::text(DISK) else {
        return Outcome::absent("this kernel has no /sys/power/disk: hibernation is not built in");
    };
    let Some(current) = current_mode(&modes) else {
        return Outcome::failed(format!("{DISK} shows no current mode: {modes}"));
    };
    let outcome = if current == "disabled" {
        Outcome::refused(libc::EPERM)
    } else {
        file::write_back(Path::new(DISK), current)
    };
    if outcome.answer == crate::Answer::Refused
        && file::text("/proc/cmdline").is_some_and(|line| turned_off(&line))
    {
        return Outcome::absent("hibernation is turned off on the kernel command line");
    }
    outcome
}

/// The mode in brackets.
fn current_mode(modes: &str) -> Option<&str> {
    modes.split_whitespace().find_map(|mode| mode.strip_prefix('[')?.strip_suffix(']'))
}

fn turned_off(command_line: &str) -> bool {
    command_line.split_whitespace().any(|word| matches!(word, "nohibernate" | "hibernate=no"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_current_mode_is_the_one_in_brackets() {
        assert_eq!(current_mode("platform [shutdown] reboot suspend test_resume"), Some("shutdown"));
        assert_eq!(current_mode("[disabled]"), Some("disabled"));
        assert_eq!(current_mode(""), None);
    }

    #[test]
    fn the_command_line_can_turn_hibernation_off() {
        assert!(turned_off("quiet nohibernate console=ttyS0"));
        assert!(turned_off("hibernate=no"));
        assert!(!turned_off("quiet hibernate=noresume"));
    }
}
