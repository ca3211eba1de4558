//! Doors of the module loader: unsigned modules and parameters that set hardware resources.

use std::path::Path;

use crate::answer::{Outcome, check};
use crate::file;

/// Offers 4096 zero bytes as a module. They are no ELF file, so nothing can be loaded; but the signature
/// is judged first (`module_sig_check()` in `kernel/module/signing.c`). EPERM is a refusal, ENOEXEC comes
/// after the check.
///
/// EPERM also comes from `kernel.modules_disabled`, which is looked for, and from a missing
/// CAP_SYS_MODULE, which is ruled out before. With `module.sig_enforce` the kernel answers EKEYREJECTED by
/// itself before it asks.
pub(crate) fn load_zeros() -> Outcome {
    if file::text("/proc/sys/kernel/modules_disabled").is_some_and(|value| value != "0") {
        return Outcome::absent("kernel.modules_disabled is set: no module can be loaded until reboot");
    }
    let zeros = [0_u8; 4096];
    // SAFETY: the kernel copies as many bytes as `zeros` has, and an empty parameter string.
    let result =
        check(unsafe { libc::syscall(libc::SYS_init_module, zeros.as_ptr(), zeros.len(), c"".as_ptr()) });
    match result {
        Ok(_) => Outcome::failed("the kernel loaded 4096 zero bytes as a module"),
        Err(error) if error.raw_os_error() == Some(libc::EKEYREJECTED) => Outcome::refused_elsewhere(
            "the kernel enforces module signatures (sig_enforce, or IMA under Secure Boot) before lockdown is asked",
        )
        .with(&error),
        Err(error) => Outcome::from_error_past("init_module", &error, libc::ENOEXEC),
    }
}

/// Writes a word to 8250's `share_irqs`, which is a number. It is one of the parameters declared with `module_param_hw`, for which
/// `param_check_unsafe()` in `kernel/params.c` asks before the value is read: EPERM is a refusal and has no other cause for a file that
/// root may write; EINVAL comes after the check, and the parameter keeps its value.
pub(crate) fn write_share_irqs() -> Outcome {
    let paths = ["8250", "8250_core"].map(|module| format!("/sys/module/{module}/parameters/share_irqs"));
    match paths.iter().map(Path::new).find(|path| path.exists()) {
        Some(path) => file::write_nonsense(path),
        None => Outcome::absent("this kernel has no 8250 serial driver, whose parameter is the probe"),
    }
}
