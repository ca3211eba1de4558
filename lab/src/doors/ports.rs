//! I/O ports, by all system calls that grant them, model-specific registers and serial ports.

use std::{fs::OpenOptions, io::Write, os::fd::AsRawFd, os::unix::fs::OpenOptionsExt, path::Path};

use super::{Answer, Door, missing};

pub(super) const DOORS: &[Door] = &[
    Door::new("ioport", "ioperm of port 0x80", || ioperm(1)),
    Door::new("ioport", "ioperm that gives a port back", || ioperm(0)),
    Door::new("ioport", "iopl level 3", || iopl(3)),
    Door::new("ioport", "iopl level 0", || iopl(0)),
    Door::new("ioport", "ioctl KDADDIO on a console", || console(0x4b34, 0x3b4)),
    Door::new("ioport", "ioctl KDDELIO on a console", || console(0x4b35, 0x3b4)),
    Door::new("ioport", "ioctl KDENABIO on a console", || console(0x4b36, 0)),
    Door::new("ioport", "ioctl KDDISABIO on a console", || console(0x4b37, 0)),
    Door::new("msr", "zero-length write to /dev/cpu/0/msr", || match msr() {
        Ok(mut device) => Answer::from_result(device.write(&[])),
        Err(answer) => answer,
    }),
    Door::new("msr", "ioctl X86_IOC_WRMSR_REGS of TSC_AUX as it is", write_registers),
    Door::new("msr", "ioctl X86_IOC_RDMSR_REGS", || registers(READ_REGISTERS, &mut [0; 8])),
    Door::new("tiocsserial", "TIOCSSERIAL with an impossible interrupt", || serial(Some(100_000))),
    Door::new("tiocsserial", "TIOCSSERIAL of what is set", || serial(None)),
];

fn ioperm(on: i32) -> Answer {
    // SAFETY: ioperm takes numbers only, and this child uses no port.
    Answer::call(unsafe { libc::ioperm(0x80, 1, on) }.into())
}

fn iopl(level: i32) -> Answer {
    // SAFETY: iopl takes a number only, and this child uses no port.
    Answer::call(unsafe { libc::iopl(level) }.into())
}

fn console(request: u64, port: u64) -> Answer {
    let path = "/dev/tty1";
    if !Path::new(path).exists() {
        return missing(path);
    }
    let tty = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open(path);
    match tty {
        // SAFETY: these requests take a number.
        Ok(tty) => Answer::call(unsafe { libc::ioctl(tty.as_raw_fd(), request, port) }.into()),
        Err(e) => Answer::from_result::<()>(Err(e)),
    }
}

const READ_REGISTERS: u64 = 0xc020_63a0;
const WRITE_REGISTERS: u64 = 0xc020_63a1;
/// TSC_AUX holds processor and node number for user space: its value can be written back without effect.
const TSC_AUX: u32 = 0xc000_0103;

fn msr() -> Result<std::fs::File, Answer> {
    let path = "/dev/cpu/0/msr";
    if !Path::new(path).exists() {
        return Err(missing(path));
    }
    OpenOptions::new().read(true).write(true).open(path).map_err(|e| Answer::from_result::<()>(Err(e)))
}

/// Issues an ioctl with the registers eax, ecx, edx, ebx, esp, ebp, esi, edi.
fn registers(request: u64, values: &mut [u32; 8]) -> Answer {
    values[1] = TSC_AUX;
    match msr() {
        Ok(device) => {
            // SAFETY: the kernel reads and writes eight words.
            Answer::call(unsafe { libc::ioctl(device.as_raw_fd(), request, values.as_mut_ptr()) }.into())
        }
        Err(answer) => answer,
    }
}

fn write_registers() -> Answer {
    let mut values = [0; 8];
    match registers(READ_REGISTERS, &mut values) {
        Answer::Done(_) => registers(WRITE_REGISTERS, &mut values),
        answer => answer,
    }
}

/// Writes the `struct serial_struct` of a port without a user, unchanged or with another interrupt.
fn serial(irq: Option<i32>) -> Answer {
    const IRQ: usize = 3;
    let path = "/dev/ttyS2";
    let tty =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK).open(path);
    let tty = match tty {
        Ok(tty) => tty,
        Err(e) => return Answer::from_result::<()>(Err(e)),
    };
    let mut settings = [0_i32; 32];
    // SAFETY: the kernel writes a structure of 72 bytes, and the array has 128.
    if unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCGSERIAL, settings.as_mut_ptr()) } != 0 {
        return Answer::from_result::<()>(Err(std::io::Error::last_os_error()));
    }
    if let Some(irq) = irq {
        settings[IRQ] = irq;
    }
    // SAFETY: the kernel reads a structure of 72 bytes, and the array has 128.
    Answer::call(unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCSSERIAL, settings.as_ptr()) }.into())
}
