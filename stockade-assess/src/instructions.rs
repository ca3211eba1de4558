/*!
The instructions that the processors have, as /proc/cpuinfo names them.
*/
use crate::system::{System, Unread};

/// The file.
pub(crate) const CPUINFO: &str = "/proc/cpuinfo";

/// The first processor's instructions and features.
#[derive(Debug)]
pub(crate) struct Instructions {
    words: Vec<String>,
    /// x86's tell a virtual machine from another.
    x86: bool,
}

impl Instructions {
    /// # Errors
    /// When the file cannot be read, or has no such line: not every architecture has one.
    pub fn of(system: &System) -> Result<Self, Unread> {
        let text = system.text(CPUINFO)?;
        let line = text.lines().filter_map(|line| line.split_once(':')).find_map(|(key, value)| {
            // x86 and others, ARM.
            matches!(key.trim(), "flags" | "Features").then_some((key.trim() == "flags", value))
        });
        match line {
            Some((x86, words)) => {
                Ok(Self { words: words.split_whitespace().map(str::to_owned).collect(), x86 })
            }
            None => Err(Unread {
                path: CPUINFO.into(),
                why: crate::system::Why::Other("names no instructions".into()),
            }),
        }
    }

    /// Whether they have this one.
    pub fn have(&self, name: &str) -> bool {
        self.words.iter().any(|one| one == name)
    }

    /// Whether this is a virtual machine; none where the processor does not tell.
    pub fn of_a_guest(&self) -> Option<bool> {
        self.x86.then(|| self.have("hypervisor"))
    }

    /// Those of these that they have.
    pub fn among<'a>(&self, names: &[&'a str]) -> Vec<&'a str> {
        names.iter().copied().filter(|name| self.have(name)).collect()
    }
}
