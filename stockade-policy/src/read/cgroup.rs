/*!
Paths and patterns of cgroups.
*/
use super::{fields::printable, wrong::Wrong};
use crate::model::Place;

/// The longest path that the kernel side can hold, in bytes.
pub const LONGEST: usize = 255;

/// The deepest path that the kernel side looks for, in components.
pub const DEEPEST: usize = 63;

/// The longest beginning and end of a pattern within the last component, in bytes.
pub const PATTERN: usize = 32;

const MOUNT: &str = "/sys/fs/cgroup";

pub(super) fn parse(text: &str) -> Result<Place, Wrong> {
    if let Some(rest) = text.strip_prefix(MOUNT).filter(|rest| rest.is_empty() || rest.starts_with('/')) {
        let right = if rest.is_empty() { "/" } else { rest };
        return Err(Wrong::new(
            format!("paths of cgroups start at the root of their own tree, not at {MOUNT}"),
            format!("write \"{}\"", printable(right)),
        ));
    }
    if !text.starts_with('/') {
        let right = if text.is_empty() { "/kubepods.slice".into() } else { format!("/{}", printable(text)) };
        return Err(Wrong::new(
            "the path of a cgroup begins with /",
            format!(
                "write \"{right}\" as /proc/PID/cgroup has it after 0::, or `unit` for a name of systemd's"
            ),
        ));
    }
    if text.len() > LONGEST {
        return Err(Wrong::new(
            format!("the path of a cgroup has at most {LONGEST} bytes here, and this one has {}", text.len()),
            "name a cgroup above it",
        ));
    }
    if text == "/" {
        return Ok(Place::Path(text.into()));
    }
    normalised(text)?;
    let depth = text.split('/').count() - 1;
    if depth > DEEPEST {
        return Err(Wrong::new(
            format!("a cgroup is at most {DEEPEST} deep here, and this one is {depth}"),
            "name a cgroup above it",
        ));
    }
    match text.split_once('*') {
        None => Ok(Place::Path(text.into())),
        Some((prefix, suffix)) => pattern(text, prefix, suffix),
    }
}

/// A path that is not spelt as the kernel spells it would be equal to none.
fn normalised(text: &str) -> Result<(), Wrong> {
    let parts: Vec<_> = text.split('/').skip(1).filter(|part| !part.is_empty() && *part != ".").collect();
    let right = || format!("write \"/{}\"", printable(&parts.join("/")));
    if text.contains("//") {
        return Err(Wrong::new("the path of a cgroup has no empty components (//)", right()));
    }
    if text.ends_with('/') {
        return Err(Wrong::new("the path of a cgroup does not end with /", right()));
    }
    if text.split('/').any(|part| part == ".") {
        return Err(Wrong::new("the path of a cgroup has no components `.`", right()));
    }
    if text.split('/').any(|part| part == "..") {
        return Err(Wrong::new("the path of a cgroup has no components `..`", "write where it leads to"));
    }
    if text.chars().any(char::is_control) {
        return Err(Wrong::new("the path of a cgroup has no control characters", "take them out"));
    }
    if let Some(other) = text.chars().find(|c| matches!(c, '?' | '[' | ']')) {
        return Err(Wrong::new(
            format!("`{other}` means nothing in the pattern of a cgroup"),
            "use one * in the last component: \"/system.slice/docker-*.scope\"",
        ));
    }
    Ok(())
}

fn pattern(text: &str, prefix: &str, suffix: &str) -> Result<Place, Wrong> {
    if suffix.contains('*') {
        return Err(Wrong::new(
            "the pattern of a cgroup has one *, and this one has more",
            "a * stands for any characters within one component, and a scope covers all below it",
        ));
    }
    if suffix.contains('/') {
        let parent = text.split('*').next().and_then(|before| before.rsplit_once('/')).map_or("", |(p, _)| p);
        return Err(Wrong::new(
            "the * of a pattern is in the last component of the path",
            format!("end it there, since a pattern covers all below: \"{}/…*…\"", printable(parent)),
        ));
    }
    let beginning = prefix.rsplit_once('/').map_or(prefix, |(_, last)| last);
    for (part, called) in [(beginning, "before"), (suffix, "after")] {
        if part.len() > PATTERN {
            return Err(Wrong::new(
                format!(
                    "a pattern has at most {PATTERN} bytes {called} its *, and this one has {}",
                    part.len()
                ),
                "shorten it; nothing is lost as long as it is unique among its neighbours",
            ));
        }
    }
    Ok(Place::Glob { prefix: prefix.into(), suffix: suffix.into() })
}
