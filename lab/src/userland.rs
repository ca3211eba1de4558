/*!
Debian's programs in a guest: a read-only disk, made once and shared by all kernels.

```text
<cache>/userland-N/disk.ext4        the unpacked packages with all their dependencies
<cache>/userland-N/packages         their names
<cache>/kernels/<id>/userland-N.cpio   modules to mount the disk, and modules and a kernel image for the programs to load
```

Nothing is compressed: emulated processors decompress slowly, and the host's page cache is large. A guest mounts the disk at [`MOUNTED`] and
runs its programs with that folder as their root.
*/
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};

use crate::{
    cache,
    debian::{self, Archive, Suite},
    initrd::{self, ArchiveWriter},
    kernels::Kernel,
    tool,
};

/// The name of the disk's folder. Its number is raised when the packages or the files made from them change.
const VERSION: &str = "userland-4";

/// The mount point of the disk in a guest.
pub const MOUNTED: &str = "/debian";

/// The disk's device in a guest.
pub const DEVICE: &str = "/dev/vda";

/// The device of the writable disk in a guest that has both.
pub const SCRATCH: &str = "/dev/vdb";

/// Returns the path of an empty file system with fs-verity, for a guest to copy to the writable disk. It has no metadata checksums, so that
/// the generation of an inode can be set.
#[must_use]
pub fn with_verity() -> PathBuf {
    Path::new(MOUNTED).join(VERITY)
}

/// The name of that file system on the disk with Debian's programs.
const VERITY: &str = "verity.ext4";

/// The list of modules that are loaded only with the disk, in the order of loading.
pub const ORDER: &str = "/modules/userland-order";

/// A module that no scenario depends on, for programs to load.
pub const SPARE_MODULE: &str = "/modules/spare/dummy.ko";

/// The kernel's own image, for programs to load.
pub const KERNEL_IMAGE: &str = "/modules/spare/vmlinuz";

/// The packages of the programs that scenarios run, and of a shell for those that are scripts.
const PACKAGES: [&str; 19] = [
    "apparmor",
    "bpftool",
    "bpftrace",
    "coreutils",
    "dash",
    "dmidecode",
    "dmsetup",
    "flashrom",
    "grep",
    "iproute2",
    "kexec-tools",
    "kmod",
    "linux-perf",
    "msr-tools",
    "pciutils",
    "pm-utils",
    "policycoreutils",
    "selinux-policy-default",
    "setserial",
];

/// Parts of these packages that no program needs here.
const UNREAD: [&str; 4] = ["usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info"];

/// The libraries that the compiler of the SELinux policy needs, besides the C library.
const LIBRARIES: [&str; 7] =
    ["libaudit.", "libbz2.", "libcap-ng.", "libpcre2-8.", "libselinux.", "libsemanage.", "libsepol."];

/// Modules to mount the disk, and modules whose interfaces the programs use.
const MODULES: [&str; 16] = [
    "virtio_pci",
    "virtio_blk",
    "ext4",
    "xfrm_user",
    "ah4",
    "esp4",
    "seqiv",
    "crypto_null",
    "ghash_generic",
    "gcm",
    "cbc",
    "md5",
    "des_generic",
    "xts",
    "dm-mod",
    "dm-crypt",
];

/// Returns the disk's file, and makes it if there is none.
pub fn disk() -> anyhow::Result<PathBuf> {
    let folder = cache::folder()?.join(VERSION);
    let disk = folder.join("disk.ext4");
    if !disk.exists() {
        eprintln!("fetching the guests' programs …");
        debian::with(Suite::Own, false, |archive| {
            cache::replace_folder(&folder, |fresh| make(archive, fresh))
        })
        .context("making the disk with Debian's programs")?;
    }
    Ok(disk)
}

fn make(archive: &Archive, folder: &Path) -> anyhow::Result<()> {
    let mut packages = std::collections::BTreeSet::new();
    for package in PACKAGES {
        ensure!(archive.knows(package), "the package source has no {package}");
        packages.extend(archive.closure(package)?);
    }
    let packages: Vec<String> = packages.into_iter().collect();
    let root = folder.join("root");
    archive.unpack(&packages, &root)?;
    selinux_policy(&root).context("compiling the SELinux policy")?;
    for unread in UNREAD.map(|path| root.join(path)) {
        if unread.exists() {
            fs::remove_dir_all(&unread).with_context(|| format!("removing {}", unread.display()))?;
        }
    }
    for mount_point in ["proc", "sys", "dev", "run", "tmp", "modules"] {
        let path = root.join(mount_point);
        fs::create_dir_all(&path).with_context(|| format!("making the folder {}", path.display()))?;
    }
    let list = packages.join("\n") + "\n";
    fs::write(folder.join("packages"), list).context("listing the packages")?;
    let image = root.join(VERITY);
    let mut mkfs = tool::command("mkfs.ext4");
    mkfs.args(["-q", "-O", "verity,^has_journal,^metadata_csum", "-b", "4096"]).arg(&image).arg("16M");
    tool::output(&mut mkfs)?;
    file_system(&root, &folder.join("disk.ext4"))?;
    fs::remove_dir_all(&root).with_context(|| format!("removing {}", root.display()))
}

/// Does the work of the SELinux policy's package at installation: compiles its modules to the policy that a kernel loads.
fn selinux_policy(root: &Path) -> anyhow::Result<()> {
    // The compiler is from the packages. It runs with the host's C library and the packages' other libraries.
    let libraries = root.join("semodule-libraries");
    fs::create_dir(&libraries).with_context(|| format!("making the folder {}", libraries.display()))?;
    for folder in ["lib", "usr/lib"].map(|folder| root.join(folder).join("x86_64-linux-gnu")) {
        for entry in fs::read_dir(&folder).with_context(|| format!("listing {}", folder.display()))? {
            let entry = entry?;
            let name = entry.file_name();
            if LIBRARIES.iter().any(|library| name.to_string_lossy().starts_with(library)) {
                std::os::unix::fs::symlink(entry.path(), libraries.join(&name))?;
            }
        }
    }
    let settings = format!(
        "module-store = direct\nexpand-check = 0\ncompiler-directory = {}\n\
         [setfiles]\npath = /bin/true\nargs =\n[end]\n[sefcontext_compile]\npath = /bin/true\nargs =\n[end]\n",
        root.join("usr/libexec/selinux/hll").display()
    );
    fs::write(root.join("etc/selinux/semanage.conf"), settings).context("writing semanage.conf")?;
    fs::write(root.join("etc/selinux/config"), "SELINUX=enforcing\nSELINUXTYPE=default\n")
        .context("writing the configuration of SELinux")?;
    let shipped = root.join("usr/share/selinux/default");
    let list = fs::read_to_string(shipped.join(".modules")).context("listing the policy's modules")?;
    let mut semodule = tool::command(&root.join("usr/sbin/semodule").to_string_lossy());
    semodule.env("LD_LIBRARY_PATH", &libraries).arg("-p").arg(root);
    semodule.args(["-X", "100", "-n", "-s", "default"]);
    for module in list.split_whitespace() {
        semodule.arg("-i").arg(shipped.join(format!("{module}.pp.bz2")));
    }
    tool::output(&mut semodule)?;
    for made in [libraries, shipped, root.join("var/lib/selinux")] {
        fs::remove_dir_all(&made).with_context(|| format!("removing {}", made.display()))?;
    }
    Ok(())
}

/// Makes a file system with this folder's content.
fn file_system(root: &Path, disk: &Path) -> anyhow::Result<()> {
    let used = tool::text(tool::command("du").arg("-sm").arg(root))?;
    let used: u64 =
        used.split_whitespace().next().and_then(|n| n.parse().ok()).context("du did not print a size")?;
    let mut mkfs = tool::command("mkfs.ext4");
    mkfs.args(["-q", "-O", "^has_journal", "-m", "0", "-d"]).arg(root).arg(disk);
    mkfs.arg(format!("{}M", used + used / 8 + 32));
    tool::output(&mut mkfs)?;
    Ok(())
}

/// Makes the initrd for guests with the disk, from the one for guests without.
pub fn initrd(kernel: &Kernel, without: &Path) -> anyhow::Result<PathBuf> {
    let addition = kernel.folder.join(format!("{VERSION}.cpio"));
    if !addition.exists() {
        cache::write(&addition, &modules(kernel)?)?;
    }
    let with = without.with_extension("userland.cpio");
    let mut out = File::create(&with).with_context(|| format!("creating {}", with.display()))?;
    for part in [without, &addition] {
        let mut part = File::open(part).with_context(|| format!("opening {}", part.display()))?;
        io::copy(&mut part, &mut out).with_context(|| format!("writing {}", with.display()))?;
    }
    Ok(with)
}

fn modules(kernel: &Kernel) -> anyhow::Result<Vec<u8>> {
    let mut archive = ArchiveWriter::default();
    for folder in ["modules", "modules/spare", MOUNTED.trim_start_matches('/')] {
        archive.folder(folder)?;
    }
    archive.modules(ORDER.trim_start_matches('/'), &initrd::modules(kernel, &MODULES)?)?;
    if let [spare] = initrd::modules(kernel, &["dummy"])?.as_slice() {
        archive.file(SPARE_MODULE.trim_start_matches('/'), 0o644, &tool::decompress(spare)?)?;
    }
    if let Some(image) = kernel.bzimage() {
        let bytes = fs::read(&image).with_context(|| format!("reading {}", image.display()))?;
        archive.file(KERNEL_IMAGE.trim_start_matches('/'), 0o644, &bytes)?;
    }
    archive.finish()
}
