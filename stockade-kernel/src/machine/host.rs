/*!
Facts about this machine: security modules, Secure Boot, kernel, namespaces, clocks. Only reads.
*/
use std::{io, path::Path};

use jiff::Timestamp;
use serde::Serialize;
use stockade_policy::model::Clock;
use stockade_reasons::Level;

use crate::{
    Error,
    sys::{self, fs, is_mounted},
};

pub use crate::{error::OLDEST, sys::in_container};

/// The folder of the pins of a policy in force.
pub(crate) const PINS: &str = "/sys/fs/bpf/stockade";
const LSM_LIST: &str = "/sys/kernel/security/lsm";
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";
const EFI: &str = "/sys/firmware/efi";
const SECURE_BOOT: &str = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
const VARIABLES: &str = "/sys/firmware/efi/efivars";
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
const CGROUP2_MAGIC: i64 = 0x6367_7270;
const EFIVARFS_MAGIC: i64 = 0xde5e_81e4;

/// The initial pid namespace; the inode number is fixed since 3.8 (`PROC_PID_INIT_INO`).
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

/// The state of Secure Boot as the firmware reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecureBoot {
    /// Booted without EFI, which has no Secure Boot.
    NoEfi,
    /// On.
    On,
    /// Off.
    Off,
}

/// Returns the active security modules in the kernel's order.
///
/// # Errors
/// [`Error::NoSecurityfs`] when the list cannot be read.
pub fn active_lsms() -> Result<String, Error> {
    fs::read_to_string(LSM_LIST)
        .map(|list| list.trim().to_owned())
        .map_err(|source| Error::NoSecurityfs { path: LSM_LIST.into(), source })
}

/// Reports whether `bpf` is among them.
#[must_use]
pub fn has_bpf_lsm(list: &str) -> bool {
    list.split(',').any(|name| name == "bpf")
}

/// Returns the level of the kernel's own lockdown. [`Level::None`] also if it is not built in or not among the active security modules: unless
/// CONFIG_SECURITY_LOCKDOWN_LSM_EARLY is set, lsm= can omit it, and before 6.19 its file exists even then, with a level that refuses nothing.
///
/// # Errors
/// [`Error::NoSecurityfs`] when securityfs cannot be read at all.
pub fn native_lockdown() -> Result<Level, Error> {
    match fs::read_to_string(LOCKDOWN) {
        Ok(text) => Ok(level_in_force(&text, &active_lsms()?)),
        Err(e) if e.kind() == io::ErrorKind::NotFound && fs::exists(LSM_LIST).is_ok_and(|there| there) => {
            Ok(Level::None)
        }
        Err(source) => Err(Error::NoSecurityfs { path: LOCKDOWN.into(), source }),
    }
}

fn level_in_force(text: &str, active: &str) -> Level {
    if active.split(',').all(|name| name != "lockdown") {
        Level::None
    } else if text.contains("[confidentiality]") {
        Level::Confidentiality
    } else if text.contains("[integrity]") {
        Level::Integrity
    } else {
        Level::None
    }
}

/// Returns the state of Secure Boot.
///
/// # Errors
/// [`Error::SecureBootUnknown`] on an EFI machine whose variables cannot be read.
pub fn secure_boot() -> Result<SecureBoot, Error> {
    if !Path::new(EFI).exists() {
        return Ok(SecureBoot::NoEfi);
    }
    match fs::read(SECURE_BOOT) {
        // Four bytes of attributes precede the value.
        Ok(bytes) => match bytes.get(4) {
            Some(1) => Ok(SecureBoot::On),
            Some(_) => Ok(SecureBoot::Off),
            None => Err(Error::SecureBootUnknown { reason: format!("{SECURE_BOOT} is too short") }),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound && is_mounted(Path::new(VARIABLES), EFIVARFS_MAGIC) => {
            Ok(SecureBoot::Off)
        }
        Err(e) => Err(Error::SecureBootUnknown { reason: format!("{SECURE_BOOT}: {e}") }),
    }
}

/// Reports whether a BPF file system is mounted at this folder or above it.
#[must_use]
pub fn is_bpffs(path: &Path) -> bool {
    is_mounted(path, BPF_FS_MAGIC)
}

/// Reports whether the cgroup v2 hierarchy is mounted at this folder or above it.
#[must_use]
pub fn is_cgroup2(path: &Path) -> bool {
    is_mounted(path, CGROUP2_MAGIC)
}

/// Returns `uname -r`.
#[must_use]
pub fn kernel_release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".into(), |r| r.trim().to_owned())
}

/// Reports whether the running kernel has this version or a newer one, by its release.
#[must_use]
pub fn is_at_least(major: u32, minor: u32) -> bool {
    is_release_at_least(&kernel_release(), major, minor)
}

pub(crate) fn is_release_at_least(release: &str, major: u32, minor: u32) -> bool {
    let mut numbers = release.split(['.', '-', '+']).map_while(|word| word.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(x), Some(y)) => (x, y) >= (major, minor),
        _ => false,
    }
}

/// Fails if the running kernel is older than [`OLDEST`]. Accepts a release that is not a version.
///
/// # Errors
/// [`Error::OldKernel`].
pub fn is_new_enough() -> Result<(), Error> {
    let release = kernel_release();
    if is_too_old(&release) { Err(Error::OldKernel { release }) } else { Ok(()) }
}

/// Red Hat Enterprise Linux 9 and its rebuilds: 5.14 by number, with the BPF of much newer kernels. The trial attachment shows whether such a kernel
/// can enforce.
const BACKPORTED: &str = ".el9";

fn is_too_old(release: &str) -> bool {
    is_release_at_least(release, 0, 0)
        && !is_release_at_least(release, OLDEST.0, OLDEST.1)
        && !release.contains(BACKPORTED)
}

/// The kernel's function tracer, which attaches BPF programs to the kernel's functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracing {
    /// It works; `kernel.ftrace_enabled` is not 0.
    On,
    /// `kernel.ftrace_enabled` is 0, so that no program on a kernel function runs, BPF LSM programs included.
    Off,
    /// The kernel was built without it: no program can be attached to a function.
    Missing,
}

/// Returns the state of the function tracer.
#[must_use]
pub fn tracing() -> Tracing {
    tracing_below(Path::new("/proc/sys/kernel"))
}

/// Reads `kernel.ftrace_enabled`, which every kernel with the function tracer has. Without /proc the tracer does not count as missing.
fn tracing_below(folder: &Path) -> Tracing {
    match fs::read_to_string(folder.join("ftrace_enabled")) {
        Ok(value) if value.trim() == "0" => Tracing::Off,
        Err(error) if error.kind() == io::ErrorKind::NotFound && folder.join("osrelease").exists() => {
            Tracing::Missing
        }
        _ => Tracing::On,
    }
}

/// Reports whether `kernel.ftrace_enabled` is 0.
#[must_use]
pub fn tracing_is_off() -> bool {
    tracing() == Tracing::Off
}

/// Reports whether the kernel may switch tasks during a decision (full or lazy preemption); `None` if this is not known. With `PREEMPT_DYNAMIC` the
/// model in force is in debugfs. If lockdown is active, debugfs is not tried, since that would cause a refusal; the kernel's command line and
/// the configuration that distributions install are read instead.
#[must_use]
pub fn may_switch_in_kernel() -> Option<bool> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let release = kernel_release();
    let closed = Path::new(PINS).exists() || !matches!(native_lockdown(), Ok(Level::None));
    let list = if closed { String::new() } else { read("/sys/kernel/debug/sched/preempt") };
    preemption(
        &read("/proc/sys/kernel/version"),
        &read("/proc/cmdline"),
        &list,
        &(read(&format!("/boot/config-{release}")) + &read(&format!("/usr/lib/modules/{release}/config"))),
    )
}

/// Returns the answer from `uname -v`, the kernel's command line, the list in debugfs with the model in force in parentheses, and the kernel's
/// configuration.
fn preemption(version: &str, cmdline: &str, list: &str, config: &str) -> Option<bool> {
    let model = |name: &str| match name {
        "none" | "voluntary" => Some(false),
        "full" | "lazy" => Some(true),
        _ => None,
    };
    let told = list.split_once('(').and_then(|(_, rest)| model(rest.split(')').next()?));
    if told.is_some() {
        return told;
    }
    let mut words = version.split_whitespace();
    match words.find(|word| word.starts_with("PREEMPT")) {
        None => Some(false),
        Some("PREEMPT_DYNAMIC") => {
            let chosen =
                cmdline.split_whitespace().rev().find_map(|word| model(word.strip_prefix("preempt=")?));
            let built = || {
                config.lines().find_map(|line| match line {
                    "CONFIG_PREEMPT_NONE=y" | "CONFIG_PREEMPT_VOLUNTARY=y" => Some(false),
                    "CONFIG_PREEMPT=y" | "CONFIG_PREEMPT_LAZY=y" => Some(true),
                    _ => None,
                })
            };
            chosen.or_else(built)
        }
        Some(_) => Some(true),
    }
}

/// Reports whether the effective user id is 0, in the initial user namespace.
#[must_use]
pub fn is_root() -> bool {
    sys::effective_user() == 0 && !in_container()
}

/// Reports whether another process traces this one.
pub(crate) fn is_traced() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    tracer.is_none_or(|tracer| tracer.trim() != "0")
}

/// Reports whether this process is in another pid namespace than the initial one, and so sees only the processes there.
#[must_use]
pub fn in_pid_namespace() -> bool {
    fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link != Path::new(INITIAL_PID_NAMESPACE))
}

/// Returns the nanoseconds since boot, suspend included.
#[must_use]
pub fn boot_ns() -> u64 {
    clock(libc::CLOCK_BOOTTIME)
}

/// Returns the boot id; zeros if it cannot be read.
#[must_use]
pub fn boot_id() -> [u8; 16] {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).map_or([0; 16], u128::to_be_bytes)
}

/// Returns the current time on both clocks.
#[must_use]
pub fn now() -> Clock {
    Clock { wall: Timestamp::now(), boot_ns: boot_ns() }
}

/// The month in which this version was made. A clock that shows an earlier time is wrong; one without a battery begins at 1970.
pub const MADE: Timestamp = Timestamp::constant(1_793_491_200, 0);

/// Returns why the wall clock is implausible, if it is.
#[must_use]
pub fn implausible(now: Clock) -> Option<String> {
    let told = |time: Timestamp| time.strftime("%Y-%m-%d").to_string();
    (now.wall < MADE).then(|| {
        format!(
            "the clock says {}, before this version of Stockade was made ({})",
            told(now.wall),
            told(MADE)
        )
    })
}

/// The state of the kernel's clocks by adjtimex(2), which needs no privilege.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockCare {
    /// Whether the wall clock is synchronised.
    pub synchronised: bool,
    /// Adjustment of the clock since boot in ppm: negative if slowed. It lasts until it is changed.
    pub slewed_ppm: i64,
}

/// Reads the state of the clocks.
#[must_use]
pub fn clock_care() -> Option<ClockCare> {
    // SAFETY: timex is plain data; zeros request no change.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: a live timex.
    if unsafe { libc::adjtimex(&raw mut timex) } < 0 {
        return None;
    }
    Some(clock_care_of(timex.status, timex.tick, timex.freq))
}

/// `tick` is in microseconds, at 100 ticks a second; `freq` in 2^-16 ppm.
fn clock_care_of(status: i32, tick: i64, freq: i64) -> ClockCare {
    const TICK: i64 = 10_000;
    ClockCare {
        synchronised: status & libc::STA_UNSYNC == 0,
        slewed_ppm: (tick - TICK) * 100 + freq / 65_536,
    }
}

/// Returns the nanoseconds that this machine was suspended: the difference from clocks that stop then.
#[must_use]
pub fn suspended_ns() -> u64 {
    boot_ns().saturating_sub(clock(libc::CLOCK_MONOTONIC))
}

fn clock(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is live for the call; CLOCK_BOOTTIME exists since 2.6.39.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    u64::try_from(now.tv_sec).unwrap_or_default() * 1_000_000_000
        + u64::try_from(now.tv_nsec).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_clock_is_not_before_this_version() {
        let changelog = include_str!("../../../CHANGELOG.md");
        let day = changelog.lines().find_map(|line| line.strip_prefix("## ")?.split_once(" - ")).unwrap().1;
        let released: Timestamp = format!("{day}T00:00:00Z").parse().unwrap();
        let before = released.duration_since(MADE).as_hours() / 24;
        assert!((0..62).contains(&before), "host::MADE is {before} days before the newest release");
        assert!(
            implausible(Clock { wall: Timestamp::UNIX_EPOCH, boot_ns: 1 }).unwrap().contains("1970-01-01")
        );
        assert_eq!(implausible(Clock { wall: released, boot_ns: 1 }), None);
    }

    #[test]
    fn slewing_is_told() {
        let care = clock_care_of(libc::STA_UNSYNC, 9_000, -32_768_000);
        assert_eq!(care, ClockCare { synchronised: false, slewed_ppm: -100_500 });
        assert_eq!(clock_care_of(0, 10_000, 0), ClockCare { synchronised: true, slewed_ppm: 0 });
        assert!(clock_care().is_some());
    }

    #[test]
    fn the_bracketed_level_is_the_one_in_force() {
        let active = "lockdown,capability,yama";
        assert_eq!(level_in_force("[none] integrity confidentiality\n", active), Level::None);
        assert_eq!(level_in_force("none [integrity] confidentiality\n", active), Level::Integrity);
        assert_eq!(level_in_force("none integrity [confidentiality]\n", active), Level::Confidentiality);
        assert_eq!(level_in_force("none [integrity] confidentiality\n", "capability,yama"), Level::None);
    }

    #[test]
    fn the_model_of_preemption_is_told_or_not_guessed() {
        let dynamic = "#1 SMP PREEMPT_DYNAMIC Debian 6.12";
        assert_eq!(preemption(dynamic, "quiet", "none (voluntary) full\n", ""), Some(false));
        assert_eq!(preemption(dynamic, "quiet", "full (lazy)\n", "CONFIG_PREEMPT_VOLUNTARY=y\n"), Some(true));
        assert_eq!(preemption(dynamic, "preempt=none preempt=full", "", ""), Some(true));
        assert_eq!(preemption(dynamic, "quiet", "", "CONFIG_PREEMPT_VOLUNTARY=y\n"), Some(false));
        assert_eq!(preemption(dynamic, "quiet", "", ""), None);
        assert_eq!(preemption("#1 SMP Debian", "quiet", "", ""), Some(false));
        assert_eq!(preemption("#1 SMP PREEMPT_RT Debian", "quiet", "", ""), Some(true));
    }

    #[test]
    fn kernels_before_5_15_are_too_old_and_what_is_no_version_is_not() {
        for old in ["5.10.0-32-amd64", "5.14.21-150500.55.7-default", "4.19.0", "5.9"] {
            assert!(is_too_old(old), "{old}");
        }
        for new in
            ["5.15.0", "5.14.0-427.13.1.el9_4.x86_64", "5.15.0-100-generic", "6.1.0-rt", "7.0", "unknown"]
        {
            assert!(!is_too_old(new), "{new}");
        }
    }

    #[test]
    fn a_missing_switch_is_not_one_that_is_on() {
        let here = std::env::temp_dir().join(format!("stockade-tracing-{}", std::process::id()));
        fs::create_dir_all(&here).unwrap();
        assert_eq!(tracing_below(&here), Tracing::On);
        fs::write(here.join("osrelease"), "6.18.0\n").unwrap();
        assert_eq!(tracing_below(&here), Tracing::Missing);
        for (value, tracing) in [("0\n", Tracing::Off), ("1\n", Tracing::On)] {
            fs::write(here.join("ftrace_enabled"), value).unwrap();
            assert_eq!(tracing_below(&here), tracing);
        }
        fs::remove_dir_all(&here).unwrap();
    }

    #[test]
    fn bpf_is_a_word_in_the_list_not_a_part_of_one() {
        assert!(has_bpf_lsm("lockdown,capability,bpf"));
        assert!(!has_bpf_lsm("lockdown,bpfilter"));
    }
}
