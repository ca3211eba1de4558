/*!
The machine as checks see it: its files, who asks, and whether it may be tried live.

Files are read below a root, which is a folder of a test's where nothing may be tried. What is there may be anything, garbage
included: sizes are limited, and nothing waits for a file to have content.
*/
use std::{
    cell::OnceCell,
    fmt, fs,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use flate2::read::GzDecoder;
use stockade_kernel::host;

use crate::config::Config;

/// The maximum size of an unpacked kernel configuration, in bytes.
const CONFIG_SIZE: u64 = 4 << 20;

/// The maximum that is read of a file, in bytes. The largest file that is needed, a configuration, has a twentieth.
pub(crate) const SIZE: u64 = 8 << 20;

/// The maximum number of entries of a folder that are listed.
const ENTRIES: usize = 100_000;

/// A machine.
#[derive(Debug)]
pub struct System {
    root: PathBuf,
    live: bool,
    measures: bool,
    lacks: Option<String>,
    config: OnceCell<Result<Config, Unread>>,
    #[cfg(test)]
    folder: Option<tempfile::TempDir>,
    /// Paths that checks have read, for tests that then put something there.
    #[cfg(test)]
    pub(crate) asked: std::cell::RefCell<std::collections::BTreeSet<String>>,
}

/// Why something could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// The path.
    pub path: String,
    /// Why.
    pub why: Why,
}

/// The sorts of reasons why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is not there.
    Missing,
    /// The caller may not.
    NotAllowed,
    /// Something else, in words.
    Other(String),
}

impl Unread {
    /// Something that was read and is not what it should be.
    #[must_use]
    pub fn not_understood(path: &str, what: &str) -> Self {
        let shown: String = what.chars().take(60).collect();
        Self { path: path.into(), why: Why::Other(format!("not understood: {shown:?}")) }
    }

    /// Whether it is not there, as opposed to hidden.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.why == Why::Missing
    }

    fn of(path: &str, error: &io::Error) -> Self {
        let why = match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Why::Missing,
            io::ErrorKind::PermissionDenied => Why::NotAllowed,
            // A process that ended since its file was opened.
            _ if error.raw_os_error() == Some(libc::ESRCH) => Why::Missing,
            _ => Why::Other(error.to_string()),
        };
        Self { path: path.into(), why }
    }
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.why {
            Why::Missing => write!(f, "{} is not there", self.path),
            Why::NotAllowed => write!(f, "{} may not be read; run this as root", self.path),
            Why::Other(why) => write!(f, "{}: {why}", self.path),
        }
    }
}

impl System {
    /// The machine this runs on. Things that take long are measured too if `measures`.
    #[must_use]
    pub fn live(measures: bool) -> Self {
        let lacks = if host::is_root() {
            None
        } else if host::in_container() {
            Some("run this on the machine itself, not in a container".into())
        } else {
            Some("run this as root".into())
        };
        Self::new(PathBuf::from("/"), true, measures, lacks)
    }

    /// Files of a machine below a folder. Nothing is tried.
    #[must_use]
    pub fn below(root: &Path) -> Self {
        Self::new(root.to_owned(), false, false, None)
    }

    fn new(root: PathBuf, live: bool, measures: bool, lacks: Option<String>) -> Self {
        Self {
            root,
            live,
            measures,
            lacks,
            config: OnceCell::new(),
            #[cfg(test)]
            folder: None,
            #[cfg(test)]
            asked: std::cell::RefCell::default(),
        }
    }

    /// A machine of these files. A path that ends with a slash is an empty folder; content that begins with `-> ` is a
    /// symbolic link's.
    #[cfg(test)]
    pub(crate) fn fake(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let at = folder.path().join(path.trim_start_matches('/'));
            if path.ends_with('/') {
                fs::create_dir_all(&at).unwrap();
                continue;
            }
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            match content.strip_prefix("-> ") {
                Some(target) => std::os::unix::fs::symlink(target, &at).unwrap(),
                None => fs::write(&at, content).unwrap(),
            }
        }
        let mut system = Self::below(folder.path());
        system.folder = Some(folder);
        system
    }

    /// The folder of a fake machine, for files that are no text.
    #[cfg(test)]
    pub(crate) fn folder(&self) -> &Path {
        &self.root
    }

    /// Returns the machine with one file more, whose content is not text.
    #[cfg(test)]
    pub(crate) fn with(self, path: &str, content: &[u8]) -> Self {
        let at = self.at(path);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(at, content).unwrap();
        self
    }

    /// Returns the machine as a user without root sees it.
    #[cfg(test)]
    pub(crate) fn not_root(mut self) -> Self {
        self.lacks = Some("run this as root".into());
        self
    }

    /// Whether this is the running machine, which may be tried.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Whether what takes longer than an instant is wanted.
    #[must_use]
    pub fn measures(&self) -> bool {
        self.live && self.measures
    }

    /// Returns what the caller has to do to read and try everything; `None` for root on the machine itself.
    #[must_use]
    pub fn lacks_root(&self) -> Option<&str> {
        self.lacks.as_deref()
    }

    fn at(&self, path: &str) -> PathBuf {
        #[cfg(test)]
        self.asked.borrow_mut().insert(path.into());
        self.root.join(path.trim_start_matches('/'))
    }

    /// A file's bytes, at most 8 MiB of them.
    ///
    /// # Errors
    /// [`Unread`], which says why.
    pub fn bytes(&self, path: &str) -> Result<Vec<u8>, Unread> {
        self.beginning(path, SIZE)
    }

    /// The first bytes of a file: some files of /proc take long to their end.
    ///
    /// # Errors
    /// [`Unread`], which says why.
    pub fn beginning(&self, path: &str, size: u64) -> Result<Vec<u8>, Unread> {
        let read = || -> io::Result<Vec<u8>> {
            // A pipe or a device in place of a file must not be waited for.
            let file =
                fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(self.at(path))?;
            let mut bytes = Vec::new();
            file.take(size.min(SIZE)).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        read().map_err(|error| Unread::of(path, &error))
    }

    /// A file's text, without white space around it. What is not UTF-8 is replaced.
    ///
    /// # Errors
    /// [`Unread`], which says why.
    pub fn text(&self, path: &str) -> Result<String, Unread> {
        Ok(String::from_utf8_lossy(&self.bytes(path)?).trim().to_owned())
    }

    /// A file that holds one number.
    ///
    /// # Errors
    /// [`Unread`], also where it is no number.
    pub fn number(&self, path: &str) -> Result<i64, Unread> {
        let text = self.text(path)?;
        text.parse().map_err(|_| Unread::not_understood(path, &text))
    }

    /// A setting by its name, such as `kernel.kptr_restrict`.
    ///
    /// # Errors
    /// [`Unread`], which says why.
    pub fn setting(&self, name: &str) -> Result<String, Unread> {
        self.text(&setting_path(name))
    }

    /// Whether there is something at a path; also true for what may not be read.
    #[must_use]
    pub fn exists(&self, path: &str) -> bool {
        fs::symlink_metadata(self.at(path)).is_ok()
    }

    /// The names in a folder, sorted.
    ///
    /// # Errors
    /// [`Unread`], which says why.
    pub fn names(&self, path: &str) -> Result<Vec<String>, Unread> {
        let entries = fs::read_dir(self.at(path)).map_err(|error| Unread::of(path, &error))?;
        let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        let mut names: Vec<String> = entries.take(ENTRIES).filter_map(|entry| entry.ok().map(name)).collect();
        names.sort();
        Ok(names)
    }

    /// Where a symbolic link leads, as it stands there.
    ///
    /// # Errors
    /// [`Unread`], which says why.
    pub fn link(&self, path: &str) -> Result<String, Unread> {
        fs::read_link(self.at(path))
            .map(|target| target.to_string_lossy().into_owned())
            .map_err(|error| Unread::of(path, &error))
    }

    /// The numbers of all processes.
    ///
    /// # Errors
    /// [`Unread`] when /proc cannot be listed.
    pub fn processes(&self) -> Result<Vec<u32>, Unread> {
        Ok(self.names("/proc")?.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// The kernel's release, as `uname -r` prints it.
    ///
    /// # Errors
    /// [`Unread`] when /proc does not tell.
    pub fn release(&self) -> Result<String, Unread> {
        self.text("/proc/sys/kernel/osrelease")
    }

    /// Whether the kernel is of this version or newer; false where nobody knows.
    #[must_use]
    pub fn is_at_least(&self, major: u32, minor: u32) -> bool {
        let Ok(release) = self.release() else { return false };
        let mut numbers = release.split(['.', '-', '+']).map_while(|word| word.parse::<u32>().ok());
        match (numbers.next(), numbers.next()) {
            (Some(x), Some(y)) => (x, y) >= (major, minor),
            _ => false,
        }
    }

    /// Returns the kernel's configuration.
    ///
    /// # Errors
    /// [`Unread`] when no copy of its configuration is found.
    pub fn config(&self) -> Result<&Config, Unread> {
        self.config.get_or_init(|| read_config(self)).as_ref().map_err(Clone::clone)
    }

    /// The words of the kernel's command line.
    ///
    /// # Errors
    /// [`Unread`] when /proc does not tell.
    pub fn cmdline(&self) -> Result<Vec<String>, Unread> {
        Ok(words(&self.text("/proc/cmdline")?))
    }

    /// Returns the value of a parameter on the kernel's command line: the last one counts, `-` and `_` are the same, and one without a
    /// value is an empty string.
    ///
    /// # Errors
    /// [`Unread`] when /proc does not tell.
    pub fn parameter(&self, name: &str) -> Result<Option<String>, Unread> {
        let same = |other: &str| other.replace('-', "_") == name.replace('-', "_");
        let words = self.cmdline()?;
        let value = words.iter().rev().find_map(|word| {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            same(key).then(|| value.to_owned())
        });
        Ok(value)
    }
}

/// The file of a setting: full stops are slashes.
#[must_use]
pub fn setting_path(name: &str) -> String {
    format!("/proc/sys/{}", name.replace('.', "/"))
}

/// A value as the kernel reads booleans (`kstrtobool`): by the first letter, and the second of `on` and `off`.
#[must_use]
pub(crate) fn boolean(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_bytes() {
        [b'y' | b't' | b'1', ..] | [b'o', b'n', ..] => Some(true),
        [b'n' | b'f' | b'0', ..] | [b'o', b'f', ..] => Some(false),
        _ => None,
    }
}

/// Words as the kernel takes them apart: white space between quotes belongs to a word, and `--` begins what is the first program's.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => {
                if word == "--" {
                    return words;
                }
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            c => word.push(c),
        }
    }
    if !word.is_empty() && word != "--" {
        words.push(word);
    }
    words
}

/// Reads the configuration of the kernel.
fn read_config(system: &System) -> Result<Config, Unread> {
    const OWN: &str = "/proc/config.gz";
    if let Ok(packed) = system.bytes(OWN) {
        let mut text = Vec::new();
        return match GzDecoder::new(packed.as_slice()).take(CONFIG_SIZE).read_to_end(&mut text) {
            Ok(_) => Ok(Config::parse(OWN, &String::from_utf8_lossy(&text))),
            Err(error) => Err(Unread::not_understood(OWN, &error.to_string())),
        };
    }
    let release = system.release()?;
    // It becomes part of a path.
    if release.is_empty() || release.contains('/') {
        return Err(Unread::not_understood("/proc/sys/kernel/osrelease", &release));
    }
    let copies = [
        format!("/boot/config-{release}"),
        format!("/lib/modules/{release}/config"),
        format!("/usr/lib/modules/{release}/config"),
        format!("/usr/lib/kernel/config-{release}"),
    ];
    let mut last = None;
    for path in copies {
        match system.text(&path) {
            Ok(text) => return Ok(Config::parse(&path, &text)),
            Err(unread) if unread.is_missing() => {
                last.get_or_insert(Unread {
                    path: format!("the kernel's configuration ({OWN} or {path})"),
                    ..unread
                });
            }
            Err(unread) => last = Some(unread),
        }
    }
    Err(last.unwrap_or_else(|| Unread::not_understood(OWN, "")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_read_as_the_kernel_reads_it() {
        let system = System::fake(&[(
            "/proc/cmdline",
            "quiet init-on-alloc=0 a=\"b c\" init_on_alloc=1 nokaslr -- mitigations=off\n",
        )]);
        assert_eq!(
            system.cmdline().unwrap(),
            ["quiet", "init-on-alloc=0", "a=b c", "init_on_alloc=1", "nokaslr"]
        );
        assert_eq!(system.parameter("init_on_alloc").unwrap().as_deref(), Some("1"));
        assert_eq!(system.parameter("nokaslr").unwrap().as_deref(), Some(""));
        assert_eq!(system.parameter("mitigations").unwrap(), None);
    }

    #[test]
    fn booleans_are_read_as_the_kernel_reads_them() {
        for (value, is) in [
            ("1", Some(true)),
            ("on", Some(true)),
            ("Yes", Some(true)),
            ("off", Some(false)),
            ("0", Some(false)),
        ] {
            assert_eq!(boolean(value), is, "{value}");
        }
        assert_eq!([boolean(""), boolean("o"), boolean("2")], [None; 3]);
    }

    #[test]
    fn what_is_missing_is_told_from_what_is_wrong() {
        let system = System::fake(&[
            ("/proc/sys/kernel/x", "seven"),
            ("/proc/sys/kernel/osrelease", "6.12.3-amd64\n"),
        ]);
        assert!(system.number("/proc/sys/kernel/y").unwrap_err().is_missing());
        assert_eq!(
            system.number("/proc/sys/kernel/x").unwrap_err().to_string(),
            "/proc/sys/kernel/x: not understood: \"seven\""
        );
        assert!(system.is_at_least(6, 12) && !system.is_at_least(6, 13));
        assert_eq!(system.setting("kernel.x").unwrap(), "seven");
        assert_eq!(system.lacks_root(), None);
        assert_eq!(system.not_root().lacks_root(), Some("run this as root"));
    }

    #[test]
    fn a_process_that_has_ended_is_missing() {
        let of = |errno| Unread::of("/proc/7/maps", &io::Error::from_raw_os_error(errno));
        assert!(of(libc::ESRCH).is_missing() && of(libc::ENOENT).is_missing());
        assert!(!of(libc::EACCES).is_missing() && !of(libc::EIO).is_missing());
    }

    #[test]
    fn a_pipe_in_place_of_a_file_is_not_waited_for() {
        let system = System::fake(&[("/proc/", "")]);
        let path = std::ffi::CString::new(system.at("/proc/x").to_str().unwrap()).unwrap();
        // SAFETY: the path is a string that lives for the call.
        assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
        assert_eq!(system.text("/proc/x").unwrap_or_default(), "");
    }
}
