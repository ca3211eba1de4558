/*!
Which unit, session or container a cgroup's path belongs to, by the names that systemd and container engines give.

```text
/system.slice/tune.service/worker            the unit tune.service
/user.slice/user-1000.slice/session-3.scope  a login session of user 1000
/user.slice/user-1000.slice/user@1000.service/app.slice/editor.service
                                             a unit of that user's own manager, which the system's does not know
/system.slice/docker-<64 digits>.scope       a container
```
*/
use std::{collections::HashMap, fmt};

/// The unit or container that a cgroup belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Home {
    /// Its path: the cgroup's, without what the unit made below its own.
    pub path: String,
    /// Its kind.
    pub kind: Kind,
}

/// The kinds of owners in the cgroup tree.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A unit of the system's manager.
    Unit(String),
    /// A login session.
    Session {
        /// Its number.
        session: String,
        /// The user's.
        user: String,
    },
    /// A unit of a user's own manager.
    OfUser {
        /// Its name.
        unit: String,
        /// The user's number.
        user: String,
    },
    /// Something within a container, whose programs are files of its own.
    Container,
    /// Nothing of systemd's.
    Plain,
}

/// Returns the owner of this cgroup; none for the root.
#[must_use]
pub fn home(cgroup: &str) -> Option<Home> {
    if !cgroup.starts_with('/') || cgroup == "/" {
        return None;
    }
    if let Some(path) = container(cgroup) {
        return Some(Home { path: path.to_owned(), kind: Kind::Container });
    }
    let Some((path, unit)) = first_unit(cgroup, 0) else {
        return Some(Home { path: cgroup.to_owned(), kind: Kind::Plain });
    };
    if let Some(session) = unit.strip_prefix("session-").and_then(|rest| rest.strip_suffix(".scope"))
        && let Some(user) = user_of(path)
    {
        let kind = Kind::Session { session: session.to_owned(), user: user.to_owned() };
        return Some(Home { path: path.to_owned(), kind });
    }
    if let Some(user) = unit.strip_prefix("user@").and_then(|rest| rest.strip_suffix(".service"))
        && let Some((inner, name)) = first_unit(cgroup, path.len())
    {
        let kind = Kind::OfUser { unit: name.to_owned(), user: user.to_owned() };
        return Some(Home { path: inner.to_owned(), kind });
    }
    let unit = unit.strip_prefix('_').unwrap_or(unit);
    Some(Home { path: path.to_owned(), kind: Kind::Unit(unit.to_owned()) })
}

/// The first unit from this byte of the path on that is no slice, else the last slice: its path and its name.
fn first_unit(cgroup: &str, from: usize) -> Option<(&str, &str)> {
    let (mut slice, mut end) = (None, from);
    for name in cgroup[from..].split('/').skip(1) {
        end += 1 + name.len();
        if is_kind(name, &["slice"]) {
            slice = Some((&cgroup[..end], name));
        } else if is_kind(name, &["service", "scope", "socket", "mount", "swap"]) {
            return Some((&cgroup[..end], name));
        } else {
            // Whoever made this one has what is below.
            return None;
        }
    }
    slice
}

fn is_kind(name: &str, kinds: &[&str]) -> bool {
    name.rsplit_once('.').is_some_and(|(stem, kind)| !stem.is_empty() && kinds.contains(&kind))
}

fn user_of(path: &str) -> Option<&str> {
    path.split('/').find_map(|name| name.strip_prefix("user-")?.strip_suffix(".slice"))
}

/// The path up to a container, or none where there is none.
fn container(cgroup: &str) -> Option<&str> {
    let mut end = 0;
    let mut in_engine = false;
    for name in cgroup.split('/').skip(1) {
        end += 1 + name.len();
        let scope = name.strip_suffix(".scope").is_some_and(|stem| {
            ["docker-", "libpod-", "cri-containerd-", "crio-"].iter().any(|engine| stem.starts_with(engine))
                && !stem.starts_with("libpod-conmon-")
                && !stem.starts_with("crio-conmon-")
        });
        let nspawn = name.starts_with("systemd-nspawn@") || name.starts_with("machine-");
        let lxc = name.starts_with("lxc.payload.");
        if scope || lxc || (nspawn && is_kind(name, &["service", "scope"])) || (in_engine && is_digits(name))
        {
            return Some(&cgroup[..end]);
        }
        in_engine |= matches!(name, "docker" | "lxc") || name.starts_with("kubepods");
    }
    None
}

/// Whether it is a long hexadecimal number, as engines name containers.
fn is_digits(name: &str) -> bool {
    name.len() >= 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Home {
    /// Whether a cgroup of this name will be there again after it is gone. Sessions, containers and what systemd-run
    /// and desktops start have a new name each time.
    #[must_use]
    pub fn comes_again(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        let (stem, kind) = name.rsplit_once('.').unwrap_or((name, ""));
        let all = |text: &str, good: fn(&u8) -> bool| !text.is_empty() && text.as_bytes().iter().all(good);
        let by_run = stem.strip_prefix("run-").is_some_and(|rest| {
            ["r", "u", "p"].iter().any(|letter| {
                rest.strip_prefix(letter)
                    .is_some_and(|number| all(number, |b| b.is_ascii_hexdigit() || matches!(b, b'-' | b'i')))
            }) || all(rest, u8::is_ascii_digit)
        });
        let last = stem.rsplit(['-', '@', '_']).next().unwrap_or_default();
        // app-gnome-editor-4711.scope: desktops put the process's number at the end.
        let by_process = kind == "scope" && all(last, u8::is_ascii_digit);
        let by_number = stem.split(['-', '@', '_', '.', ':']).any(is_digits) || is_uuid(stem);
        !(matches!(self.kind, Kind::Session { .. } | Kind::Container) || by_run || by_process || by_number)
    }

    /// Its name as the policy's `unit` has it, where the system's manager knows it.
    #[must_use]
    pub fn unit(&self) -> Option<&str> {
        match &self.kind {
            Kind::Unit(unit) => Some(unit),
            // Sessions are scopes of the system's manager.
            Kind::Session { .. } => self.path.rsplit('/').next(),
            Kind::OfUser { .. } | Kind::Container | Kind::Plain => None,
        }
    }

    /// A short name.
    #[must_use]
    pub fn short(&self) -> &str {
        match &self.kind {
            Kind::Unit(unit) | Kind::OfUser { unit, .. } => unit,
            _ => self.path.rsplit('/').next().unwrap_or_default(),
        }
    }
}

/// Whether it ends with a universally unique identifier.
fn is_uuid(stem: &str) -> bool {
    let Some(tail) = stem.len().checked_sub(36).and_then(|at| stem.get(at..)) else { return false };
    tail.bytes().enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    })
}

impl fmt::Display for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Unit(unit) => f.write_str(unit),
            Kind::Session { session, user } => write!(f, "login session {session} of user {user}"),
            Kind::OfUser { unit, user } => write!(f, "{unit} of user {user}'s own manager"),
            Kind::Container => write!(f, "a container, {}", self.path),
            Kind::Plain => write!(f, "cgroup {}", self.path),
        }
    }
}

/// Whether a path is the cgroup of this unit of the system's manager, and not one below it.
#[must_use]
pub fn is_of(path: &str, unit: &str) -> bool {
    home(path).is_some_and(|home| home.path == path && home.unit() == Some(unit))
}

/// Finds the cgroups of units: where one of these paths has it, otherwise where `otherwise` says.
pub fn finder<'p>(
    paths: impl IntoIterator<Item = &'p str>,
    otherwise: impl Fn(&str) -> String,
) -> impl Fn(&str) -> String {
    let mut seen: HashMap<String, String> = HashMap::new();
    for path in paths {
        for ancestor in crate::place::chain(path) {
            if let Some(home) = home(ancestor).filter(|home| home.path == ancestor)
                && let Some(unit) = home.unit()
            {
                seen.entry(unit.to_owned()).or_insert_with(|| home.path.clone());
            }
        }
    }
    move |unit| seen.get(unit).cloned().unwrap_or_else(|| otherwise(unit))
}

/// Where systemd puts a unit whose files do not say `Slice=`; for records of machines whose files are not at hand.
#[must_use]
pub fn usual(unit: &str) -> String {
    if unit == "init.scope" {
        return "/init.scope".into();
    }
    if let Some(name) = unit.strip_suffix(".slice") {
        return slice_path(name);
    }
    let user = unit.strip_prefix("user@").and_then(|rest| rest.strip_suffix(".service"));
    let slice = user.map_or_else(|| default_slice(unit), |user| format!("user-{user}"));
    let folder = slice_path(&slice);
    format!("{}/{}", if folder == "/" { "" } else { &folder }, escaped(unit))
}

/// Where systemd puts a unit whose files do not say Slice=.
pub(crate) fn default_slice(unit: &str) -> String {
    if unit == "-.mount" {
        return "-".into();
    }
    // The prefix of an instance becomes one step: its dashes and backslashes are escaped once more.
    prefix_of_instance(unit).map_or_else(|| "system".into(), |prefix| format!("system-{}", escape(prefix)))
}

/// `agent` of `agent@a.service`.
pub(crate) fn prefix_of_instance(unit: &str) -> Option<&str> {
    let (prefix, rest) = unit.split_once('@')?;
    (rest.rfind('.')? > 0).then_some(prefix)
}

/// `unit_name_escape()`.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for (at, c) in text.char_indices() {
        match c {
            '/' => out.push('-'),
            '.' if at == 0 => out += "\\x2e",
            _ if c.is_ascii_alphanumeric() || matches!(c, ':' | '_' | '.') => out.push(c),
            _ => out += &format!("\\x{:02x}", u32::from(c)),
        }
    }
    out
}

/// The path of a slice by its name without `.slice`: `a-b` is below `a` (systemd.slice(5)).
pub(crate) fn slice_path(name: &str) -> String {
    if name == "-" {
        return "/".into();
    }
    let ends = name.match_indices('-').map(|(at, _)| at).filter(|at| *at > 0).chain([name.len()]);
    ends.fold(String::new(), |path, end| format!("{path}/{}", escaped(&format!("{}.slice", &name[..end]))))
}

/// The name of a unit's cgroup: a name that could be one of the kernel's own files there gets an underscore
/// (`cg_needs_escape()` of systemd).
pub(crate) fn escaped(unit: &str) -> String {
    const CONTROLLERS: [&str; 14] = [
        "cpu",
        "cpuacct",
        "cpuset",
        "io",
        "blkio",
        "memory",
        "devices",
        "pids",
        "bpf-firewall",
        "bpf-devices",
        "bpf-foreign",
        "bpf-socket-bind",
        "bpf-restrict-network-interfaces",
        "bpf-bind-network-interface",
    ];
    let of_controller = |name: &&str| unit.strip_prefix(*name).is_some_and(|rest| rest.starts_with('.'));
    let needs =
        unit.starts_with(['_', '.']) || unit.starts_with("cgroup.") || CONTROLLERS.iter().any(of_controller);
    if needs { format!("_{unit}") } else { unit.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn kind(path: &str) -> Kind {
        home(path).unwrap().kind
    }

    fn unit(path: &str) -> Option<String> {
        home(path).unwrap().unit().map(str::to_owned)
    }

    #[test]
    fn units_of_the_system() {
        for (path, name) in [
            ("/system.slice/tune.service", "tune.service"),
            ("/system.slice/tune.service/worker.scope", "tune.service"),
            ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service"),
            ("/init.scope", "init.scope"),
            ("/system.slice", "system.slice"),
            ("/user.slice/user-1000.slice/user@1000.service/init", "user@1000.service"),
            ("/user.slice/user-1000.slice/session-3.scope", "session-3.scope"),
        ] {
            assert_eq!(unit(path).as_deref(), Some(name), "{path}");
        }
        assert_eq!(home("/system.slice/tune.service/worker").unwrap().path, "/system.slice/tune.service");
        assert_eq!((home("/"), home("")), (None, None));
    }

    #[test]
    fn what_the_systems_manager_does_not_know_is_no_unit() {
        for path in [
            "/user.slice/user-1000.slice/user@1000.service/app.slice/editor.service",
            "/kubepods/burstable/pod1",
            "/batch/job.1",
            "/system.slice/odd",
        ] {
            assert_eq!(unit(path), None, "{path}");
            assert_eq!(home(path).unwrap().path, path);
        }
        let inner = home("/user.slice/user-1000.slice/user@1000.service/app.slice/editor.service/x").unwrap();
        assert!(inner.path.ends_with("editor.service"));
        assert_eq!(inner.to_string(), "editor.service of user 1000's own manager");
        let session = home("/user.slice/user-7.slice/session-c2.scope").unwrap();
        assert_eq!(session.to_string(), "login session c2 of user 7");
    }

    #[test]
    fn containers() {
        for path in [
            format!("/system.slice/docker-{ID}.scope/init.scope"),
            format!("/machine.slice/libpod-{ID}.scope/container"),
            format!(
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope"
            ),
            format!("/kubepods/burstable/pod1/{ID}"),
            format!("/docker/{ID}"),
            "/lxc.payload.web/system.slice/a.service".into(),
            "/machine.slice/systemd-nspawn@web.service/payload".into(),
        ] {
            assert_eq!(kind(&path), Kind::Container, "{path}");
            assert!(!home(&path).unwrap().comes_again(), "{path}");
        }
        assert_eq!(unit("/system.slice/docker.service").as_deref(), Some("docker.service"));
        assert_ne!(kind(&format!("/machine.slice/libpod-conmon-{ID}.scope")), Kind::Container);
    }

    #[test]
    fn some_names_never_come_again() {
        let again = |name: &str| home(&format!("/system.slice/{name}")).unwrap().comes_again();
        for name in [
            "run-r0123456789abcdef0123456789abcdef.scope",
            "run-u17.service",
            "run-p1234-i5678.service",
            "run-4711.scope",
            "app-gnome-editor-4711.scope",
            "vte-spawn-01234567-89ab-cdef-0123-456789abcdef.scope",
            &format!("libpod-conmon-{ID}.scope"),
        ] {
            assert!(!again(name), "{name}");
        }
        for name in [
            "tune.service",
            "run-parts.service",
            "getty@tty1.service",
            "postgresql@15-main.service",
            "a-2.service",
        ] {
            assert!(again(name), "{name}");
        }
    }

    #[test]
    fn units_are_found_where_they_were_seen_or_are_usually() {
        let find = finder(["/custom.slice/tune.service/worker", "/init.scope"], usual);
        assert_eq!(find("tune.service"), "/custom.slice/tune.service");
        assert_eq!(find("custom.slice"), "/custom.slice");
        assert_eq!(find("other.service"), "/system.slice/other.service");
        assert_eq!(find("a-b.slice"), "/a.slice/a-b.slice");
        assert_eq!(find("-.slice"), "/");
        assert_eq!(find("user@7.service"), "/user.slice/user-7.slice/user@7.service");
        assert_eq!(find("a-b@c.service"), "/system.slice/system-a\\x2db.slice/a-b@c.service");
        assert_eq!(find("a\\x2db@c.service"), "/system.slice/system-a\\x5cx2db.slice/a\\x2db@c.service");
        assert_eq!(find("cpu.service"), "/system.slice/_cpu.service");
        assert_eq!(unit("/system.slice/_cpu.service").as_deref(), Some("cpu.service"));
        assert!(is_of("/a.slice/b.service", "b.service") && !is_of("/a.slice/b.service/c", "b.service"));
        assert!(!is_of(&format!("/system.slice/docker-{ID}.scope/system.slice/b.service"), "b.service"));
    }
}
