//! Loads another kernel by kexec. A loaded image is unloaded; none is ever started.

use std::{fs::File, io, os::fd::AsRawFd, path::Path};

use super::{Answer, Door, missing};

pub(super) const DOORS: &[Door] = &[
    Door::new("kexec", "kexec_load of one page", load_page),
    Door::new("kexec", "kexec_load with flags that do not exist", || load(&[], 0xff)),
    Door::new("kexec", "kexec_file_load of an unsigned image", load_file),
];

/// A Debian kernel image without its signature.
pub(crate) const IMAGE: &str = "/root/image";

#[repr(C)]
struct Segment {
    buffer: *const u8,
    buffer_size: usize,
    memory: usize,
    memory_size: usize,
}

fn load(segments: &[Segment], flags: usize) -> Answer {
    let entry = segments.first().map_or(0, |segment| segment.memory);
    // SAFETY: the segments and their buffers live through the call, and the count is that of the slice.
    Answer::call(unsafe {
        libc::syscall(libc::SYS_kexec_load, entry, segments.len(), segments.as_ptr(), flags)
    })
}

/// Loads one page at 16 MiB, which is RAM in every guest; the kernel overwrites that page only when the image is started.
fn load_page() -> Answer {
    let page = [0_u8; 4096];
    let segment =
        Segment { buffer: page.as_ptr(), buffer_size: page.len(), memory: 16 << 20, memory_size: page.len() };
    match load(&[segment], 0) {
        // kexec_load without segments unloads the image.
        done @ Answer::Done(_) => match load(&[], 0) {
            Answer::Done(_) => done,
            failed => Answer::Done(format!("and could not be unloaded: {failed}")),
        },
        refused => refused,
    }
}

fn load_file() -> Answer {
    const UNLOAD: usize = 1;
    const NO_INITRAMFS: usize = 4;
    if !Path::new(IMAGE).exists() {
        return missing(IMAGE);
    }
    let image = match File::open(IMAGE) {
        Ok(image) => image,
        Err(e) => return Answer::from_result::<()>(Err(e)),
    };
    let call = |image: i32, flags: usize| {
        // SAFETY: the command line is one NUL byte, and the other arguments are numbers.
        let answer =
            unsafe { libc::syscall(libc::SYS_kexec_file_load, image, -1, 1_usize, c"".as_ptr(), flags) };
        if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    match call(image.as_raw_fd(), NO_INITRAMFS) {
        Ok(()) => match call(-1, UNLOAD) {
            Ok(()) => Answer::DONE,
            Err(e) => Answer::Done(format!("and could not be unloaded: {e}")),
        },
        Err(e) => Answer::from_result::<()>(Err(e)),
    }
}
