/*!
What the kernel does against the exploitation of its own mistakes: defaults it was built with, and the words on its command line that
override them.
*/
use crate::{Config, Feature, Finding, How, Report, System, Unread, Verdict, system::boolean};

pub(super) const FEATURE: Feature =
    Feature { id: "cmdline", title: "Hardening at build time and at boot", ..Feature::new(check) };

const LINE: &str = "the kernel's command line";

fn check(system: &System, report: &mut Report) {
    for defence in SWITCHES {
        let finding = defence.finding(system);
        let clears = matches!(defence.id, "cmdline.init-on-alloc" | "cmdline.init-on-free");
        report.add(if clears { unless_poisoned(defence.id, system, finding) } else { finding });
    }
    for defence in BUILT_IN {
        report.add(defence.finding(system));
    }
    report.add(page_shuffle(system));
    report.add(vsyscall(system));
    report.add(debugfs(system));
    report.add(control_flow(system));
    report.add(terminal_input(system));
}

/// How the command line switches a defence.
enum Words {
    /// By a parameter that is on or off.
    Boolean(&'static str),
    /// By words of their own: those that switch it on, and those that switch it off.
    Each { on: &'static [&'static str], off: &'static [&'static str] },
}

impl Words {
    /// Whether a word switches the defence on or off; none where it does neither. `a-b` and `a_b` are the same to the kernel.
    fn say(&self, word: &str) -> Option<bool> {
        let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        let name = name.replace('-', "_");
        match self {
            Self::Boolean(parameter) if name == *parameter => boolean(value?),
            Self::Each { on, .. } if value.is_none() && on.contains(&name.as_str()) => Some(true),
            Self::Each { off, .. } if value.is_none() && off.contains(&name.as_str()) => Some(false),
            _ => None,
        }
    }
}

/// A defence with a default from the configuration and a switch on the command line.
struct Switch {
    id: &'static str,
    words: Words,
    /// Without any of these options the words mean nothing. Empty where the words always have a meaning.
    needs: &'static [&'static str],
    /// The option that makes it the default, or, if it begins with `!`, whose absence does.
    default: &'static str,
    /// The verdict where it is off.
    without: Verdict,
    /// What is so when it is on, and when it is off.
    told: [&'static str; 2],
}

const SWITCHES: &[Switch] = &[
    Switch {
        id: "cmdline.init-on-alloc",
        words: Words::Boolean("init_on_alloc"),
        needs: &[],
        default: "CONFIG_INIT_ON_ALLOC_DEFAULT_ON",
        without: Verdict::Fail,
        told: ["memory is cleared when it is given out", "memory is given out with what was in it before"],
    },
    Switch {
        id: "cmdline.init-on-free",
        words: Words::Boolean("init_on_free"),
        needs: &[],
        default: "CONFIG_INIT_ON_FREE_DEFAULT_ON",
        without: Verdict::Warn,
        told: ["memory is cleared when it is freed", "freed memory keeps what was in it"],
    },
    Switch {
        id: "cmdline.slab-nomerge",
        words: Words::Each { on: &["slab_nomerge", "slub_nomerge"], off: &["slab_merge", "slub_merge"] },
        needs: &[],
        default: "!CONFIG_SLAB_MERGE_DEFAULT",
        without: Verdict::Warn,
        told: ["each kind of object has memory of its own", "objects of one size share their memory"],
    },
    Switch {
        id: "cmdline.kstack-offset",
        words: Words::Boolean("randomize_kstack_offset"),
        // Before 5.18 the option for the default is the only one.
        needs: &["CONFIG_RANDOMIZE_KSTACK_OFFSET", "CONFIG_RANDOMIZE_KSTACK_OFFSET_DEFAULT"],
        default: "CONFIG_RANDOMIZE_KSTACK_OFFSET_DEFAULT",
        without: Verdict::Warn,
        told: [
            "each system call begins elsewhere on the kernel's stack",
            "the kernel's stack is the same at each system call",
        ],
    },
    Switch {
        id: "cmdline.usercopy",
        words: Words::Boolean("hardened_usercopy"),
        needs: &["CONFIG_HARDENED_USERCOPY"],
        // Since 6.15 there is CONFIG_HARDENED_USERCOPY_DEFAULT_ON; before, it is always on where it is built in.
        default: "CONFIG_HARDENED_USERCOPY",
        without: Verdict::Fail,
        told: ["copies to and from programs are checked", "copies to and from programs are not checked"],
    },
];

impl Switch {
    fn finding(&self, system: &System) -> Finding {
        let words = match system.cmdline() {
            Ok(words) => words,
            Err(unread) => return Finding::unknown(self.id, How::Read, unread),
        };
        let config = system.config();
        if let Ok(config) = config
            && !self.is_built(system, config)
        {
            let found = format!("the kernel was built without it; {}", self.told[1]);
            return Finding::new(self.id, self.without, How::Read, found)
                .seen(&config.path, format!("{} is not set", self.needs[0]));
        }
        let said = words.iter().rev().find_map(|word| Some((word, self.words.say(word)?)));
        if let Some((word, is_on)) = said {
            let finding = if is_on {
                if let Err(unread) = config
                    && !self.needs.is_empty()
                {
                    return Finding::unknown(self.id, How::Read, unread).seen(LINE, word);
                }
                Finding::new(self.id, Verdict::Pass, How::Read, self.told[0])
            } else {
                Finding::new(self.id, self.without, How::Read, self.told[1])
            };
            return finding.seen(LINE, word);
        }
        match config {
            Err(unread) => Finding::unknown(self.id, How::Read, unread),
            Ok(config) => {
                let (option, wanted) = self.default(system);
                let (verdict, found) = if config.has(option) == wanted {
                    (Verdict::Pass, self.told[0])
                } else {
                    (self.without, self.told[1])
                };
                Finding::new(self.id, verdict, How::Read, found).seen(&config.path, value(config, option))
            }
        }
    }

    /// Whether the kernel has the code, so that a word means something.
    fn is_built(&self, system: &System, config: &Config) -> bool {
        self.needs.is_empty()
            || self.needs.iter().any(|option| config.has(option))
            // Before 5.18 the code is there wherever the architecture can do it.
            || (self.id == "cmdline.kstack-offset"
                && !system.is_at_least(5, 18)
                && config.has("CONFIG_HAVE_ARCH_RANDOMIZE_KSTACK_OFFSET"))
    }

    /// The option that decides where the command line says nothing, and whether it is to be set.
    fn default(&self, system: &System) -> (&'static str, bool) {
        match self.default.strip_prefix('!') {
            Some(option) => (option, false),
            None if self.id == "cmdline.usercopy" && system.is_at_least(6, 15) => {
                ("CONFIG_HARDENED_USERCOPY_DEFAULT_ON", true)
            }
            None => (self.default, true),
        }
    }
}

/// Poisoned pages take precedence: the kernel then clears nothing (mm/mm_init.c). It fills pages with a pattern when they are freed, and
/// leaves what is smaller as it is.
fn unless_poisoned(id: &'static str, system: &System, finding: Finding) -> Finding {
    const PARAMETER: &str = "page_poison";
    let value = system.parameter(PARAMETER).ok().flatten().unwrap_or_default();
    if finding.verdict != Verdict::Pass || boolean(&value) != Some(true) {
        return finding;
    }
    match system.config() {
        Ok(config) if config.has("CONFIG_PAGE_POISONING") => {
            let found = "page_poison takes its place: freed pages are filled, but what is smaller than a page is not cleared";
            Finding::new(id, Verdict::Warn, How::Read, found).seen(LINE, format!("{PARAMETER}={value}"))
        }
        Ok(_) => finding,
        Err(unread) => Finding::unknown(id, How::Read, unread).seen(LINE, format!("{PARAMETER}={value}")),
    }
}

fn value(config: &Config, option: &str) -> String {
    config.get(option).map_or_else(|| format!("{option} is not set"), |value| format!("{option}={value}"))
}

/// A defence that is built in or not.
struct BuiltIn {
    id: &'static str,
    /// In each group one of these options is enough.
    groups: &'static [&'static [&'static str]],
    /// The verdict where all groups are missing, and where some are.
    without: Verdict,
    told: [&'static str; 2],
}

const BUILT_IN: &[BuiltIn] = &[
    BuiltIn {
        id: "cmdline.stack-protector",
        groups: &[
            &["CONFIG_STACKPROTECTOR_STRONG", "CONFIG_CC_STACKPROTECTOR_STRONG"],
            // An overflown stack of the kernel's ends in a page that is not there. Not on every architecture.
            &["CONFIG_VMAP_STACK"],
        ],
        without: Verdict::Fail,
        told: [
            "overflows of the kernel's stack are caught",
            "overflows of the kernel's stack are not all caught",
        ],
    },
    BuiltIn {
        id: "cmdline.fortify",
        groups: &[&["CONFIG_FORTIFY_SOURCE"]],
        without: Verdict::Fail,
        told: [
            "copies within the kernel are checked against sizes",
            "copies within the kernel are not checked",
        ],
    },
    BuiltIn {
        id: "cmdline.slab-freelist",
        groups: &[&["CONFIG_SLAB_FREELIST_HARDENED"], &["CONFIG_SLAB_FREELIST_RANDOM"]],
        without: Verdict::Fail,
        told: [
            "lists of free objects are mixed and protected",
            "lists of free objects are not all mixed and protected",
        ],
    },
    BuiltIn {
        id: "cmdline.data-corruption",
        groups: &[&["CONFIG_LIST_HARDENED", "CONFIG_DEBUG_LIST"], &["CONFIG_BUG_ON_DATA_CORRUPTION"]],
        without: Verdict::Warn,
        told: [
            "the kernel stops at corrupted lists of its own",
            "the kernel does not check its lists, or goes on where one is corrupted",
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
        told: [
            "the compiler hardened variables, registers and structures",
            "the compiler did not harden all of variables, registers and structures",
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
        let count = self.groups.iter().filter(|group| there(group)).count();
        let (verdict, found) = match count {
            n if n == self.groups.len() => (Verdict::Pass, self.told[0]),
            0 => (self.without, self.told[1]),
            _ => (Verdict::Warn, self.told[1]),
        };
        let shown: Vec<String> = self
            .groups
            .iter()
            .map(|group| value(config, group.iter().find(|option| config.has(option)).unwrap_or(&group[0])))
            .collect();
        Finding::new(self.id, verdict, How::Read, found).seen(&config.path, shown.join(", "))
    }
}

/// The kernel tells root whether it does; to others the command line has to be enough.
fn page_shuffle(system: &System) -> Finding {
    const ID: &str = "cmdline.page-shuffle";
    const STATE: &str = "/sys/module/page_alloc/parameters/shuffle";
    const OPTION: &str = "CONFIG_SHUFFLE_PAGE_ALLOCATOR";
    let told = |on: bool| {
        let (verdict, found) = if on {
            (Verdict::Pass, "free pages are shuffled")
        } else {
            (Verdict::Warn, "free pages lie in the order of their addresses")
        };
        Finding::new(ID, verdict, How::Read, found)
    };
    match system.text(STATE).as_deref() {
        Ok(state @ ("Y" | "N")) => return told(state == "Y").seen(STATE, state),
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
                    told(on).seen(LINE, shown)
                }
                Err(unread) => Finding::unknown(ID, How::Read, unread),
            };
        }
    }
    match system.config() {
        Ok(config) if !config.has(OPTION) => told(false).seen(&config.path, value(config, OPTION)),
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
        None => {
            Finding::new(ID, Verdict::Pass, How::Read, "there is no code at a fixed address in every program")
                .seen(MAPS, "no [vsyscall]")
        }
        Some(rights) if rights.starts_with('r') => {
            let found = "every program has readable code at one fixed address";
            Finding::new(ID, Verdict::Fail, How::Read, found).seen(MAPS, format!("{rights} [vsyscall]"))
        }
        Some(rights) => {
            let found = "every program can call three system calls at one fixed address";
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
        Some(at) => finding("debugfs is mounted").seen(MOUNTS, at),
        None => finding("debugfs is not mounted, and root can mount it"),
    }
}

/// Calls through pointers checked: kCFI (renamed in 6.18), or what the processor offers.
fn control_flow(system: &System) -> Finding {
    const ID: &str = "cmdline.control-flow";
    const SOFTWARE: &[&str] = &["CONFIG_CFI", "CONFIG_CFI_CLANG"];
    const PERMISSIVE: &str = "CONFIG_CFI_PERMISSIVE";
    const HARDWARE: &[&str] = &["CONFIG_X86_KERNEL_IBT", "CONFIG_ARM64_BTI_KERNEL"];
    let config = match system.config() {
        Ok(config) => config,
        Err(unread) => return Finding::unknown(ID, How::Read, unread),
    };
    let words = match system.cmdline() {
        Ok(words) => words,
        Err(unread) => return Finding::unknown(ID, How::Read, unread),
    };
    let said = |name: &str| -> Vec<&str> {
        words.iter().filter_map(|word| word.strip_prefix(name)).flat_map(|value| value.split(',')).collect()
    };
    let first = |options: &[&'static str]| options.iter().copied().find(|option| config.has(option));
    let checked = |strict: bool, found: &str| {
        if strict {
            Finding::new(ID, Verdict::Pass, How::Read, found)
        } else {
            let found = "calls through pointers are checked, but a wrong one is only logged";
            Finding::new(ID, Verdict::Warn, How::Read, found)
        }
    };
    // Read where the kernel can choose the sort of check at boot; the last that names one counts.
    let cfi = if config.has("CONFIG_FINEIBT") { said("cfi=") } else { Vec::new() };
    let chosen = cfi.iter().rfind(|word| matches!(**word, "auto" | "off" | "kcfi" | "fineibt"));
    if let Some(option) = first(SOFTWARE)
        && chosen != Some(&"off")
    {
        let permissive = config.has(PERMISSIVE);
        let warns = cfi.contains(&"warn");
        let found = "calls through pointers are checked for the type of the function";
        let finding = checked(!permissive && !warns, found)
            .seen(&config.path, value(config, if permissive { PERMISSIVE } else { option }));
        return if warns { finding.seen(LINE, "cfi=warn") } else { finding };
    }
    let info = system.text("/proc/cpuinfo").unwrap_or_default();
    let flag = |name: &str| {
        info.lines()
            .filter(|line| line.starts_with("flags") || line.starts_with("Features"))
            .any(|line| line.split_whitespace().any(|word| word == name))
    };
    let ibt = said("ibt=");
    if let Some(option) = first(HARDWARE)
        && (flag("ibt") || flag("bti"))
        && !ibt.contains(&"off")
    {
        let found = "calls through pointers only reach the beginnings of functions";
        return checked(!ibt.contains(&"warn"), found)
            .seen(&config.path, value(config, option))
            .seen("flags in /proc/cpuinfo", if flag("ibt") { "ibt" } else { "bti" });
    }
    let shown = match (first(SOFTWARE), first(HARDWARE)) {
        (Some(option), _) => format!("{}, cfi=off", value(config, option)),
        (None, Some(option)) => {
            format!("{}, and the CPU has no such feature or it is off", value(config, option))
        }
        (None, None) => value(config, SOFTWARE[0]),
    };
    Finding::new(ID, Verdict::Warn, How::Read, "calls through pointers reach any code of the kernel's")
        .seen(&config.path, shown)
}

/// Since 6.2. Before, every program could put characters into its terminal.
fn terminal_input(system: &System) -> Finding {
    const ID: &str = "cmdline.tiocsti";
    const SETTING: &str = "dev.tty.legacy_tiocsti";
    let weak =
        || Finding::new(ID, Verdict::Warn, How::Read, "programs can put characters into their terminal");
    match system.setting(SETTING).as_deref() {
        Ok("0") => {
            Finding::new(ID, Verdict::Pass, How::Read, "programs cannot put characters into their terminal")
                .seen(SETTING, "0")
        }
        Ok("1") => weak().seen(SETTING, "1"),
        Ok(other) => Finding::unknown(ID, How::Read, Unread::not_understood(SETTING, other)),
        Err(unread) if unread.is_missing() => match system.release() {
            Ok(release) if release.starts_with(|c: char| c.is_ascii_digit()) && !system.is_at_least(6, 2) => {
                weak().seen("kernel", release)
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
