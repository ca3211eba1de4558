/*!
The identity of programs that exceptions name.

The kernel side sees inodes, not paths. Each path is resolved here, once, together with the data that identify the file later: `i_generation`, and
the fs-verity digest if the policy requires one. The kernel side compares the digest with the kernel's own at each execve(2).

Without a digest it compares the ctime, which the kernel sets at each change of content, mode or owner. The ctime detects updates and mistakes,
not an attacker: root can set the clock.
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
    /// Device of that inode, as the kernel encodes it.
    pub device: u32,
    /// The data to compare when it is executed.
    pub program: Program,
}

const OVERLAYFS: i64 = 0x794c_7630;
/// `FS_IOC_GETVERSION`: reads `i_generation`.
const GET_VERSION: libc::c_ulong = 0x8008_7601;
/// `FS_IOC_MEASURE_VERITY`, 5.4 and later.
const MEASURE_VERITY: libc::c_ulong = 0xc004_6686;

/// Mounts that were read, by their ids.
#[derive(Default)]
pub struct Mounts(HashMap<u64, Mount>);

/// A mount.
#[derive(Clone, Copy)]
struct Mount {
    /// Device of the mount, as the kernel encodes it.
    device: u32,
    is_overlay: bool,
}

/// Reads a program's identity, and its content if the policy has a digest.
///
/// # Errors
/// [`Error::Request`] with the exception's name and the reason.
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

/// Returns a digest as words in the kernel side's layout.
fn as_words(digest: &[u8; 32]) -> [u64; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(digest.as_chunks().0) {
        *word = u64::from_ne_bytes(*bytes);
    }
    words
}

/// Fails if the content does not have the required digest.
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

/// Through rustix, which makes the system call itself: the standard library declares libc's `statx` weak, so that it may not be linked.
fn statx(file: &File) -> io::Result<Statx> {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    Ok(rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, wanted)?)
}

/// Reports whether a process has the file open or mapped for writing: a write through a mapping need not change the ctime. The kernel grants a read
/// lease only if there is no such process.
fn has_writer(file: &File) -> bool {
    // SAFETY: an open descriptor; the lease is released at once.
    let answer = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK) };
    let refused = answer != 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN);
    // SAFETY: an open descriptor.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK) };
    refused
}

/// Returns `i_generation`; `None` if the file system does not support the request.
fn generation(file: &File) -> Option<u32> {
    let mut version: libc::c_long = 0;
    // SAFETY: the kernel writes an int, although the request number encodes a long.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), GET_VERSION, &raw mut version) };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the lower half was written")]
    let version = version as u32;
    (answer == 0).then_some(version)
}

impl Mounts {
    /// Returns the mount of an opened file. The device comes from the mount, since some file systems report another one for each file.
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
    // SAFETY: statfs is plain data, for which zeros are valid.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: an open descriptor and a live buffer.
    let answer = unsafe { libc::fstatfs(file.as_raw_fd(), &raw mut stat) };
    answer == 0 && stat.f_type == OVERLAYFS
}

fn sha256(file: &mut File) -> io::Result<[u8; 32]> {
    let mut digest = Sha256::new();
    file.rewind()?;
    io::copy(file, &mut digest)?;
    Ok(digest.finalize().into())
}

/// Returns the digest that fs-verity measured.
///
/// # Errors
/// Those of the kernel: ENODATA if the file is not under fs-verity.
pub fn verity(file: &File) -> io::Result<[u8; 32]> {
    #[repr(C)]
    struct Measured {
        algorithm: u16,
        size: u16,
        digest: [u8; 64],
    }
    const SHA256: u16 = 1;
    let mut measured = Measured { algorithm: 0, size: 64, digest: [0; 64] };
    // SAFETY: a live block, whose `size` is the size of the buffer after it.
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
