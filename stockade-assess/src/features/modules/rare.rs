/*!
Modules that hardly anybody needs and that the kernel loads by itself when somebody asks: a mount, a socket, a line discipline.
*/
use super::without_modules;
use crate::{
    Finding, How, System, Verdict, few,
    modprobe::{self, Blocked, DISABLED, are_off, has_no_modules},
};

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

pub(super) fn finding(system: &System) -> Finding {
    if has_no_modules(system) {
        return without_modules(ID);
    }
    if are_off(system) {
        return Finding::new(ID, Verdict::Pass, How::Read, "no module can be loaded before the next boot")
            .seen(DISABLED, "1");
    }
    let installed = match modprobe::installed(system) {
        Ok((_, installed)) => installed,
        Err(unread) => return Finding::unknown(ID, How::Read, unread),
    };
    let blocked = Blocked::read(system);
    let here = |name: &&&str| installed.contains(**name);
    let rare: Vec<&str> = RARE.iter().filter(here).copied().collect();
    let loaded: Vec<&str> =
        RARE.into_iter().filter(|name| system.exists(&format!("/sys/module/{name}/initstate"))).collect();
    let open: Vec<&str> = rare.iter().copied().filter(|name| blocked.by(name).is_none()).collect();
    let finding = if !loaded.is_empty() {
        Finding::new(
            ID,
            Verdict::Warn,
            How::Read,
            format!("rarely used modules are loaded: {}", few(&loaded)),
        )
    } else if let (false, Some(unread)) = (open.is_empty(), blocked.hidden.clone()) {
        Finding::unknown(ID, How::Read, unread)
    } else if !open.is_empty() {
        let found = format!("{} rarely used modules are autoloaded on request", open.len());
        Finding::new(ID, Verdict::Warn, How::Read, found)
    } else if rare.is_empty() {
        Finding::new(ID, Verdict::Pass, How::Read, "no rarely used module is installed")
    } else {
        let found = format!("all {} installed rarely used modules are blocked", rare.len());
        Finding::new(ID, Verdict::Pass, How::Read, found)
    };
    let shut: Vec<&str> = rare.iter().copied().filter(|name| blocked.by(name).is_some()).collect();
    let lists = [("installed and not blocked", open), ("blocked", shut)];
    lists
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .fold(finding, |finding, (what, names)| finding.seen(what, names.join(", ")))
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
}
