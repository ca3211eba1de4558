/*!
What keeps modules from loading by themselves, and which there are.
*/
use std::{
    collections::{HashMap, HashSet},
    ffi::OsStr,
    path::Path,
};

use crate::{System, Unread};

/// Other than 0 where loading was turned off until the next boot.
pub(crate) const DISABLED: &str = "/proc/sys/kernel/modules_disabled";

/// Where modprobe looks, in its order: a file hides those of the same name in later folders (modprobe.d(5)).
const FOLDERS: [&str; 5] = [
    "/etc/modprobe.d",
    "/run/modprobe.d",
    "/usr/local/lib/modprobe.d",
    "/usr/lib/modprobe.d",
    "/lib/modprobe.d",
];

/// Modules, and names for them, that do not load by themselves: blacklisted in modprobe.d or on the kernel's command line, switched off as a
/// name, or with a command in their place that does nothing.
pub(crate) struct Blocked {
    /// The place that says so, and its words, by the name with `-` as `_`.
    by: HashMap<String, (String, String)>,
    /// A file that could not be read, and may block more.
    pub hidden: Option<Unread>,
}

impl Blocked {
    /// Reads all of it.
    pub fn read(system: &System) -> Self {
        let mut this = Self { by: HashMap::new(), hidden: None };
        for word in this.or_hidden(system.cmdline()) {
            if let Some(("module_blacklist" | "modprobe.blacklist", names)) = word.split_once('=') {
                for name in names.split(',') {
                    this.add(name, "the kernel's command line", &word);
                }
            }
        }
        let mut seen = HashSet::new();
        for folder in FOLDERS {
            for name in this.or_hidden(system.names(folder)) {
                if Path::new(&name).extension() != Some(OsStr::new("conf")) || !seen.insert(name.clone()) {
                    continue;
                }
                let path = format!("{folder}/{name}");
                for line in this.or_hidden(system.text(&path)).lines() {
                    if let Some(name) = blocks(line) {
                        this.add(name, &path, line.trim());
                    }
                }
            }
        }
        this
    }

    /// Returns the line that blocks this module or alias, with its file. Names have `_` in place of `-`.
    pub fn by(&self, name: &str) -> Option<(&str, &str)> {
        self.by.get(name).map(|(place, words)| (place.as_str(), words.as_str()))
    }

    fn add(&mut self, name: &str, place: &str, words: &str) {
        self.by.entry(name.replace('-', "_")).or_insert_with(|| (place.to_owned(), words.to_owned()));
    }

    fn or_hidden<T: Default>(&mut self, read: Result<T, Unread>) -> T {
        read.unwrap_or_else(|unread| {
            if !unread.is_missing() {
                self.hidden = Some(unread);
            }
            T::default()
        })
    }
}

/// The module, or the name for one, that a line of modprobe.d blocks.
fn blocks(line: &str) -> Option<&str> {
    let nothing = |command: &str| matches!(command.rsplit('/').next(), Some("true" | "false"));
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        // It stops loading by alias, which is how the kernel loads.
        ["blacklist", module] | ["alias", module, "off"] => Some(module),
        ["install", module, command, ..] if nothing(command) => Some(module),
        _ => None,
    }
}

/// Whether loading was turned off until the next boot.
pub(crate) fn are_off(system: &System) -> bool {
    system.number(DISABLED).is_ok_and(|value| value != 0)
}

/// Whether this kernel can load no modules at all: it was built so.
pub(crate) fn has_no_modules(system: &System) -> bool {
    !system.exists("/proc/modules") && !system.exists(DISABLED) && system.exists("/proc/sys/kernel/osrelease")
}

/// The list of all modules that are installed for this kernel, and their names, `-` as `_`.
pub(crate) fn installed(system: &System) -> Result<(String, HashSet<String>), Unread> {
    let release = system.release()?;
    // It becomes part of a path.
    if release.is_empty() || release.contains('/') {
        return Err(Unread::not_understood("/proc/sys/kernel/osrelease", &release));
    }
    let mut path = format!("/lib/modules/{release}/modules.dep");
    let text = match system.text(&path) {
        Err(unread) if unread.is_missing() => {
            path.insert_str(0, "/usr");
            system.text(&path).map_err(|_| unread)?
        }
        text => text?,
    };
    let name = |line: &str| {
        let file = line.split(':').next()?.rsplit('/').next()?;
        Some(file.split_once(".ko")?.0.replace('-', "_"))
    };
    let names = text.lines().filter_map(name).collect();
    Ok((path, names))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(files: &[(&str, &str)], name: &str) -> Option<(String, String)> {
        let blocked = Blocked::read(&System::fake(files));
        blocked.by(name).map(|(place, words)| (place.to_owned(), words.to_owned()))
    }

    #[test]
    fn every_way_to_block_a_module_is_known() {
        let file = "/etc/modprobe.d/local.conf";
        let blocks = |line: &str| by(&[(file, line)], "n_hdlc") == Some((file.into(), line.trim().into()));
        assert!(blocks("blacklist n-hdlc"));
        assert!(blocks("  install n_hdlc /usr/bin/false --quiet"));
        assert!(blocks("install n_hdlc true"));
        assert!(!blocks("install n_hdlc /sbin/modprobe -i n_hdlc"));
        assert!(!blocks("# blacklist n_hdlc"));
        assert!(!blocks("blacklist n_hdlc_more"));
        assert!(by(&[(file, "alias net-pf-38 off")], "net_pf_38").is_some());
        assert!(by(&[("/etc/modprobe.d/local.txt", "blacklist n_hdlc")], "n_hdlc").is_none());
        for word in ["module_blacklist=x,n_hdlc", "modprobe.blacklist=n-hdlc"] {
            let place = "the kernel's command line";
            assert_eq!(by(&[("/proc/cmdline", word)], "n_hdlc"), Some((place.into(), word.into())));
        }
    }

    #[test]
    fn a_file_hides_one_of_the_same_name() {
        let vendor = ("/usr/lib/modprobe.d/net.conf", "blacklist sctp\n");
        assert!(by(&[vendor], "sctp").is_some());
        assert!(by(&[vendor, ("/etc/modprobe.d/net.conf", "")], "sctp").is_none());
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        assert!(Blocked::read(&System::fake(&[])).hidden.is_none());
        assert!(Blocked::read(&System::fake(&[("/etc/modprobe.d/local.conf/", "")])).hidden.is_some());
    }
}
