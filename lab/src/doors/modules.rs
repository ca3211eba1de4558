//! Loads modules of Debian's kernel package: with Debian's signature, without a signature, and with a foreign signature.

use std::{
    ffi::CString,
    fs::{self, File},
    io,
    os::fd::AsRawFd,
    path::Path,
};

use super::{Answer, Door, missing};

pub(super) const DOORS: &[Door] = &[
    Door::new("module-signature", "finit_module of a module signed by Debian", || finit(SIGNED, DUMMY, c"")),
    Door::new("module-signature", "init_module of a module signed by Debian", || init(SIGNED)),
    Door::new("module-signature", "finit_module of a module without signature", || {
        finit(STRIPPED, DUMMY, c"")
    }),
    Door::new("module-signature", "init_module of a module without signature", || init(STRIPPED)),
    Door::new("module-signature", "finit_module of a module signed by a stranger", || {
        finit(FOREIGN, DUMMY, c"")
    }),
    Door::new("module-signature", "init_module of a module signed by a stranger", || init(FOREIGN)),
    Door::new("module-parameters", "load parport_pc with ports and interrupt of one's own", parport),
];

/// The module with Debian's signature, without a signature, and with a foreign signature.
pub(crate) const SIGNED: &str = "/root/signed.ko";
pub(crate) const STRIPPED: &str = "/root/stripped.ko";
pub(crate) const FOREIGN: &str = "/root/foreign.ko";

/// The module's name in the kernel.
const DUMMY: &str = "dummy";

fn finit(file: &str, name: &str, parameters: &std::ffi::CStr) -> Answer {
    let Ok(module) = File::open(file) else { return missing(file) };
    // SAFETY: the descriptor is open and the string is NUL-terminated.
    let answer = unsafe { libc::syscall(libc::SYS_finit_module, module.as_raw_fd(), parameters.as_ptr(), 0) };
    unload_after(answer, name)
}

fn init(file: &str) -> Answer {
    let Ok(module) = fs::read(file) else { return missing(file) };
    // SAFETY: the length is that of the live buffer, and the string is NUL-terminated.
    let answer = unsafe { libc::syscall(libc::SYS_init_module, module.as_ptr(), module.len(), c"".as_ptr()) };
    unload_after(answer, DUMMY)
}

fn unload_after(answer: i64, name: &str) -> Answer {
    let loaded = Answer::call(answer);
    if loaded == Answer::DONE
        && let Err(e) = unload(name)
    {
        return Answer::Done(format!("and could not be unloaded: {e}"));
    }
    loaded
}

fn unload(name: &str) -> io::Result<()> {
    let name = CString::new(name)?;
    // SAFETY: the string is NUL-terminated.
    let answer = unsafe { libc::syscall(libc::SYS_delete_module, name.as_ptr(), libc::O_NONBLOCK) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Reloads parport_pc, which was loaded at boot without parameters, with hardware parameters: the kernel calls the hook for each of these.
fn parport() -> Answer {
    let file = "/modules/parport_pc.ko";
    if !Path::new(file).exists() {
        return Answer::Absent("this kernel has no module parport_pc".into());
    }
    if let Err(e) = unload("parport_pc")
        && e.raw_os_error() != Some(libc::ENOENT)
    {
        return Answer::Absent(format!("parport_pc could not be unloaded first: {e}"));
    }
    finit(file, "parport_pc", c"io=0x378 irq=7")
}
