/*!
Names of systemd's units, by its own rules (systemd.unit(5), unit_name_is_valid(), slice_name_is_valid()).
*/
use super::{fields::printable, wrong::Wrong};
use crate::{
    model::Place,
    words::{nearest, one_of},
};

/// The longest name, in bytes.
const LONGEST: usize = 255;

/// Units that have a cgroup.
const WITH_CGROUP: [&str; 6] = ["service", "slice", "scope", "socket", "mount", "swap"];

/// Units that have none.
const WITHOUT: [&str; 5] = ["target", "timer", "path", "device", "automount"];

pub(super) fn parse(text: &str) -> Result<Place, Wrong> {
    if text.len() > LONGEST {
        return Err(Wrong::new(
            format!("the name of a unit has at most {LONGEST} bytes, and this one has {}", text.len()),
            "look it up with `systemctl list-units`",
        ));
    }
    if let Some(wrong) = text.chars().find(|c| !is_valid(*c)) {
        let help = match wrong {
            '/' => "for a path in the cgroup tree use `cgroup`",
            '*' => "a pattern goes with `cgroup`: cgroup = \"/system.slice/docker-*.scope\"",
            _ => "systemd writes others as \\x and two digits: `systemd-escape` does it",
        };
        return Err(Wrong::new(
            format!(
                "the name of a unit has no `{}`: only letters, digits and : - _ . \\ @",
                wrong.escape_debug()
            ),
            help,
        ));
    }
    let Some((name, kind)) = text.rsplit_once('.').filter(|(name, _)| !name.is_empty()) else {
        return Err(Wrong::new(
            "the name of a unit ends with its type",
            format!("write for instance \"{}.service\"", if text.is_empty() { "fwupd" } else { text }),
        ));
    };
    if WITHOUT.contains(&kind) {
        return Err(Wrong::new(
            format!("a {kind} has no cgroup, so nothing ever runs in it"),
            format!("name what it starts, for instance \"{name}.service\""),
        ));
    }
    if !WITH_CGROUP.contains(&kind) {
        let near = nearest(kind, WITH_CGROUP);
        return Err(Wrong::new(
            format!("systemd has no units of type `{}`", printable(kind)),
            near.map_or_else(
                || format!("units with a cgroup are {}", one_of(WITH_CGROUP)),
                |near| format!("did you mean \"{name}.{near}\"?"),
            ),
        ));
    }
    if name.starts_with('@') {
        return Err(Wrong::new(
            "the name of a unit does not begin with @",
            "put the template's name before it",
        ));
    }
    if name.ends_with('@') && name.find('@') == Some(name.len() - 1) {
        return Err(Wrong::new(
            "this is a template, which does not run itself",
            format!("name an instance, for instance \"{name}main.{kind}\", or the slice they are all in"),
        ));
    }
    if kind == "slice" {
        slice(name)?;
    }
    Ok(Place::Unit(text.into()))
}

/// A slice's name is its path, with a dash for each step.
fn slice(name: &str) -> Result<(), Wrong> {
    if name == "-" {
        return Ok(());
    }
    if name.starts_with('-') || name.ends_with('-') || name.contains("--") || name.contains('@') {
        return Err(Wrong::new(
            "the name of a slice is its path with single dashes between the steps, and no @",
            "a-b.slice is below a.slice; a dash within a step is written \\x2d",
        ));
    }
    Ok(())
}

fn is_valid(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '_' | '.' | '\\' | '@')
}
