/*!
What the kernel was built with: /proc/config.gz where it keeps its configuration, else the copy that distributions install beside it.
*/
use std::collections::HashMap;

/// A kernel's configuration.
#[derive(Debug)]
pub struct Config {
    /// The file it was read from.
    pub path: String,
    options: HashMap<String, String>,
}

impl Config {
    /// Parses a configuration that was read from this file.
    pub(crate) fn parse(path: &str, text: &str) -> Self {
        let options = text.lines().filter_map(|line| {
            let (name, value) = line.trim().split_once('=')?;
            name.starts_with("CONFIG_").then(|| (name.to_owned(), value.trim_matches('"').to_owned()))
        });
        Self { path: path.into(), options: options.collect() }
    }

    /// An option's value, such as `y`, `m`, a number, or a string without its quotes; none if it is not set.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.options.get(name).map(String::as_str)
    }

    /// Whether an option is built in or a module.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        matches!(self.get(name), Some("y" | "m"))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use crate::System;

    #[test]
    fn options_are_read_from_either_place() {
        let text = "# a comment\nCONFIG_A=y\n# CONFIG_B is not set\nCONFIG_LSM=\"a,b\"\n";
        let system = System::fake(&[("/proc/sys/kernel/osrelease", "6.1.0"), ("/boot/config-6.1.0", text)]);
        let config = system.config().unwrap();
        assert!(config.has("CONFIG_A") && !config.has("CONFIG_B"));
        assert_eq!(config.get("CONFIG_LSM"), Some("a,b"));

        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(b"CONFIG_C=m\n").unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("proc")).unwrap();
        std::fs::write(folder.path().join("proc/config.gz"), packed.finish().unwrap()).unwrap();
        assert!(System::below(folder.path()).config().unwrap().has("CONFIG_C"));
    }

    #[test]
    fn a_missing_one_says_where_it_was_looked_for() {
        let system = System::fake(&[("/proc/sys/kernel/osrelease", "6.1.0")]);
        let unread = system.config().unwrap_err();
        assert_eq!(
            unread.to_string(),
            "the kernel's configuration (/proc/config.gz or /boot/config-6.1.0) is not there"
        );
        assert!(System::fake(&[("/proc/config.gz", "garbage")]).config().is_err());
    }
}
