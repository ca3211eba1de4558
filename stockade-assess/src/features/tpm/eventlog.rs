/*!
The firmware's event log: what was measured into which register while the machine booted, and the values that follow from it.

Written by the firmware and by whoever ran before the kernel, so it may be anything. Two formats, told apart by the first record (TCG PC Client
Platform Firmware Profile, "Event Logging"); numbers are little endian.

```text
SHA-1          register u32 | type u32 | digest 20 | size u32 | data
crypto agile   the first record as above, of type EV_NO_ACTION; its data is the Spec ID header: which algorithms, and the size of their digests
               register u32 | type u32 | count u32 | count × (algorithm u16 | digest) | size u32 | data
```
*/
use std::fmt;

use sha1::{Digest as _, Sha1};
use sha2::{Sha256, Sha384, Sha512};

/// Tells something and is not measured.
const EV_NO_ACTION: u32 = 3;

/// A variable of the firmware that decides what is booted.
const EV_EFI_VARIABLE_DRIVER_CONFIG: u32 = 0x8000_0001;

/// The separator that systemd measures into the firmware's PCRs when it first sees the TPM, so that earlier events cannot be mistaken for
/// later ones. Version 261 and later.
const SEPARATOR: &[u8] = b"os-separator";

/// The maximum number of separators: one for each kernel that kexec started.
const SEPARATORS: u32 = 8;

/// More algorithms than any TPM has.
const ALGORITHMS: u32 = 16;

/// A bank of registers that this program can compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Bank {
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

impl Bank {
    /// Every bank, the one to rely on first.
    pub(super) const ALL: [Bank; 4] = [Bank::Sha256, Bank::Sha384, Bank::Sha512, Bank::Sha1];

    /// Returns the kernel's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Bank::Sha1 => "sha1",
            Bank::Sha256 => "sha256",
            Bank::Sha384 => "sha384",
            Bank::Sha512 => "sha512",
        }
    }

    /// The bytes of a register.
    pub(super) fn size(self) -> usize {
        match self {
            Bank::Sha1 => 20,
            Bank::Sha256 => 32,
            Bank::Sha384 => 48,
            Bank::Sha512 => 64,
        }
    }

    fn of(algorithm: u16) -> Option<Self> {
        match algorithm {
            4 => Some(Bank::Sha1),
            0xb => Some(Bank::Sha256),
            0xc => Some(Bank::Sha384),
            0xd => Some(Bank::Sha512),
            _ => None,
        }
    }

    /// How often the separator of the system was measured after one value to give another; none if that does not give it. Who measures it
    /// hides nothing: all that came before still counts.
    pub(super) fn separators(self, before: &[u8], after: &[u8]) -> Option<u32> {
        let separator = self.digest(&[SEPARATOR]);
        let mut value = before.to_vec();
        for times in 0..=SEPARATORS {
            if value == after {
                return Some(times);
            }
            value = self.digest(&[&value, &separator]);
        }
        None
    }

    fn digest(self, parts: &[&[u8]]) -> Vec<u8> {
        let bytes = parts.concat();
        match self {
            Bank::Sha1 => Sha1::digest(bytes).to_vec(),
            Bank::Sha256 => Sha256::digest(bytes).to_vec(),
            Bank::Sha384 => Sha384::digest(bytes).to_vec(),
            Bank::Sha512 => Sha512::digest(bytes).to_vec(),
        }
    }
}

/// A log.
#[derive(Debug)]
pub(super) struct Log<'a> {
    /// The banks it tells of, as far as this program can compute them.
    pub(super) banks: Vec<Bank>,
    events: Vec<Event<'a>>,
}

#[derive(Debug)]
struct Event<'a> {
    register: u32,
    kind: u32,
    digests: Vec<(Bank, &'a [u8])>,
    data: &'a [u8],
}

/// Where a log cannot be understood, and why.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Garbled {
    record: usize,
    at: usize,
    what: &'static str,
}

impl fmt::Display for Garbled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {} at byte {}: {}", self.record, self.at, self.what)
    }
}

/// The measured value of an EFI variable in a log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Variable<'a> {
    pub(super) value: &'a [u8],
    /// Whether what was measured is this value.
    pub(super) measured: bool,
}

impl<'a> Log<'a> {
    /// Reads a whole log.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, Garbled> {
        let mut reader = Reader { bytes, at: 0 };
        let mut at = 0;
        let mut records = 0;
        let mut read = || -> Result<Self, &'static str> {
            let mut log = Self { banks: vec![Bank::Sha1], events: Vec::new() };
            let first = old_record(&mut reader)?;
            let agile = match first.data.strip_prefix(b"Spec ID Event03\0") {
                Some(header) if first.kind == EV_NO_ACTION => Some(algorithms(header)?),
                _ => None,
            };
            if let Some(algorithms) = &agile {
                log.banks = algorithms.iter().filter_map(|(algorithm, _)| Bank::of(*algorithm)).collect();
            } else {
                log.events.push(first);
            }
            records = 1;
            while reader.at < bytes.len() {
                at = reader.at;
                let record = match &agile {
                    Some(algorithms) => new_record(&mut reader, algorithms)?,
                    None => old_record(&mut reader)?,
                };
                log.events.push(record);
                records += 1;
            }
            Ok(log)
        };
        let log = read();
        log.map_err(|what| Garbled { record: records + 1, at, what })
    }

    /// How many records it has.
    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether something was measured into a register.
    pub(super) fn mentions(&self, register: u32) -> bool {
        self.events.iter().any(|event| event.register == register && event.kind != EV_NO_ACTION)
    }

    /// The value that a register has after all that was measured into it.
    pub(super) fn replay(&self, bank: Bank, register: u32) -> Vec<u8> {
        let mut value = vec![0; bank.size()];
        if register == 0
            && let Some(last) = value.last_mut()
        {
            *last = self.locality();
        }
        for event in &self.events {
            if event.register != register || event.kind == EV_NO_ACTION {
                continue;
            }
            if let Some((_, digest)) = event.digests.iter().find(|(of, _)| *of == bank) {
                value = bank.digest(&[&value, digest]);
            }
        }
        value
    }

    /// From which locality the TPM was started: register 0 begins with it.
    fn locality(&self) -> u8 {
        let mut told = self.events.iter().filter(|event| event.register == 0 && event.kind == EV_NO_ACTION);
        told.find_map(|event| event.data.strip_prefix(b"StartupLocality\0")?.first().copied()).unwrap_or(0)
    }

    /// Returns the first measured value of the EFI global variable with this name.
    pub(super) fn variable(&self, bank: Bank, name: &str) -> Option<Variable<'a>> {
        self.events
            .iter()
            .filter(|event| event.register == 7 && event.kind == EV_EFI_VARIABLE_DRIVER_CONFIG)
            .find_map(|event| {
                let value = variable(event.data, name)?;
                // Of banks that are not active a log may say anything.
                let measured = event.digests.contains(&(bank, bank.digest(&[event.data]).as_slice()));
                Some(Variable { value, measured })
            })
    }
}

/// The value in UEFI_VARIABLE_DATA if it is the global variable of this name.
fn variable<'a>(data: &'a [u8], name: &str) -> Option<&'a [u8]> {
    /// EFI_GLOBAL_VARIABLE, 8be4df61-93ca-11d2-aa0d-00e098032b8c
    const GLOBAL: [u8; 16] =
        [0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c];
    let wanted: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let rest = data.strip_prefix(&GLOBAL)?;
    let (characters, rest) = rest.split_first_chunk::<8>()?;
    let (size, rest) = rest.split_first_chunk::<8>()?;
    let is_it = usize::try_from(u64::from_le_bytes(*characters)).ok()? == wanted.len() / 2;
    let value = rest.strip_prefix(wanted.as_slice()).filter(|_| is_it)?;
    value.get(..usize::try_from(u64::from_le_bytes(*size)).ok()?)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, size: usize) -> Result<&'a [u8], &'static str> {
        let end = self.at.checked_add(size);
        let taken = end.and_then(|end| self.bytes.get(self.at..end)).ok_or("the log ends inside it")?;
        self.at += size;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, &'static str> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, &'static str> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn array<const SIZE: usize>(&mut self) -> Result<[u8; SIZE], &'static str> {
        self.take(SIZE)?.try_into().map_err(|_| "the log ends inside it")
    }

    fn data(&mut self) -> Result<&'a [u8], &'static str> {
        let size = usize::try_from(self.u32()?).map_err(|_| "its size is absurd")?;
        self.take(size)
    }
}

fn old_record<'a>(reader: &mut Reader<'a>) -> Result<Event<'a>, &'static str> {
    let (register, kind) = (reader.u32()?, reader.u32()?);
    let digests = vec![(Bank::Sha1, reader.take(Bank::Sha1.size())?)];
    Ok(Event { register, kind, digests, data: reader.data()? })
}

fn new_record<'a>(reader: &mut Reader<'a>, algorithms: &[(u16, u16)]) -> Result<Event<'a>, &'static str> {
    let (register, kind, count) = (reader.u32()?, reader.u32()?, reader.u32()?);
    if count > ALGORITHMS {
        return Err("it has more digests than there are algorithms");
    }
    let mut digests = Vec::new();
    for _ in 0..count {
        let algorithm = reader.u16()?;
        let size = algorithms.iter().find(|(of, _)| *of == algorithm).map(|(_, size)| usize::from(*size));
        let digest =
            reader.take(size.ok_or("it has a digest of an algorithm that the header does not name")?)?;
        digests.extend(Bank::of(algorithm).map(|bank| (bank, digest)));
    }
    Ok(Event { register, kind, digests, data: reader.data()? })
}

/// The algorithms in a Spec ID header, behind its signature, and the sizes of their digests.
fn algorithms(header: &[u8]) -> Result<Vec<(u16, u16)>, &'static str> {
    let mut reader = Reader { bytes: header, at: 0 };
    // The class of the platform, three bytes of version, the size of a UINTN.
    reader.take(8)?;
    let count = reader.u32()?;
    if count > ALGORITHMS {
        return Err("its header names more algorithms than there are");
    }
    let mut algorithms = Vec::new();
    for _ in 0..count {
        let (algorithm, size) = (reader.u16()?, reader.u16()?);
        if Bank::of(algorithm).is_some_and(|bank| bank.size() != usize::from(size)) {
            return Err("its header gives an algorithm a digest of the wrong size");
        }
        algorithms.push((algorithm, size));
    }
    Ok(algorithms)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEABIOS: &[u8] = include_bytes!("samples/seabios.log");
    const OVMF: &[u8] = include_bytes!("samples/ovmf.log");

    /// A record of the SHA-1 format.
    fn record(register: u32, kind: u32, digest: [u8; 20], data: &[u8]) -> Vec<u8> {
        let size = u32::try_from(data.len()).unwrap();
        [&register.to_le_bytes(), &kind.to_le_bytes(), &digest[..], &size.to_le_bytes(), data].concat()
    }

    fn extended(value: &[u8], digest: [u8; 20]) -> Vec<u8> {
        Sha1::digest([value, &digest].concat()).to_vec()
    }

    #[test]
    fn the_old_format_is_replayed() {
        let log = [
            record(0, EV_NO_ACTION, [0; 20], b"StartupLocality\0\x03"),
            record(0, 8, [1; 20], b"version"),
            record(4, 4, [2; 20], b""),
            record(0, 4, [3; 20], &[0; 4]),
        ]
        .concat();
        let log = Log::read(&log).unwrap();
        assert_eq!((log.len(), log.banks.as_slice()), (4, &[Bank::Sha1][..]));
        let mut begin = [0; 20];
        begin[19] = 3;
        assert_eq!(log.replay(Bank::Sha1, 0), extended(&extended(&begin, [1; 20]), [3; 20]));
        assert_eq!(log.replay(Bank::Sha1, 4), extended(&[0; 20], [2; 20]));
        assert_eq!(log.replay(Bank::Sha1, 5), [0; 20]);
        assert!(log.mentions(4) && !log.mentions(5));
    }

    #[test]
    fn every_bank_of_real_logs_is_replayed() {
        for (log, registers) in
            [(SEABIOS, include_str!("samples/seabios.pcrs")), (OVMF, include_str!("samples/ovmf.pcrs"))]
        {
            let log = Log::read(log).unwrap();
            assert_eq!(log.banks, [Bank::Sha1, Bank::Sha256, Bank::Sha384, Bank::Sha512]);
            for line in registers.lines() {
                let mut words = line.split(' ');
                let mut word = || words.next().unwrap();
                let name = word();
                let bank = Bank::ALL.into_iter().find(|bank| bank.name() == name).unwrap();
                let register: u32 = word().parse().unwrap();
                // Register 10 is extended by the kernel's IMA.
                if register != 10 {
                    let replayed = super::super::registers::hex(&log.replay(bank, register));
                    assert_eq!(replayed, word().to_lowercase(), "{line}");
                }
            }
        }
    }

    #[test]
    fn the_systems_separator_is_known() {
        let log = Log::read(SEABIOS).unwrap();
        for bank in Bank::ALL {
            let before = log.replay(bank, 4);
            let once = bank.digest(&[&before, &bank.digest(&[b"os-separator"])]);
            let twice = bank.digest(&[&once, &bank.digest(&[b"os-separator"])]);
            let other = bank.digest(&[&before, &bank.digest(&[b"os-separatoR"])]);
            let times = [&before, &once, &twice, &other].map(|after| bank.separators(&before, after));
            assert_eq!(times, [Some(0), Some(1), Some(2), None]);
        }
    }

    #[test]
    fn the_state_of_secure_boot_is_found_and_its_digest_checked() {
        assert_eq!(Log::read(SEABIOS).unwrap().variable(Bank::Sha256, "SecureBoot"), None);
        let log = Log::read(OVMF).unwrap();
        assert_eq!(log.variable(Bank::Sha256, "SecureBoot"), Some(Variable { value: &[1], measured: true }));
        assert_eq!(log.variable(Bank::Sha256, "SecureBoo"), None);
        assert!(log.variable(Bank::Sha256, "PK").unwrap().measured);
        let mut bytes = OVMF.to_vec();
        let name: Vec<u8> = "SecureBoot".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let at = OVMF.windows(name.len()).position(|window| window == name).unwrap() + name.len();
        bytes[at] = 0;
        let log = Log::read(&bytes).unwrap();
        assert_eq!(log.variable(Bank::Sha256, "SecureBoot"), Some(Variable { value: &[0], measured: false }));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let garbled = |bytes: &[u8]| Log::read(bytes).unwrap_err().to_string();
        assert_eq!(garbled(b""), "record 1 at byte 0: the log ends inside it");
        assert_eq!(garbled(&OVMF[..100]), "record 2 at byte 77: the log ends inside it");
        let mut bytes = OVMF.to_vec();
        bytes[77 + 8..77 + 12].fill(0xff);
        assert_eq!(garbled(&bytes), "record 2 at byte 77: it has more digests than there are algorithms");
        bytes[77 + 8..77 + 14].copy_from_slice(&[1, 0, 0, 0, 0x12, 0]);
        assert_eq!(
            garbled(&bytes),
            "record 2 at byte 77: it has a digest of an algorithm that the header does not name"
        );
    }

    proptest! {
        #[test]
        fn anything_is_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Log::read(&bytes);
        }

        /// Garbage in a real log reaches every part of the reader.
        #[test]
        fn a_real_log_with_garbage_is_read_without_harm(
            changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..20),
            end in any::<proptest::sample::Index>(),
        ) {
            let mut bytes = SEABIOS.to_vec();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            for bytes in [&bytes[..], &bytes[..end.index(bytes.len())]] {
                if let Ok(log) = Log::read(bytes) {
                    for bank in Bank::ALL {
                        prop_assert_eq!(log.replay(bank, 0).len(), bank.size());
                    }
                    let _ = log.variable(Bank::Sha256, "SecureBoot");
                }
            }
        }
    }
}
