/*!
Processes that are not confined by a profile.
*/
use crate::{
    System,
    processes::{is_kernels, unseen},
};

/// Processes that are not confined, without kernel threads.
pub(super) struct Unconfined {
    /// Processes without a profile.
    pub(super) without_profile: Vec<u32>,
    /// Processes whose profile is in a mode that denies nothing.
    pub(super) by_name_only: Vec<u32>,
    /// The number of processes whose profile could be read.
    pub(super) seen: usize,
    /// The reason why some processes may be missing.
    pub(super) unseen: Option<String>,
}

/// Finds the processes that are not confined.
pub(super) fn find_unconfined(system: &System) -> Result<Unconfined, String> {
    let mut without =
        Unconfined { without_profile: Vec::new(), by_name_only: Vec::new(), seen: 0, unseen: unseen(system) };
    for pid in system.processes().map_err(|unread| unread.to_string())? {
        let Some(label) = label(system, &pid.to_string()) else { continue };
        without.seen += 1;
        let group = if label == "unconfined" {
            &mut without.without_profile
        } else if [" (unconfined)", " (complain)"].iter().any(|mode| label.ends_with(mode)) {
            &mut without.by_name_only
        } else {
            continue;
        };
        if !is_kernels(system, pid) {
            group.push(pid);
        }
    }
    if without.seen == 0 {
        return Err("no process shows its profile in /proc/PID/attr/apparmor/current".into());
    }
    Ok(without)
}

/// Returns a process's profile with its mode, from AppArmor's own file, since Linux 5.1, or the one that all security modules share.
pub(super) fn label(system: &System, process: &str) -> Option<String> {
    ["attr/apparmor/current", "attr/current"]
        .iter()
        .find_map(|file| system.text(&format!("/proc/{process}/{file}")).ok())
        .map(|label| label.trim_end_matches('\0').to_owned())
        .filter(|label| !label.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_sorted_by_what_confines_them() {
        let system = System::fake(&[
            ("/proc/2/attr/current", "unconfined\n"),
            ("/proc/2/stat", "2 (kthreadd) S 0 0 0 0 -1 2129984 0 0\n"),
            ("/proc/7/attr/current", "unconfined\n"),
            ("/proc/8/attr/apparmor/current", "chrome (unconfined)\n"),
            ("/proc/8/attr/current", "unconfined\n"),
            ("/proc/9/attr/apparmor/current", "/usr/sbin/cupsd (enforce)\n"),
            ("/proc/81/attr/apparmor/current", "/usr/sbin/ntpd (complain)\n"),
        ]);
        let without = find_unconfined(&system).unwrap();
        assert_eq!((without.without_profile, without.by_name_only, without.seen), (vec![7], vec![8, 81], 5));
        assert!(find_unconfined(&System::fake(&[("/proc/1/comm", "x")])).is_err());
    }
}
