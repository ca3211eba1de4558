/*!
Where systemd puts a unit that is not running: what its files say, and the rules for units whose files say nothing.

```text
agent@a.service ─ alias? ─▶ main name ─ Slice= of the last file that sets it ─▶ /x.slice/x-y.slice/agent@a.service
                                      ├ an instance          /system.slice/system-agent.slice/agent@a.service
                                      └ anything else        /system.slice/agent.service
```

Only what systemd decides by files is told. A scope, or a unit without files, is placed by the program that starts it:
[`Unplaced`] says so, and nothing is guessed. Sources: systemd.unit(5), systemd.resource-control(5), systemd.slice(5), and
`unit_set_default_slice()`, `unit_name_escape()` and `cg_needs_escape()` of systemd's own code.
*/
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::unit::{default_slice, escaped, prefix_of_instance, slice_path};

/// Where systemd looks for units of the system, the first has precedence (systemd.unit(5)).
const FOLDERS: [&str; 13] = [
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/run/systemd/generator.early",
    "/etc/systemd/system",
    "/etc/systemd/system.attached",
    "/run/systemd/system",
    "/run/systemd/system.attached",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
    "/run/systemd/generator.late",
];

/// The number of aliases of aliases that are followed.
const ALIASES: usize = 8;

/// The files of systemd's folders on the machine that a policy is for.
pub trait UnitFiles {
    /// The path of a text file once links are followed, and its content; `None` if there is no such file.
    fn text(&self, path: &Path) -> Option<(PathBuf, String)>;

    /// The names in a folder; none if there is no such folder.
    fn list(&self, folder: &Path) -> Vec<String>;
}

/// Why it cannot be told where systemd will put a unit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unplaced {
    /// It has no file in any of systemd's folders.
    #[error(
        "the unit {0} is not running and has no file in systemd's folders, so that its cgroup is unknown: correct the name, install the unit \
         first, or give the path with `cgroup` instead of `unit`"
    )]
    NoFile(String),
    /// A scope gets its slice from the program that starts it.
    #[error(
        "the scope {0} is not running, and its cgroup is chosen by the program that starts it: give the path with `cgroup` instead of `unit`; \
         it may have one `*`"
    )]
    Scope(String),
    /// Its slice has a specifier that only systemd can replace.
    #[error(
        "the unit {unit} is not running, and only systemd can tell what Slice={slice} in its files stands for: start the unit first, or give \
         the path with `cgroup` instead of `unit`"
    )]
    Specifier {
        /// The unit.
        unit: String,
        /// The value.
        slice: String,
    },
}

/// A unit by its main name, and the place where systemd would start it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its name, after an alias was followed: cgroups are named so.
    pub name: String,
    /// The path of its cgroup, as far as files tell.
    pub path: Result<String, Unplaced>,
}

/// Looks a unit up in the files of a machine.
#[must_use]
pub fn place(unit: &str, files: &dyn UnitFiles) -> Placed {
    let name = main_name(unit, files);
    let path = place_of(&name, files);
    Placed { name, path }
}

fn place_of(unit: &str, files: &dyn UnitFiles) -> Result<String, Unplaced> {
    match unit.rsplit_once('.') {
        Some((name, "slice")) => return Ok(slice_path(name)),
        _ if unit == "init.scope" => return Ok("/init.scope".into()),
        Some((_, "scope")) => return Err(Unplaced::Scope(unit.into())),
        _ => {}
    }
    let fragment = fragment(unit, files);
    // systemd makes mounts and swaps of what it finds mounted, without a file.
    if fragment.is_none() && !matches!(kind(unit), "mount" | "swap") {
        return Err(Unplaced::NoFile(unit.into()));
    }
    let texts = fragment.map(|(_, text)| text).into_iter().chain(drop_ins(unit, files));
    let mut chosen = None;
    for text in texts {
        for value in slices(&text, kind(unit)) {
            // systemd passes over what is not the name of a slice.
            let slice = replaced(&value, unit)?;
            if let Some(name) = slice.strip_suffix(".slice").filter(|name| is_slice(name)) {
                chosen = Some(name.to_owned());
            }
        }
    }
    Ok(below(&chosen.unwrap_or_else(|| default_slice(unit)), unit))
}

/// The path of a unit in the slice of this name, both without a file's suffix.
fn below(slice: &str, unit: &str) -> String {
    let folder = slice_path(slice);
    format!("{}/{}", if folder == "/" { "" } else { &folder }, escaped(unit))
}

fn kind(unit: &str) -> &str {
    unit.rsplit('.').next().unwrap_or_default()
}

/// `agent@.service` of `agent@a.service`.
fn template(unit: &str) -> Option<String> {
    Some(format!("{}@.{}", prefix_of_instance(unit)?, kind(unit)))
}

fn is_slice(name: &str) -> bool {
    name == "-" || !(name.is_empty() || name.starts_with('-') || name.ends_with('-') || name.contains("--"))
}

/// The name that systemd knows a unit by: a link to another name in its folders is an alias.
fn main_name(unit: &str, files: &dyn UnitFiles) -> String {
    let mut name = unit.to_owned();
    for _ in 0..ALIASES {
        let Some((target, _)) = fragment(&name, files) else { break };
        // An alias of a template keeps the instance.
        let next = match (target.split_once("@."), name.split_once('@')) {
            (Some((prefix, _)), Some((_, instance))) => format!("{prefix}@{instance}"),
            _ => target,
        };
        if next == name || kind(&next) != kind(&name) {
            break;
        }
        name = next;
    }
    name
}

/// The file of a unit or of its template: the name of the file that a link leads to, and its text.
fn fragment(unit: &str, files: &dyn UnitFiles) -> Option<(String, String)> {
    let names = [Some(unit.to_owned()), template(unit)];
    names.iter().flatten().find_map(|name| {
        FOLDERS.iter().find_map(|folder| {
            // A masked unit is a link to /dev/null: once it is unmasked, the file behind the mask counts.
            let (real, text) = files.text(&Path::new(folder).join(name))?;
            let target = real.file_name()?.to_str()?.to_owned();
            Some((if kind(&target) == kind(name) { target } else { name.clone() }, text))
        })
    })
}

/// The texts of drop-ins, in the order in which systemd reads them.
fn drop_ins(unit: &str, files: &dyn UnitFiles) -> Vec<String> {
    let mut names = vec![unit.to_owned()];
    names.extend(template(unit));
    let stem = unit.rsplit_once('.').map_or(unit, |(stem, _)| stem);
    let prefixes = stem.match_indices('-').map(|(at, _)| &stem[..=at]).filter(|prefix| *prefix != "-");
    names.extend(prefixes.collect::<Vec<_>>().into_iter().rev().map(|p| format!("{p}.{}", kind(unit))));
    let mut folders: Vec<String> =
        FOLDERS.iter().flat_map(|folder| names.iter().map(move |n| format!("{folder}/{n}.d"))).collect();
    folders.extend(FOLDERS.iter().map(|folder| format!("{folder}/{}.d", kind(unit))));
    // Of two files of one name the first counts; all are read in the order of their names.
    let mut found: BTreeMap<String, Option<String>> = BTreeMap::new();
    for folder in folders {
        for name in files.list(Path::new(&folder)) {
            if kind(&name) == "conf" && !found.contains_key(&name) {
                let text = files.text(&Path::new(&folder).join(&name)).map(|(_, text)| text);
                found.insert(name, text);
            }
        }
    }
    found.into_values().flatten().collect()
}

/// Values of `Slice=` in the section of this kind of units.
fn slices(text: &str, kind: &str) -> Vec<String> {
    let joined = text.replace("\\\n", " ");
    let (mut values, mut inside) = (Vec::new(), false);
    for line in joined.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            inside = section.eq_ignore_ascii_case(kind);
        } else if inside
            && let Some((key, value)) = line.split_once('=')
            && key.trim() == "Slice"
        {
            values.push(value.trim().to_owned());
        }
    }
    values
}

/// A value with its specifiers replaced, as far as the unit's name tells.
fn replaced(value: &str, unit: &str) -> Result<String, Unplaced> {
    let stem = unit.rsplit_once('.').map_or(unit, |(stem, _)| stem);
    let (prefix, instance) = stem.split_once('@').unwrap_or((stem, ""));
    let last = prefix.rsplit('-').next().unwrap_or_default();
    let unknown = || Unplaced::Specifier { unit: unit.into(), slice: value.into() };
    let plain = |text: &str| {
        // Unescaped, a dash would be a slash, which is in no name of a slice.
        if text.contains(['-', '\\']) { Err(unknown()) } else { Ok(text.to_owned()) }
    };
    let mut out = String::new();
    let mut letters = value.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        match letters.next() {
            Some('%') => out.push('%'),
            Some('i') => out += instance,
            Some('I') => out += &plain(instance)?,
            Some('n') => out += unit,
            Some('N') => out += stem,
            Some('p') => out += prefix,
            Some('P') => out += &plain(prefix)?,
            Some('j') => out += last,
            Some('J') => out += &plain(last)?,
            _ => return Err(unknown()),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;
    use crate::check::Disk;

    /// A machine with these files.
    fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Disk) {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let file = folder.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            match text.strip_prefix("-> ") {
                Some(target) => symlink(target, file).unwrap(),
                None => fs::write(file, text).unwrap(),
            }
        }
        let disk = Disk::new(folder.path()).unwrap();
        (folder, disk)
    }

    fn path(files: &[(&str, &str)], unit: &str) -> Result<String, Unplaced> {
        let (_folder, disk) = machine(files);
        place(unit, &disk).path
    }

    const SERVICE: &str = "[Service]\nExecStart=/bin/true\n";

    #[test]
    fn units_whose_files_say_nothing_have_their_usual_place() {
        for (file, unit, right) in [
            ("a.service", "a.service", "/system.slice/a.service"),
            ("agent@.service", "agent@a.service", "/system.slice/system-agent.slice/agent@a.service"),
            (
                "my-agent@.service",
                "my-agent@a.service",
                "/system.slice/system-my\\x2dagent.slice/my-agent@a.service",
            ),
            (
                "my\\x2dagent@.service",
                "my\\x2dagent@a.service",
                "/system.slice/system-my\\x5cx2dagent.slice/my\\x2dagent@a.service",
            ),
            ("a.b@.service", "a.b@c.d@e.service", "/system.slice/system-a.b.slice/a.b@c.d@e.service"),
            ("echo@.socket", "echo@1.socket", "/system.slice/system-echo.slice/echo@1.socket"),
            // Names that are the kernel's in a cgroup's folder.
            ("cpu.service", "cpu.service", "/system.slice/_cpu.service"),
            ("_a.service", "_a.service", "/system.slice/__a.service"),
        ] {
            let file = format!("usr/lib/systemd/system/{file}");
            assert_eq!(path(&[(&file, SERVICE)], unit).as_deref(), Ok(right), "{unit}");
        }
        for (unit, right) in [
            ("a-b.slice", "/a.slice/a-b.slice"),
            ("-.slice", "/"),
            ("init.scope", "/init.scope"),
            ("srv-data.mount", "/system.slice/srv-data.mount"),
            ("-.mount", "/-.mount"),
        ] {
            assert_eq!(path(&[], unit).as_deref(), Ok(right), "{unit}");
        }
    }

    #[test]
    fn the_last_slice_in_the_order_of_systemd_counts() {
        let unit =
            ("usr/lib/systemd/system/a-b@.service", "[Unit]\nSlice=no.slice\n[Service]\nSlice=one.slice\n");
        let early = ("etc/systemd/system/a-b@.service.d/10.conf", "[Service]\nSlice = two-%i.slice\n");
        let late =
            ("usr/lib/systemd/system/a-b@x.service.d/20.conf", "[Service]\nSlice=\\\nthree.slice\nSlice=\n");
        let hidden = ("usr/lib/systemd/system/a-b@.service.d/10.conf", "[Service]\nSlice=hidden.slice\n");
        let prefix = (
            "etc/systemd/system/a-.service.d/30.conf",
            "[Service]\nSlice=four.slice\n[Socket]\nSlice=no.slice\n",
        );
        let every = (
            "run/systemd/system/service.d/40.conf",
            "#\nSlice=no.slice\n[Service]\n;Slice=no.slice\nSlice=%p.slice\n",
        );
        for (files, right) in [
            (vec![unit], "/one.slice"),
            (vec![unit, early, hidden], "/two.slice/two-x.slice"),
            (vec![unit, early, late], "/three.slice"),
            (vec![unit, early, late, prefix], "/four.slice"),
            (vec![unit, early, late, prefix, every], "/a.slice/a-b.slice"),
        ] {
            assert_eq!(path(&files, "a-b@x.service"), Ok(format!("{right}/a-b@x.service")), "{files:?}");
        }
    }

    #[test]
    fn the_manager_of_a_user_is_in_the_slice_of_that_user() {
        let unit = ("usr/lib/systemd/system/user@.service", "[Service]\nSlice=user-%i.slice\n");
        let right = "/user.slice/user-1000.slice/user@1000.service";
        assert_eq!(path(&[unit], "user@1000.service").as_deref(), Ok(right));
    }

    #[test]
    fn an_alias_has_the_cgroup_of_the_unit_it_stands_for() {
        let (_folder, disk) = machine(&[
            ("usr/lib/systemd/system/resolved.service", SERVICE),
            ("etc/systemd/system/bus.service", "-> /usr/lib/systemd/system/resolved.service"),
            ("usr/lib/systemd/system/getty@.service", SERVICE),
            ("usr/lib/systemd/system/autovt@.service", "-> getty@.service"),
        ]);
        assert_eq!(place("bus.service", &disk).name, "resolved.service");
        let getty = place("autovt@tty1.service", &disk);
        assert_eq!(getty.path.as_deref(), Ok("/system.slice/system-getty.slice/getty@tty1.service"));
    }

    #[test]
    fn a_mask_hides_no_place() {
        let mask = ("etc/systemd/system/a.service", "-> /dev/null");
        let unit = ("usr/lib/systemd/system/a.service", "[Service]\nSlice=x.slice\n");
        assert_eq!(path(&[mask, unit], "a.service").as_deref(), Ok("/x.slice/a.service"));
        assert!(matches!(path(&[mask], "a.service"), Err(Unplaced::NoFile(_))));
    }

    #[test]
    fn nothing_is_guessed() {
        assert!(matches!(path(&[], "a.service"), Err(Unplaced::NoFile(_))));
        assert!(matches!(path(&[], "a@b.service"), Err(Unplaced::NoFile(_))));
        assert!(matches!(path(&[], "session-3.scope"), Err(Unplaced::Scope(_))));
        for value in ["%m.slice", "%I.slice", "a%"] {
            let text = format!("[Service]\nSlice={value}\n");
            let unit = ("usr/lib/systemd/system/a@.service", text.as_str());
            assert!(matches!(path(&[unit], "a@b-c.service"), Err(Unplaced::Specifier { .. })), "{value}");
        }
    }
}
