//! Doors to raw memory: /dev/mem, /dev/port, /proc/kcore.
//!
//! EPERM has one other cause at all three, a missing CAP_SYS_RAWIO, which is ruled out before. A rule of
//! another LSM would answer EACCES.

use std::path::Path;

use crate::answer::Outcome;
use crate::file;

/// Opens /dev/mem read-only and closes it; nothing is read or mapped. `open_port()` in
/// `drivers/char/mem.c` asks at open.
pub(crate) fn open_mem() -> Outcome {
    file::open(Path::new("/dev/mem"))
}

/// Opens /dev/port read-only and closes it; no port is read. The same `open_port()` as for /dev/mem.
/// Cloud kernels are built without it.
pub(crate) fn open_port() -> Outcome {
    file::open(Path::new("/dev/port"))
}

/// Opens /proc/kcore read-only and closes it; nothing is read. `open_kcore()` in `fs/proc/kcore.c` asks
/// first and checks CAP_SYS_RAWIO after.
pub(crate) fn open_kcore() -> Outcome {
    file::open(Path::new("/proc/kcore"))
}
