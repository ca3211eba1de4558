/*!
Another kernel in place of this one: whether it can be loaded, whether it has to be signed, and whether one is loaded.
*/
use std::{
    ffi::c_int,
    fs::File,
    io::{self, Write},
    os::fd::{AsRawFd, OwnedFd},
    thread,
    time::Duration,
};

use rustix::fs::{MemfdFlags, memfd_create};

use super::{
    ima, locked_down,
    signature::{AS_LOCKDOWN, Answer},
    why_not,
};
use crate::{Finding, How, System, Verdict};

/// The two calls.
const SEGMENTS: &str = "kexec_load";
const FILE: &str = "kexec_file_load";

/// How often a call is made again while somebody else loads a kernel, and how long is waited between.
const TIMES: u32 = 500;
const PAUSE: Duration = Duration::from_millis(10);

const DISABLED: &str = "/proc/sys/kernel/kexec_load_disabled";

/// How many more images may be loaded, for a reboot and for a crash; -1 is no limit. Since Linux 6.3.
const LIMITS: [&str; 2] =
    ["/proc/sys/kernel/kexec_load_limit_reboot", "/proc/sys/kernel/kexec_load_limit_panic"];

/// Images that are loaded, where kernels have it since 6.19, and before.
const LOADED: [&str; 2] = ["/sys/kernel/kexec/loaded", "/sys/kernel/kexec_loaded"];
const CRASH_LOADED: [&str; 2] = ["/sys/kernel/kexec/crash_loaded", "/sys/kernel/kexec_crash_loaded"];

/// Whether this kernel was built without kexec.
fn has_none(system: &System) -> bool {
    !system.exists(DISABLED) && system.exists("/proc/sys/kernel/osrelease")
}

fn without(id: &'static str) -> Finding {
    Finding::not_applicable(id, How::Read, "this kernel was built without kexec").seen(DISABLED, "not there")
}

/// Whether both limits are used up.
fn used_up(system: &System) -> bool {
    LIMITS.iter().all(|limit| system.number(limit) == Ok(0))
}

pub(super) fn disabled(system: &System) -> Finding {
    const ID: &str = "modules.kexec-disabled";
    let finding = match system.number(DISABLED) {
        _ if has_none(system) => return without(ID),
        Ok(0) if used_up(system) => Finding::new(
            ID,
            Verdict::Pass,
            How::Read,
            "no kernel can be loaded by kexec: the limits kernel.kexec_load_limit_* are used up",
        ),
        Ok(0) => Finding::new(
            ID,
            Verdict::Warn,
            How::Read,
            "root can load and start another kernel (kernel.kexec_load_disabled = 0)",
        ),
        Ok(_) => Finding::new(
            ID,
            Verdict::Pass,
            How::Read,
            "no kernel can be loaded by kexec before the next boot",
        ),
        Err(unread) => return Finding::unknown(ID, How::Read, unread),
    };
    let finding = finding.seen(DISABLED, system.text(DISABLED).unwrap_or_default());
    LIMITS.iter().fold(finding, |finding, limit| match system.number(limit) {
        Ok(value) => finding.seen(*limit, value.to_string()),
        Err(_) => finding,
    })
}

pub(super) fn loaded(system: &System) -> Finding {
    const ID: &str = "modules.kexec-loaded";
    let read = |paths: [&'static str; 2]| {
        let path = paths.into_iter().find(|path| system.exists(path)).unwrap_or(paths[1]);
        (path, system.number(path))
    };
    let (path, image) = read(LOADED);
    let finding = match image {
        Ok(0) => Finding::new(ID, Verdict::Pass, How::Read, "no kexec image is loaded").seen(path, "0"),
        Ok(value) => {
            let found = "a kexec image is loaded, which the next kexec starts in place of this kernel";
            Finding::new(ID, Verdict::Warn, How::Read, found).seen(path, value.to_string())
        }
        Err(unread) if unread.is_missing() && has_none(system) => return without(ID),
        Err(unread) => return Finding::unknown(ID, How::Read, unread),
    };
    match read(CRASH_LOADED) {
        (path, Ok(value)) => {
            finding.seen(path, if value == 0 { "0" } else { "1: a crash kernel, as kdump loads it" })
        }
        (_, Err(_)) => finding,
    }
}

pub(super) fn signature(system: &System) -> Finding {
    const ID: &str = "modules.kexec-signature";
    if has_none(system) {
        return without(ID);
    }
    if is_off(system) {
        let found = "no kernel can be loaded before the next boot, signed or not";
        return Finding::new(ID, Verdict::Pass, How::Read, found)
            .seen(DISABLED, system.text(DISABLED).unwrap_or_default());
    }
    let Some(why_not) = why_not(system) else {
        return judged(ID, &try_unsigned(system));
    };
    match locked_down(system) {
        Some(level) if files_are_covered(system) => {
            let found =
                format!("the kernel's own lockdown is at {level} and refuses kernels without a signature");
            Finding::new(ID, Verdict::Pass, How::Derived, found)
        }
        _ => Finding::unknown(ID, How::Tried, why_not),
    }
}

/// Whether no kernel can be loaded any more, whatever it is.
fn is_off(system: &System) -> bool {
    system.number(DISABLED).is_ok_and(|value| value != 0 || used_up(system))
}

/// Whether lockdown is known to be asked for a kernel in a file, too: `kexec_file_load()` does so where it looks at signatures.
pub(in crate::features) fn files_are_covered(system: &System) -> bool {
    system.config().is_ok_and(|config| !config.has("CONFIG_KEXEC_FILE") || config.has("CONFIG_KEXEC_SIG"))
}

/// Both ways to load a kernel, tried without one.
pub(in crate::features) fn try_unsigned(system: &System) -> [(&'static str, Answer); 2] {
    let both = |answer: Answer| [(SEGMENTS, answer.clone()), (FILE, answer)];
    if is_off(system) {
        return both(Answer::Absent("no kernel can be loaded before the next boot".into()));
    }
    if let Some(limit) = LIMITS.iter().find(|limit| system.number(limit).is_ok_and(|value| value != -1)) {
        return both(Answer::Unclear(format!("not tried, since {limit} counts attempts")));
    }
    let Some(door) = stockade_probe::doors_of("kexec").next() else {
        return both(Answer::Unclear("this kernel has no such operation".into()));
    };
    // The call that takes memory and no file has no signature to check: unless it is refused, anything can be loaded.
    match door.knock().answer {
        // What the caller may not do would read as refused.
        stockade_probe::Answer::NeedsRoot(why) => both(Answer::Unclear(why)),
        answer => [(SEGMENTS, answer.into()), (FILE, of_file(system))],
    }
}

/// Tries kexec_file_load(2) with an unsigned kernel, unless IMA would log it.
fn of_file(system: &System) -> Answer {
    match (ima::would_measure(system), locked_down(system)) {
        (None, _) => try_file(),
        (Some(why), Some(level)) if files_are_covered(system) => {
            Answer::Follows(format!("not tried, since {why}; the kernel's own lockdown is at {level}"))
        }
        (Some(why), _) => Answer::Unclear(format!("not tried, since {why}; that would stay in its log")),
    }
}

fn judged(id: &'static str, answers: &[(&'static str, Answer)]) -> Finding {
    let free: Vec<&str> =
        answers.iter().filter(|(_, answer)| *answer == Answer::Free).map(|(call, _)| *call).collect();
    let unclear = answers.iter().find_map(|(call, answer)| match answer {
        Answer::Unclear(why) => Some((call, why)),
        _ => None,
    });
    let tried = answers.iter().any(|(_, answer)| matches!(answer, Answer::Refused(_)));
    let follows = answers.iter().any(|(_, answer)| matches!(answer, Answer::Follows(_)));
    let finding = if !free.is_empty() {
        let found = format!("a kernel without a signature can be loaded: {}", free.join(", "));
        Finding::new(id, Verdict::Fail, How::Tried, found)
    } else if let Some((call, why)) = unclear {
        Finding::unknown(id, How::Tried, format!("{call}: {why}"))
    } else if tried || follows {
        let how = if follows { How::Derived } else { How::Tried };
        Finding::new(id, Verdict::Pass, how, "a kernel without a signature is refused")
    } else {
        Finding::not_applicable(id, How::Tried, "this kernel was built without kexec")
    };
    answers.iter().fold(finding, |finding, (call, answer)| {
        let observed = match answer {
            Answer::Refused(by) | Answer::Follows(by) => by,
            Answer::Free => "accepted by every check",
            Answer::Absent(why) | Answer::Unclear(why) => why,
        };
        finding.seen(*call, observed)
    })
}

/// Offers a file that looks like a kernel from outside and has nothing in it, with a command line that cannot be one: it has no zero at its
/// end. `kimage_file_prepare_segments()` first asks whether the file is a kernel, then for its signature, and then refuses that command line,
/// so nothing is loaded in any case, and what is loaded stays. EINVAL means that the signature did not matter.
fn try_file() -> Answer {
    const NO_INITRAMFS: libc::c_ulong = 4;
    let Some(image) = image() else {
        return Answer::Unclear("not tried on this architecture".into());
    };
    let file = match sealed_file(&image) {
        Ok(file) => file,
        Err(error) => return Answer::Unclear(format!("a file in memory: {error}")),
    };
    let none: c_int = -1;
    let load = || {
        // SAFETY: the command line is one byte long, and the descriptor is open for the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_kexec_file_load,
                file.as_raw_fd(),
                none,
                1_usize,
                c"x".as_ptr(),
                NO_INITRAMFS,
            )
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    let is_busy = |result: &io::Result<()>| {
        result.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY))
    };
    let mut result = load();
    for _ in 0..TIMES {
        if !is_busy(&result) {
            break;
        }
        thread::sleep(PAUSE);
        result = load();
    }
    let Err(error) = result else {
        return Answer::Unclear("the kernel took a command line without an end".into());
    };
    match error.raw_os_error() {
        Some(libc::EINVAL) => Answer::Free,
        Some(libc::EPERM) => Answer::Refused(AS_LOCKDOWN.into()),
        Some(libc::EACCES) => Answer::Refused("EACCES: refused by IMA or another security module".into()),
        Some(
            libc::EKEYREJECTED | libc::ENODATA | libc::ELIBBAD | libc::EBADMSG | libc::ENOKEY | libc::ENOPKG,
        ) => Answer::Refused(format!("a signature is required: {error}")),
        Some(libc::ENOSYS) => Answer::Absent("this kernel has no such call".into()),
        _ => Answer::Unclear(error.to_string()),
    }
}

/// A file that nobody can write any more: the kernel reads no other.
fn sealed_file(content: &[u8]) -> io::Result<File> {
    let create = |flags| memfd_create("stockade-assess", MemfdFlags::CLOEXEC | flags);
    // vm.memfd_noexec can demand it. Before Linux 6.3 there was no such flag.
    let memory: OwnedFd = create(MemfdFlags::NOEXEC_SEAL).or_else(|_| create(MemfdFlags::empty()))?;
    let mut writer = File::from(memory);
    writer.write_all(content)?;
    // The writer is closed at the end of this function.
    File::open(format!("/proc/self/fd/{}", writer.as_raw_fd()))
}

/// The part of a kernel's header that the kernel reads before the signature: Documentation/arch/x86/boot.rst.
#[cfg(target_arch = "x86_64")]
#[expect(clippy::unnecessary_wraps, reason = "other architectures have none")]
fn image() -> Option<Vec<u8>> {
    let mut image = vec![0; 4096];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1fe, &[0x55, 0xaa]);
    put(0x202, b"HdrS");
    put(0x206, &0x020f_u16.to_le_bytes());
    // Loaded high.
    put(0x211, &[1]);
    // 64 bits, above 4 GiB, five levels of page tables.
    put(0x236, &0x63_u16.to_le_bytes());
    Some(image)
}

/// Documentation/arch/arm64/booting.rst.
#[cfg(target_arch = "aarch64")]
#[expect(clippy::unnecessary_wraps, reason = "other architectures have none")]
fn image() -> Option<Vec<u8>> {
    let mut image = vec![0; 4096];
    image[56..60].copy_from_slice(b"ARM\x64");
    Some(image)
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn image() -> Option<Vec<u8>> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_way_for_an_unsigned_kernel_is_enough() {
        let verdict = |load: Answer, file: Answer| {
            judged("modules.kexec-signature", &[("kexec_load", load), ("kexec_file_load", file)]).verdict
        };
        let refused = || Answer::Refused("lockdown".into());
        let absent = || Answer::Absent("not built".into());
        assert_eq!(verdict(refused(), refused()), Verdict::Pass);
        assert_eq!(verdict(absent(), refused()), Verdict::Pass);
        let follows = || Answer::Follows("not tried".into());
        assert_eq!(verdict(refused(), follows()), Verdict::Pass);
        assert_eq!(verdict(Answer::Free, follows()), Verdict::Fail);
        assert_eq!(
            judged("modules.kexec-signature", &[("a", refused()), ("b", follows())]).how,
            How::Derived
        );
        assert_eq!(verdict(Answer::Free, refused()), Verdict::Fail);
        assert_eq!(verdict(refused(), Answer::Free), Verdict::Fail);
        assert_eq!(verdict(refused(), Answer::Unclear("EBUSY".into())), Verdict::Unknown);
        assert_eq!(verdict(absent(), absent()), Verdict::NotApplicable);
    }

    #[test]
    fn kexec_can_be_turned_off() {
        let of = |files: &[(&str, &str)]| {
            let system = System::fake(files);
            (disabled(&system).verdict, signature(&system).verdict)
        };
        assert_eq!(of(&[(DISABLED, "1\n")]), (Verdict::Pass, Verdict::Pass));
        assert_eq!(of(&[(DISABLED, "0\n")]), (Verdict::Warn, Verdict::Unknown));
        let limits = [(DISABLED, "0\n"), (LIMITS[0], "0\n"), (LIMITS[1], "0\n")];
        assert_eq!(of(&limits), (Verdict::Pass, Verdict::Pass));
        let locked = ("/sys/kernel/security/lockdown", "none [integrity] confidentiality");
        let locked_and = |options| {
            let release = ("/proc/sys/kernel/osrelease", "6.12");
            of(&[(DISABLED, "0\n"), locked, release, ("/boot/config-6.12", options)]).1
        };
        assert_eq!(locked_and("CONFIG_KEXEC_FILE=y\nCONFIG_KEXEC_SIG=y\n"), Verdict::Pass);
        assert_eq!(locked_and("CONFIG_KEXEC=y\n"), Verdict::Pass);
        // Lockdown is not asked.
        assert_eq!(locked_and("CONFIG_KEXEC_FILE=y\n"), Verdict::Unknown);
        assert_eq!(of(&[(DISABLED, "0\n"), locked]).1, Verdict::Unknown);
    }

    #[test]
    fn what_is_off_is_not_tried() {
        let of = |files: &[(&str, &str)]| try_unsigned(&System::fake(files)).map(|(_, answer)| answer);
        let limits = [(DISABLED, "0\n"), (LIMITS[0], "0\n"), (LIMITS[1], "0\n")];
        for off in [&[(DISABLED, "1\n")][..], &limits] {
            assert!(of(off).iter().all(|answer| matches!(answer, Answer::Absent(_))));
        }
        let limited = [(DISABLED, "0\n"), (LIMITS[1], "1\n")];
        assert!(of(&limited).iter().all(|answer| matches!(answer, Answer::Unclear(_))));
    }

    #[test]
    fn a_waiting_kernel_is_told() {
        let verdict = |files: &[(&str, &str)]| loaded(&System::fake(files)).verdict;
        for path in LOADED {
            assert_eq!(verdict(&[(path, "1\n")]), Verdict::Warn);
            assert_eq!(verdict(&[(path, "0\n"), (CRASH_LOADED[1], "1\n")]), Verdict::Pass);
        }
        assert_eq!(verdict(&[]), Verdict::Unknown);
        assert_eq!(verdict(&[("/proc/sys/kernel/osrelease", "6")]), Verdict::NotApplicable);
    }
}
