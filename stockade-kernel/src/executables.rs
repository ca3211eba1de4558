/*!
Programs that exceptions speak of, as the kernel will know them when they are executed.

A path says nothing in the kernel: what is executed is an inode. It is looked up once, here, with what tells
whether it is still the same later: the generation of its number, and its change time, which the kernel
moves with every change of content, mode or owner and lets nobody set. A file under fs-verity needs neither:
its content cannot change.
*/
use std::{
    fs::{self, File},
    io::{self, Read},
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::Path,
};

use sha2::{Digest as _, Sha256};
use stockade_common::Program;
use stockade_policy::{compile::CompiledProgram, model::Digest};

use crate::Error;

/// A program's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Executable {
    /// Inode number.
    pub inode: u64,
    /// Device, as the kernel packs it.
    pub device: u32,
    /// What it has to be when it is executed.
    pub program: Program,
}

const OVERLAYFS: i64 = 0x794c_7630;
/// `FS_IOC_GETVERSION`: generation of the inode number.
const GET_VERSION: libc::c_ulong = 0x8008_7601;
/// `FS_IOC_MEASURE_VERITY`, 5.4 and later.
const MEASURE_VERITY: libc::c_ulong = 0xc004_6686;

/// Looks a program up, and its content where the policy says what it has to be.
///
/// # Errors
/// [`Error::Request`] names the exception and what is wrong with its program.
pub fn look_up(program: &CompiledProgram) -> Result<Executable, Error> {
    let wrong = |what: String| {
        Error::Request(format!(
            "the exception {} is for {}, {what}",
            program.named_by,
            program.path.display()
        ))
    };
    let mut file = File::open(&program.path).map_err(|e| wrong(format!("which cannot be opened: {e}")))?;
    let before = file.metadata().map_err(|e| wrong(format!("which cannot be looked at: {e}")))?;
    if !before.is_file() || before.mode() & 0o111 == 0 {
        return Err(wrong("which is no executable file".into()));
    }
    let mut begin = [0; 2];
    if file.read_exact(&mut begin).is_ok() && begin == *b"#!" {
        return Err(wrong(
            "which is a script: the kernel executes its interpreter, so the exception would never apply; \
             name the interpreter (and with it every script), or a unit"
                .into(),
        ));
    }
    if on_overlayfs(&file) {
        return Err(wrong(
            "which is on an overlay file system: the kernel numbers files there in a way that cannot be seen from outside"
                .into(),
        ));
    }
    let mut flags = 0;
    match &program.digest {
        None => {}
        Some(Digest::Sha256(wanted)) => {
            let found = sha256(&program.path).map_err(|e| wrong(format!("which cannot be read: {e}")))?;
            if found != *wanted {
                return Err(wrong(format!(
                    "whose content is another than the policy says: sha256:{}",
                    hex(&found)
                )));
            }
        }
        Some(Digest::Verity(wanted)) => match verity(&file) {
            Ok(found) if found == *wanted => flags |= Program::VERITY,
            Ok(found) => {
                return Err(wrong(format!(
                    "whose content is another than the policy says: verity:sha256:{}",
                    hex(&found)
                )));
            }
            Err(e) => {
                return Err(wrong(format!(
                    "which is not under fs-verity with SHA-256: {e}; enable it with: fsverity enable {}",
                    program.path.display()
                )));
            }
        },
    }
    let after = fs::metadata(&program.path).map_err(|e| wrong(format!("which went away: {e}")))?;
    let identity = |m: &fs::Metadata| (m.dev(), m.ino(), m.ctime(), m.ctime_nsec());
    if identity(&before) != identity(&after) {
        return Err(wrong("which changed while it was looked at; apply the policy again".into()));
    }
    let generation = generation(&file);
    if generation.is_none() {
        flags |= Program::NO_GENERATION;
    }
    let program = Program {
        ctime: before.ctime(),
        ctime_nsec: u32::try_from(before.ctime_nsec()).unwrap_or(0),
        inode_generation: generation.unwrap_or(0),
        flags,
        pad: 0,
    };
    let device = device(&file, &before).map_err(|e| wrong(format!("whose device cannot be told: {e}")))?;
    Ok(Executable { inode: before.ino(), device, program })
}

fn on_overlayfs(file: &File) -> bool {
    // SAFETY: statfs is plain data, for which zeros are a value.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: an open descriptor, and a live buffer.
    let answer = unsafe { libc::fstatfs(file.as_raw_fd(), &raw mut stat) };
    answer == 0 && stat.f_type == OVERLAYFS
}

/// Generation of the inode number; none where the file system does not tell.
fn generation(file: &File) -> Option<u32> {
    let mut version: libc::c_long = 0;
    // SAFETY: the kernel writes an int, whatever the request's number says of a long.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), GET_VERSION, &raw mut version) };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the lower half was written")]
    let version = version as u32;
    (answer == 0).then_some(version)
}

/// The device as the kernel has it: that of the mount, since some file systems show each file another.
fn device(file: &File, metadata: &fs::Metadata) -> io::Result<u32> {
    let packed = |major: u32, minor: u32| major << 20 | minor;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
    let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:")).map(str::trim);
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    for line in mounts.lines() {
        let mut words = line.split(' ');
        let (id, device) = (words.next(), words.nth(1));
        if id == mount
            && let Some((major, minor)) = device.and_then(|device| device.split_once(':'))
            && let (Ok(major), Ok(minor)) = (major.parse(), minor.parse())
        {
            return Ok(packed(major, minor));
        }
    }
    let device = metadata.dev();
    Ok(packed(libc::major(device), libc::minor(device)))
}

fn sha256(path: &Path) -> io::Result<[u8; 32]> {
    let mut digest = Sha256::new();
    io::copy(&mut File::open(path)?, &mut digest)?;
    Ok(digest.finalize().into())
}

/// What fs-verity measured.
///
/// # Errors
/// As the kernel says: ENODATA where the file is not under fs-verity.
pub fn verity(file: &File) -> io::Result<[u8; 32]> {
    #[repr(C)]
    struct Measured {
        algorithm: u16,
        size: u16,
        digest: [u8; 64],
    }
    const SHA256: u16 = 1;
    let mut measured = Measured { algorithm: 0, size: 64, digest: [0; 64] };
    // SAFETY: a live block, whose size field tells the room behind it.
    if unsafe { libc::ioctl(file.as_raw_fd(), MEASURE_VERITY, &raw mut measured) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if (measured.algorithm, measured.size) != (SHA256, 32) {
        return Err(io::Error::other("it is measured with another hash than SHA-256"));
    }
    measured.digest[..32].try_into().map_err(io::Error::other)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
