/*!
Guests that boot as machines do: EFI firmware (OVMF) loads one image from a disk, and checks its signature
where Secure Boot is on.

```text
ESP (a folder that QEMU shows as a FAT disk)
  EFI/BOOT/BOOTX64.EFI   systemd's stub | .cmdline | .linux (bzImage) | .initrd     one file, one signature
flash 0                  OVMF with SMM, which keeps its variables from the guest's kernel
flash 1                  a copy of Debian's variables: no keys, or the test key that the package ovmf ships
```

The key is for tests: everybody has its private half. What it proves is that the firmware of the guest boots
what was signed with an enrolled key and nothing else.
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

/// Where sections are put inside the image, beyond those of the stub.
const FIRST_SECTION: usize = 0x10_0000;

/// What OVMF writes to its consoles when it does not start an image for want of a good signature.
const REFUSAL: &str = "Access Denied";

/// How the firmware is set up, and what it finds on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Keys are enrolled: Secure Boot is on.
    pub secure_boot: bool,
    /// What is on the disk.
    pub image: Image,
}

/// How an image is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    /// Not at all.
    Unsigned,
    /// With the enrolled key.
    Signed,
    /// With the enrolled key; then one bit of its RAM disk was changed.
    Altered,
}

/// A disk with one bootable image, and the firmware's variables.
#[derive(Clone, Debug)]
pub struct Disk {
    esp: PathBuf,
    variables: PathBuf,
}

/// Whether firmware can boot this kernel: its bzImage is needed, and of each series one flavour is enough.
#[must_use]
pub fn suits(kernel: &Kernel) -> bool {
    kernel.id.ends_with("-generic")
}

/// Whether this line of the firmware says that it refuses the image.
#[must_use]
pub fn is_refusal(line: &str) -> bool {
    line.contains("failed to load") && line.contains(REFUSAL)
}

/// Makes the image of this kernel, RAM disk and command line in a folder that is made anew.
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
        // The RAM disk is the last section, and nothing but its padding is behind it in the unsigned file.
        let inside = fs::metadata(&unsigned)?.len() - fs::metadata(initrd)?.len() / 2;
        alter(&image, inside).with_context(|| format!("altering {}", image.display()))?;
    }
    Ok(disk)
}

/// Puts files behind the stub, each as a section that the stub finds by its name.
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
    /// Tells QEMU of the firmware and the disk. The machine has to be q35: only there has the firmware SMM.
    pub(crate) fn attach(&self, qemu: &mut Command) {
        // A comma ends a value unless it is doubled.
        let value = |path: &Path| path.display().to_string().replace(',', ",,");
        qemu.args(["-global", "driver=cfi.pflash01,property=secure,value=on"]);
        // The firmware does not boot with S3 and SMM together.
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
