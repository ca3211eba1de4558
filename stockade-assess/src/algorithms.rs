/*!
What the kernel's crypto API offers, as /proc/crypto lists it: one block of lines for each implementation.
*/
use crate::system::{System, Unread};

/// The list.
pub(crate) const LIST: &str = "/proc/crypto";

/// More than this are not looked at; kernels have a few hundred.
const MOST: usize = 20_000;

/// An implementation of an algorithm.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Implementation {
    /// The algorithm, such as `xts(aes)`.
    pub name: String,
    /// The implementation's own name, such as `xts-aes-aesni`.
    pub driver: String,
    /// How many users it has, besides the list.
    pub users: i64,
    /// Whether it passed the kernel's own test. The kernel says so as well where it tests nothing.
    pub passed: bool,
    /// Whether only other implementations may use it.
    pub internal: bool,
}

/// Everything that is registered now.
#[derive(Debug)]
pub(crate) struct Algorithms(pub Vec<Implementation>);

impl Algorithms {
    /// # Errors
    /// When the list cannot be read, or holds nothing that is understood.
    pub fn of(system: &System) -> Result<Self, Unread> {
        let text = system.text(LIST)?;
        let list = parse(&text);
        if list.is_empty() { Err(Unread::not_understood(LIST, &text)) } else { Ok(Self(list)) }
    }
}

fn parse(text: &str) -> Vec<Implementation> {
    let mut list: Vec<Implementation> = Vec::new();
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        if key.trim() == "name" {
            if list.len() == MOST {
                break;
            }
            list.push(Implementation { name: value.into(), ..Implementation::default() });
            continue;
        }
        let Some(one) = list.last_mut() else { continue };
        match key.trim() {
            "driver" => one.driver = value.into(),
            "refcnt" => one.users = value.parse::<i64>().unwrap_or(1).saturating_sub(1),
            "selftest" => one.passed = value == "passed",
            "internal" => one.internal = value == "yes",
            _ => {}
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_is_not_a_list() {
        for text in ["", "::\n:", "driver : x\n", "\u{0}\u{1}"] {
            assert!(Algorithms::of(&System::fake(&[(LIST, text)])).is_err(), "{text:?}");
        }
    }
}
