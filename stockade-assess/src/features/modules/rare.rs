/*!
Modules that hardly anybody needs and that the kernel loads by itself when somebody asks: a mount, a socket, a line discipline.
*/
use std::{collections::HashSet, ffi::OsStr, path::Path};

use super::{are_off, has_no_modules, without_modules};
use crate::{Finding, How, System, Unread, Verdict, few};

const ID: &str = "modules.rare";

/// File systems and protocols of the past, or of few, whose code has a record of holes.
const RARE: [&str; 20] = [
    "cramfs",
    "freevxfs",
    "hfs",
    "hfsplus",
    "jffs2",
    "udf",
    "dccp",
    "sctp",
    "rds",
    "tipc",
    "ax25",
    "netrom",
    "rose",
    "x25",
    "appletalk",
    "decnet",
    "econet",
    "ipx",
    "atm",
    "n_hdlc",
];

/// Where modprobe looks, in its order: a file hides those of the same name in later folders.
const FOLDERS: [&str; 5] = [
    "/etc/modprobe.d",
    "/run/modprobe.d",
    "/usr/local/lib/modprobe.d",
    "/usr/lib/modprobe.d",
    "/lib/modprobe.d",
];

pub(super) fn finding(system: &System) -> Finding {
    if has_no_modules(system) {
        return without_modules(ID);
    }
    if are_off(system) {
        return Finding::new(ID, Verdict::Pass, How::Read, "no module can be loaded before the next boot")
            .seen(super::DISABLED, "1");
    }
    let installed = match installed(system) {
        Ok(installed) => installed,
        Err(unread) => return Finding::unknown(ID, How::Read, unread),
    };
    let (blocked, hidden) = blocked(system);
    let here = |name: &&&str| installed.contains(**name);
    let rare: Vec<&str> = RARE.iter().filter(here).copied().collect();
    let loaded: Vec<&str> =
        RARE.into_iter().filter(|name| system.exists(&format!("/sys/module/{name}/initstate"))).collect();
    let open: Vec<&str> = rare.iter().copied().filter(|name| !blocked.contains(*name)).collect();
    let finding = if !loaded.is_empty() {
        Finding::new(
            ID,
            Verdict::Warn,
            How::Read,
            format!("rarely needed modules are loaded: {}", few(&loaded)),
        )
    } else if let (false, Some(unread)) = (open.is_empty(), hidden) {
        Finding::unknown(ID, How::Read, unread)
    } else if !open.is_empty() {
        let found = format!("{} rarely needed modules load by themselves when somebody asks", open.len());
        Finding::new(ID, Verdict::Warn, How::Read, found)
    } else if rare.is_empty() {
        Finding::new(ID, Verdict::Pass, How::Read, "none of the rarely needed modules is installed")
    } else {
        let found = format!("all {} rarely needed modules that are installed are blocked", rare.len());
        Finding::new(ID, Verdict::Pass, How::Read, found)
    };
    let shut: Vec<&str> = rare.iter().copied().filter(|name| blocked.contains(*name)).collect();
    let lists = [("installed and not blocked", open), ("blocked", shut)];
    lists
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .fold(finding, |finding, (what, names)| finding.seen(what, names.join(", ")))
}

/// The names of all modules that are installed for this kernel, `-` as `_`.
fn installed(system: &System) -> Result<HashSet<String>, Unread> {
    let release = system.release()?;
    // It becomes part of a path.
    if release.is_empty() || release.contains('/') {
        return Err(Unread::not_understood("/proc/sys/kernel/osrelease", &release));
    }
    let path = format!("/lib/modules/{release}/modules.dep");
    let text = match system.text(&path) {
        Err(unread) if unread.is_missing() => system.text(&format!("/usr{path}")).map_err(|_| unread)?,
        text => text?,
    };
    let name = |line: &str| {
        let file = line.split(':').next()?.rsplit('/').next()?;
        Some(file.split_once(".ko")?.0.replace('-', "_"))
    };
    Ok(text.lines().filter_map(name).collect())
}

/// Modules that do not load by themselves: blacklisted in modprobe.d or on the kernel's command line, or with a command in their place that
/// does nothing. And what of modprobe.d could not be read.
fn blocked(system: &System) -> (HashSet<String>, Option<Unread>) {
    let mut blocked = HashSet::new();
    let mut seen = HashSet::new();
    let mut hidden = None;
    let mut or_hidden = |unread: Unread| {
        if !unread.is_missing() {
            hidden = Some(unread);
        }
    };
    for folder in FOLDERS {
        for name in system.names(folder).map_err(&mut or_hidden).unwrap_or_default() {
            if Path::new(&name).extension() != Some(OsStr::new("conf")) || !seen.insert(name.clone()) {
                continue;
            }
            let text = system.text(&format!("{folder}/{name}")).map_err(&mut or_hidden).unwrap_or_default();
            blocked.extend(text.lines().filter_map(blocks));
        }
    }
    for word in system.cmdline().unwrap_or_default() {
        if let Some(("module_blacklist" | "modprobe.blacklist", names)) = word.split_once('=') {
            blocked.extend(names.split(',').map(|name| name.replace('-', "_")));
        }
    }
    (blocked, hidden)
}

/// The module that a line of modprobe.d blocks.
fn blocks(line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    let (verb, module) = (words.next()?, words.next()?);
    let nothing = |command: &str| matches!(command.rsplit('/').next(), Some("true" | "false"));
    let blocks = match verb {
        "blacklist" => true,
        "install" => words.next().is_some_and(nothing),
        _ => false,
    };
    blocks.then(|| module.replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELEASE: (&str, &str) = ("/proc/sys/kernel/osrelease", "6.12");
    const DEP: &str = "/lib/modules/6.12/modules.dep";
    const MODULES: (&str, &str) = ("/proc/modules", "");

    fn verdict(files: &[(&str, &str)]) -> Verdict {
        let mut all = vec![RELEASE, MODULES];
        all.extend(files);
        finding(&System::fake(&all)).verdict
    }

    #[test]
    fn a_rare_module_that_is_not_blocked_is_told() {
        let dep = (DEP, "kernel/fs/cramfs/cramfs.ko.xz: kernel/lib/mtd.ko\nkernel/fs/ext4/ext4.ko:\n");
        let file = "/etc/modprobe.d/local.conf";
        assert_eq!(verdict(&[dep]), Verdict::Warn);
        assert_eq!(verdict(&[dep, (file, "# no\nblacklist cramfs\n")]), Verdict::Pass);
        assert_eq!(verdict(&[dep, (file, "install cramfs /usr/bin/false\n")]), Verdict::Pass);
        assert_eq!(verdict(&[dep, (file, "install cramfs /sbin/modprobe -i cramfs\n")]), Verdict::Warn);
        assert_eq!(verdict(&[dep, ("/proc/cmdline", "quiet modprobe.blacklist=x,cramfs\n")]), Verdict::Pass);
        assert_eq!(verdict(&[dep, ("/proc/cmdline", "quiet module_blacklist=cramfs\n")]), Verdict::Pass);
        // What cannot be read may block it, and decides nothing where nothing is to be blocked.
        let folder = "/etc/modprobe.d/local.conf/";
        assert_eq!(verdict(&[dep, (folder, "")]), Verdict::Unknown);
        assert_eq!(verdict(&[(DEP, "kernel/fs/ext4/ext4.ko:\n"), (folder, "")]), Verdict::Pass);
        assert_eq!(verdict(&[(DEP, "kernel/fs/ext4/ext4.ko:\n")]), Verdict::Pass);
        assert_eq!(verdict(&[]), Verdict::Unknown);
    }

    #[test]
    fn a_file_hides_one_of_the_same_name() {
        let dep = (DEP, "kernel/net/sctp/sctp.ko:\n");
        let vendor = ("/usr/lib/modprobe.d/net.conf", "blacklist sctp\n");
        assert_eq!(verdict(&[dep, vendor]), Verdict::Pass);
        assert_eq!(verdict(&[dep, vendor, ("/etc/modprobe.d/net.conf", "")]), Verdict::Warn);
    }
}
