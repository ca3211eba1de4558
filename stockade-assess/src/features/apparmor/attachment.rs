/*!
The programs to which profiles attach: the attachments of the loaded profiles, which are patterns for paths.
*/
use std::{cell::OnceCell, collections::HashMap};

use regex_lite::Regex;

use super::{UNCONFINED, processes::Unconfined, sources};
use crate::{Finding, How, System, Verdict, few, processes::name, system::Why};

const LOADED: &str = "/sys/kernel/security/apparmor/policy/profiles";

/// Finds processes whose profile is loaded but not attached: it confines them once they are restarted.
pub(super) fn unconfined(system: &System, without: &Unconfined) -> Finding {
    let attachments = match Attachments::read(system) {
        Ok(attachments) => attachments,
        Err(missing) => return Finding::unknown(UNCONFINED, How::Read, missing),
    };
    let mut found = Vec::new();
    let mut hidden = 0;
    let mut known: HashMap<String, Option<String>> = HashMap::new();
    for &pid in &without.without_profile {
        let program = match system.link(&format!("/proc/{pid}/exe")) {
            Ok(program) => program,
            Err(unread) if unread.why == Why::NotAllowed => {
                hidden += 1;
                continue;
            }
            Err(_) => continue,
        };
        let program = program.strip_suffix(" (deleted)").unwrap_or(&program).to_owned();
        let profile = known.entry(program).or_insert_with_key(|program| attachments.profile_for(program));
        if let Some(profile) = profile {
            found.push(format!("{}: profile {profile} is loaded", name(system, pid)));
        }
    }
    if found.is_empty()
        && let Some(why) = &without.unseen
    {
        return Finding::unknown(UNCONFINED, How::Read, why);
    }
    if found.is_empty() && hidden > 0 {
        let missing =
            format!("/proc/PID/exe of {hidden} unconfined processes cannot be read; run this as root");
        return Finding::unknown(UNCONFINED, How::Read, missing);
    }
    if found.is_empty() && !attachments.unknown.is_empty() {
        let missing = format!(
            "neither the kernel nor /etc/apparmor.d shows to which programs these profiles attach: {}",
            few(&attachments.unknown)
        );
        return Finding::unknown(UNCONFINED, How::Read, missing);
    }
    let seen = format!("{} of {} processes are unconfined", without.without_profile.len(), without.seen);
    let finding = match found.len() {
        0 => Finding::new(
            UNCONFINED,
            Verdict::Pass,
            How::Derived,
            "every program that has a profile runs under it",
        ),
        1 => Finding::new(
            UNCONFINED,
            Verdict::Fail,
            How::Derived,
            "1 process runs unconfined although its profile is loaded: it was started before the profile",
        ),
        n => {
            let found = format!(
                "{n} processes run unconfined although their profiles are loaded: they were started before them"
            );
            Finding::new(UNCONFINED, Verdict::Fail, How::Derived, found)
        }
    };
    let finding = finding.seen("/proc/PID/attr/apparmor/current", seen);
    if found.is_empty() { finding } else { finding.seen(format!("/proc/PID/exe and {LOADED}"), few(&found)) }
}

/// The attachments of the loaded profiles.
struct Attachments {
    /// Names of profiles by the path that they attach to.
    plain: HashMap<String, String>,
    /// Patterns and the names of their profiles.
    patterns: Vec<(Regex, String)>,
    /// Profiles whose attachment is not known.
    unknown: Vec<String>,
}

/// The attachment that the kernel shows if the parser did not pass the pattern, as parsers before AppArmor 4.
const NOT_PASSED: &str = "<unknown>";

impl Attachments {
    fn read(system: &System) -> Result<Self, String> {
        let mut all = Self { plain: HashMap::new(), patterns: Vec::new(), unknown: Vec::new() };
        let sources = OnceCell::new();
        for folder in system.names(LOADED).map_err(|unread| unread.to_string())? {
            let text = |file: &str| system.text(&format!("{LOADED}/{folder}/{file}"));
            // A profile that denies nothing confines nothing.
            if text("mode").is_ok_and(|mode| ["unconfined", "complain"].contains(&mode.as_str())) {
                continue;
            }
            let (name, attachment) = match (text("name"), text("attach")) {
                (Ok(name), Ok(attachment)) => (name, attachment),
                (Err(unread), _) | (_, Err(unread)) if !unread.is_missing() => {
                    return Err(unread.to_string());
                }
                // The profile was removed meanwhile.
                _ => continue,
            };
            let pattern = if attachment != NOT_PASSED {
                Some(attachment)
            } else if name.starts_with('/') {
                Some(name.clone())
            } else {
                sources.get_or_init(|| sources::patterns(system)).get(&name).cloned()
            };
            match pattern {
                None => all.unknown.push(name),
                // A profile that attaches to no program shows its own name.
                Some(pattern) if pattern.starts_with(['/', '{']) => all.add(pattern, name),
                Some(_) => {}
            }
        }
        Ok(all)
    }

    fn add(&mut self, pattern: String, name: String) {
        if !pattern.contains(['*', '?', '[', '{', '\\']) {
            self.plain.insert(pattern, name);
        } else if let Some(pattern) = translated(&pattern) {
            self.patterns.push((pattern, name));
        } else {
            self.unknown.push(name);
        }
    }

    fn profile_for(&self, program: &str) -> Option<String> {
        self.plain
            .get(program)
            .or_else(|| {
                self.patterns.iter().find(|(pattern, _)| pattern.is_match(program)).map(|(_, name)| name)
            })
            .cloned()
    }
}

/// Translates an AppArmor pattern into a regular expression: `*` and `?` stop at slashes, `**` does not, braces hold alternatives. None if it is
/// malformed.
fn translated(pattern: &str) -> Option<Regex> {
    let mut to = String::from("^(?s:");
    let mut depth = 0_u32;
    let mut characters = pattern.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '*' if characters.next_if_eq(&'*').is_some() => to.push_str(".*"),
            '*' => to.push_str("[^/]*"),
            '?' => to.push_str("[^/]"),
            '{' => {
                depth += 1;
                to.push_str("(?:");
            }
            '}' if depth > 0 => {
                depth -= 1;
                to.push(')');
            }
            ',' if depth > 0 => to.push('|'),
            '[' => {
                to.push('[');
                for c in characters.by_ref().take_while(|c| *c != ']') {
                    if matches!(c, '[' | '\\' | '&' | '~') {
                        to.push('\\');
                    }
                    to.push(c);
                }
                to.push(']');
            }
            '\\' => to.push_str(&regex_lite::escape(characters.next()?.encode_utf8(&mut [0; 4]))),
            c => to.push_str(&regex_lite::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    to.push_str(")$");
    Regex::new(&to).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_match_as_apparmor_means_them() {
        let matches = |pattern, path| translated(pattern).unwrap().is_match(path);
        assert!(
            matches("/usr/{s,}bin/ntpd", "/usr/bin/ntpd") && matches("/usr/{s,}bin/ntpd", "/usr/sbin/ntpd")
        );
        assert!(!matches("/usr/bin/*", "/usr/bin/a/b") && matches("/usr/**", "/usr/bin/a/b"));
        assert!(matches("/a.b?", "/a.bc") && !matches("/a.b?", "/axbc"));
        assert!(matches("/x[0-9]", "/x7") && !matches("/x[^0-9]", "/x7") && matches(r"/a\*b", "/a*b"));
        assert!(translated("/a{b").is_none());
    }

    #[test]
    fn a_program_that_was_started_before_its_profile_is_named() {
        let with = |mode, label| {
            let system = System::fake(&[
                ("/sys/kernel/security/apparmor/policy/profiles/x.1/name", "ntpd\n"),
                ("/sys/kernel/security/apparmor/policy/profiles/x.1/attach", "/usr/{s,}bin/ntpd\n"),
                ("/sys/kernel/security/apparmor/policy/profiles/x.1/mode", mode),
                ("/sys/kernel/security/apparmor/policy/profiles/y.2/name", "/usr/bin/y*\n"),
                ("/sys/kernel/security/apparmor/policy/profiles/y.2/attach", "<unknown>\n"),
                ("/proc/7/attr/current", label),
                ("/proc/7/exe", "-> /usr/sbin/ntpd"),
                ("/proc/7/comm", "ntpd"),
                ("/proc/8/attr/current", "unconfined"),
                ("/proc/8/exe", "-> /usr/bin/other"),
            ]);
            unconfined(&system, &super::super::processes::find_unconfined(&system).unwrap())
        };
        let bad = with("enforce\n", "unconfined\n");
        assert_eq!(bad.verdict, Verdict::Fail);
        assert_eq!(bad.evidence[1].observed, "ntpd (7): profile ntpd is loaded");
        assert_eq!(with("enforce\n", "ntpd (enforce)\n").verdict, Verdict::Pass);
        assert_eq!(with("complain\n", "unconfined\n").verdict, Verdict::Pass);
    }

    #[test]
    fn what_the_kernel_forgot_is_looked_up_in_the_profiles_texts() {
        let with = |text| {
            let system = System::fake(&[
                ("/sys/kernel/security/apparmor/policy/profiles/x.1/name", "ntpd\n"),
                ("/sys/kernel/security/apparmor/policy/profiles/x.1/attach", "<unknown>\n"),
                ("/etc/apparmor.d/usr.sbin.ntpd", text),
                ("/proc/7/attr/current", "unconfined"),
                ("/proc/7/exe", "-> /usr/sbin/ntpd"),
            ]);
            unconfined(&system, &super::super::processes::find_unconfined(&system).unwrap()).verdict
        };
        assert_eq!(with("profile ntpd /usr/{s,}bin/ntpd {\n"), Verdict::Fail);
        assert_eq!(with("profile ntpd /usr/lib/ntpd {\n"), Verdict::Pass);
        assert_eq!(with(""), Verdict::Unknown);
    }

    #[test]
    fn without_the_loaded_profiles_nothing_is_known() {
        let system = System::fake(&[("/proc/7/attr/current", "unconfined")]);
        let without = super::super::processes::find_unconfined(&system).unwrap();
        assert_eq!(unconfined(&system, &without).verdict, Verdict::Unknown);
    }

    proptest! {
        #[test]
        fn any_pattern_is_survived(pattern in r"/[a-c*?{},\\\[\]^/-]{0,40}", path in "/[a-c/]{0,20}") {
            if let Some(pattern) = translated(&pattern) {
                let _ = pattern.is_match(&path);
            }
        }
    }
}
