/*!
Guests that boot by EFI firmware (OVMF): it loads one image from a disk, and checks the image's signature if Secure Boot is on.

```text
ESP (a folder that QEMU shows as a FAT disk)
  EFI/BOOT/BOOTX64.EFI   systemd's stub | .cmdline | .linux (bzImage) | .initrd     one file, one signature
flash 0                  OVMF with SMM, which keeps its variables from the guest's kernel
flash 1                  a copy of Debian's variables: no keys, or the test key that the package ovmf ships
```

The key is for tests: its private half is public. The test proves that the guest's firmware boots only images that are signed with an
enrolled key.
*/
use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};

use crate::{kernels::Kernel, tool};

const CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd";
const VARIABLES_WITHOUT_KEYS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
const VARIABLES_WITH_TEST_KEY: &str = "/usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd";
const TEST_KEY: &str = "/usr/share/ovmf/PkKek-1-snakeoil.key";
const TEST_KEY_PASSWORD: &str = "pass:snakeoil";
const TEST_CERTIFICATE: &str = "/usr/share/ovmf/PkKek-1-snakeoil.pem";
const STUB: &str = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";

/// The address of the first section that is added to the stub, above the stub's own sections.
const FIRST_SECTION: usize = 0x10_0000;

/// OVMF's words on its consoles when it refuses an image whose signature is missing or wrong.
const REFUSAL: &str = "Access Denied";

/// The state of the firmware, and the image on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Whether keys are enrolled, so that Secure Boot is on.
    pub secure_boot: bool,
    /// The image on the disk.
    pub image: Image,
}

/// The signature of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    /// No signature.
    Unsigned,
    /// A signature by the enrolled key.
    Signed,
    /// A signature by the enrolled key; one bit of the initrd was changed afterwards.
    Altered,
}

/// A disk with one bootable image, and the firmware's variables.
#[derive(Clone, Debug)]
pub struct Disk {
    esp: PathBuf,
    variables: PathBuf,
}

/// Reports whether firmware can boot this kernel: it needs the bzImage, and the generic flavour of each series is enough.
#[must_use]
pub fn suits(kernel: &Kernel) -> bool {
    kernel.id.ends_with("-generic")
}

/// Reports whether this line of the firmware's output says that it refuses the image.
#[must_use]
pub fn is_refusal(line: &str) -> bool {
    line.contains("failed to load") && line.contains(REFUSAL)
}

/// Makes the image of this kernel, initrd and command line, in a folder that is created afresh.
pub fn prepare(
    setup: Setup,
    kernel: &Kernel,
    initrd: &Path,
    cmdline: &str,
    folder: &Path,
) -> anyhow::Result<Disk> {
    let bzimage = kernel.bzimage().with_context(|| format!("{} has no bzImage", kernel.id))?;
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    let disk = Disk { esp: folder.join("esp"), variables: folder.join("variables.fd") };
    let boot = disk.esp.join("EFI/BOOT");
    fs::create_dir_all(&boot).with_context(|| format!("making the folder {}", boot.display()))?;
    let variables = if setup.secure_boot { VARIABLES_WITH_TEST_KEY } else { VARIABLES_WITHOUT_KEYS };
    fs::copy(variables, &disk.variables).with_context(|| format!("copying {variables}"))?;

    let words = folder.join("cmdline");
    fs::write(&words, cmdline).with_context(|| format!("writing {}", words.display()))?;
    let unsigned = folder.join("unsigned.efi");
    join(&[(".cmdline", &words), (".linux", &bzimage), (".initrd", initrd)], &unsigned)?;
    let image = boot.join("BOOTX64.EFI");
    if setup.image == Image::Unsigned {
        fs::rename(&unsigned, &image).context("moving the image to its place")?;
        return Ok(disk);
    }
    sign(&unsigned, &image, folder)?;
    if setup.image == Image::Altered {
        // The initrd is the last section, and only padding follows it in the unsigned file.
        let inside = fs::metadata(&unsigned)?.len() - fs::metadata(initrd)?.len() / 2;
        alter(&image, inside).with_context(|| format!("altering {}", image.display()))?;
    }
    Ok(disk)
}

/// Adds files to the stub, each as a section that the stub finds by its name.
fn join(sections: &[(&str, &Path)], image: &Path) -> anyhow::Result<()> {
    let mut objcopy = tool::command("objcopy");
    let mut place = FIRST_SECTION;
    for (name, file) in sections {
        objcopy.arg("--add-section").arg(format!("{name}={}", file.display()));
        objcopy.arg("--change-section-vma").arg(format!("{name}={place:#x}"));
        let size = fs::metadata(file).with_context(|| format!("reading {}", file.display()))?.len();
        place = (place + usize::try_from(size)?).next_multiple_of(0x1000);
    }
    tool::output(objcopy.arg(STUB).arg(image)).map(drop)
}

fn sign(unsigned: &Path, signed: &Path, scratch: &Path) -> anyhow::Result<()> {
    let key = scratch.join("key.pem");
    tool::output(
        tool::command("openssl")
            .args(["pkey", "-in", TEST_KEY, "-passin", TEST_KEY_PASSWORD, "-out"])
            .arg(&key),
    )?;
    tool::output(
        tool::command("sbsign")
            .args(["--cert", TEST_CERTIFICATE, "--key"])
            .arg(&key)
            .arg("--output")
            .arg(signed)
            .arg(unsigned),
    )?;
    ensure!(signed.exists(), "sbsign wrote no image");
    Ok(())
}

/// Changes one bit of a file.
fn alter(file: &Path, place: u64) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(file)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, place)?;
    file.write_all_at(&[byte[0] ^ 1], place)
}

impl Disk {
    /// Adds the firmware and the disk to QEMU's command. The machine has to be q35: the firmware has SMM only there.
    pub(crate) fn attach(&self, qemu: &mut Command) {
        // A comma ends a value unless it is doubled.
        let value = |path: &Path| path.display().to_string().replace(',', ",,");
        qemu.args(["-global", "driver=cfi.pflash01,property=secure,value=on"]);
        // The firmware does not boot with both S3 and SMM.
        qemu.args(["-global", "ICH9-LPC.disable_s3=1"]);
        qemu.arg("-drive").arg(format!("if=pflash,unit=0,format=raw,readonly=on,file={CODE}"));
        qemu.arg("-drive").arg(format!("if=pflash,unit=1,format=raw,file={}", value(&self.variables)));
        qemu.arg("-blockdev")
            .arg(format!("driver=vvfat,node-name=esp,read-only=on,dir={}", value(&self.esp)));
        qemu.args(["-device", "virtio-blk-pci,drive=esp"]);
    }
}

#[cfg(test)]
mod tests {
    use super::is_refusal;

    #[test]
    fn a_refusal_is_told_from_an_empty_disk() {
        assert!(is_refusal(
            "BdsDxe: failed to load Boot0001 \"UEFI Misc Device\" from PciRoot(0x0)/Pci(0x1,0x0): Access Denied"
        ));
        assert!(!is_refusal("BdsDxe: failed to load Boot0001 \"UEFI Misc Device\": Not Found"));
        assert!(!is_refusal("open /dev/mem: Access Denied"));
    }
}
