//! Accesses a PCI device from user space. The guest has QEMU's teaching device `edu`, whose registers no driver uses.

use std::{
    fs,
    io::{self, Seek, SeekFrom, Write},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use super::{Answer, Door, reading};

pub(super) const DOORS: &[Door] = &[
    Door::new("pci-access", "write a vendor id back to config in sysfs", || match edu() {
        Ok(device) => write_back(&device.join("config")),
        Err(absent) => absent,
    }),
    Door::new("pci-access", "map a BAR through sysfs", map_sysfs),
    Door::new("pci-access", "write an I/O BAR through sysfs", write_io),
    Door::new("pci-access", "write a vendor id back in /proc/bus/pci", || match proc_edu() {
        Ok(device) => write_back(&device),
        Err(absent) => absent,
    }),
    Door::new("pci-access", "ioctl PCIIOC_CONTROLLER", || with_proc(|fd| ioctl(fd, 0))),
    Door::new("pci-access", "ioctl PCIIOC_MMAP_IS_MEM", || with_proc(|fd| ioctl(fd, 2))),
    Door::new("pci-access", "map a BAR through /proc/bus/pci", || with_proc(map_proc)),
    Door::new("pci-access", "read config in sysfs", || match edu() {
        Ok(device) => Answer::from_result(fs::read(device.join("config"))),
        Err(absent) => absent,
    }),
];

const DEVICES: &str = "/sys/bus/pci/devices";

fn devices() -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(DEVICES).into_iter().flatten().flatten().map(|e| e.path()).collect();
    found.sort();
    found
}

fn edu() -> Result<PathBuf, Answer> {
    let is_edu = |device: &PathBuf| {
        fs::read_to_string(device.join("vendor")).is_ok_and(|v| v.trim() == "0x1234")
            && fs::read_to_string(device.join("device")).is_ok_and(|d| d.trim() == "0x11e8")
    };
    devices().into_iter().find(is_edu).ok_or_else(|| Answer::Absent("this guest has no device edu".into()))
}

/// Returns its file in /proc/bus/pci: bus, then slot and function.
fn proc_edu() -> Result<PathBuf, Answer> {
    let device = edu()?;
    let name = device.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let path = name.splitn(3, ':').skip(1).collect::<Vec<_>>().join("/");
    let path = Path::new("/proc/bus/pci").join(path);
    if path.exists() { Ok(path) } else { Err(Answer::Absent("there is no /proc/bus/pci".into())) }
}

fn write_back(path: &Path) -> Answer {
    let vendor = [0x34, 0x12];
    Answer::from_result(fs::OpenOptions::new().write(true).open(path).and_then(|mut file| {
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&vendor)
    }))
}

fn map(file: &fs::File) -> Answer {
    // SAFETY: the kernel chooses a free address, and the mapping is unmapped without being accessed.
    let place = unsafe {
        libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0)
    };
    if place == libc::MAP_FAILED {
        return Answer::from_result::<()>(Err(io::Error::last_os_error()));
    }
    // SAFETY: the address and the length are those of the mapping, which nothing uses.
    unsafe { libc::munmap(place, 4096) };
    Answer::DONE
}

fn map_sysfs() -> Answer {
    match edu() {
        Ok(device) => match reading().open(device.join("resource0")) {
            Ok(file) => map(&file),
            Err(e) => Answer::from_result::<()>(Err(e)),
        },
        Err(absent) => absent,
    }
}

/// Writes 0 to the bus master registers of the IDE controller, which has no disk: this stops a transfer that is not running.
fn write_io() -> Answer {
    let has_io_bar = |device: &PathBuf| {
        fs::read_to_string(device.join("class")).is_ok_and(|c| c.starts_with("0x0101"))
            && device.join("resource4").exists()
    };
    let Some(device) = devices().into_iter().find(has_io_bar) else {
        return Answer::Absent("this guest has no device with an I/O BAR".into());
    };
    Answer::from_result(
        fs::OpenOptions::new()
            .write(true)
            .open(device.join("resource4"))
            .and_then(|mut file| file.write_all(&[0])),
    )
}

fn with_proc(what: fn(&fs::File) -> Answer) -> Answer {
    match proc_edu() {
        Ok(path) => match fs::OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => what(&file),
            Err(e) => Answer::from_result::<()>(Err(e)),
        },
        Err(absent) => absent,
    }
}

/// Issues an ioctl of /proc/bus/pci: `PCIIOC_BASE` is `'P' << 24 | 'C' << 16 | 'I' << 8`.
fn ioctl(file: &fs::File, number: u64) -> Answer {
    // SAFETY: these requests take no argument.
    Answer::call(unsafe { libc::ioctl(file.as_raw_fd(), 0x5043_4900 | number, 0) }.into())
}

/// Maps the BAR, whose address is the offset in the file.
fn map_proc(file: &fs::File) -> Answer {
    let start = edu().ok().and_then(|device| {
        let text = fs::read_to_string(device.join("resource")).ok()?;
        i64::from_str_radix(text.split_whitespace().next()?.strip_prefix("0x")?, 16).ok()
    });
    let Some(start) = start else { return Answer::Absent("the BAR has no address".into()) };
    // If this is refused, mmap is refused too: the kernel calls the hook again there.
    ioctl(file, 2);
    // SAFETY: the kernel chooses a free address; the mapping is never accessed and ends with this process.
    let place = unsafe {
        libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), start)
    };
    if place == libc::MAP_FAILED {
        Answer::from_result::<()>(Err(io::Error::last_os_error()))
    } else {
        Answer::DONE
    }
}
