/*!
The content of a file as a digest: over its bytes, or as fs-verity measured it.
*/
use std::{
    fs::File,
    io::{self, Read},
};

use rustix::{
    io::Errno,
    ioctl::{Opcode, Updater, ioctl, opcode},
};
use sha2::{Digest, Sha256};

/// `FS_IOC_MEASURE_VERITY` of linux/fsverity.h: the size in it is that of the header alone.
const MEASURE_VERITY: Opcode = opcode::read_write::<[u16; 2]>(b'f', 134);

/// `FS_VERITY_HASH_ALG_SHA256`
const SHA256: u16 = 1;

/// `struct fsverity_digest`, with room for the longest digest there is, SHA-512.
#[repr(C)]
struct Measured {
    algorithm: u16,
    size: u16,
    digest: [u8; 64],
}

/// SHA-256 over everything that can be read.
///
/// # Errors
/// The error of the reader.
pub fn sha256(file: &mut impl Read) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hash.finalize().into()),
            Ok(len) => hash.update(&buffer[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Returns the digest that fs-verity measured; `None` if the file has no fs-verity, or its file system does not support it. Since Linux 5.4.
///
/// # Errors
/// The kernel's error, and [`io::ErrorKind::Unsupported`] for another algorithm than SHA-256.
pub fn verity(file: &File) -> io::Result<Option<[u8; 32]>> {
    let mut measured = Measured { algorithm: 0, size: 64, digest: [0; 64] };
    // SAFETY: the opcode is the one that writes at most `size` bytes behind a header of two u16, and
    // `Measured` is that header with 64 bytes behind it.
    let call = unsafe { Updater::<MEASURE_VERITY, Measured>::new(&mut measured) };
    // SAFETY: as above; measuring changes nothing.
    match unsafe { ioctl(file, call) } {
        Ok(()) => {}
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOTTY) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    match measured.digest.first_chunk() {
        Some(digest) if measured.algorithm == SHA256 && measured.size == 32 => Ok(Some(*digest)),
        _ => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("fs-verity measured with algorithm {}, only SHA-256 can be compared", measured.algorithm),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_nothing_is_the_known_one() {
        let digest = sha256(&mut io::empty()).unwrap();
        assert_eq!(digest[..4], [0xe3, 0xb0, 0xc4, 0x42]);
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_call_is_the_kernels() {
        assert_eq!(MEASURE_VERITY, 0xc004_6686);
    }

    #[test]
    fn a_plain_file_is_not_under_verity() {
        assert_eq!(
            verity(&File::open(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).unwrap()).unwrap(),
            None
        );
        assert_eq!(verity(&File::open("/proc/self/stat").unwrap()).unwrap(), None);
    }
}
