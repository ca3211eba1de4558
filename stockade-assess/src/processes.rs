/*!
The processes of a machine, as far as more than one check asks for them.

A process may end while it is looked at: what is not there any more is left out.
*/
use crate::system::System;

/// Set in the flags of what the kernel runs for itself (`PF_KTHREAD`).
const KERNEL_THREAD: u64 = 0x0020_0000;

/// The namespace of the machine itself, as the kernel numbers it (`PROC_PID_INIT_INO`).
const INITIAL_NAMESPACE: &str = "pid:[4026531836]";

/// Why not every process of the machine is seen, where that is so: then nobody can say that none of them does something.
#[must_use]
pub fn unseen(system: &System) -> Option<String> {
    if system.link("/proc/self/ns/pid").is_ok_and(|namespace| namespace != INITIAL_NAMESPACE) {
        return Some("only processes of this container are seen; run this on the machine itself".into());
    }
    // Mounted with hidepid=, /proc keeps from users what belongs to others, the first process as well. Otherwise everybody may read this.
    let lacks = system.lacks_root()?;
    let is_hidden = system.text("/proc/1/status").is_err();
    is_hidden.then(|| format!("processes of others are hidden (hidepid); {lacks}"))
}

/// Whether a seccomp filter, such as a container's, may answer this process in the kernel's place.
#[must_use]
pub fn is_filtered(system: &System) -> bool {
    let status = system.text("/proc/self/status").unwrap_or_default();
    field(&status, "Seccomp").is_some_and(|mode| mode != "0")
}

/// Its name and number, for people.
#[must_use]
pub fn name(system: &System, pid: u32) -> String {
    match system.text(&format!("/proc/{pid}/comm")) {
        Ok(name) if !name.is_empty() => format!("{name} ({pid})"),
        _ => pid.to_string(),
    }
}

/// Whether it is a thread of the kernel's own, with no program to confine.
#[must_use]
pub fn is_kernels(system: &System, pid: u32) -> bool {
    let Ok(stat) = system.text(&format!("/proc/{pid}/stat")) else { return false };
    // The name, in brackets, may hold anything, brackets too. The flags are the seventh word after it.
    let flags = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(6)?.parse().ok());
    flags.is_some_and(|flags: u64| flags & KERNEL_THREAD != 0)
}

/// The value of a line `Key: value`, as they stand in /proc/PID/status.
#[must_use]
pub fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| Some(line.strip_prefix(key)?.strip_prefix(':')?.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_of_the_kernel_are_told_from_programs_whatever_they_call_themselves() {
        let system = System::fake(&[
            ("/proc/2/stat", "2 (kthreadd) S 0 0 0 0 -1 2129984 0 0\n"),
            ("/proc/2/comm", "kthreadd\n"),
            ("/proc/7/stat", "7 (a) S 1 1 1 1 1 2129984) S 1 7 7 0 -1 4194560 0 0\n"),
            ("/proc/8/stat", ""),
        ]);
        assert!(is_kernels(&system, 2));
        assert!(!is_kernels(&system, 7) && !is_kernels(&system, 8) && !is_kernels(&system, 9));
        assert_eq!((name(&system, 2).as_str(), name(&system, 7).as_str()), ("kthreadd (2)", "7"));
    }

    #[test]
    fn processes_that_are_out_of_sight_are_told() {
        let first = [("/proc/1/status", "Name:\tinit\n")];
        assert_eq!(unseen(&System::fake(&first)), None);
        assert_eq!(unseen(&System::fake(&first).not_root()), None);
        assert!(unseen(&System::fake(&[]).not_root()).is_some_and(|why| why.contains("hidepid")));
        let inner = [("/proc/self/ns/pid", "-> pid:[4026532201]"), first[0]];
        assert!(unseen(&System::fake(&inner)).is_some_and(|why| why.contains("container")));
        let whole = [("/proc/self/ns/pid", "-> pid:[4026531836]"), first[0]];
        assert_eq!(unseen(&System::fake(&whole)), None);
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "Seccomp_filters:\t3\nSeccomp:\t2\n";
        assert_eq!((field(text, "Seccomp"), field(text, "Sec")), (Some("2"), None));
    }
}
