/*!
What an exception is called.
*/
use std::collections::BTreeSet;

use super::subject::Subject;

/// The longest beginning of a name, in bytes; what makes it unique comes on top.
const LONGEST: usize = 80;

/// A name after the program, or the unit, that nothing else has.
pub(super) fn unique(subject: &Subject, taken: &mut BTreeSet<String>) -> String {
    let after = match (&subject.exe, &subject.home) {
        (Some(exe), _) => exe.rsplit('/').next().unwrap_or_default(),
        (None, Some(home)) => {
            let short = home.short();
            short.strip_suffix(".service").unwrap_or(short)
        }
        (None, None) => "",
    };
    let name = kebab(after);
    let numbered = (2..).map(|number: u64| format!("{name}-{number}"));
    let free = std::iter::once(name.clone()).chain(numbered).find(|name| !taken.contains(name));
    let free = free.expect("there are more numbers than names");
    taken.insert(free.clone());
    free
}

fn kebab(text: &str) -> String {
    let mut name = String::new();
    for c in text.chars() {
        if name.len() >= LONGEST {
            break;
        }
        if c.is_ascii_alphanumeric() {
            name.push(c.to_ascii_lowercase());
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
    }
    let name = name.trim_end_matches('-');
    if name.is_empty() { "unnamed".into() } else { name.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_unique() {
        assert_eq!(kebab("Xorg.wrap"), "xorg-wrap");
        assert_eq!(kebab("__日本__"), "unnamed");
        assert!(kebab(&"a".repeat(300)).len() <= LONGEST);
        let subject = Subject { exe: Some("/usr/bin/msr_tool".into()), home: None, uid: None };
        let mut taken = BTreeSet::from(["msr-tool".to_owned()]);
        assert_eq!(unique(&subject, &mut taken), "msr-tool-2");
        assert_eq!(unique(&subject, &mut taken), "msr-tool-3");
    }
}
