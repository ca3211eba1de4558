/*!
Lists of keys and digests (EFI_SIGNATURE_LIST, UEFI specification, 32.4.1), counted.

```text
list   16 bytes  what kind: certificates, SHA-256 digests, …
        4        length of all of it
        4        length of a header for all entries
        4        length of an entry
        …        the header, then entries: 16 bytes of an owner, then the key or digest
```
*/
use std::collections::BTreeMap;

/// Everything before a list's own header.
const HEAD: usize = 28;

/// The owner before each entry.
const OWNER: usize = 16;

/// Kinds, as they lie in memory: the first three numbers of a GUID are little-endian.
const KINDS: [([u8; 16], &str); 3] = [
    (kind(0xa5c0_59a1, 0x94e4, 0x4aa7, [0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72]), "certificates"),
    (
        kind(0xc1c4_1626, 0x504c, 0x4092, [0xac, 0xa9, 0x41, 0xf9, 0x36, 0x93, 0x43, 0x28]),
        "digests of programs",
    ),
    (
        kind(0x3bd2_a492, 0x96c0, 0x4079, [0xb4, 0x20, 0xfc, 0xf9, 0x8e, 0xf1, 0x03, 0xed]),
        "digests of certificates",
    ),
];

const fn kind(a: u32, b: u16, c: u16, d: [u8; 8]) -> [u8; 16] {
    let (a, b, c) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
    [a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]]
}

/// How many entries of each kind there are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Lists(BTreeMap<&'static str, usize>);

impl Lists {
    /// Takes a variable's value apart. An empty one has no lists.
    pub(super) fn parse(mut rest: &[u8]) -> Result<Self, String> {
        let mut lists = Self::default();
        while !rest.is_empty() {
            let (list, behind) = split(rest)?;
            *lists.0.entry(list.kind).or_default() += list.entries;
            rest = behind;
        }
        Ok(lists)
    }

    /// All of them.
    pub(super) fn entries(&self) -> usize {
        self.0.values().sum()
    }

    /// For people.
    pub(super) fn in_words(&self, bytes: usize) -> String {
        if self.0.is_empty() {
            return "empty or not there".into();
        }
        let kinds: Vec<String> = self.0.iter().map(|(kind, entries)| format!("{kind}: {entries}")).collect();
        format!("{}, {bytes} bytes", kinds.join(", "))
    }
}

struct List {
    kind: &'static str,
    entries: usize,
}

/// The first list, and what is behind it.
fn split(bytes: &[u8]) -> Result<(List, &[u8]), String> {
    let too_short = || format!("a list ends after {} bytes", bytes.len());
    let (guid, rest) = bytes.split_first_chunk::<16>().ok_or_else(too_short)?;
    let mut rest = rest;
    let mut number = || {
        let (number, behind) = rest.split_first_chunk::<4>().ok_or_else(too_short)?;
        rest = behind;
        usize::try_from(u32::from_le_bytes(*number)).map_err(|error| error.to_string())
    };
    let (length, header, entry) = (number()?, number()?, number()?);
    let list = bytes.get(..length).ok_or_else(too_short)?;
    let entries = list.get(HEAD..).and_then(|body| body.get(header..));
    let entries = entries.ok_or_else(|| format!("a list of {length} bytes is shorter than its head"))?;
    if entry <= OWNER || !entries.len().is_multiple_of(entry) {
        return Err(format!("{} bytes are no entries of {entry} bytes each", entries.len()));
    }
    let kind = KINDS.iter().find(|(known, _)| known == guid).map_or("others", |(_, name)| *name);
    Ok((List { kind, entries: entries.len() / entry }, &bytes[length..]))
}

/// A list of certificates of one size.
#[cfg(test)]
pub(crate) fn list(certificates: &[&[u8]]) -> Vec<u8> {
    let entry = certificates.first().map_or(OWNER + 1, |first| OWNER + first.len());
    let mut list = KINDS[0].0.to_vec();
    for number in [HEAD + entry * certificates.len(), 0, entry] {
        list.extend(u32::try_from(number).unwrap().to_le_bytes());
    }
    for certificate in certificates {
        list.extend([0; OWNER]);
        list.extend(*certificate);
    }
    list
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn entries_are_counted_by_kind() {
        let mut bytes = list(&[b"first", b"other"]);
        let mut digests = list(&[&[7; 32]]);
        digests[..16].copy_from_slice(&KINDS[1].0);
        bytes.extend(digests);
        let lists = Lists::parse(&bytes).unwrap();
        assert_eq!(lists.entries(), 3);
        assert_eq!(lists.in_words(9), "certificates: 2, digests of programs: 1, 9 bytes");
        assert_eq!(Lists::parse(&[]).unwrap().entries(), 0);
    }

    #[test]
    fn what_is_no_list_is_an_error() {
        let good = list(&[b"first"]);
        for cut in 1..good.len() {
            assert!(Lists::parse(&good[..cut]).is_err(), "{cut}");
        }
        let mut endless = good.clone();
        endless[16..20].fill(0);
        assert!(Lists::parse(&endless).is_err());
        let mut entries = good;
        entries[24..28].fill(0);
        assert!(Lists::parse(&entries).is_err());
    }

    proptest! {
        #[test]
        fn garbage_never_ends_badly(bytes in prop::collection::vec(any::<u8>(), 0..200), numbers: [u8; 3]) {
            let _ = Lists::parse(&bytes);
            let mut likely = list(&[&bytes]);
            for (at, number) in [16, 20, 24].into_iter().zip(numbers) {
                likely[at] = number;
            }
            let _ = Lists::parse(&likely);
        }

        #[test]
        fn every_entry_is_counted(entries in 1..50_usize, size in 1..40_usize) {
            let entry = vec![0; size];
            let bytes = list(&vec![entry.as_slice(); entries]);
            prop_assert_eq!(Lists::parse(&bytes).map(|lists| lists.entries()), Ok(entries));
        }
    }
}
