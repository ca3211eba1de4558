//! The door to EFI runtime services for tests.

use std::path::Path;

use crate::answer::Outcome;
use crate::file;

/// Opens /dev/efi_test read-only and closes it; no runtime service is called. `efi_test_open()` in
/// `drivers/firmware/efi/test/efi_test.c` asks at open. The device is there only on EFI machines with the
/// `efi_test` module loaded; the probe does not load it.
pub(crate) fn open_test() -> Outcome {
    file::open(Path::new("/dev/efi_test"))
}
