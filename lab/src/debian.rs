/*!
Packages of the Debian archive, fetched and unpacked without being installed, as any user.

The host's own package sources give the address of the archive. Other suites are reached through a second source list derived from them,
with a package state of its own, so that nothing on the host changes.
*/
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};

use crate::{cache, tool};

/// A suite to fetch packages from.
#[derive(Clone, Debug)]
pub struct Archive {
    options: Vec<String>,
}

/// A suite of Debian's archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// The suite that this machine runs, with its updates.
    Own,
    /// The development suite, with the newest kernels.
    Development,
    /// Debian 11, whose kernel is older than the oldest supported one.
    Bullseye,
}

impl Suite {
    /// Returns the suite's name in the archive, unless it is the machine's own suite.
    fn name(self) -> Option<&'static str> {
        match self {
            Self::Own => None,
            Self::Development => Some("sid"),
            Self::Bullseye => Some("bullseye"),
        }
    }
}

/// Uses a suite. Stale package lists may name packages that the archive has replaced since: a failed attempt is repeated once, with fresh
/// lists.
pub fn with<T>(
    suite: Suite,
    refresh: bool,
    does: impl Fn(&Archive) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    once_more(refresh, |fresh| does(&Archive::open(suite, fresh)?)).map_err(|error| {
        match advice(&format!("{error:#}")) {
            Some(advice) => anyhow::anyhow!("{error:#}\n{advice}"),
            None => error,
        }
    })
}

/// Returns the remedy for an error message of apt, dpkg or mmdebstrap, if the message is known.
#[must_use]
pub(crate) fn advice(text: &str) -> Option<&'static str> {
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if has(&["No space left on device", "Disk quota exceeded"]) {
        Some("The disk is full: free some space, or set XDG_CACHE_HOME and TMPDIR to a larger file system.")
    } else if has(&[
        "Could not resolve",
        "Temporary failure resolving",
        "Could not connect",
        "Unable to connect",
        "Connection failed",
        "Connection timed out",
        "Network is unreachable",
    ]) {
        Some(
            "The package source cannot be reached: connect to the network; what is in the cache works without.",
        )
    } else if has(&["404  Not Found", "Hash Sum mismatch", "File has unexpected size"]) {
        Some(
            "The package source does not have what its own lists name: it is being updated, or a proxy answers from an old copy. Try again later, or with another source in /etc/apt.",
        )
    } else if has(&["Unable to locate package", "has no installation candidate"]) {
        Some("A package is gone from the archive: correct its name in lab/src.")
    } else if has(&["does not have a Release file", "is not valid yet", "is expired"]) {
        Some(
            "The package source does not serve this suite, or the clock is wrong: compare /etc/apt and `date`.",
        )
    } else if has(&[
        "unshare syscall",
        "unshare() failed",
        "unshare the user namespace",
        "newuidmap",
        "subuid",
    ]) {
        Some("mmdebstrap needs user namespaces and /etc/subuid (package uidmap), or to be run as root.")
    } else {
        None
    }
}

/// Tries with the lists that are there, unless fresh ones are asked for, and after a failure with fresh ones.
fn once_more<T>(refresh: bool, attempt: impl Fn(bool) -> anyhow::Result<T>) -> anyhow::Result<T> {
    match attempt(refresh) {
        Err(error) if !refresh => {
            eprintln!("{error:#}; trying once more, with package lists of today …");
            attempt(true)
        }
        done => done,
    }
}

impl Archive {
    /// Opens a suite. Fetches its package lists when there are none or when `refresh` asks for newer ones.
    fn open(suite: Suite, refresh: bool) -> anyhow::Result<Archive> {
        let state = cache::folder()?.join("apt").join(suite.name().unwrap_or("own"));
        let archive = match suite.name() {
            None => {
                let machine = Archive { options: Vec::new() };
                if !refresh && machine.knows("busybox-static") {
                    return Ok(machine);
                }
                Archive { options: state_options(&state) }
            }
            Some(name) => {
                let source = state.join("archive.sources");
                let stanza = machine_source()?.stanza(name);
                fs::create_dir_all(&state)
                    .with_context(|| format!("making the folder {}", state.display()))?;
                cache::write(&source, stanza.as_bytes())?;
                let mut options = state_options(&state);
                options.push(format!("Dir::Etc::sourcelist={}", source.display()));
                options.push("Dir::Etc::sourceparts=-".to_owned());
                if suite == Suite::Bullseye {
                    // The Release file of a suite whose support has ended is not renewed, so apt would reject it as expired.
                    options.push("Acquire::Check-Valid-Until=false".to_owned());
                }
                Archive { options }
            }
        };
        for folder in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(state.join(folder))
                .with_context(|| format!("making folders in {}", state.display()))?;
        }
        if refresh || !archive.knows("linux-image-amd64") {
            tool::output(archive.apt("apt-get").args(["update", "-qq"]))
                .context("fetching the package lists")?;
        }
        Ok(archive)
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = tool::command(program);
        for option in &self.options {
            command.arg("-o").arg(option);
        }
        // Packages are fetched into the user's own folder, in which the user _apt cannot write.
        command.args(["-o", "APT::Sandbox::User="]);
        command
    }

    /// Reports whether the package lists contain this package.
    #[must_use]
    pub fn knows(&self, package: &str) -> bool {
        tool::output(self.apt("apt-cache").args(["show", "--no-all-versions", package]))
            .is_ok_and(|o| !o.is_empty())
    }

    /// Returns the names of all packages that this one needs, itself included.
    pub fn closure(&self, package: &str) -> anyhow::Result<BTreeSet<String>> {
        let text = tool::text(self.apt("apt-cache").args([
            "depends",
            "--recurse",
            "--no-recommends",
            "--no-suggests",
            "--no-conflicts",
            "--no-breaks",
            "--no-replaces",
            "--no-enhances",
            package,
        ]))?;
        let names = text.lines().filter(|line| !line.starts_with([' ', '|', '<']));
        Ok(names.map(str::to_owned).collect())
    }

    /// Fetches packages and unpacks them into a folder.
    pub fn unpack(&self, packages: &[String], folder: &Path) -> anyhow::Result<()> {
        let debs = folder.join(".debs");
        fs::create_dir_all(&debs).with_context(|| format!("making the folder {}", debs.display()))?;
        tool::output(self.apt("apt-get").args(["download", "-qq"]).args(packages).current_dir(&debs))?;
        for deb in fs::read_dir(&debs)? {
            tool::output(tool::command("dpkg-deb").arg("-x").arg(deb?.path()).arg(folder))?;
        }
        fs::remove_dir_all(&debs).with_context(|| format!("removing {}", debs.display()))
    }
}

fn state_options(state: &Path) -> Vec<String> {
    ["State::lists=lists", "Cache=cache"]
        .iter()
        .filter_map(|option| option.split_once('='))
        .map(|(name, folder)| format!("Dir::{name}={}", state.join(folder).display()))
        .collect()
}

/// A package source: the address of an archive and its signing key.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Source {
    uri: String,
    signed_by: Option<String>,
}

impl Source {
    fn stanza(&self, suite: &str) -> String {
        let mut text = format!("Types: deb\nURIs: {}\nSuites: {suite}\nComponents: main\n", self.uri);
        if let Some(signed_by) = &self.signed_by {
            text += &format!("Signed-By: {signed_by}\n");
        }
        text
    }
}

/// Returns a source list for another suite of the machine's own archive.
pub(crate) fn stanza_of(suite: &str) -> anyhow::Result<String> {
    Ok(machine_source()?.stanza(suite))
}

/// Finds the machine's source of Debian's main archive: the one that serves `main` of its own release.
fn machine_source() -> anyhow::Result<Source> {
    let release = fs::read_to_string("/etc/os-release").context("reading /etc/os-release")?;
    let field = |name: &str| {
        release
            .lines()
            .find_map(|l| l.strip_prefix(name)?.strip_prefix('='))
            .map(|v| v.trim_matches('"').to_owned())
    };
    if field("ID").as_deref() != Some("debian") {
        bail!("this machine does not run Debian, whose archive has the kernels");
    }
    let codename =
        field("VERSION_CODENAME").context("/etc/os-release names no release (VERSION_CODENAME)")?;
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(folder) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(folder.filter_map(Result::ok).map(|entry| entry.path()));
    }
    files.sort();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        let found = match file.extension().and_then(|e| e.to_str()) {
            Some("sources") => from_stanzas(&text, &codename),
            Some("list") => from_lines(&text, &codename),
            _ => None,
        };
        if let Some(source) = found {
            return Ok(source);
        }
    }
    bail!("no package source in /etc/apt serves main of the release {codename}")
}

/// Finds the source in a deb822 file.
fn from_stanzas(text: &str, suite: &str) -> Option<Source> {
    let text: String = text.lines().filter(|l| !l.starts_with('#')).flat_map(|l| [l, "\n"]).collect();
    text.split("\n\n").find_map(|stanza| {
        // A field continues on lines that begin with a space.
        let field = |name: &str| {
            let mut lines = stanza.lines();
            let first = lines.find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then_some(value.trim())
            })?;
            let rest: Vec<&str> = lines.take_while(|line| line.starts_with([' ', '\t'])).collect();
            Some([&[first], rest.as_slice()].concat().join("\n"))
        };
        let has =
            |name: &str, word: &str| field(name).is_some_and(|v| v.split_whitespace().any(|w| w == word));
        if !has("Types", "deb") || !has("Suites", suite) || !has("Components", "main") || has("Enabled", "no")
        {
            return None;
        }
        let uri = field("URIs")?.split_whitespace().next()?.to_owned();
        Some(Source { uri, signed_by: field("Signed-By") })
    })
}

/// Finds the source in a file of one-line sources.
fn from_lines(text: &str, suite: &str) -> Option<Source> {
    text.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("deb ")?.trim_start();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(inner) => inner.split_once(']')?,
            None => ("", rest),
        };
        let mut words = rest.split_whitespace();
        let uri = words.next()?.to_owned();
        if words.next()? != suite || !words.any(|component| component == "main") {
            return None;
        }
        let signed_by =
            options.split_whitespace().find_map(|o| o.strip_prefix("signed-by=")).map(str::to_owned);
        Some(Source { uri, signed_by })
    })
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use anyhow::bail;

    use super::{Source, from_lines, from_stanzas, once_more};

    #[test]
    fn stale_lists_are_tried_once_and_fresh_ones_after_them() {
        let attempts = RefCell::new(Vec::new());
        let stale = |fresh: bool| {
            attempts.borrow_mut().push(fresh);
            if fresh { Ok(()) } else { bail!("404") }
        };
        assert!(once_more(false, stale).is_ok());
        assert!(once_more(true, stale).is_ok());
        assert_eq!(attempts.take(), [false, true, true]);
        let gone = |fresh: bool| -> anyhow::Result<()> {
            attempts.borrow_mut().push(fresh);
            bail!("404")
        };
        assert!(once_more(false, gone).is_err());
        assert_eq!(attempts.take(), [false, true]);
    }

    fn source() -> Source {
        Source {
            uri: "http://archive.example/debian".into(),
            signed_by: Some("/usr/share/keyrings/a.gpg".into()),
        }
    }

    #[test]
    fn the_archive_proper_is_found_among_stanzas() {
        let text = "Types: deb\n# a comment\nURIs: http://archive.example/security\nSuites: bookworm-security\n\
                    Components: main\n\nTypes: deb\nURIs: http://archive.example/debian\n\
                    Suites: bookworm bookworm-updates\nComponents: main\nSigned-By: /usr/share/keyrings/a.gpg\n";
        assert_eq!(from_stanzas(text, "bookworm"), Some(source()));
        assert_eq!(from_stanzas(text, "trixie"), None);
    }

    #[test]
    fn a_key_in_the_stanza_is_kept_whole() {
        let text = "Types: deb\nURIs: http://a\nSuites: b\nComponents: main\nSigned-By:\n -----BEGIN\n .\n -----END\n";
        let source = from_stanzas(text, "b").unwrap();
        assert!(source.stanza("sid").ends_with("Signed-By: \n -----BEGIN\n .\n -----END\n"));
    }

    #[test]
    fn the_archive_proper_is_found_among_lines() {
        let text = "# deb http://old bookworm main\ndeb http://archive.example/security bookworm-security main\n\
                    deb [arch=amd64 signed-by=/usr/share/keyrings/a.gpg] http://archive.example/debian bookworm main\n";
        assert_eq!(from_lines(text, "bookworm"), Some(source()));
    }
}
