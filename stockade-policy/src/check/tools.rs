/*!
Programs that are known to do anybody's bidding, by name. The list is what administrators meet, not all there is: a name
that is missing draws no finding, and that is no proof.
*/
use std::path::Path;

/// Why a program cannot stand for what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bidding {
    /// Runs whatever script or program it is handed.
    Interpreter,
    /// Loads plugins, scripts or libraries that its caller chooses.
    LoadsCode,
    /// Does to files, modules, registers or images what its arguments say.
    Arguments,
}

/// Versions are cut off before the name is looked up.
const INTERPRETERS: &[&str] = &[
    "ash",
    "awk",
    "bash",
    "bun",
    "busybox",
    "csh",
    "dash",
    "deno",
    "dotnet",
    "elvish",
    "emacs",
    "erl",
    "expect",
    "fish",
    "gawk",
    "gdb",
    "gdb-multiarch",
    "ghci",
    "gjs",
    "guile",
    "java",
    "jshell",
    "julia",
    "ksh",
    "lldb",
    "lua",
    "luajit",
    "mawk",
    "mksh",
    "mono",
    "nawk",
    "node",
    "nodejs",
    "nvim",
    "octave",
    "perl",
    "php",
    "pwsh",
    "pypy",
    "python",
    "R",
    "Rscript",
    "rbash",
    "ruby",
    "screen",
    "sh",
    "stap",
    "tclsh",
    "tcsh",
    "tmux",
    "toybox",
    "vi",
    "view",
    "vim",
    "vim.basic",
    "vim.nox",
    "vim.tiny",
    "wish",
    "zsh",
];

const LOADS_CODE: &[&str] = &[
    "apache2",
    "bpftrace",
    "ceph-osd",
    "collectd",
    "crash",
    "curl",
    "drgn",
    "fluent-bit",
    "git",
    "haproxy",
    "httpd",
    "httpd-prefork",
    "mysqld",
    "nginx",
    "openssl",
    "perf",
    "php-fpm",
    "postgres",
    "qemu-system-x86_64",
    "rsyslogd",
    "snmpd",
    "sqlite",
    "ssh",
    "stapio",
    "telegraf",
    "trace-cmd",
    "tshark",
    "uwsgi",
    "wireshark",
    "zabbix_agentd",
];

const ARGUMENTS: &[&str] = &[
    "bpftool",
    "cat",
    "cp",
    "dd",
    "depmod",
    "devmem",
    "devmem2",
    "ed",
    "flashrom",
    "hexdump",
    "hexedit",
    "inb",
    "inl",
    "insmod",
    "install",
    "io",
    "kexec",
    "kmod",
    "modprobe",
    "mv",
    "outb",
    "outl",
    "od",
    "rdmsr",
    "rsync",
    "sed",
    "setpci",
    "setserial",
    "tar",
    "tee",
    "wrmsr",
    "xxd",
];

const STARTERS: &[&str] = &[
    "anacron",
    "at",
    "atd",
    "containerd",
    "containerd-shim-runc-v",
    "conmon",
    "cron",
    "crond",
    "crun",
    "dbus-daemon",
    "doas",
    "dockerd",
    "env",
    "find",
    "init",
    "kubelet",
    "make",
    "ninja",
    "nohup",
    "parallel",
    "pkexec",
    "podman",
    "run-parts",
    "runc",
    "setsid",
    "ssh",
    "sshd",
    "sshd-session",
    "start-stop-daemon",
    "su",
    "sudo",
    "systemd",
    "systemd-executor",
    "systemd-nspawn",
    "systemd-run",
    "systemd-udevd",
    "time",
    "timeout",
    "udevd",
    "watch",
    "xargs",
];

/// Returns the known facts about the program of this name.
pub(crate) fn bidding(exe: &Path) -> Option<Bidding> {
    let name = exe.file_name()?.to_str()?;
    // The dynamic loader starts any program that is named to it.
    if name.starts_with("ld-linux") || name.starts_with("ld-musl") || name == "ld.so" {
        return Some(Bidding::Interpreter);
    }
    [(INTERPRETERS, Bidding::Interpreter), (LOADS_CODE, Bidding::LoadsCode), (ARGUMENTS, Bidding::Arguments)]
        .into_iter()
        .find(|(names, _)| is_among(name, names))
        .map(|(_, bidding)| bidding)
}

/// Whether the work of this program is to start others.
pub(super) fn starts_others(exe: &Path) -> bool {
    let name = exe.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    is_among(name, STARTERS) || bidding(exe) == Some(Bidding::Interpreter)
}

fn is_among(name: &str, names: &[&str]) -> bool {
    let without_version = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
    names.iter().any(|known| *known == name || *known == without_version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_with_and_without_their_versions() {
        for (exe, known) in [
            ("/usr/bin/python3.13", Some(Bidding::Interpreter)),
            ("/usr/bin/perl5.40-", Some(Bidding::Interpreter)),
            ("/usr/bin/lua5.4", Some(Bidding::Interpreter)),
            ("/lib64/ld-linux-x86-64.so.2", Some(Bidding::Interpreter)),
            ("/usr/bin/vim.tiny", Some(Bidding::Interpreter)),
            ("/usr/bin/perf", Some(Bidding::LoadsCode)),
            ("/usr/bin/sqlite3", Some(Bidding::LoadsCode)),
            ("/usr/bin/kmod", Some(Bidding::Arguments)),
            ("/usr/bin/dd", Some(Bidding::Arguments)),
            ("/usr/libexec/fwupd/fwupd", None),
            ("/usr/bin/pythonic", None),
            ("/", None),
        ] {
            assert_eq!(bidding(Path::new(exe)), known, "{exe}");
        }
        assert!(starts_others(Path::new("/usr/sbin/cron")) && starts_others(Path::new("/bin/sh")));
        assert!(!starts_others(Path::new("/usr/libexec/fwupd/fwupd")));
    }
}
