//! The attachment of the program that holds settings: interrupted, detached by root, and impossible.

use std::{ffi::CString, fs, io, path::Path};

use anyhow::{Context, Result, ensure};

use super::{PIN, Setting, hold, lift_all};
use crate::{
    guest::Guest,
    program::{stockade, with_env},
    scenarios::{
        Mounted,
        policy::{Cgroup, enforced, write},
    },
};

pub(super) fn killed(_: &Guest) -> Result<()> {
    lift_all()?;
    let kptr = Setting::set("kernel/kptr_restrict", "1")?;
    let kcore = || fs::File::open("/proc/kcore").is_ok();
    write("level = \"confidentiality\"\n[settings]\nfreeze = [\"kernel.kptr_restrict\"]\n")?;
    let stop_at = |step: &str| with_env(&["enforce"], &[("STOCKADE_STOP_AT", step)])?.exits(-1);
    for step in ["decided", "link-settings"] {
        lift_all()?;
        stop_at(step)?;
        kptr.writes(b"0", true).with_context(|| format!("killed at {step}"))?;
        kptr.writes(b"1", true)?;
        ensure!(kcore(), "killed at {step}: one half is enforced");
        stockade(&["enforce"])?.exits(0)?;
        kptr.writes(b"0", false).with_context(|| format!("after a kill at {step}"))?;
        ensure!(!kcore(), "after a kill at {step} the next enforce did not take");
    }
    lift_all()?;
    stop_at("flipped")?;
    kptr.writes(b"0", false)?;
    ensure!(!kcore(), "killed after the commit: one half is enforced");
    stockade(&["enforce", "integrity"])?.exits(0)?;
    for step in ["link-settings", "slot-written"] {
        stop_at(step)?;
        kptr.writes(b"0", true).with_context(|| format!("killed at {step}"))?;
        kptr.writes(b"1", true)?;
        ensure!(kcore(), "killed at {step}: one half is enforced");
        stockade(&["enforce", "integrity"])?.exits(0)?;
        ensure!(!Path::new(PIN).exists(), "killed at {step}: the attachment is left over");
    }
    stop_at("flipped")?;
    kptr.writes(b"0", false)?;
    ensure!(!kcore(), "killed after the flip: one half is enforced");
    Ok(())
}

/// Root can detach the program while no policy is sealed; `status` then does not report the setting as held.
pub(super) fn detached(_: &Guest) -> Result<()> {
    lift_all()?;
    let kptr = Setting::set("kernel/kptr_restrict", "1")?;
    hold("freeze = [\"kernel.kptr_restrict\"]")?;
    detach(PIN)?;
    kptr.writes(b"0", true)?;
    stockade(&["status"])?.exits(0)?.says("the program that holds settings was detached")?;
    stockade(&["enforce"])?.exits(0)?;
    kptr.writes(b"1", false)?;
    let status = stockade(&["status", "--json"])?.json()?;
    ensure!(status["stockade"]["settings"]["held"] == true, "{status}");
    fs::remove_file(PIN)?;
    stockade(&["status"])?.exits(0)?.says("the program that holds settings was detached")?;
    Ok(())
}

/// Detaches the pinned link by BPF_LINK_DETACH.
fn detach(pin: &str) -> Result<()> {
    const BPF_OBJ_GET: i64 = 7;
    const BPF_LINK_DETACH: i64 = 34;
    let path = CString::new(pin)?;
    let mut attr = [0u64; 2];
    attr[0] = path.as_ptr() as u64;
    // SAFETY: the attributes and the path live through the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET, attr.as_mut_ptr(), 16) };
    ensure!(fd >= 0, "open {pin}: {}", io::Error::last_os_error());
    let fd = u64::try_from(fd)?;
    let mut attr = [fd];
    // SAFETY: the attributes live through the call.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, BPF_LINK_DETACH, attr.as_mut_ptr(), 4) };
    let error = io::Error::last_os_error();
    // SAFETY: the kernel has just created the descriptor, and nothing else owns it.
    unsafe { libc::close(i32::try_from(fd)?) };
    ensure!(answer == 0, "detach {pin}: {error}");
    Ok(())
}

pub(super) fn no_cgroups(_: &Guest) -> Result<()> {
    lift_all()?;
    let policy = |name: &str, text: &str| -> Result<String> {
        let path = format!("/root/{name}.toml");
        fs::create_dir_all("/root")?;
        fs::write(&path, text)?;
        Ok(path)
    };
    let with = policy("with", "level = \"integrity\"\n[settings]\nfreeze = [\"kernel.kptr_restrict\"]\n")?;
    let without = policy("without", "level = \"integrity\"\n")?;
    let covered = Mounted::tmpfs("/sys/fs/cgroup")?;
    let answer = stockade(&["enforce", "--policy", &with]);
    let other = stockade(&["enforce", "--policy", &without]);
    drop(covered);
    answer?.exits(2)?.says("mount -t cgroup2")?;
    other?.exits(0)?;
    // A part of the cgroup tree is not enough: processes in other cgroups could write.
    lift_all()?;
    let part = Cgroup::new("/part")?;
    let bound = Bound::new("/sys/fs/cgroup/part", "/sys/fs/cgroup")?;
    let answer = stockade(&["enforce", "--policy", &with]);
    drop(bound);
    drop(part);
    answer?.exits(2)?.says("is a part of")?;
    ensure!(!enforced()?, "something is enforced all the same");
    Ok(())
}

/// A bind mount, removed when this is dropped.
struct Bound(CString);

impl Bound {
    fn new(from: &str, to: &str) -> Result<Self> {
        let (from, to) = (CString::new(from)?, CString::new(to)?);
        // SAFETY: the strings live through the call; a bind mount needs neither type nor data.
        let answer = unsafe {
            libc::mount(from.as_ptr(), to.as_ptr(), std::ptr::null(), libc::MS_BIND, std::ptr::null())
        };
        ensure!(answer == 0, "bind {from:?} to {to:?}: {}", io::Error::last_os_error());
        Ok(Self(to))
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // SAFETY: the path lives through the call.
        unsafe { libc::umount2(self.0.as_ptr(), libc::MNT_DETACH) };
    }
}
