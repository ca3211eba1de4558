//! Doors to PCI configuration space.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::answer::{Outcome, check};

/// `PCIIOC_CONTROLLER` of `linux/pci.h`: asks for the domain number of a device's bus.
const PCIIOC_CONTROLLER: libc::Ioctl = 0x5043_4900;

const NO_PCI: &str = "this machine has no PCI devices";

/// Reads the vendor id of the first PCI device and writes it back through sysfs `config`. The register is
/// read-only in hardware and gets the value it has. `pci_write_config()` in `drivers/pci/pci-sysfs.c` asks
/// at every write; EPERM has no other cause there.
pub(crate) fn write_vendor() -> Outcome {
    let Some(device) = first_entry(Path::new("/sys/bus/pci/devices")) else {
        return Outcome::absent(NO_PCI);
    };
    let path = device.join("config");
    let write_back = || {
        let config = OpenOptions::new().read(true).write(true).open(&path)?;
        let mut vendor = [0; 2];
        config.read_exact_at(&mut vendor, 0)?;
        config.write_all_at(&vendor, 0)
    };
    Outcome::from_result(&format!("write the vendor id to {}", path.display()), write_back())
}

/// Asks for the domain number of the first device in /proc/bus/pci, which changes nothing.
/// `proc_bus_pci_ioctl()` in `drivers/pci/proc.c` asks before it looks at the command; EPERM has no other
/// cause there.
pub(crate) fn ask_controller() -> Outcome {
    let Some(device) = first_in_proc() else {
        return Outcome::absent(NO_PCI);
    };
    let ask = || {
        let file = File::open(&device)?;
        // SAFETY: the command takes no argument.
        check(unsafe { libc::ioctl(file.as_raw_fd(), PCIIOC_CONTROLLER) }.into())
    };
    Outcome::from_result(&format!("PCIIOC_CONTROLLER on {}", device.display()), ask())
}

/// The first device of the first bus: /proc/bus/pci/BUS/DEVICE.
fn first_in_proc() -> Option<PathBuf> {
    let buses = sorted(Path::new("/proc/bus/pci"));
    buses.iter().filter(|entry| entry.is_dir()).find_map(|bus| first_entry(bus))
}

fn first_entry(directory: &Path) -> Option<PathBuf> {
    sorted(directory).into_iter().next()
}

/// Returns the entries of a directory, sorted by name; none if it cannot be read.
fn sorted(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths
}
