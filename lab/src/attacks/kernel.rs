//! Attacks that load another kernel or a module, suspend, or take a processor off line.

use std::{
    fs::{self, File},
    io,
    os::fd::AsRawFd,
    path::Path,
};

use anyhow::{Context, Result};

use super::{
    Attack, Attempt, Outcome, Pins,
    calls::{Undo, attack, shell},
    proof,
};
use crate::{syscall::check, unsigned};

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new("kexec-load", "load another kernel by kexec_load", Pins::Holds, || {
        let page = [0_u8; 4096];
        // A segment: address and size of its source, then of its target.
        let segment = [page.as_ptr() as usize, page.len(), 16 << 20, page.len()];
        // SAFETY: the segment and its buffer live through the call.
        let answer = unsafe { libc::syscall(libc::SYS_kexec_load, 16 << 20, 1, segment.as_ptr(), 0) };
        let answer = past_lockdown(check(answer));
        // SAFETY: without segments kexec_load reads no memory; it unloads the image.
        unsafe { libc::syscall(libc::SYS_kexec_load, 0, 0, 0, 0) };
        answer
    }),
    Attack::new("kexec-file-load", "load another kernel by kexec_file_load", Pins::Holds, || {
        fs::write("/tmp/image", image())?;
        let image = File::open("/tmp/image")?;
        let no_initrd = 4;
        // SAFETY: the descriptor is open; the command line is one NUL byte.
        past_lockdown(check(unsafe {
            libc::syscall(libc::SYS_kexec_file_load, image.as_raw_fd(), -1, 1_usize, c"".as_ptr(), no_initrd)
        }))
    }),
    Attack::new("hibernate", "hibernate, to change the image of memory on disk", Pins::Holds, || {
        past_lockdown(fs::write("/sys/power/state", "disk"))
    }),
    Attack::new("load-an-unsigned-module", "load a module without its signature", Pins::Holds, || {
        let order = fs::read_to_string("/modules/order").unwrap_or_default();
        let Some(path) = order.lines().next() else {
            return Attempt::impossible("this guest has no modules");
        };
        let module = unsigned::module(fs::read(path)?).with_context(|| format!("take {path}'s signature off"))?;
        // SAFETY: the length is that of the live buffer, and the string is NUL-terminated.
        past_lockdown(check(unsafe {
            libc::syscall(libc::SYS_init_module, module.as_ptr(), module.len(), c"".as_ptr())
        }))
    }),
    Attack::new("load-a-signed-module", "unload a module of the distribution's and load it again", Pins::Holds, || {
        if !Path::new("/modules/xfrm_user.ko").exists() {
            return Attempt::impossible("this guest has no module that could be loaded again");
        }
        attack("rmmod xfrm_user && insmod /modules/xfrm_user.ko")
    }),
    Attack::new("suspend-devices", "suspend and resume processes and devices", Pins::Holds, || {
        suspend()
    }),
    Attack::new("unplug-a-processor", "take a processor off line and on line again", Pins::Holds, || {
        const ONLINE: &str = "/sys/devices/system/cpu/cpu1/online";
        let before = proof::here()?;
        fs::write(ONLINE, "0").context("take processor 1 off line")?;
        let meanwhile = proof::here();
        fs::write(ONLINE, "1").context("take processor 1 on line")?;
        Ok(super::proof::reached(&before, &meanwhile?).into())
    })
    .with_two_processors(),
    Attack::new("ask-from-every-processor", "ask from both processors at once, thousands of times", Pins::Holds, || {
        let line = "for i in 1 2 3 4; do (for j in $(seq 100); do dd if=/proc/kcore of=/dev/null bs=1 count=1 2>/dev/null && echo through; done) & done; wait";
        let said = shell(line)?.exits(0)?.out;
        if said.is_empty() { Attempt::refused("each") } else { Ok(Outcome::Reached(format!("kcore: {said}")).into()) }
    })
    .with_two_processors(),
];

/// Judges whether lockdown's errno refused an attempt. Every other error comes from code behind the hook.
fn past_lockdown<T>(answer: io::Result<T>) -> Result<Attempt> {
    match answer {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Attempt::refused(error),
        Err(error) => Ok(Outcome::Reached(format!("past lockdown, then: {error}")).into()),
        Ok(_) => Ok(Outcome::Reached("done".into()).into()),
    }
}

/// Returns an image with a bzImage's setup header, the only part that the kernel checks before the signature.
fn image() -> Vec<u8> {
    let mut image = vec![0; 4096];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1fe, &[0x55, 0xaa]);
    put(0x202, b"HdrS");
    // Version 2.15; loaded high; 64 bits, above 4 GiB too.
    put(0x206, &[0x0f, 0x02]);
    put(0x211, &[1]);
    put(0x236, &[3, 0]);
    image
}

/// Suspends as far as the kernel's own test, which resumes by itself: nothing else would wake up a guest of the lab.
fn suspend() -> Result<Attempt> {
    const TEST: &str = "/sys/power/pm_test";
    let states = fs::read_to_string("/sys/power/state").unwrap_or_default();
    if !states.split_whitespace().any(|word| word == "freeze") {
        return Attempt::impossible(format!("this guest cannot suspend: it has {}", states.trim()));
    }
    if fs::write(TEST, "devices").is_err() {
        return Attempt::impossible(
            "this kernel cannot suspend for a test, and nothing would wake the guest up",
        );
    }
    let undo = Undo("echo none > /sys/power/pm_test");
    Ok(Attempt::from_result(fs::write("/sys/power/state", "freeze"))?.holding(undo))
}
