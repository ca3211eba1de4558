/*!
The device mapper table of a device: its cipher, and whether the kernel shows its key.

The kernel shows the key itself in the table unless it was loaded from a keyring. The answer is not copied, and its buffer is wiped when dropped;
only the length of the key and whether it was shown are kept.

```text
struct dm_ioctl (312 bytes) | struct dm_target_spec (40 bytes) | table of the target, with NUL at its end | next dm_target_spec …
table of crypt:  cipher key offset device start [count option…]
key:             hexadecimal digits, or :SIZE:TYPE:DESCRIPTION of a key in a keyring
```
*/
use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use zeroize::Zeroizing;

/// Opened only if a device mapper device exists, so that opening it does not load the module.
const CONTROL: &std::ffi::CStr = c"/dev/mapper/control";

/// `struct dm_ioctl` up to its data.
const HEADER: usize = 312;
const SPEC: usize = 40;

/// The size of the buffer for an answer. A table of some kilobytes has hundreds of targets.
const SIZE: usize = 16 << 10;

/// `_IOWR(0xfd, 12, struct dm_ioctl)`
const DM_TABLE_STATUS: libc::Ioctl = 0xc138_fd0c_u32 as libc::Ioctl;

const DM_STATUS_TABLE_FLAG: u32 = 1 << 4;
const DM_BUFFER_FULL_FLAG: u32 = 1 << 8;
const DM_NOFLUSH_FLAG: u32 = 1 << 11;
/// Asks the kernel to wipe its own copies. Linux 4.20 and later; ignored before.
const DM_SECURE_DATA_FLAG: u32 = 1 << 15;

/// A target of type crypt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Crypt {
    /// Its cipher, mode and initialisation vector.
    pub(super) cipher: String,
    /// The length of its key in bits. With integrity, it includes the key for that.
    pub(super) bits: usize,
    /// The type of the key in a keyring; none if the table itself shows the key.
    pub(super) keyring: Option<String>,
    /// The integrity mode, if there is one.
    pub(super) integrity: Option<String>,
}

/// The table of a device.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    /// Its targets of type crypt.
    pub(super) crypts: Vec<Crypt>,
    /// The number of its other targets.
    pub(super) others: usize,
}

/// Reads the table of a device by its numbers.
pub(super) fn read(major: u32, minor: u32) -> io::Result<Table> {
    // SAFETY: the path is a NUL-terminated constant.
    let fd = unsafe { libc::open(CONTROL.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: open(2) succeeded, so the descriptor is open, and nothing else owns it.
    let control = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    let mut buffer = Zeroizing::new(vec![0_u8; SIZE]);
    request(&mut buffer, major, minor);
    // SAFETY: the kernel reads and writes `data_size` bytes of the buffer, and `request` has set that to the size of the buffer.
    let answer = unsafe { libc::ioctl(control.as_raw_fd(), DM_TABLE_STATUS, buffer.as_mut_ptr()) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    parse(&buffer).ok_or_else(|| io::Error::other("the answer of the device mapper is malformed"))
}

fn request(buffer: &mut [u8], major: u32, minor: u32) {
    // The kernel's encoding of a device number in 64 bits (huge_encode_dev).
    let device = u64::from(minor & 0xff) | (u64::from(major) << 8) | (u64::from(minor & !0xff) << 12);
    let mut put = |at: usize, bytes: &[u8]| buffer[at..at + bytes.len()].copy_from_slice(bytes);
    // Version 4.0.0 of the interface, which every current kernel supports.
    put(0, &4_u32.to_ne_bytes());
    put(12, &u32::try_from(SIZE).unwrap_or(u32::MAX).to_ne_bytes());
    put(16, &u32::try_from(HEADER).unwrap_or(u32::MAX).to_ne_bytes());
    put(28, &(DM_STATUS_TABLE_FLAG | DM_NOFLUSH_FLAG | DM_SECURE_DATA_FLAG).to_ne_bytes());
    put(40, &device.to_ne_bytes());
}

fn parse(answer: &[u8]) -> Option<Table> {
    let start = usize::try_from(number(answer, 16)?).ok()?;
    let targets = number(answer, 20)?;
    if number(answer, 28)? & DM_BUFFER_FULL_FLAG != 0 {
        return None;
    }
    let data = answer.get(start..)?;
    let mut table = Table::default();
    let mut at = 0;
    for _ in 0..targets {
        let spec = data.get(at..)?.get(..SPEC)?;
        if text(&spec[24..]) == b"crypt" {
            table.crypts.push(crypt(text(&data[at + SPEC..]))?);
        } else {
            table.others += 1;
        }
        // The offset counts from the first target and must increase.
        let next = usize::try_from(number(spec, 20)?).ok()?;
        if next <= at {
            return None;
        }
        at = next;
    }
    Some(table)
}

fn crypt(table: &[u8]) -> Option<Crypt> {
    let mut words = std::str::from_utf8(table).ok()?.split_ascii_whitespace();
    let cipher = words.next()?.chars().take(128).collect();
    let key = words.next()?;
    let (bits, keyring) = match key.strip_prefix(':') {
        Some(key) => {
            let mut parts = key.splitn(3, ':');
            let bytes: usize = parts.next()?.parse().ok()?;
            (bytes.checked_mul(8)?, Some(parts.next()?.chars().take(32).collect()))
        }
        None if key == "-" => (0, None),
        None => (key.len().checked_mul(4)?, None),
    };
    let integrity = words.find_map(|word| word.strip_prefix("integrity:"));
    let integrity = integrity.map(|told| told.chars().take(64).collect());
    Some(Crypt { cipher, bits, keyring, integrity })
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Returns the bytes up to the first NUL.
fn text(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Makes an answer with these targets and tables.
    fn answer(targets: &[(&str, &str)]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        request(&mut bytes, 253, 0);
        bytes[20..24].copy_from_slice(&u32::try_from(targets.len()).unwrap().to_ne_bytes());
        for (kind, table) in targets {
            let mut spec = [0; SPEC];
            spec[24..24 + kind.len()].copy_from_slice(kind.as_bytes());
            let next = (bytes.len() - HEADER + SPEC + table.len() + 1).next_multiple_of(8);
            spec[20..24].copy_from_slice(&u32::try_from(next).unwrap().to_ne_bytes());
            bytes.extend(spec);
            bytes.extend(table.as_bytes());
            bytes.resize(HEADER + next, 0);
        }
        bytes
    }

    #[test]
    fn tables_are_read() {
        let aes = "aes-xts-plain64 :64:logon:cryptsetup:1c0-d0 0 8:2 32768 1 allow_discards";
        let weak = "aes-cbc-plain 00112233445566778899aabbccddeeff 0 8:3 0";
        let safe = "capi:gcm(aes)-random - 0 253:0 0 1 integrity:28:aead";
        let found =
            parse(&answer(&[("crypt", aes), ("linear", "8:1 0"), ("crypt", weak), ("crypt", safe)])).unwrap();
        assert_eq!(found.others, 1);
        let shown: Vec<_> = found
            .crypts
            .iter()
            .map(|c| (c.cipher.as_str(), c.bits, c.keyring.as_deref(), c.integrity.as_deref()))
            .collect();
        assert_eq!(
            shown,
            [
                ("aes-xts-plain64", 512, Some("logon"), None),
                ("aes-cbc-plain", 128, None, None),
                ("capi:gcm(aes)-random", 0, None, Some("28:aead")),
            ]
        );
        assert_eq!(parse(&answer(&[("linear", "8:1 0")])), Some(Table { crypts: Vec::new(), others: 1 }));
    }

    #[test]
    fn the_request_is_as_the_kernel_wants_it() {
        let mut bytes = vec![0; SIZE];
        request(&mut bytes, 253, 0x12345);
        assert_eq!(number(&bytes, 0), Some(4));
        assert_eq!(number(&bytes, 12), Some(16384));
        // SAFETY: makedev computes.
        assert_eq!(u64::from_ne_bytes(*bytes[40..].first_chunk().unwrap()), libc::makedev(253, 0x12345));
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_harm(
            changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..30),
            end in any::<proptest::sample::Index>(),
        ) {
            let mut bytes = answer(&[("crypt", "aes-xts-plain64 :64:logon:x 0 8:2 0 1 integrity:28:aead"), ("crypt", "a")]);
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let _ = parse(&bytes);
            let _ = parse(&bytes[..end.index(bytes.len())]);
        }
    }
}
