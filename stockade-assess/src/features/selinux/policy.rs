/*!
The front of a binary policy of SELinux: its version, the types that are permissive, and the booleans as it sets them.

```text
magic, "SE Linux", version, configuration, numbers of tables
capabilities (22), permissive types (23), types never audited (35)      as bit maps
tables: commons, classes, roles, types, users, booleans, …              each: two numbers, entries
rules, which are most of it and are not looked at
```

In brackets the version from which something is there. All numbers are of 32 bits, the lowest byte first. Lengths in it are not
believed: whoever reads past the end gets nothing.
*/
use std::collections::BTreeMap;

const MAGIC: u32 = 0xf97c_ff8c;
const NAME: &[u8] = b"SE Linux";

/// The newest version whose tables are known here.
const NEWEST: u32 = 35;

/// The length of a map's word in the file: the number of its first bit, and 64 bits.
const WORD: usize = 12;

/// More bits than any map of a policy has.
const BITS: usize = 1 << 20;

/// Set in the properties of a type that is none other's alias.
const PRIMARY: u32 = 1;

/// An expression that names types, roles or users.
const NAMES: u32 = 5;

/// The result.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) version: u32,
    /// The permissive types by their numbers.
    permissive: Vec<u32>,
    /// None where the tables were not understood.
    tables: Option<Tables>,
}

#[derive(Debug, PartialEq, Eq)]
struct Tables {
    types: BTreeMap<u32, String>,
    booleans: BTreeMap<String, bool>,
}

impl Policy {
    /// None for what is no policy.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let mut rest = Reader(bytes);
        if rest.number()? != MAGIC || usize::try_from(rest.number()?).ok()? != NAME.len() {
            return None;
        }
        if rest.take(NAME.len())? != NAME {
            return None;
        }
        let [version, _configuration, _symbols, _contexts] = rest.numbers()?;
        if version >= 22 {
            rest.skip_bits()?;
        }
        let permissive = if version >= 23 { rest.bits()? } else { Vec::new() };
        if version >= 35 {
            rest.skip_bits()?;
        }
        let tables = if version <= NEWEST { rest.tables(version) } else { None };
        Some(Self { version, permissive, tables })
    }

    /// The permissive types by their names, or numbers where those are not to be had.
    pub(super) fn permissive(&self) -> Vec<String> {
        let name = |number: &u32| match self.tables.as_ref().and_then(|tables| tables.types.get(number)) {
            Some(name) => name.clone(),
            None => format!("type {number}"),
        };
        self.permissive.iter().map(name).collect()
    }

    /// The booleans as this policy sets them.
    pub(super) fn booleans(&self) -> Option<&BTreeMap<String, bool>> {
        self.tables.as_ref().map(|tables| &tables.booleans)
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u32> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*taken))
    }

    fn numbers<const N: usize>(&mut self) -> Option<[u32; N]> {
        let mut numbers = [0; N];
        for number in &mut numbers {
            *number = self.number()?;
        }
        Some(numbers)
    }

    fn text(&mut self, length: u32) -> Option<String> {
        let bytes = self.take(usize::try_from(length).ok()?)?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    }

    /// Which bits are set in a map: words of 64, each with the number of its first bit.
    fn bits(&mut self) -> Option<Vec<u32>> {
        let [size, _highest, words] = self.numbers()?;
        if size != u64::BITS {
            return None;
        }
        let mut set = Vec::new();
        for _ in 0..words {
            let first = self.number()?;
            let [low, high] = self.numbers()?;
            let word = u64::from(low) | u64::from(high) << u32::BITS;
            let bits = (0..u64::BITS).filter(|bit| word >> bit & 1 == 1);
            set.extend(bits.filter_map(|bit| first.checked_add(bit)));
            if set.len() > BITS {
                return None;
            }
        }
        Some(set)
    }

    fn skip(&mut self, length: u32) -> Option<()> {
        self.take(usize::try_from(length).ok()?).map(|_| ())
    }

    /// Most maps are of no interest, and some are long.
    fn skip_bits(&mut self) -> Option<()> {
        let [size, _highest, words] = self.numbers()?;
        if size != u64::BITS {
            return None;
        }
        self.take(usize::try_from(words).ok()?.checked_mul(WORD)?).map(|_| ())
    }

    fn tables(&mut self, version: u32) -> Option<Tables> {
        self.table(Self::common)?;
        self.table(|rest| rest.class(version))?;
        self.table(|rest| rest.role(version))?;
        let types = self.table(|rest| rest.type_(version))?.into_iter();
        // An alias has the number of another.
        let types = types.filter(|(_, _, properties)| properties & PRIMARY != 0);
        let types = types.map(|(number, name, _)| (number, name)).collect();
        self.table(|rest| rest.user(version))?;
        let booleans = self.table(Self::boolean)?.into_iter().collect();
        Some(Tables { types, booleans })
    }

    fn table<T>(&mut self, mut entry: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let [_names, entries] = self.numbers()?;
        let mut all = Vec::new();
        for _ in 0..entries {
            all.push(entry(self)?);
        }
        Some(all)
    }

    fn permissions(&mut self, count: u32) -> Option<()> {
        for _ in 0..count {
            let [length, _value] = self.numbers()?;
            self.skip(length)?;
        }
        Some(())
    }

    fn common(&mut self) -> Option<()> {
        let [length, _value, _names, permissions] = self.numbers()?;
        self.skip(length)?;
        self.permissions(permissions)
    }

    fn class(&mut self, version: u32) -> Option<()> {
        let [length, common, _value, _names, permissions, constraints] = self.numbers()?;
        self.skip(length)?;
        self.skip(common)?;
        self.permissions(permissions)?;
        self.constraints(constraints, version)?;
        if version >= 19 {
            let transitions = self.number()?;
            self.constraints(transitions, version)?;
        }
        if version >= 27 {
            self.numbers::<3>()?;
        }
        if version >= 28 {
            self.number()?;
        }
        Some(())
    }

    fn constraints(&mut self, count: u32, version: u32) -> Option<()> {
        for _ in 0..count {
            let [_permissions, expressions] = self.numbers()?;
            for _ in 0..expressions {
                let [kind, _attribute, _operator] = self.numbers()?;
                if kind == NAMES {
                    self.skip_bits()?;
                    if version >= 29 {
                        self.skip_bits()?;
                        self.skip_bits()?;
                        self.number()?;
                    }
                }
            }
        }
        Some(())
    }

    fn role(&mut self, version: u32) -> Option<()> {
        let [length, _value] = self.numbers()?;
        self.bounds(version)?;
        self.skip(length)?;
        self.skip_bits()?;
        self.skip_bits()?;
        Some(())
    }

    fn type_(&mut self, version: u32) -> Option<(u32, String, u32)> {
        let [length, value, properties] = self.numbers()?;
        self.bounds(version)?;
        Some((value, self.text(length)?, properties))
    }

    fn user(&mut self, version: u32) -> Option<()> {
        let [length, _value] = self.numbers()?;
        self.bounds(version)?;
        self.skip(length)?;
        self.skip_bits()?;
        if version >= 19 {
            // A range of levels, which are numbers first and categories then, and a level.
            let levels = self.number()?;
            if !(1..=2).contains(&levels) {
                return None;
            }
            for _ in 0..levels {
                self.number()?;
            }
            for _ in 0..levels {
                self.skip_bits()?;
            }
            self.number()?;
            self.skip_bits()?;
        }
        Some(())
    }

    fn boolean(&mut self) -> Option<(String, bool)> {
        let [_value, state, length] = self.numbers()?;
        Some((self.text(length)?, state != 0))
    }

    fn bounds(&mut self, version: u32) -> Option<()> {
        if version >= 24 {
            self.number()?;
        }
        Some(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes of a policy that is made up.
    #[derive(Default)]
    struct Writer(Vec<u8>);

    impl Writer {
        fn numbers(&mut self, numbers: &[u32]) -> &mut Self {
            self.0.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
            self
        }

        fn text(&mut self, text: &str) -> &mut Self {
            self.0.extend(text.as_bytes());
            self
        }

        fn bits(&mut self, set: &[u32]) -> &mut Self {
            self.numbers(&[64, 64, u32::from(!set.is_empty())]);
            if !set.is_empty() {
                let word = set.iter().fold(0_u64, |word, bit| word | 1 << bit);
                self.numbers(&[0]);
                self.0.extend(word.to_le_bytes());
            }
            self
        }
    }

    fn length(text: &str) -> u32 {
        u32::try_from(text.len()).unwrap()
    }

    /// A policy of this version with three types and an alias of the last, these of which are permissive, and one boolean.
    pub(in super::super) fn made(version: u32, permissive: &[u32], boolean: (&str, bool)) -> Vec<u8> {
        let mut to = Writer::default();
        to.numbers(&[MAGIC, 8]).text("SE Linux").numbers(&[version, 1, 8, 9]);
        to.bits(&[1, 2]).bits(permissive);
        if version >= 35 {
            to.bits(&[7]);
        }
        to.numbers(&[1, 1]).numbers(&[4, 1, 1, 1]).text("file").numbers(&[4, 1]).text("read");
        to.numbers(&[1, 1]).numbers(&[3, 4, 1, 1, 0, 1]).text("dir").text("file");
        to.numbers(&[1, 1]).numbers(&[NAMES, 4, 1]).bits(&[3]).bits(&[]).bits(&[3]).numbers(&[0]);
        to.numbers(&[0]).numbers(&[0, 0, 0]).numbers(&[0]);
        to.numbers(&[1, 1]).numbers(&[8, 1, 0]).text("object_r").bits(&[]).bits(&[1]);
        to.numbers(&[3, 4]);
        for (number, name, primary) in [(1, "a_t", 1), (2, "b_t", 1), (3, "c_t", 1), (3, "alias_t", 0)] {
            to.numbers(&[length(name), number, primary, 0]).text(name);
        }
        to.numbers(&[1, 1]).numbers(&[1, 1, 0]).text("u").bits(&[1]);
        to.numbers(&[2, 1, 1]).bits(&[]).bits(&[4]).numbers(&[1]).bits(&[]);
        to.numbers(&[1, 1]).numbers(&[1, boolean.1.into(), length(boolean.0)]).text(boolean.0);
        to.0
    }

    #[test]
    fn permissive_types_and_booleans_are_found() {
        for version in [33, 35] {
            let policy = Policy::read(&made(version, &[1, 3], ("x", true))).unwrap();
            assert_eq!(
                (policy.version, policy.permissive()),
                (version, vec!["a_t".to_owned(), "c_t".to_owned()])
            );
            assert_eq!(policy.booleans().unwrap().get("x"), Some(&true));
        }
    }

    #[test]
    fn a_version_that_is_not_known_still_tells_how_many_are_permissive() {
        let policy = Policy::read(&made(36, &[2], ("x", true))).unwrap();
        assert_eq!((policy.permissive(), policy.booleans()), (vec!["type 2".to_owned()], None));
        assert_eq!(Policy::read(b""), None);
    }

    proptest! {
        #[test]
        fn whatever_is_cut_off_or_changed_is_survived(at in 0_usize..600, byte: u8, cut in 0_usize..600) {
            let mut bytes = made(33, &[1], ("x", false));
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            bytes.truncate(cut);
            let _ = Policy::read(&bytes);
        }
    }
}
