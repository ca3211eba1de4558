/*!
The instructions that the processors have, as /proc/cpuinfo names them.
*/
use crate::system::{System, Unread};

/// The file.
pub(crate) const CPUINFO: &str = "/proc/cpuinfo";

/// The first processor's instructions and features.
#[derive(Debug)]
pub(crate) struct Instructions(Vec<String>);

impl Instructions {
    /// # Errors
    /// When the file cannot be read, or has no such line: not every architecture has one.
    pub fn of(system: &System) -> Result<Self, Unread> {
        let text = system.text(CPUINFO)?;
        let line = text.lines().filter_map(|line| line.split_once(':')).find_map(|(key, value)| {
            // x86 and others, ARM.
            matches!(key.trim(), "flags" | "Features").then_some(value)
        });
        match line {
            Some(words) => Ok(Self(words.split_whitespace().map(str::to_owned).collect())),
            None => Err(Unread {
                path: CPUINFO.into(),
                why: crate::system::Why::Other("names no instructions".into()),
            }),
        }
    }

    /// Whether they have this one.
    pub fn have(&self, name: &str) -> bool {
        self.0.iter().any(|one| one == name)
    }

    /// Those of these that they have.
    pub fn among<'a>(&self, names: &[&'a str]) -> Vec<&'a str> {
        names.iter().copied().filter(|name| self.have(name)).collect()
    }
}
