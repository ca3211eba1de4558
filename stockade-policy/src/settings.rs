/*!
Kernel security settings that a policy holds, and what is known of their values: the table of `settings.toml`.

Settings have two spellings. sysctl(8) writes `kernel.kptr_restrict`, with a slash for a dot that is part of a name; the
kernel `kernel/kptr_restrict`. Policies take both and show the first; the compiled form has the second.
*/
use std::collections::BTreeMap;

use stockade_common::{SETTING_NAME_MAX, SettingRule};
use stockade_reasons::Level;

use crate::{
    model::{Hold, Mode, Policy},
    words::{Word, nearest},
};

include!(concat!(env!("OUT_DIR"), "/settings.rs"));

/// A setting that is no sysctl: files of another security module that nobody may open for writing. Held by a seal alone.
#[derive(Debug)]
pub struct Files {
    /// The name in the tables of the kernel side.
    pub kernel_name: &'static str,
    /// The security module, as /sys/kernel/security/lsm has it.
    pub module: &'static str,
    /// The files; some kernels lack some of them.
    pub files: &'static [&'static str],
}

/// All of these.
pub const FILES: [Files; 2] = [
    Files {
        kernel_name: "selinux/enforce",
        module: "selinux",
        files: &["/sys/fs/selinux/enforce", "/sys/fs/selinux/disable"],
    },
    Files {
        kernel_name: "apparmor/policy_removal",
        module: "apparmor",
        files: &[
            "/sys/kernel/security/apparmor/.remove",
            // The same in the policy tree, a file system of its own.
            "/sys/kernel/security/apparmor/policy/.remove",
        ],
    },
];

/// The word in a list of settings for all that go with the level.
pub const DEFAULT: &str = "default";

/// The known facts about a setting.
#[derive(Debug)]
pub struct Setting {
    /// The name that sysctl(8) uses.
    pub name: &'static str,
    /// The kernel's name.
    pub kernel_name: &'static str,
    /// The meaning of its values.
    pub values: Values,
    /// The level from which on the default profile has it.
    pub profile: Option<Level>,
    /// The attack that a weaker value opens.
    pub why: &'static str,
    /// Where the kernel says so.
    pub source: &'static str,
    /// The ways by which its value changes apart from a write to its own file; `None` where nobody has searched for them.
    pub ways: Option<&'static [&'static str]>,
    /// The sources that were searched for other ways.
    pub ways_source: Option<&'static str>,
    /// The remedy that closes these ways, if there is one.
    pub instead: Option<&'static str>,
}

/// All settings below a folder, as far as they have no entry of their own.
#[derive(Debug)]
pub struct Family {
    /// The folder, as sysctl(8) has it.
    pub prefix: &'static str,
    /// The ways by which their values change apart from a write to their own files.
    pub ways: &'static [&'static str],
    /// Where the kernel says so.
    pub ways_source: &'static str,
}

/// How much of a setting a policy holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// Its value: every way by which it changes is guarded.
    Value,
    /// Writes under this name only. The value can still change by the other ways, as far as they are known.
    NameOnly(&'static [&'static str]),
}

/// The meaning of the values of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// A few numbers, from the weakest to the strictest.
    Order(&'static [i8]),
    /// A number, the higher the stricter.
    Higher,
    /// A number, the lower the stricter; what is negative is no limit.
    Lower,
    /// Lower is stricter, and 0 means no limit.
    LowerButZero,
    /// A mask of what is permitted; 1 permits all.
    Bits,
    /// A string: none is stricter than another.
    Text,
    /// A number without a stricter one.
    Number,
    /// Numbers with spaces or tabs between them, none stricter than others.
    List,
}

impl Values {
    /// Whether there are stricter ones and weaker ones.
    #[must_use]
    pub fn have_an_order(self) -> bool {
        !matches!(self, Self::Text | Self::Number | Self::List)
    }

    fn rule(self) -> SettingRule {
        let mut rule = SettingRule {
            kind: match self {
                Self::Order(_) => SettingRule::ORDER,
                // Held by freezing alone, for which every kind of number is the same.
                Self::Higher | Self::Number => SettingRule::HIGHER,
                Self::Lower => SettingRule::LOWER,
                Self::LowerButZero => SettingRule::LOWER_BUT_ZERO,
                Self::Bits => SettingRule::BITS,
                Self::Text => SettingRule::TEXT,
                Self::List => SettingRule::WORDS,
            },
            ..SettingRule::default()
        };
        if let Self::Order(values) = self {
            for (to, value) in rule.order.iter_mut().zip(values) {
                *to = *value;
                rule.length += 1;
            }
        }
        rule
    }
}

impl Word for Hold {
    const WORDS: &'static [(&'static str, Self)] = &[("freeze", Self::Freeze), ("ratchet", Self::Ratchet)];
}

/// Every setting of the table.
#[must_use]
pub fn all() -> &'static [Setting] {
    &SETTINGS
}

/// Returns the known facts about a setting, by the name that sysctl(8) uses.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// Every family of the table.
#[must_use]
pub fn families() -> &'static [Family] {
    &FAMILIES
}

/// How much of a setting is held by whoever freezes it or lets it ratchet, by the name that sysctl(8) has. Of a setting
/// that is not known, the name only.
#[must_use]
pub fn coverage(name: &str) -> Coverage {
    if let Some(setting) = by_name(name) {
        return match setting.ways {
            Some([]) => Coverage::Value,
            ways => Coverage::NameOnly(ways.unwrap_or_default()),
        };
    }
    let below = |family: &&Family| name.strip_prefix(family.prefix).is_some_and(|rest| rest.starts_with('.'));
    Coverage::NameOnly(FAMILIES.iter().find(below).map_or(&[], |family| family.ways))
}

/// The setting of the table that was probably meant.
#[must_use]
pub fn near(name: &str) -> Option<&'static str> {
    // Names begin alike, so that likeness of the whole says little: the last part is what counts.
    let last = |name: &str| name.rsplit(['.', '/']).next().unwrap_or_default().replace('_', "-");
    let typed = last(name);
    let lasts: Vec<_> = SETTINGS.iter().map(|setting| (last(setting.name), setting.name)).collect();
    let found = nearest(&typed, lasts.iter().map(|(last, _)| last.as_str()))?;
    lasts.iter().find(|(last, _)| last == found).map(|(_, name)| *name)
}

/// The settings that go with a level.
pub fn profile(level: Level) -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().filter(move |setting| setting.profile.is_some_and(|from| from <= level))
}

/// The name as sysctl(8) has it, whichever spelling was typed: if a slash comes first, the slashes are the separators.
/// The two are the same thing with dots and slashes exchanged, so that this is also the way back.
#[must_use]
pub fn canonical(typed: &str) -> String {
    if typed.find(['.', '/']).is_some_and(|at| typed.as_bytes()[at] == b'/') {
        dotted(typed)
    } else {
        typed.to_owned()
    }
}

/// A name with dots and slashes exchanged: from one spelling to the other.
#[must_use]
pub fn dotted(name: &str) -> String {
    name.chars()
        .map(|c| match c {
            '.' => '/',
            '/' => '.',
            other => other,
        })
        .collect()
}

/// Returns the mistake in a name in sysctl's spelling.
#[must_use]
pub fn wrong_name(name: &str) -> Option<String> {
    let kernel = dotted(name);
    if kernel.len() >= SETTING_NAME_MAX {
        Some(format!("a name of a setting has at most {} bytes", SETTING_NAME_MAX - 1))
    } else if !kernel.contains('/') {
        Some("a name of a setting has at least two parts".into())
    } else if kernel.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        Some("a part of the name is empty, or is no name".into())
    } else if kernel.chars().any(|c| c.is_control() || c.is_whitespace() || !c.is_ascii()) {
        Some("a name of a setting has no spaces, control characters and letters beyond ASCII".into())
    } else {
        None
    }
}

/// A setting that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledSetting {
    /// The kernel's name, with slashes.
    pub name: String,
    /// How.
    pub rule: SettingRule,
    /// Whether the policy names it; otherwise it is of the default profile.
    pub named: bool,
}

/// The settings that a policy holds, as the kernel side has them. What is named is held as it is named there, whatever
/// the default profile says of it.
#[must_use]
pub fn compile(policy: &Policy, auto: Level) -> Vec<CompiledSetting> {
    let audit = u32::from(policy.mode.value == Mode::Audit);
    let rule = |hold: Hold, values: Option<Values>| SettingRule {
        hold: match hold {
            Hold::Freeze => SettingRule::FREEZE,
            Hold::Ratchet => SettingRule::RATCHET,
        },
        audit,
        ..values.map_or(SettingRule { kind: SettingRule::WORDS, ..SettingRule::default() }, Values::rule)
    };
    let mut held = BTreeMap::new();
    if let Some(said) = policy.settings.get(DEFAULT) {
        for setting in profile(policy.level.value.settled(auto)) {
            let name = setting.kernel_name.to_owned();
            held.insert(name, (rule(said.value, Some(setting.values)), false));
        }
    }
    for (name, said) in policy.settings.iter().filter(|(name, _)| *name != DEFAULT) {
        let values = by_name(name).map(|setting| setting.values);
        held.insert(dotted(name), (rule(said.value, values), true));
    }
    held.into_iter().map(|(name, (rule, named))| CompiledSetting { name, rule, named }).collect()
}

/// Settings that one policy holds and the other does not hold as well: what makes it laxer.
#[must_use]
pub fn laxer<'a>(old: &'a [CompiledSetting], new: &[CompiledSetting]) -> Vec<&'a str> {
    let kept = |setting: &&CompiledSetting| {
        !new.iter().any(|other| other.name == setting.name && other.rule.is_at_least(&setting.rule))
    };
    old.iter().filter(kept).map(|setting| setting.name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Source, merge::merge, read};

    fn compiled(text: &str, auto: Level) -> Vec<CompiledSetting> {
        let document = read(&Source::new("f", text)).unwrap_or_else(|wrong| panic!("{wrong}"));
        compile(&merge([document]).unwrap(), auto)
    }

    #[test]
    fn names_have_two_spellings() {
        assert_eq!(canonical("net/ipv4/conf/eth0.1/forwarding"), "net.ipv4.conf.eth0/1.forwarding");
        assert_eq!(dotted("net.ipv4.conf.eth0/1.forwarding"), "net/ipv4/conf/eth0.1/forwarding");
        assert_eq!(canonical("kernel.kptr_restrict"), "kernel.kptr_restrict");
        for name in ["kptr_restrict", "kernel..a", "kernel.", ".a", "a b.c", "a.ä", "a.\u{1b}", ""] {
            assert!(wrong_name(name).is_some(), "{name}");
        }
        assert!(wrong_name(&format!("a.{}", "b".repeat(61))).is_none());
        assert!(wrong_name(&format!("a.{}", "b".repeat(62))).is_some());
        assert!(wrong_name("a.//.b").is_some(), "a way up");
        assert!(SETTINGS.iter().all(|s| wrong_name(s.name).is_none() && dotted(s.name) == s.kernel_name));
    }

    #[test]
    fn only_settings_without_another_way_are_held_as_a_whole() {
        for name in ["kernel.kptr_restrict", "kernel.ftrace_enabled", "kernel.modprobe", "selinux.enforce"] {
            assert_eq!(coverage(name), Coverage::Value, "{name}");
        }
        for (name, way) in [
            ("kernel.hotplug", "/sys/kernel/uevent_helper"),
            ("kernel.panic", "/sys/module/kernel/parameters/panic"),
            ("kernel.hostname", "sethostname"),
            ("apparmor.policy_removal", "/sys/module/apparmor/parameters/mode"),
            ("net.ipv4.ip_forward", "net.ipv4.conf.all.forwarding"),
            ("net.ipv4.conf.eth0/1.rp_filter", "netlink"),
            ("net.ipv6.neigh.default.gc_stale_time", "netlink"),
        ] {
            let Coverage::NameOnly(ways) = coverage(name) else { panic!("{name} has other ways") };
            assert!(ways.iter().any(|known| known.contains(way)), "{name}: {ways:?}");
        }
        for unknown in ["kernel.nothing_known", "net.ipv4.configuration", "net.ipv4.conf", "vm.swappiness"] {
            assert_eq!(coverage(unknown), Coverage::NameOnly(&[]), "{unknown}");
        }
    }

    #[test]
    fn the_default_profile_holds_values_and_not_names() {
        let names = SETTINGS.iter().filter(|setting| setting.profile.is_some()).map(|setting| setting.name);
        let open: Vec<_> = names.filter(|name| coverage(name) != Coverage::Value).collect();
        assert!(open.is_empty(), "in the default profile, and only the name is held: {open:?}");
    }

    #[test]
    fn the_default_profile_goes_with_the_level() {
        let count = |level: &str, auto| {
            compiled(&format!("level = \"{level}\"\n[settings]\nratchet = [\"default\"]\n"), auto).len()
        };
        assert_eq!(count("none", Level::None), 0);
        let integrity = count("integrity", Level::None);
        assert!(integrity > 15);
        assert_eq!(count("confidentiality", Level::None), integrity + 5);
        assert_eq!((count("auto", Level::None), count("auto", Level::Integrity)), (0, integrity));
    }

    #[test]
    fn what_is_named_is_held_as_it_is_named() {
        let text = "level = \"confidentiality\"\nmode = \"audit\"\n\
                    [settings]\nfreeze = [\"kernel.kptr_restrict\", \"net/x/y.z\"]\nratchet = [\"default\"]\n";
        let held = compiled(text, Level::None);
        let find = |name: &str| held.iter().find(|setting| setting.name == name).unwrap();
        let kptr = find("kernel/kptr_restrict");
        assert_eq!((kptr.rule.hold, kptr.rule.audit, kptr.named), (SettingRule::FREEZE, 1, true));
        assert_eq!((kptr.rule.length, &kptr.rule.order[..3]), (3, &[0, 1, 2][..]));
        assert_eq!(find("net/x/y.z").rule.kind, SettingRule::WORDS);
        assert_eq!(find("kernel/sysrq").rule.hold, SettingRule::RATCHET);
    }

    #[test]
    fn a_laxer_policy_is_told() {
        let of = |said: &str| compiled(&format!("[settings]\n{said}\n"), Level::None);
        let frozen = of("freeze = [\"kernel.sysrq\"]");
        let ratchet = of("ratchet = [\"kernel.sysrq\"]");
        assert_eq!(laxer(&frozen, &ratchet), ["kernel/sysrq"]);
        assert!(laxer(&ratchet, &frozen).is_empty());
        assert_eq!(laxer(&ratchet, &[]), ["kernel/sysrq"]);
        let audited = compiled("mode = \"audit\"\n[settings]\nfreeze = [\"kernel.sysrq\"]\n", Level::None);
        assert_eq!(laxer(&frozen, &audited), ["kernel/sysrq"]);
        assert!(laxer(&audited, &frozen).is_empty());
    }

    #[test]
    fn what_was_probably_meant() {
        assert_eq!(near("kernel.kptr_restict"), Some("kernel.kptr_restrict"));
        assert_eq!(near("kernel.ptrace_scope"), Some("kernel.yama.ptrace_scope"));
        assert_eq!(near("net.ipv4.tcp_rfc1337"), None);
    }
}
