//! The door to another kernel.

use std::ptr;

use crate::answer::{Outcome, check};
use crate::file;

/// Flags that no kernel accepts. They are refused right after the lockdown check.
/// Flags of 0 would unload a loaded image.
const INVALID_FLAGS: libc::c_ulong = 0xff;

/// Calls `kexec_load` without segments and with invalid flags: EPERM is a refusal, EINVAL comes after the
/// lockdown check. Nothing is loaded or unloaded (`kexec_load_check()` in `kernel/kexec.c`).
///
/// EPERM has other causes. `kernel.kexec_load_disabled` and, since Linux 6.3, an exhausted
/// `kernel.kexec_load_limit_panic` refuse before lockdown is asked; a limit also counts this very attempt
/// (the flags say "crash kernel"), so where one is set the probe stays away. A missing CAP_SYS_BOOT is
/// ruled out before. IMA refuses with EACCES before lockdown is asked, as under Secure Boot.
pub(crate) fn load_nothing() -> Outcome {
    if file::text("/proc/sys/kernel/kexec_load_disabled").is_some_and(|value| value != "0") {
        return Outcome::absent("kernel.kexec_load_disabled is set: kexec is off until reboot");
    }
    if file::text("/proc/sys/kernel/kexec_load_limit_panic").is_some_and(|value| value != "-1") {
        return Outcome::absent("kernel.kexec_load_limit_panic is set, and a probe would count against it");
    }
    let no_segments = ptr::null::<libc::c_void>();
    // SAFETY: with no segments the kernel reads no memory of ours.
    let result =
        check(unsafe { libc::syscall(libc::SYS_kexec_load, 0_usize, 0_usize, no_segments, INVALID_FLAGS) });
    match result {
        Ok(_) => Outcome::failed("kexec_load accepted invalid flags"),
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => {
            Outcome::refused_elsewhere("IMA refuses kexec_load before lockdown is asked").with(&error)
        }
        Err(error) => Outcome::from_error_past("kexec_load", &error, libc::EINVAL),
    }
}
