/*!
Programs that exceptions speak of, as the kernel will know them when they are executed.

A path says nothing in the kernel: what is executed is an inode. It is looked up once, here, with what tells
whether it is still the same later: the generation of its number, and the digest that fs-verity measured where the policy
demands one. The kernel side compares it with the kernel's own measurement each time the program is executed.

Without a digest there is the change time, which the kernel moves with every change of content, mode or owner. It
keeps mistakes and software apart, not root: who sets the clock sets it.
*/
use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read, Seek},
    os::fd::AsRawFd,
    path::Path,
};

use rustix::fs::{AtFlags, Statx, StatxFlags};
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

/// Mounts that were looked at, by their ids.
#[derive(Default)]
pub struct Mounts(HashMap<u64, Mount>);

/// A mount.
#[derive(Clone, Copy)]
struct Mount {
    /// Its device, as the kernel packs it.
    device: u32,
    is_overlay: bool,
}

/// Looks a program up, and its content where the policy says what it has to be.
///
/// # Errors
/// [`Error::Request`] names the exception and what is wrong with its program.
pub fn look_up(program: &CompiledProgram, mounts: &mut Mounts) -> Result<Executable, Error> {
    #[cfg(test)]
    if let Some(known) = crate::sys::fake::executable(&program.path) {
        return Ok(known);
    }
    let wrong = |what: String| {
        Error::Request(format!(
            "the exception {} is for {}, {what}",
            program.named_by,
            program.path.display()
        ))
    };
    let mut file = File::open(&program.path).map_err(|e| wrong(format!("which cannot be opened: {e}")))?;
    let seen = statx(&file).map_err(|e| wrong(format!("which cannot be looked at: {e}")))?;
    let mode = u32::from(seen.stx_mode);
    if mode & libc::S_IFMT != libc::S_IFREG || mode & 0o111 == 0 {
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
    let mount = mounts.of(&file, &seen).map_err(|e| wrong(format!("whose device cannot be told: {e}")))?;
    if mount.is_overlay {
        return Err(wrong(
            "which is on an overlay file system: the kernel numbers files there in a way that cannot be seen from outside"
                .into(),
        ));
    }
    let (mut flags, mut measured) = (0, [0; 4]);
    if let Some(digest) = &program.digest {
        if has_writer(&file) {
            return Err(wrong(
                "which some process has open for writing, so that its content is not settled".into(),
            ));
        }
        check_content(&mut file, digest, &program.path).map_err(wrong)?;
        if let Digest::Verity(digest) = digest {
            flags |= Program::VERITY;
            measured = as_words(digest);
        }
        let changed = |s: &Statx| (s.stx_ctime.tv_sec, s.stx_ctime.tv_nsec);
        if statx(&file).is_ok_and(|after| changed(&after) != changed(&seen)) {
            return Err(wrong("which changed while it was looked at; apply the policy again".into()));
        }
    }
    let generation = generation(&file);
    if generation.is_none() {
        flags |= Program::NO_GENERATION;
    }
    let program = Program {
        ctime: seen.stx_ctime.tv_sec,
        ctime_nsec: seen.stx_ctime.tv_nsec,
        inode_generation: generation.unwrap_or(0),
        flags,
        pad: 0,
        digest: measured,
    };
    Ok(Executable { inode: seen.stx_ino, device: mount.device, program })
}

/// A digest as it lies in memory.
fn as_words(digest: &[u8; 32]) -> [u64; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(digest.as_chunks().0) {
        *word = u64::from_ne_bytes(*bytes);
    }
    words
}

/// Says what is wrong with the content, if anything is.
fn check_content(file: &mut File, wanted: &Digest, path: &Path) -> Result<(), String> {
    let other = |found: String| format!("whose content is another than the policy says: {found}");
    match wanted {
        Digest::Sha256(wanted) => {
            let found = sha256(file).map_err(|e| format!("which cannot be read: {e}"))?;
            if found == *wanted { Ok(()) } else { Err(other(format!("sha256:{}", hex(&found)))) }
        }
        Digest::Verity(wanted) => {
            let found = verity(file).map_err(|e| {
                let path = path.display();
                format!(
                    "which is not under fs-verity with SHA-256: {e}; enable it with: fsverity enable {path}"
                )
            })?;
            if found == *wanted { Ok(()) } else { Err(other(format!("verity:sha256:{}", hex(&found)))) }
        }
    }
}

/// By the system call itself: the standard library declares libc's `statx` weak, and a program may be linked without it.
fn statx(file: &File) -> io::Result<Statx> {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    Ok(rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, wanted)?)
}

/// Whether some process has the file open, or mapped, for writing: what it writes through a mapping need not move the
/// change time. The kernel grants a lease for reading only where nobody does.
fn has_writer(file: &File) -> bool {
    // SAFETY: an open descriptor; the lease is given back at once.
    let answer = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK) };
    let refused = answer != 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN);
    // SAFETY: as above.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK) };
    refused
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

impl Mounts {
    /// The mount that a file was opened on. Its device is the kernel's own: some file systems show each file another.
    fn of(&mut self, file: &File, seen: &Statx) -> io::Result<Mount> {
        if let Some(known) = self.0.get(&seen.stx_mnt_id) {
            return Ok(*known);
        }
        let packed = |major: u32, minor: u32| major << 20 | minor;
        let id = seen.stx_mnt_id.to_string();
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let device = mounts.lines().find_map(|line| {
            let mut words = line.split(' ');
            let device = words.next().filter(|word| *word == id).and_then(|_| words.nth(1))?;
            let (major, minor) = device.split_once(':')?;
            Some(packed(major.parse().ok()?, minor.parse().ok()?))
        });
        let device = device.unwrap_or_else(|| packed(seen.stx_dev_major, seen.stx_dev_minor));
        let mount = Mount { device, is_overlay: on_overlayfs(file) };
        self.0.insert(seen.stx_mnt_id, mount);
        Ok(mount)
    }
}

fn on_overlayfs(file: &File) -> bool {
    // SAFETY: statfs is plain data, for which zeros are a value.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: an open descriptor, and a live buffer.
    let answer = unsafe { libc::fstatfs(file.as_raw_fd(), &raw mut stat) };
    answer == 0 && stat.f_type == OVERLAYFS
}

fn sha256(file: &mut File) -> io::Result<[u8; 32]> {
    let mut digest = Sha256::new();
    file.rewind()?;
    io::copy(file, &mut digest)?;
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
