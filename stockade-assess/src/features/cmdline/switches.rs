/*!
Defences with a default from the kernel configuration, and a parameter on the kernel command line that turns them on or off.
*/
use super::{LINE, value};
use crate::{Config, Finding, How, Report, System, Verdict, system::boolean};

pub(super) fn check(system: &System, report: &mut Report) {
    for defence in SWITCHES {
        let finding = defence.finding(system);
        report.add(if defence.clears { unless_poisoned(defence.id, system, finding) } else { finding });
    }
}

/// The parameters on the command line that turn a defence on or off.
enum Parameters {
    /// A parameter with a boolean value.
    Boolean(&'static str),
    /// Parameters without a value: those that turn it on, and those that turn it off.
    Each { on: &'static [&'static str], off: &'static [&'static str] },
}

impl Parameters {
    /// Returns whether a word turns the defence on or off; none where it does neither. The kernel treats `a-b` and `a_b` alike.
    fn state_set_by(&self, word: &str) -> Option<bool> {
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

/// The configuration option that decides where no parameter is given.
enum ConfigDefault {
    /// On where this option is set.
    IfSet(&'static str),
    /// On where this option is not set.
    UnlessSet(&'static str),
    /// On where an option is set, which is another one since this version.
    IfSetSince { version: (u32, u32), since: &'static str, before: &'static str },
}

/// A defence with a default from the configuration and parameters on the command line.
struct Switch {
    id: &'static str,
    parameters: Parameters,
    /// The options of which one is needed for the parameters to have an effect. Empty where they always have one.
    needs: &'static [&'static str],
    /// Before this version, this option is enough.
    needs_before: Option<((u32, u32), &'static str)>,
    default: ConfigDefault,
    /// Whether it zeroes memory, which page_poison replaces.
    clears: bool,
    /// The verdict where it is off.
    without: Verdict,
    /// The texts where it is on, and where it is off.
    found: [&'static str; 2],
}

const SWITCHES: &[Switch] = &[
    Switch {
        id: "cmdline.init-on-alloc",
        parameters: Parameters::Boolean("init_on_alloc"),
        needs: &[],
        needs_before: None,
        default: ConfigDefault::IfSet("CONFIG_INIT_ON_ALLOC_DEFAULT_ON"),
        clears: true,
        without: Verdict::Fail,
        found: [
            "init_on_alloc on: kernel memory is zeroed when allocated",
            "init_on_alloc off: allocated kernel memory keeps its old content",
        ],
    },
    Switch {
        id: "cmdline.init-on-free",
        parameters: Parameters::Boolean("init_on_free"),
        needs: &[],
        needs_before: None,
        default: ConfigDefault::IfSet("CONFIG_INIT_ON_FREE_DEFAULT_ON"),
        clears: true,
        without: Verdict::Warn,
        found: [
            "init_on_free on: kernel memory is zeroed when freed",
            "init_on_free off: freed kernel memory keeps its content",
        ],
    },
    Switch {
        id: "cmdline.slab-nomerge",
        parameters: Parameters::Each {
            on: &["slab_nomerge", "slub_nomerge"],
            off: &["slab_merge", "slub_merge"],
        },
        needs: &[],
        needs_before: None,
        default: ConfigDefault::UnlessSet("CONFIG_SLAB_MERGE_DEFAULT"),
        clears: false,
        without: Verdict::Warn,
        found: [
            "slab caches are not merged",
            "slab caches of equal size are merged (should be slab_nomerge)",
        ],
    },
    Switch {
        id: "cmdline.kstack-offset",
        parameters: Parameters::Boolean("randomize_kstack_offset"),
        needs: &["CONFIG_RANDOMIZE_KSTACK_OFFSET", "CONFIG_RANDOMIZE_KSTACK_OFFSET_DEFAULT"],
        // Before, the code was built wherever the architecture supports it.
        needs_before: Some(((5, 18), "CONFIG_HAVE_ARCH_RANDOMIZE_KSTACK_OFFSET")),
        default: ConfigDefault::IfSet("CONFIG_RANDOMIZE_KSTACK_OFFSET_DEFAULT"),
        clears: false,
        without: Verdict::Warn,
        found: [
            "randomize_kstack_offset on: each system call has a random kernel stack offset",
            "randomize_kstack_offset off: the kernel stack offset is the same in each system call",
        ],
    },
    Switch {
        id: "cmdline.usercopy",
        parameters: Parameters::Boolean("hardened_usercopy"),
        needs: &["CONFIG_HARDENED_USERCOPY"],
        needs_before: None,
        // Before 6.15, it is always on where it is built in.
        default: ConfigDefault::IfSetSince {
            version: (6, 15),
            since: "CONFIG_HARDENED_USERCOPY_DEFAULT_ON",
            before: "CONFIG_HARDENED_USERCOPY",
        },
        clears: false,
        without: Verdict::Fail,
        found: [
            "hardened usercopy on: copies to and from user space are bounds-checked",
            "hardened usercopy off: copies to and from user space are not bounds-checked",
        ],
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
            let found = format!("{} (the kernel was built without {})", self.found[1], self.needs[0]);
            return Finding::new(self.id, self.without, How::Read, found)
                .seen(&config.path, format!("{} is not set", self.needs[0]));
        }
        let said = words.iter().rev().find_map(|word| Some((word, self.parameters.state_set_by(word)?)));
        if let Some((word, is_on)) = said {
            let finding = if is_on {
                if let Err(unread) = config
                    && !self.needs.is_empty()
                {
                    return Finding::unknown(self.id, How::Read, unread).seen(LINE, word);
                }
                Finding::new(self.id, Verdict::Pass, How::Read, self.found[0])
            } else {
                Finding::new(self.id, self.without, How::Read, self.found[1])
            };
            return finding.seen(LINE, word);
        }
        match config {
            Err(unread) => Finding::unknown(self.id, How::Read, unread),
            Ok(config) => {
                let (option, wanted) = self.default(system);
                let (verdict, found) = if config.has(option) == wanted {
                    (Verdict::Pass, self.found[0])
                } else {
                    (self.without, self.found[1])
                };
                Finding::new(self.id, verdict, How::Read, found).seen(&config.path, value(config, option))
            }
        }
    }

    /// Reports whether the kernel has the code, so that the parameters have an effect.
    fn is_built(&self, system: &System, config: &Config) -> bool {
        let old = self.needs_before.filter(|((major, minor), _)| !system.is_at_least(*major, *minor));
        self.needs.is_empty()
            || self.needs.iter().any(|option| config.has(option))
            || old.is_some_and(|(_, option)| config.has(option))
    }

    /// Returns the option that decides where no parameter is given, and whether it should be set.
    fn default(&self, system: &System) -> (&'static str, bool) {
        match self.default {
            ConfigDefault::IfSet(option) => (option, true),
            ConfigDefault::UnlessSet(option) => (option, false),
            ConfigDefault::IfSetSince { version: (major, minor), since, before } => {
                (if system.is_at_least(major, minor) { since } else { before }, true)
            }
        }
    }
}

/// Warns where page_poison takes precedence: the kernel then zeroes nothing (mm/mm_init.c). It fills freed pages with a pattern and does nothing for
/// smaller allocations.
fn unless_poisoned(id: &'static str, system: &System, finding: Finding) -> Finding {
    const PARAMETER: &str = "page_poison";
    let value = system.parameter(PARAMETER).ok().flatten().unwrap_or_default();
    if finding.verdict != Verdict::Pass || boolean(&value) != Some(true) {
        return finding;
    }
    match system.config() {
        Ok(config) if config.has("CONFIG_PAGE_POISONING") => {
            let found = "page_poison replaces zeroing: freed pages are filled with a pattern, allocations below a page are not zeroed";
            Finding::new(id, Verdict::Warn, How::Read, found).seen(LINE, format!("{PARAMETER}={value}"))
        }
        Ok(_) => finding,
        Err(unread) => Finding::unknown(id, How::Read, unread).seen(LINE, format!("{PARAMETER}={value}")),
    }
}
