/*!
Settings of the kernel (sysctls): what every user may ask of it, tried by a child without rights, and what holds attacks up.

| file | what it owns |
|---|---|
| `settings/trials.rs` | the child and what it tries |
| `settings/users.rs` | what a setting and a trial come to together |
| this file | settings that can only be read |
*/
use crate::{
    Feature, Finding, How, Report, System, Unread, Verdict,
    modprobe::{DISABLED, are_off, has_no_modules},
};

mod trials;
mod users;

pub(super) const FEATURE: Feature =
    Feature { id: "settings", title: "Settings of the kernel", ..Feature::new(check) };

fn check(system: &System, report: &mut Report) {
    users::check(system, report);
    for finding in [
        bpf_jit(system),
        core_pattern(system),
        modprobe(system),
        suid_dumpable(system),
        sysrq(system),
        links(system),
        files(system),
        line_disciplines(system),
        oops(system),
        ftrace(system),
    ] {
        report.add(finding);
    }
}

/// A setting that is a number.
fn number(system: &System, name: &str) -> Result<i64, Unread> {
    system.number(&crate::system::setting_path(name))
}

/// Whether a setting is missing on a kernel that has others.
fn is_absent(system: &System, unread: &Unread) -> bool {
    unread.is_missing() && system.exists("/proc/sys/kernel")
}

fn bpf_jit(system: &System) -> Finding {
    const ID: &str = "settings.bpf-jit-harden";
    const SETTING: &str = "net.core.bpf_jit_harden";
    const ENABLED: &str = "net.core.bpf_jit_enable";
    const USERS: &str = "kernel.unprivileged_bpf_disabled";
    const NOT_COMPILED: &str = "this kernel has no BPF JIT";
    if number(system, ENABLED) == Ok(0) {
        return Finding::not_applicable(ID, How::Read, NOT_COMPILED).seen(ENABLED, "0");
    }
    let value = match number(system, SETTING) {
        Ok(value) => value,
        // The network namespaces of containers have neither.
        Err(unread) if unread.is_missing() && system.exists("/proc/sys/net/core/dev_weight") => {
            return Finding::not_applicable(ID, How::Read, NOT_COMPILED).seen(SETTING, "not there");
        }
        Err(unread) => return Finding::unknown(ID, How::Read, unread),
    };
    let seen = |verdict, found| Finding::new(ID, verdict, How::Read, found).seen(SETTING, value.to_string());
    if value >= 2 {
        return seen(Verdict::Pass, "constants of all BPF programs are blinded in JIT code");
    }
    let users = match number(system, USERS) {
        Ok(users) => users,
        Err(unread) => return Finding::unknown(ID, How::Read, unread).seen(SETTING, value.to_string()),
    };
    let finding = match (value, users) {
        (1, _) => seen(Verdict::Pass, "constants of unprivileged BPF programs are blinded in JIT code"),
        (_, 0) => seen(
            Verdict::Fail,
            "net.core.bpf_jit_harden = 0: every user can load BPF programs, whose constants are not blinded in JIT code",
        ),
        _ => seen(
            Verdict::Warn,
            "net.core.bpf_jit_harden = 0: constants of socket filters, which every user may load, are not blinded in JIT code",
        ),
    };
    finding.seen(USERS, users.to_string())
}

fn core_pattern(system: &System) -> Finding {
    const ID: &str = "settings.core-pattern";
    const SETTING: &str = "kernel.core_pattern";
    let pattern = match system.setting(SETTING) {
        Ok(pattern) => pattern,
        Err(unread) => return Finding::unknown(ID, How::Read, unread),
    };
    let seen = |verdict, found| Finding::new(ID, verdict, How::Read, found).seen(SETTING, &pattern);
    // Since 6.16.
    if pattern.starts_with('@') {
        return seen(Verdict::Pass, "core dumps go to a socket; the kernel starts no program");
    }
    let Some(command) = pattern.strip_prefix('|') else {
        return seen(Verdict::Pass, "core dumps are written to files; the kernel starts no program");
    };
    let program = command.split_whitespace().next().unwrap_or_default();
    // Where every user writes, or what a process has open; a name with `%` differs from crash to crash.
    let anybodys = ["/tmp/", "/var/tmp/", "/dev/", "/proc/", "/home/", "/run/user/"];
    if !program.starts_with('/') || program.contains('%') || anybodys.iter().any(|at| program.starts_with(at))
    {
        return seen(Verdict::Fail, "a crash starts, as root, a program from an unexpected folder");
    }
    if system.exists(program) {
        seen(Verdict::Pass, "a crash starts a known core dump handler")
    } else {
        seen(Verdict::Warn, "a crash would start, as root, a program that does not exist")
    }
}

fn modprobe(system: &System) -> Finding {
    const ID: &str = "settings.modprobe";
    const SETTING: &str = "kernel.modprobe";
    const NOTHING: [&str; 4] = ["/bin/true", "/usr/bin/true", "/bin/false", "/usr/bin/false"];
    const USUAL: [&str; 5] = [
        "/sbin/modprobe",
        "/usr/sbin/modprobe",
        "/bin/modprobe",
        "/usr/bin/modprobe",
        "/run/current-system/sw/bin/modprobe",
    ];
    let path = match system.setting(SETTING) {
        Ok(path) => path,
        Err(unread) if is_absent(system, &unread) => {
            return Finding::not_applicable(ID, How::Read, "this kernel has no modules")
                .seen(SETTING, "not there");
        }
        Err(unread) => return Finding::unknown(ID, How::Read, unread),
    };
    let (verdict, found) = match path.as_str() {
        "" => (Verdict::Pass, "kernel.modprobe is empty: the kernel starts no program to load modules"),
        path if NOTHING.contains(&path) => {
            (Verdict::Pass, "kernel.modprobe names a program that loads nothing")
        }
        path if USUAL.contains(&path) => (Verdict::Pass, "kernel.modprobe names the usual program"),
        _ => (Verdict::Fail, "the kernel starts, as root, an unusual program to load modules"),
    };
    Finding::new(ID, verdict, How::Read, found).seen(SETTING, &path)
}

fn suid_dumpable(system: &System) -> Finding {
    const ID: &str = "settings.suid-dumpable";
    const SETTING: &str = "fs.suid_dumpable";
    let value = match number(system, SETTING) {
        Ok(value) => value,
        Err(unread) => return Finding::unknown(ID, How::Read, unread),
    };
    let (verdict, found) = match value {
        0 => (Verdict::Pass, "set-user-ID programs leave no core dumps"),
        2 => (Verdict::Pass, "core dumps of set-user-ID programs are readable by root alone"),
        1 => (Verdict::Fail, "core dumps of set-user-ID programs are readable by the user who started them"),
        other => return Finding::unknown(ID, How::Read, Unread::not_understood(SETTING, &other.to_string())),
    };
    Finding::new(ID, verdict, How::Read, found).seen(SETTING, value.to_string())
}

/// Bits as in Documentation/admin-guide/sysrq.rst.
fn sysrq(system: &System) -> Finding {
    const ID: &str = "settings.sysrq";
    const SETTING: &str = "kernel.sysrq";
    const DUMPS: i64 = 8;
    const SIGNALS: i64 = 64;
    let value = match number(system, SETTING) {
        Ok(value) => value,
        Err(unread) if is_absent(system, &unread) => {
            return Finding::not_applicable(ID, How::Read, "this kernel was built without SysRq")
                .seen(SETTING, "not there");
        }
        Err(unread) => return Finding::unknown(ID, How::Read, unread),
    };
    let (verdict, found) = match value {
        0 => (Verdict::Pass, "SysRq is disabled"),
        1 => (Verdict::Warn, "SysRq takes every command from the console"),
        bits if bits & (DUMPS | SIGNALS) != 0 => {
            (Verdict::Warn, "SysRq dumps memory or kills processes for anybody at the console")
        }
        _ => (Verdict::Pass, "SysRq neither dumps memory nor kills processes"),
    };
    Finding::new(ID, verdict, How::Read, found).seen(SETTING, value.to_string())
}

/// Several settings that must all have at least these values.
fn all(
    system: &System,
    id: &'static str,
    names: [&str; 2],
    least: i64,
    without: Verdict,
    told: [&str; 2],
) -> Finding {
    let mut values = Vec::new();
    for name in names {
        match number(system, name) {
            Ok(value) => values.push((name, value)),
            Err(unread) => return Finding::unknown(id, How::Read, unread),
        }
    }
    let good = values.iter().all(|(_, value)| *value >= least);
    let (verdict, found) = if good { (Verdict::Pass, told[0]) } else { (without, told[1]) };
    values.into_iter().fold(Finding::new(id, verdict, How::Read, found), |finding, (name, value)| {
        finding.seen(name, value.to_string())
    })
}

fn links(system: &System) -> Finding {
    all(
        system,
        "settings.protected-links",
        ["fs.protected_symlinks", "fs.protected_hardlinks"],
        1,
        Verdict::Fail,
        [
            "symlinks that other users placed in sticky world-writable directories are not followed, and users cannot hard-link files that they cannot write",
            "root follows symlinks that other users placed in sticky world-writable directories, or users can hard-link files that they cannot write",
        ],
    )
}

fn files(system: &System) -> Finding {
    all(
        system,
        "settings.protected-files",
        ["fs.protected_fifos", "fs.protected_regular"],
        1,
        Verdict::Warn,
        [
            "open with O_CREAT refuses FIFOs and files of other users in sticky world-writable directories",
            "programs that create files in sticky world-writable directories can be made to write into FIFOs or files of other users",
        ],
    )
}

fn line_disciplines(system: &System) -> Finding {
    const ID: &str = "settings.ldisc-autoload";
    const SETTING: &str = "dev.tty.ldisc_autoload";
    if are_off(system) {
        let found = "no module can be loaded before the next boot";
        return Finding::new(ID, Verdict::Pass, How::Read, found).seen(DISABLED, "1");
    }
    if has_no_modules(system) {
        return Finding::not_applicable(ID, How::Read, "this kernel was built without loadable modules")
            .seen(DISABLED, "not there");
    }
    match number(system, SETTING) {
        Ok(0) => Finding::new(ID, Verdict::Pass, How::Read, "only root can load line disciplines")
            .seen(SETTING, "0"),
        Ok(value) => Finding::new(ID, Verdict::Warn, How::Read, "every user can load old line disciplines")
            .seen(SETTING, value.to_string()),
        Err(unread) => Finding::unknown(ID, How::Read, unread),
    }
}

fn oops(system: &System) -> Finding {
    const ID: &str = "settings.oops";
    const PANIC: &str = "kernel.panic_on_oops";
    const LIMIT: &str = "kernel.oops_limit";
    const WARNINGS: &str = "kernel.warn_limit";
    /// An attack that needs a few attempts more gets them.
    const FEW: i64 = 100;
    let panics = match number(system, PANIC) {
        Ok(panics) => panics,
        Err(unread) => return Finding::unknown(ID, How::Read, unread),
    };
    if panics != 0 {
        return Finding::new(
            ID,
            Verdict::Pass,
            How::Read,
            "the kernel panics at the first oops (kernel.panic_on_oops)",
        )
        .seen(PANIC, panics.to_string());
    }
    let (verdict, found, limit) = match number(system, LIMIT) {
        Ok(limit @ 1..=FEW) => (
            Verdict::Pass,
            format!("kernel.oops_limit = {limit}: the kernel panics after so many oopses"),
            limit.to_string(),
        ),
        Ok(0) => (Verdict::Warn, "the kernel survives any number of oopses".into(), "0".into()),
        Ok(limit) => (
            Verdict::Warn,
            format!(
                "kernel.oops_limit = {limit} (should be at most {FEW}): the kernel survives so many oopses before it panics"
            ),
            limit.to_string(),
        ),
        Err(unread) if is_absent(system, &unread) => {
            (Verdict::Warn, "the kernel survives any number of oopses".into(), "not there".into())
        }
        Err(unread) => return Finding::unknown(ID, How::Read, unread),
    };
    let finding = Finding::new(ID, verdict, How::Read, found).seen(PANIC, "0").seen(LIMIT, limit);
    match number(system, WARNINGS) {
        Ok(limit) => finding.seen(WARNINGS, limit.to_string()),
        Err(_) => finding,
    }
}

fn ftrace(system: &System) -> Finding {
    const ID: &str = "settings.ftrace";
    const SETTING: &str = "kernel.ftrace_enabled";
    match number(system, SETTING) {
        Ok(0) => Finding::new(
            ID,
            Verdict::Fail,
            How::Read,
            "BPF programs and live patches on kernel functions do not run",
        )
        .seen(SETTING, "0"),
        Ok(value) => Finding::new(
            ID,
            Verdict::Pass,
            How::Read,
            "kernel.ftrace_enabled = 1: BPF programs and live patches on kernel functions run",
        )
        .seen(SETTING, value.to_string()),
        Err(unread) if is_absent(system, &unread) => {
            Finding::not_applicable(ID, How::Read, "this kernel has no such switch")
                .seen(SETTING, "not there")
        }
        Err(unread) => Finding::unknown(ID, How::Read, unread),
    }
}

#[cfg(test)]
mod tests {
    use stockade_policy::settings;

    use super::*;

    fn of(id: &str, files: &[(&str, &str)]) -> Verdict {
        FEATURE.findings(&System::fake(files))[id].verdict
    }

    fn set(id: &str, name: &str, value: &str) -> Verdict {
        of(id, &[(&crate::system::setting_path(name), value), ("/proc/sys/kernel/x", "")])
    }

    #[test]
    fn what_is_read_flips() {
        use Verdict::{Fail, NotApplicable, Pass, Unknown, Warn};
        let dumps = |value| set("settings.suid-dumpable", "fs.suid_dumpable", value);
        assert_eq!([dumps("0"), dumps("2"), dumps("1"), dumps("7")], [Pass, Pass, Fail, Unknown]);
        let keys = |value| set("settings.sysrq", "kernel.sysrq", value);
        assert_eq!([keys("0"), keys("438"), keys("1"), keys("64")], [Pass, Pass, Warn, Warn]);
        assert_eq!(of("settings.sysrq", &[("/proc/sys/kernel/x", "")]), NotApplicable);
        let lines = |value| set("settings.ldisc-autoload", "dev.tty.ldisc_autoload", value);
        assert_eq!([lines("0"), lines("1"), lines("x")], [Pass, Warn, Unknown]);
        let with = |modules| {
            let files = [("/proc/sys/dev/tty/ldisc_autoload", "1"), modules];
            of("settings.ldisc-autoload", &files)
        };
        assert_eq!(with(("/proc/sys/kernel/modules_disabled", "1")), Pass);
        assert_eq!(with(("/proc/sys/kernel/modules_disabled", "0")), Warn);
        assert_eq!(with(("/proc/sys/kernel/osrelease", "6.12.1")), NotApplicable);
        let trace = |value| set("settings.ftrace", "kernel.ftrace_enabled", value);
        assert_eq!([trace("1"), trace("0")], [Pass, Fail]);
        let module = |value| set("settings.modprobe", "kernel.modprobe", value);
        assert_eq!([module("/sbin/modprobe"), module(""), module("/tmp/x")], [Pass, Pass, Fail]);
        let core = |value| set("settings.core-pattern", "kernel.core_pattern", value);
        assert_eq!([core("core"), core("|/usr/x %p"), core("|/tmp/x"), core("|x")], [Pass, Warn, Fail, Fail]);
        assert_eq!([core("@/run/x.socket"), core("|/proc/%P/fd/6"), core("|/usr/%e")], [Pass, Fail, Fail]);
        let handled = [("/proc/sys/kernel/core_pattern", "|/usr/x %p"), ("/usr/x", "")];
        assert_eq!(of("settings.core-pattern", &handled), Pass);
        for id in ["settings.oops", "settings.protected-links", "settings.core-pattern"] {
            assert_eq!(of(id, &[]), Unknown);
        }
    }

    #[test]
    fn settings_that_go_together_are_told_together() {
        use Verdict::{Fail, NotApplicable, Pass, Unknown, Warn};
        let two = |id, [a, b]: [(&str, &str); 2]| {
            of(id, &[(&crate::system::setting_path(a.0), a.1), (&crate::system::setting_path(b.0), b.1)])
        };
        let links = |a, b| {
            two("settings.protected-links", [("fs.protected_symlinks", a), ("fs.protected_hardlinks", b)])
        };
        assert_eq!([links("1", "1"), links("1", "0"), links("0", "1")], [Pass, Fail, Fail]);
        let files =
            |a, b| two("settings.protected-files", [("fs.protected_fifos", a), ("fs.protected_regular", b)]);
        assert_eq!([files("1", "2"), files("0", "1")], [Pass, Warn]);
        let oops = |a, b| two("settings.oops", [("kernel.panic_on_oops", a), ("kernel.oops_limit", b)]);
        assert_eq!(
            [oops("1", "0"), oops("0", "10"), oops("0", "10000"), oops("0", "0")],
            [Pass, Pass, Warn, Warn]
        );
        let jit = |a, b| {
            two(
                "settings.bpf-jit-harden",
                [("net.core.bpf_jit_harden", a), ("kernel.unprivileged_bpf_disabled", b)],
            )
        };
        assert_eq!([jit("2", "0"), jit("1", "0"), jit("0", "2"), jit("0", "0")], [Pass, Pass, Warn, Fail]);
        let id = "settings.bpf-jit-harden";
        assert_eq!(of(id, &[("/proc/sys/net/core/dev_weight", "64")]), NotApplicable);
        assert_eq!(of(id, &[("/proc/sys/net/core/somaxconn", "4096")]), Unknown);
        assert_eq!(set(id, "net.core.bpf_jit_enable", "0"), NotApplicable);
    }

    #[test]
    fn every_setting_that_a_policy_holds_is_looked_at() {
        // As text, so that what is only mentioned in a comment of another check does not count for more than it says.
        let sources =
            [include_str!("settings.rs"), include_str!("settings/users.rs"), include_str!("aslr.rs")]
                .concat();
        // The checks of modules and kexec, of SELinux and of AppArmor look at the first, nobody at the others: they are in the table for
        // the other ways by which they change.
        let elsewhere = [
            "kernel.modules_disabled",
            "kernel.kexec_",
            "selinux.",
            "apparmor.",
            "kernel.hotplug",
            "kernel.tainted",
            "kernel.panic",
            "kernel.printk",
            "kernel.hostname",
            "kernel.domainname",
            "kernel.ctrl-alt-del",
            "net.ipv4.ip_forward",
        ];
        for setting in settings::all() {
            let name = setting.name;
            let covered = sources.contains(&format!("{name:?}"))
                || elsewhere.iter().any(|begin| name.starts_with(begin));
            assert!(covered, "{name}");
        }
    }
}
