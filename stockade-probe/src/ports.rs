//! Doors to I/O ports and model-specific registers, which only x86 has.

use std::fs::OpenOptions;
use std::io::Write;

use crate::Answer;
use crate::answer::Outcome;
use crate::file;

/// Asks for port 0x80 (the port of power-on codes) and never touches it; the grant ends with the child.
/// `ksys_ioperm()` in `arch/x86/kernel/ioport.c` asks; the other cause of EPERM, a missing CAP_SYS_RAWIO,
/// is ruled out before.
#[cfg(target_arch = "x86_64")]
pub(crate) fn ioperm() -> Outcome {
    // SAFETY: changes only this process's right to one port, which it does not use.
    let result = crate::answer::check(unsafe { libc::ioperm(0x80, 1, 1) }.into());
    Outcome::from_result("ioperm", result)
}

/// Asks for I/O privilege level 3 and uses no port; the grant ends with the child. `iopl()` in
/// `arch/x86/kernel/ioport.c` asks; the other cause of EPERM, a missing CAP_SYS_RAWIO, is ruled out before.
#[cfg(target_arch = "x86_64")]
pub(crate) fn iopl() -> Outcome {
    // SAFETY: changes only this process's right to ports, which it does not use.
    let result = crate::answer::check(unsafe { libc::iopl(3) }.into());
    Outcome::from_result("iopl", result)
}

/// There is no ioperm on this architecture.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn ioperm() -> Outcome {
    Outcome::absent("only x86 has I/O ports")
}

/// There is no iopl on this architecture.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn iopl() -> Outcome {
    Outcome::absent("only x86 has I/O ports")
}

/// Writes nothing, zero bytes, to the MSR device: `msr_write()` in `arch/x86/kernel/msr.c` asks before it
/// looks at the length, and with no bytes no register is written and the kernel is not tainted. It may log
/// one line about a write to register 0.
///
/// The other causes of EPERM are `msr.allow_writes=off`, which is looked for, and a missing CAP_SYS_RAWIO,
/// which is ruled out before. The device is there only with the `msr` module; the probe does not load it.
pub(crate) fn write_msr() -> Outcome {
    const DEVICE: &str = "/dev/cpu/0/msr";
    let mut device = match OpenOptions::new().write(true).open(DEVICE) {
        Ok(device) => device,
        // A refusal of lockdown comes at the write, never at the open.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            return Outcome::failed(format!("open {DEVICE}: {error}")).with(&error);
        }
        Err(error) => return Outcome::from_error(&format!("open {DEVICE}"), &error),
    };
    let outcome = Outcome::from_result(&format!("write {DEVICE}"), device.write(&[]));
    let off = file::text("/sys/module/msr/parameters/allow_writes").is_some_and(|value| value == "off");
    if outcome.answer == Answer::Refused && off {
        return Outcome::absent("msr.allow_writes=off refuses every write, with or without lockdown");
    }
    outcome
}
