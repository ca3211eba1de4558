/*!
Defences with a default that the kernel was built with, and a word on its command line that switches them.
*/
use super::{LINE, value};
use crate::{Config, Finding, How, Report, System, Verdict, system::boolean};

pub(super) fn check(system: &System, report: &mut Report) {
    for defence in SWITCHES {
        let finding = defence.finding(system);
        report.add(if defence.clears { unless_poisoned(defence.id, system, finding) } else { finding });
    }
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

/// What decides where the command line says nothing.
enum ByDefault {
    /// It is on where this option is set.
    IfSet(&'static str),
    /// It is on where this option is not set.
    UnlessSet(&'static str),
    /// It is on where an option is set, which is another one since this version.
    IfSetSince { version: (u32, u32), since: &'static str, before: &'static str },
}

/// A defence with a default from the configuration and a switch on the command line.
struct Switch {
    id: &'static str,
    words: Words,
    /// Without any of these options the words mean nothing. Empty where the words always have a meaning.
    needs: &'static [&'static str],
    /// Before this version, this option is enough for them to mean something.
    needs_before: Option<((u32, u32), &'static str)>,
    default: ByDefault,
    /// Whether it clears memory, which poisoned pages take the place of.
    clears: bool,
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
        needs_before: None,
        default: ByDefault::IfSet("CONFIG_INIT_ON_ALLOC_DEFAULT_ON"),
        clears: true,
        without: Verdict::Fail,
        told: ["memory is cleared when it is given out", "memory is given out with what was in it before"],
    },
    Switch {
        id: "cmdline.init-on-free",
        words: Words::Boolean("init_on_free"),
        needs: &[],
        needs_before: None,
        default: ByDefault::IfSet("CONFIG_INIT_ON_FREE_DEFAULT_ON"),
        clears: true,
        without: Verdict::Warn,
        told: ["memory is cleared when it is freed", "freed memory keeps what was in it"],
    },
    Switch {
        id: "cmdline.slab-nomerge",
        words: Words::Each { on: &["slab_nomerge", "slub_nomerge"], off: &["slab_merge", "slub_merge"] },
        needs: &[],
        needs_before: None,
        default: ByDefault::UnlessSet("CONFIG_SLAB_MERGE_DEFAULT"),
        clears: false,
        without: Verdict::Warn,
        told: ["each kind of object has memory of its own", "objects of one size share their memory"],
    },
    Switch {
        id: "cmdline.kstack-offset",
        words: Words::Boolean("randomize_kstack_offset"),
        needs: &["CONFIG_RANDOMIZE_KSTACK_OFFSET", "CONFIG_RANDOMIZE_KSTACK_OFFSET_DEFAULT"],
        // The code was there wherever the architecture can do it.
        needs_before: Some(((5, 18), "CONFIG_HAVE_ARCH_RANDOMIZE_KSTACK_OFFSET")),
        default: ByDefault::IfSet("CONFIG_RANDOMIZE_KSTACK_OFFSET_DEFAULT"),
        clears: false,
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
        needs_before: None,
        // Before, it is always on where it is built in.
        default: ByDefault::IfSetSince {
            version: (6, 15),
            since: "CONFIG_HARDENED_USERCOPY_DEFAULT_ON",
            before: "CONFIG_HARDENED_USERCOPY",
        },
        clears: false,
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
        let old = self.needs_before.filter(|((major, minor), _)| !system.is_at_least(*major, *minor));
        self.needs.is_empty()
            || self.needs.iter().any(|option| config.has(option))
            || old.is_some_and(|(_, option)| config.has(option))
    }

    /// The option that decides where the command line says nothing, and whether it is to be set.
    fn default(&self, system: &System) -> (&'static str, bool) {
        match self.default {
            ByDefault::IfSet(option) => (option, true),
            ByDefault::UnlessSet(option) => (option, false),
            ByDefault::IfSetSince { version: (major, minor), since, before } => {
                (if system.is_at_least(major, minor) { since } else { before }, true)
            }
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
