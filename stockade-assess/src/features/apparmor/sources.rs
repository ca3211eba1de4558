/*!
The profiles in /etc/apparmor.d, read for what the kernel does not know: to which programs a profile with its own name attaches.

Only variables (`@{NAME} = …`) and the first lines of profiles are read: `profile NAME PATTERN … {` or `PATTERN … {` at the beginning of a line.
*/
use std::collections::HashMap;

use crate::System;

const FOLDER: &str = "/etc/apparmor.d";

/// The folder of the variables that all profiles share.
const TUNABLES: &str = "/etc/apparmor.d/tunables";

/// The depth to which variables may be nested.
const DEPTH: u32 = 8;

/// The longest pattern that is expanded, in bytes.
const LENGTH: usize = 16 << 10;

/// Returns the attachment patterns by the names of profiles.
pub(super) fn patterns(system: &System) -> HashMap<String, String> {
    let texts = |folder: &str| -> Vec<String> {
        let names = system.names(folder).unwrap_or_default();
        names.iter().filter_map(|name| system.text(&format!("{folder}/{name}")).ok()).collect()
    };
    let mut shared = HashMap::new();
    for text in texts(TUNABLES) {
        define(&mut shared, &text);
    }
    let mut found = HashMap::new();
    for text in texts(FOLDER) {
        let mut variables = shared.clone();
        define(&mut variables, &text);
        for (name, pattern) in text.lines().filter_map(head) {
            if let Some(pattern) = expanded(&variables, pattern, DEPTH) {
                found.insert(name.to_owned(), pattern);
            }
        }
    }
    found
}

/// Adds the variables that a text defines: each has a list of values.
fn define(variables: &mut HashMap<String, Vec<String>>, text: &str) {
    for line in text.lines() {
        let Some((name, rest)) = line.trim().strip_prefix("@{").and_then(|rest| rest.split_once('}')) else {
            continue;
        };
        let rest = rest.trim_start();
        let (adds, rest) = match rest.strip_prefix('+') {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let Some(values) = rest.strip_prefix('=') else { continue };
        let values = values.split_whitespace().take_while(|word| !word.starts_with('#'));
        let values = values.map(|word| word.trim_matches('"').to_owned());
        let all = variables.entry(name.to_owned()).or_default();
        if !adds {
            all.clear();
        }
        all.extend(values);
    }
}

/// Returns the name and the pattern in the first line of a profile. Child profiles are indented and left out.
fn head(line: &str) -> Option<(&str, &str)> {
    if line.starts_with(char::is_whitespace) || !line.trim_end().ends_with('{') {
        return None;
    }
    let mut words = line.split_whitespace().map(|word| word.trim_matches('"'));
    let is_pattern = |word: &&str| word.starts_with(['/', '@']);
    match words.next()? {
        "profile" => {
            let name = words.next()?;
            Some((name, words.next().filter(is_pattern).or(Some(name).filter(is_pattern))?))
        }
        first => Some(first).filter(is_pattern).map(|pattern| (pattern, pattern)),
    }
}

/// Replaces variables by alternatives; none where a variable is not defined.
fn expanded(variables: &HashMap<String, Vec<String>>, pattern: &str, depth: u32) -> Option<String> {
    let mut to = String::new();
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once("@{") {
        let (name, after) = after.split_once('}')?;
        let values = variables.get(name).filter(|_| depth > 0)?;
        let values: Option<Vec<String>> =
            values.iter().map(|value| expanded(variables, value, depth - 1)).collect();
        to.push_str(before);
        to.push_str(&format!("{{{}}}", values?.join(",")));
        if to.len() > LENGTH {
            return None;
        }
        rest = after;
    }
    to.push_str(rest);
    Some(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_with_their_variables() {
        let found = patterns(&System::fake(&[
            (
                "/etc/apparmor.d/tunables/global",
                "@{bin}=/{,usr/}{,s}bin\n@{many} = a b # no\n@{many} += c\n@{loop}=@{loop}\n",
            ),
            (
                "/etc/apparmor.d/x",
                "include <tunables/global>\n@{exec_path} = @{bin}/ntpd\nprofile ntpd @{exec_path} flags=(complain) {\n  profile inner /y {\n",
            ),
            (
                "/etc/apparmor.d/y",
                "/usr/bin/man {\nprofile \"q r\" {\n profile none {\nprofile /z/@{many} {\nprofile l /@{loop} {\n",
            ),
        ]));
        assert_eq!(found.get("ntpd").map(String::as_str), Some("{{/{,usr/}{,s}bin}/ntpd}"));
        assert_eq!(found.get("/usr/bin/man").map(String::as_str), Some("/usr/bin/man"));
        assert_eq!(found.get("/z/@{many}").map(String::as_str), Some("/z/{a,b,c}"));
        assert_eq!(found.len(), 3, "{found:?}");
    }
}
