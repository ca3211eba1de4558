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
    /// The module it comes from; `kernel` where it is built in.
    pub module: String,
    /// The one with the highest serves who asks for the algorithm.
    pub priority: i64,
    /// How many users it has, besides the list.
    pub users: i64,
    /// Whether it passed the kernel's own test. The kernel says so as well where it tests nothing.
    pub passed: bool,
    /// Whether only other implementations may use it.
    pub internal: bool,
    /// Such as `skcipher`, `shash`.
    pub kind: String,
}

impl Implementation {
    /// Whether programs get it when they ask.
    pub fn is_usable(&self) -> bool {
        self.passed && !self.internal && !self.driver.is_empty()
    }
}

/// Everything that is registered now.
#[derive(Debug)]
pub(crate) struct Algorithms(pub Vec<Implementation>);

impl Algorithms {
    /// # Errors
    /// When the list cannot be read, or holds nothing that is understood.
    pub fn of(system: &System) -> Result<Self, Unread> {
        let text = system.text(LIST)?;
        let mut list = parse(&text);
        // Somebody is being answered: an implementation that is looked for, or being tested.
        list.retain(|one| one.kind != "larval");
        if list.is_empty() { Err(Unread::not_understood(LIST, &text)) } else { Ok(Self(list)) }
    }

    /// The implementations of an algorithm that programs can get, the one that serves first.
    pub fn usable(&self, name: &str) -> Vec<&Implementation> {
        let mut found: Vec<_> = self.0.iter().filter(|one| one.name == name && one.is_usable()).collect();
        // The kernel takes the newest among equals, and lists the newest first: the order is kept.
        found.sort_by_key(|one| std::cmp::Reverse(one.priority));
        found
    }

    /// Whether using an implementation registers nothing new. On older kernels (6.1 still, 7.2 no more), those of x86 that use vector
    /// registers rest on an internal one, `__…`, and wrap that in `cryptd(__…)` when they are first used; the wrapping stays in the list.
    ///
    /// # Errors
    /// The implementations that would be registered.
    pub fn is_in_use(&self, one: &Implementation) -> Result<(), String> {
        let internal = format!("__{}", one.driver);
        let wrapped = format!("cryptd({internal})");
        let has = |driver: &str| self.0.iter().any(|other| other.driver == driver);
        if has(&internal) && !has(&wrapped) {
            return Err(format!(
                "nothing has used {} yet, and using it would register {wrapped}",
                one.driver
            ));
        }
        Ok(())
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
            "module" => one.module = value.into(),
            "priority" => one.priority = value.parse().unwrap_or(0),
            "refcnt" => one.users = value.parse::<i64>().unwrap_or(1).saturating_sub(1),
            "selftest" => one.passed = value == "passed",
            "internal" => one.internal = value == "yes",
            "type" => one.kind = value.into(),
            _ => {}
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_with_the_highest_priority_serves() {
        let text = "name : aes\ndriver : aes-generic\nmodule : kernel\npriority : 100\nrefcnt : 3\nselftest : passed\n\
                    internal : no\ntype : cipher\n\nname : aes\ndriver : aes-aesni\npriority : 300\nselftest : passed\n\n\
                    name : aes\ndriver : __aes\npriority : 400\nselftest : passed\ninternal : yes\n\n\
                    name : aes\ndriver : aes-broken\npriority : 500\nselftest : unknown\n";
        let algorithms = Algorithms::of(&System::fake(&[(LIST, text)])).unwrap();
        let usable: Vec<_> = algorithms.usable("aes").iter().map(|one| one.driver.as_str()).collect();
        assert_eq!(usable, ["aes-aesni", "aes-generic"]);
        assert_eq!((algorithms.0[0].users, algorithms.0[0].kind.as_str()), (2, "cipher"));
    }

    #[test]
    fn what_is_only_looked_for_is_no_implementation() {
        let text = "name : rsa\ndriver : rsa\nselftest : unknown\ntype : larval\nflags : 0x10\n\nname : md5\ntype : shash\n";
        let algorithms = Algorithms::of(&System::fake(&[(LIST, text)])).unwrap();
        assert_eq!(algorithms.0.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["md5"]);
    }

    #[test]
    fn what_was_never_used_is_told_from_what_was() {
        let asked = |more: &str| {
            let text = format!(
                "name : xts(aes)\ndriver : xts-aes-aesni\n\nname : __xts(aes)\ndriver : __xts-aes-aesni\n\n{more}"
            );
            let algorithms = Algorithms::of(&System::fake(&[(LIST, &text)])).unwrap();
            algorithms.is_in_use(&algorithms.0[0])
        };
        assert!(asked("").unwrap_err().contains("cryptd(__xts-aes-aesni)"));
        assert_eq!(asked("name : __xts(aes)\ndriver : cryptd(__xts-aes-aesni)\n"), Ok(()));
    }

    #[test]
    fn garbage_is_not_a_list() {
        for text in ["", "::\n:", "driver : x\n", "\u{0}\u{1}"] {
            assert!(Algorithms::of(&System::fake(&[(LIST, text)])).is_err(), "{text:?}");
        }
        let algorithms = Algorithms::of(&System::fake(&[(LIST, "name :\nrefcnt : -9223372036854775808")]));
        assert!(!algorithms.unwrap().0[0].is_usable());
    }
}
