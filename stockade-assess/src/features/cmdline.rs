/*!
Kernel self-protection: defaults from the kernel configuration, and parameters on the kernel command line that override them.

| file | what it owns |
|---|---|
| `switches.rs` | defences with a compile-time default and a boot parameter |
| `control_flow.rs` | indirect calls, checked by CFI, or by the CPU with IBT or BTI |
*/
use crate::{Config, Feature, Finding, How, Report, System, Unread, Verdict, system::boolean};

mod control_flow;
mod switches;

pub(super) const FEATURE: Feature =
    Feature { id: "cmdline", title: "Hardening at build time and at boot", ..Feature::new(check) };

const LINE: &str = "/proc/cmdline";

fn check(system: &System, report: &mut Report) {
    switches::check(system, report);
    for defence in BUILT_IN {
        report.add(defence.finding(system));
    }
    report.add(page_shuffle(system));
    report.add(vsyscall(system));
    report.add(debugfs(system));
    report.add(control_flow::finding(system));
    report.add(tiocsti(system));
}

fn value(config: &Config, option: &str) -> String {
    config.get(option).map_or_else(|| format!("{option} is not set"), |value| format!("{option}={value}"))
}

/// A defence that is decided at compile time.
struct BuiltIn {
    id: &'static str,
    /// The options that it needs: one of each group is enough.
    groups: &'static [&'static [&'static str]],
    /// The verdict where all groups are missing; where some are, it is a warning.
    without: Verdict,
    /// The texts of a pass, and of a failure or a warning.
    found: [&'static str; 2],
}

const BUILT_IN: &[BuiltIn] = &[
    BuiltIn {
        id: "cmdline.stack-protector",
        groups: &[
            &["CONFIG_STACKPROTECTOR_STRONG", "CONFIG_CC_STACKPROTECTOR_STRONG"],
            // The guard page below the kernel stack. Not on every architecture.
            &["CONFIG_VMAP_STACK"],
        ],
        without: Verdict::Fail,
        found: ["kernel stack overflows are detected", "kernel stack overflows are not all detected"],
    },
    BuiltIn {
        id: "cmdline.fortify",
        groups: &[&["CONFIG_FORTIFY_SOURCE"]],
        without: Verdict::Fail,
        found: [
            "copies inside the kernel are bounds-checked (FORTIFY_SOURCE)",
            "copies inside the kernel are not bounds-checked",
        ],
    },
    BuiltIn {
        id: "cmdline.slab-freelist",
        groups: &[&["CONFIG_SLAB_FREELIST_HARDENED"], &["CONFIG_SLAB_FREELIST_RANDOM"]],
        without: Verdict::Fail,
        found: ["slab freelists are hardened and randomized", "slab freelists are not fully hardened"],
    },
    BuiltIn {
        id: "cmdline.data-corruption",
        groups: &[&["CONFIG_LIST_HARDENED", "CONFIG_DEBUG_LIST"], &["CONFIG_BUG_ON_DATA_CORRUPTION"]],
        without: Verdict::Warn,
        found: [
            "corrupted kernel lists stop the task (BUG_ON_DATA_CORRUPTION)",
            "corrupted kernel lists are not checked, or do not stop the task",
        ],
    },
    BuiltIn {
        id: "cmdline.compiler",
        groups: &[
            &["CONFIG_INIT_STACK_ALL_ZERO", "CONFIG_INIT_STACK_ALL_PATTERN"],
            &["CONFIG_ZERO_CALL_USED_REGS"],
            &["CONFIG_RANDSTRUCT_FULL", "CONFIG_RANDSTRUCT_PERFORMANCE", "CONFIG_GCC_PLUGIN_RANDSTRUCT"],
        ],
        without: Verdict::Warn,
        found: [
            "compiler hardening is complete: zeroed stack variables, cleared registers, randomized structures",
            "compiler hardening is incomplete",
        ],
    },
];

impl BuiltIn {
    fn finding(&self, system: &System) -> Finding {
        let config = match system.config() {
            Ok(config) => config,
            Err(unread) => return Finding::unknown(self.id, How::Read, unread),
        };
        let there = |group: &&[&str]| group.iter().any(|option| config.has(option));
        let missing: Vec<&str> =
            self.groups.iter().filter(|group| !there(group)).map(|group| group[0]).collect();
        let weak = || format!("{} ({} not set)", self.found[1], missing.join(", "));
        let (verdict, found) = match missing.len() {
            0 => (Verdict::Pass, self.found[0].to_owned()),
            n if n == self.groups.len() => (self.without, weak()),
            _ => (Verdict::Warn, weak()),
        };
        let shown: Vec<String> = self
            .groups
            .iter()
            .map(|group| value(config, group.iter().find(|option| config.has(option)).unwrap_or(&group[0])))
            .collect();
        Finding::new(self.id, verdict, How::Read, found).seen(&config.path, shown.join(", "))
    }
}

/// Judges page allocator shuffling, by the module parameter, which only root can read, or by the command line.
fn page_shuffle(system: &System) -> Finding {
    const ID: &str = "cmdline.page-shuffle";
    const STATE: &str = "/sys/module/page_alloc/parameters/shuffle";
    const OPTION: &str = "CONFIG_SHUFFLE_PAGE_ALLOCATOR";
    let judge = |on: bool| {
        let (verdict, found) = if on {
            (Verdict::Pass, "page allocator free lists are shuffled")
        } else {
            (Verdict::Warn, "page allocator free lists are not shuffled: free pages are in address order")
        };
        Finding::new(ID, verdict, How::Read, found)
    };
    match system.text(STATE).as_deref() {
        Ok(state @ ("Y" | "N")) => return judge(state == "Y").seen(STATE, state),
        Ok(other) => return Finding::unknown(ID, How::Read, Unread::not_understood(STATE, other)),
        Err(unread) if unread.is_missing() => {}
        Err(_) => {
            return match system.parameter("page_alloc.shuffle") {
                Ok(value) => {
                    let on = value
                        .as_deref()
                        .is_some_and(|value| value.is_empty() || boolean(value) == Some(true));
                    let shown =
                        value.map_or("no page_alloc.shuffle".into(), |v| format!("page_alloc.shuffle={v}"));
                    judge(on).seen(LINE, shown)
                }
                Err(unread) => Finding::unknown(ID, How::Read, unread),
            };
        }
    }
    match system.config() {
        Ok(config) if !config.has(OPTION) => judge(false).seen(&config.path, value(config, OPTION)),
        Ok(_) => Finding::unknown(ID, How::Read, format!("{STATE} is not there")),
        Err(unread) => Finding::unknown(ID, How::Read, unread),
    }
}

fn vsyscall(system: &System) -> Finding {
    const ID: &str = "cmdline.vsyscall";
    const MAPS: &str = "/proc/self/maps";
    let maps = match system.text(MAPS) {
        Ok(maps) if maps.contains('-') => maps,
        Ok(_) => return Finding::unknown(ID, How::Read, format!("{MAPS} is empty")),
        Err(unread) => return Finding::unknown(ID, How::Read, unread),
    };
    let rights = maps.lines().find(|line| line.trim_end().ends_with("[vsyscall]"));
    match rights.map(|line| line.split_whitespace().nth(1).unwrap_or_default()) {
        None => Finding::new(
            ID,
            Verdict::Pass,
            How::Read,
            "no vsyscall page is mapped: no code at a fixed address",
        )
        .seen(MAPS, "no [vsyscall]"),
        Some(rights) if rights.starts_with('r') => {
            let found =
                "every program has a readable vsyscall page at a fixed address (should be vsyscall=none)";
            Finding::new(ID, Verdict::Fail, How::Read, found).seen(MAPS, format!("{rights} [vsyscall]"))
        }
        Some(rights) => {
            let found = "every program has an execute-only vsyscall page at a fixed address (should be vsyscall=none)";
            Finding::new(ID, Verdict::Warn, How::Read, found).seen(MAPS, format!("{rights} [vsyscall]"))
        }
    }
}

fn debugfs(system: &System) -> Finding {
    const ID: &str = "cmdline.debugfs";
    const KINDS: &str = "/proc/filesystems";
    const MOUNTS: &str = "/proc/mounts";
    let kinds = match system.text(KINDS) {
        Ok(kinds) if kinds.contains("proc") => kinds,
        Ok(other) => return Finding::unknown(ID, How::Read, Unread::not_understood(KINDS, &other)),
        Err(unread) => return Finding::unknown(ID, How::Read, unread),
    };
    if !kinds.lines().any(|line| line.split_whitespace().last() == Some("debugfs")) {
        return Finding::new(ID, Verdict::Pass, How::Read, "debugfs cannot be mounted")
            .seen(KINDS, "no debugfs");
    }
    let mounts = system.text(MOUNTS).unwrap_or_default();
    let mounted = mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (_, at, kind) = (words.next()?, words.next()?, words.next()?);
        (kind == "debugfs").then_some(at)
    });
    let finding = |found| Finding::new(ID, Verdict::Warn, How::Read, found).seen(KINDS, "debugfs");
    match mounted {
        Some(at) => finding("debugfs is mounted (should be debugfs=off)").seen(MOUNTS, at),
        None => finding("debugfs is not mounted, but root can mount it (should be debugfs=off)"),
    }
}

/// Judges TIOCSTI. Before Linux 6.2 it could not be turned off.
fn tiocsti(system: &System) -> Finding {
    const ID: &str = "cmdline.tiocsti";
    const SETTING: &str = "dev.tty.legacy_tiocsti";
    let weak = |why: &str| {
        let found = format!("{why}: programs can inject input into their terminal with TIOCSTI");
        Finding::new(ID, Verdict::Warn, How::Read, found)
    };
    match system.setting(SETTING).as_deref() {
        Ok("0") => {
            let found = "dev.tty.legacy_tiocsti = 0: programs cannot inject input into their terminal";
            Finding::new(ID, Verdict::Pass, How::Read, found).seen(SETTING, "0")
        }
        Ok("1") => weak("dev.tty.legacy_tiocsti = 1 (should be 0)").seen(SETTING, "1"),
        Ok(other) => Finding::unknown(ID, How::Read, Unread::not_understood(SETTING, other)),
        Err(unread) if unread.is_missing() => match system.release() {
            Ok(release) if release.starts_with(|c: char| c.is_ascii_digit()) && !system.is_at_least(6, 2) => {
                weak("this kernel is older than Linux 6.2").seen("kernel", release)
            }
            _ => Finding::unknown(ID, How::Read, unread),
        },
        Err(unread) => Finding::unknown(ID, How::Read, unread),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(id: &str, files: &[(&str, &str)]) -> Verdict {
        FEATURE.findings(&System::fake(files))[id].verdict
    }

    fn booted(id: &str, line: &str, config: &str) -> Verdict {
        of(
            id,
            &[
                ("/proc/cmdline", line),
                ("/proc/sys/kernel/osrelease", "6.12.1-x"),
                ("/boot/config-6.12.1-x", &format!("CONFIG_X=y\n{config}\n")),
            ],
        )
    }

    #[test]
    fn the_command_line_overrides_the_configuration() {
        use Verdict::{Fail, Pass, Warn};
        let id = "cmdline.init-on-alloc";
        assert_eq!(booted(id, "", "CONFIG_INIT_ON_ALLOC_DEFAULT_ON=y"), Pass);
        assert_eq!(booted(id, "init_on_alloc=0", "CONFIG_INIT_ON_ALLOC_DEFAULT_ON=y"), Fail);
        assert_eq!(booted(id, "init-on-alloc=1", ""), Pass);
        assert_eq!(booted(id, "init_on_alloc=Yes", ""), Pass);
        assert_eq!(booted(id, "init_on_alloc=1 init_on_alloc=?", ""), Pass);
        assert_eq!(booted(id, "init_on_alloc=1 init_on_alloc=0", ""), Fail);
        assert_eq!(booted(id, "", ""), Fail);
        assert_eq!(of(id, &[("/proc/cmdline", "init_on_alloc=1")]), Pass);
        assert_eq!(of(id, &[("/proc/cmdline", "")]), Verdict::Unknown);
        assert_eq!(of(id, &[]), Verdict::Unknown);
        assert_eq!(booted("cmdline.init-on-free", "", ""), Warn);
        assert_eq!(booted("cmdline.init-on-free", "init_on_free=1", ""), Pass);
        assert_eq!(booted("cmdline.slab-nomerge", "", "CONFIG_SLAB_MERGE_DEFAULT=y"), Warn);
        assert_eq!(booted("cmdline.slab-nomerge", "slab_nomerge", "CONFIG_SLAB_MERGE_DEFAULT=y"), Pass);
        assert_eq!(booted("cmdline.slab-nomerge", "", ""), Pass);
    }

    #[test]
    fn poisoned_pages_take_the_place_of_clearing() {
        use Verdict::{Fail, Pass, Unknown, Warn};
        let id = "cmdline.init-on-alloc";
        let line = "init_on_alloc=1 page_poison=1";
        assert_eq!(booted(id, line, "CONFIG_PAGE_POISONING=y"), Warn);
        assert_eq!(booted(id, line, ""), Pass);
        assert_eq!(booted(id, "page_poison=1", "CONFIG_PAGE_POISONING=y"), Fail);
        assert_eq!(of(id, &[("/proc/cmdline", line)]), Unknown);
    }

    #[test]
    fn a_word_means_nothing_to_a_kernel_without_the_code() {
        use Verdict::{Fail, Pass, Unknown, Warn};
        let id = "cmdline.kstack-offset";
        assert_eq!(booted(id, "randomize_kstack_offset=on", ""), Warn);
        assert_eq!(booted(id, "randomize_kstack_offset=on", "CONFIG_RANDOMIZE_KSTACK_OFFSET=y"), Pass);
        assert_eq!(booted(id, "", "CONFIG_RANDOMIZE_KSTACK_OFFSET=y"), Warn);
        assert_eq!(of(id, &[("/proc/cmdline", "randomize_kstack_offset=on")]), Unknown);
        let old = [
            ("/proc/cmdline", "randomize_kstack_offset=on"),
            ("/proc/sys/kernel/osrelease", "5.15.0"),
            ("/boot/config-5.15.0", "CONFIG_HAVE_ARCH_RANDOMIZE_KSTACK_OFFSET=y"),
        ];
        assert_eq!(of(id, &old), Pass);
        assert_eq!(booted("cmdline.usercopy", "", "CONFIG_HARDENED_USERCOPY=y"), Pass);
        assert_eq!(booted("cmdline.usercopy", "hardened_usercopy=off", "CONFIG_HARDENED_USERCOPY=y"), Fail);
        assert_eq!(booted("cmdline.usercopy", "", ""), Fail);
        let new = [
            ("/proc/cmdline", ""),
            ("/proc/sys/kernel/osrelease", "6.15.0"),
            ("/boot/config-6.15.0", "CONFIG_HARDENED_USERCOPY=y"),
        ];
        let findings = FEATURE.findings(&System::fake(&new));
        let usercopy = &findings["cmdline.usercopy"];
        assert_eq!(usercopy.verdict, Fail);
        assert!(usercopy.evidence[0].observed.contains("DEFAULT_ON is not set"), "{usercopy:?}");
    }

    #[test]
    fn what_is_built_in_is_read() {
        for defence in BUILT_IN {
            let all: Vec<String> = defence.groups.iter().map(|group| format!("{}=y", group[0])).collect();
            assert_eq!(booted(defence.id, "", &all.join("\n")), Verdict::Pass, "{}", defence.id);
            assert_eq!(booted(defence.id, "", ""), defence.without, "{}", defence.id);
            assert_eq!(of(defence.id, &[]), Verdict::Unknown, "{}", defence.id);
            if all.len() > 1 {
                assert_eq!(booted(defence.id, "", &all[0]), Verdict::Warn, "{}", defence.id);
            }
        }
    }

    #[test]
    fn shuffling_is_told_by_the_kernel_or_by_the_command_line() {
        const STATE: &str = "/sys/module/page_alloc/parameters/shuffle";
        let id = "cmdline.page-shuffle";
        assert_eq!(of(id, &[(STATE, "Y\n")]), Verdict::Pass);
        assert_eq!(of(id, &[(STATE, "N\n")]), Verdict::Warn);
        assert_eq!(of(id, &[(STATE, "?")]), Verdict::Unknown);
        assert_eq!(booted(id, "page_alloc.shuffle=1", ""), Verdict::Warn);
        assert_eq!(booted(id, "", "CONFIG_SHUFFLE_PAGE_ALLOCATOR=y"), Verdict::Unknown);
    }

    #[test]
    fn the_rest_flips_too() {
        use Verdict::{Fail, Pass, Unknown, Warn};
        let maps = |text| of("cmdline.vsyscall", &[("/proc/self/maps", text)]);
        assert_eq!(maps("5500-5600 r-xp 0 0:0 0 /x\n"), Pass);
        assert_eq!(maps("ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]\n"), Warn);
        assert_eq!(maps("ffffffffff600000-ffffffffff601000 r-xp 00000000 00:00 0 [vsyscall]\n"), Fail);
        assert_eq!(maps(""), Unknown);

        let kinds = |text| of("cmdline.debugfs", &[("/proc/filesystems", text)]);
        assert_eq!(kinds("nodev\tproc\nnodev\tdebugfs\n"), Warn);
        assert_eq!(kinds("nodev\tproc\n"), Pass);
        assert_eq!(kinds(""), Unknown);

        assert_eq!(booted("cmdline.control-flow", "", "CONFIG_CFI_CLANG=y"), Pass);
        let both = "CONFIG_CFI_CLANG=y\nCONFIG_FINEIBT=y";
        assert_eq!(booted("cmdline.control-flow", "cfi=off", both), Warn);
        assert_eq!(booted("cmdline.control-flow", "cfi=off,norand", both), Warn);
        assert_eq!(booted("cmdline.control-flow", "cfi=norand,kcfi", both), Pass);
        assert_eq!(booted("cmdline.control-flow", "cfi=warn", both), Warn);
        assert_eq!(booted("cmdline.control-flow", "", "CONFIG_CFI=y\nCONFIG_CFI_PERMISSIVE=y"), Warn);
        assert_eq!(booted("cmdline.control-flow", "", "CONFIG_X86_KERNEL_IBT=y"), Warn);

        let terminal = |value| of("cmdline.tiocsti", &[("/proc/sys/dev/tty/legacy_tiocsti", value)]);
        assert_eq!((terminal("0"), terminal("1"), terminal("x")), (Pass, Warn, Unknown));
        assert_eq!(of("cmdline.tiocsti", &[("/proc/sys/kernel/osrelease", "6.1.0")]), Warn);
    }
}
