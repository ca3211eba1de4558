//! The door to the port and interrupt of a serial line.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use crate::answer::{Outcome, check};
use crate::file;

/// `struct serial_struct` of `linux/serial.h`.
#[repr(C)]
struct SerialStruct {
    kind: i32,
    line: i32,
    port: u32,
    irq: i32,
    flags: u32,
    xmit_fifo_size: i32,
    custom_divisor: i32,
    baud_base: i32,
    close_delay: u16,
    io_type: u8,
    reserved: u8,
    hub6: i32,
    closing_wait: u16,
    closing_wait2: u16,
    iomem_base: usize,
    iomem_reg_shift: u16,
    port_high: u32,
    iomap_base: libc::c_ulong,
}

/// `PORT_UNKNOWN`: there is no chip behind this line.
const UNKNOWN: i32 = 0;

/// `UPF_FIXED_PORT`: the interrupt cannot be set, so the kernel does not ask.
const FIXED_PORT: u32 = 1 << 29;

/// An interrupt no machine has: the kernel allows fewer than this.
const IMPOSSIBLE_IRQ: i32 = i32::MAX;

/// Reads the settings of a serial line that is no console and asks for the same with an impossible
/// interrupt. `uart_set_info()` in `drivers/tty/serial/serial_core.c` asks because the interrupt differs:
/// EPERM is a refusal; EINVAL is the driver's answer to the interrupt after that, and nothing is set. The
/// other cause of EPERM, a missing CAP_SYS_ADMIN, is ruled out before.
///
/// Opening a line nobody else has open raises its modem lines for a moment, as any program that looks at
/// it does. Consoles and lines without a chip are left alone.
pub(crate) fn set_irq() -> Outcome {
    let consoles = file::text("/proc/consoles").unwrap_or_default();
    let mut lines = ["ttyS1", "ttyS2", "ttyS3"].into_iter().filter(|line| !is_console(&consoles, line));
    let Some((line, device, mut settings)) = lines.find_map(usable) else {
        return Outcome::absent("no serial port but consoles among ttyS1 to ttyS3");
    };
    settings.irq = IMPOSSIBLE_IRQ;
    // SAFETY: the kernel reads one serial_struct.
    let result =
        check(unsafe { libc::ioctl(device.as_raw_fd(), libc::TIOCSSERIAL, &raw const settings) }.into());
    match result {
        Ok(_) => Outcome::failed(format!("{line} accepted interrupt {IMPOSSIBLE_IRQ}")),
        Err(error) => Outcome::from_error_past(&format!("TIOCSSERIAL on {line}"), &error, libc::EINVAL),
    }
}

/// Opens a line and reads its settings; none if it cannot serve as a probe.
fn usable(line: &'static str) -> Option<(&'static str, File, SerialStruct)> {
    let flags = libc::O_NOCTTY | libc::O_NONBLOCK;
    let device =
        OpenOptions::new().read(true).write(true).custom_flags(flags).open(format!("/dev/{line}")).ok()?;
    let settings = settings(&device).ok()?;
    (settings.kind != UNKNOWN && settings.flags & FIXED_PORT == 0).then_some((line, device, settings))
}

fn settings(device: &File) -> io::Result<SerialStruct> {
    // SAFETY: the struct is plain integers, for which zero is a value.
    let mut settings: SerialStruct = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one serial_struct.
    check(unsafe { libc::ioctl(device.as_raw_fd(), libc::TIOCGSERIAL, &raw mut settings) }.into())?;
    Ok(settings)
}

/// Whether /proc/consoles lists a line.
fn is_console(consoles: &str, line: &str) -> bool {
    consoles.lines().any(|console| console.split_whitespace().next() == Some(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consoles_are_known_by_their_whole_name() {
        let consoles =
            "ttyS1                -W- (EC p a)    4:65\ntty0                 -WU (E  p  )    4:1\n";
        assert!(is_console(consoles, "ttyS1"));
        assert!(!is_console(consoles, "ttyS"));
        assert!(!is_console(consoles, "ttyS2"));
    }

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn the_settings_have_the_kernels_layout() {
        assert_eq!(size_of::<SerialStruct>(), 72);
        assert_eq!(std::mem::offset_of!(SerialStruct, irq), 12);
        assert_eq!(std::mem::offset_of!(SerialStruct, iomem_base), 48);
    }
}
