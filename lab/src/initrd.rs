/*!
The initrd of the guests: two cpio archives, one after the other.

The first depends on the kernel only and is cached: folders, the console, busybox, and modules with the order in which to load them. The
second holds the programs under test.
*/
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;
use cpio::newc::{Builder, ModeFileType, trailer};

use crate::{
    cache,
    debian::{self, Suite},
    kernels::Kernel,
    tool,
};

/// The name of the first archive. Its number is raised when the content changes.
const BASE: &str = "base-9.cpio";

/// Modules that scenarios need: for MSRs, EFI variables, ACPI tables through configfs, parameters that name hardware, and an IPsec
/// association. Some kernels lack some of them or have them built in.
const MODULES: [&str; 11] = [
    "msr",
    "efivarfs",
    "configfs",
    "parport_pc",
    "ctr",
    "sha512_generic",
    "drbg",
    "authenc",
    "echainiv",
    "esp4",
    "xfrm_user",
];

/// Modules that one scenario loads, from a list of their own: AF_ALG sockets, and algorithms to use through them.
const CRYPTO_MODULES: [&str; 13] = [
    "algif_hash",
    "algif_skcipher",
    "algif_aead",
    "ecb",
    "xts",
    "gcm",
    "aesni-intel",
    "sha1-ssse3",
    "sha256-ssse3",
    "sha512-ssse3",
    "sha3-256",
    "md4",
    "des_generic",
];

const FOLDERS: [&str; 12] =
    ["bin", "boot", "dev", "etc", "modules", "proc", "root", "run", "sys", "tmp", "usr", "var"];

/// The guest's own program: the kernel executes it as PID 1.
pub const INIT: &str = "init";

/// Other names of that program, which select what it does.
const NAMES: [&str; 4] = ["stockade-bench", "stockade-conformance", "stockade-demo", "stockade-seal-at-boot"];

/// A file to put into a guest.
#[derive(Clone, Debug)]
pub struct Program {
    /// The path on the host.
    pub source: PathBuf,
    /// The path in the guest, without the leading slash.
    pub target: String,
}

/// Writes the initrd for this kernel, with these programs, to a file.
pub fn write(kernel: &Kernel, programs: &[Program], file: &Path) -> anyhow::Result<()> {
    let base = kernel.folder.join(BASE);
    if !base.exists() {
        cache::write(&base, &base_archive(kernel)?)?;
    }
    let mut out = File::create(file).with_context(|| format!("creating {}", file.display()))?;
    io::copy(&mut File::open(&base)?, &mut out).with_context(|| format!("copying {}", base.display()))?;
    let mut archive = ArchiveWriter::default();
    for program in programs {
        let bytes =
            fs::read(&program.source).with_context(|| format!("reading {}", program.source.display()))?;
        archive.file(&program.target, 0o755, &bytes)?;
    }
    for name in NAMES {
        archive.link(&format!("bin/{name}"), &format!("/{INIT}"))?;
    }
    out.write_all(&archive.finish()?).with_context(|| format!("writing {}", file.display()))
}

fn base_archive(kernel: &Kernel) -> anyhow::Result<Vec<u8>> {
    let mut archive = ArchiveWriter::default();
    for folder in FOLDERS {
        archive.folder(folder)?;
    }
    archive.console()?;
    let busybox = busybox()?;
    archive.file("bin/busybox", 0o755, &fs::read(&busybox)?)?;
    // busybox is linked statically: it runs on the host too.
    for applet in tool::text(tool::command(&busybox.to_string_lossy()).arg("--list"))?.lines() {
        if applet != "busybox" {
            archive.link(&format!("bin/{applet}"), "busybox")?;
        }
    }
    let files = modules(kernel, &MODULES)?;
    archive.modules("modules/order", &files)?;
    let mut crypto = modules(kernel, &CRYPTO_MODULES)?;
    crypto.retain(|file| !files.contains(file));
    archive.modules("modules/crypto", &crypto)?;
    if let Some(config) = kernel.config() {
        let text = fs::read(&config).with_context(|| format!("reading {}", config.display()))?;
        archive.file(&format!("boot/config-{}", kernel.release), 0o644, &text)?;
    }
    archive.finish()
}

/// Returns the files of these modules and of all their dependencies, each after its dependencies.
pub(crate) fn modules(kernel: &Kernel, wanted: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
    let root = kernel.folder.join("root");
    let mut files = Vec::new();
    if !root.exists() {
        return Ok(files);
    }
    for module in wanted {
        let mut modprobe = tool::command("modprobe");
        modprobe.arg("-d").arg(&root).arg("-S").arg(&kernel.release).args(["--show-depends", module]);
        let answer = tool::finish(&mut modprobe)?;
        if !answer.status.success() {
            eprintln!("{}: this kernel has no module {module}", kernel.id);
            continue;
        }
        for line in String::from_utf8_lossy(&answer.stdout).lines() {
            // The other lines start with "builtin".
            let Some(path) = line.strip_prefix("insmod ").and_then(|l| l.split_whitespace().next()) else {
                continue;
            };
            let path = PathBuf::from(path);
            if !files.contains(&path) {
                files.push(path);
            }
        }
    }
    Ok(files)
}

/// Returns a static busybox: the guest's shell, and a real program for scenarios to run.
fn busybox() -> anyhow::Result<PathBuf> {
    let folder = cache::folder()?.join("busybox");
    if !folder.exists() {
        let package = ["busybox-static".to_owned()];
        debian::with(Suite::Own, false, |archive| {
            cache::replace_folder(&folder, |fresh| archive.unpack(&package, fresh))
        })
        .context("fetching busybox")?;
    }
    let candidates = ["bin/busybox", "usr/bin/busybox"].map(|path| folder.join(path));
    candidates
        .into_iter()
        .find(|path| path.exists())
        .context("the package busybox-static contains no busybox")
}

/// A cpio archive in memory, in the format that the kernel unpacks.
#[derive(Default)]
pub(crate) struct ArchiveWriter {
    bytes: Vec<u8>,
    inode: u32,
}

impl ArchiveWriter {
    fn entry(&mut self, name: &str, kind: ModeFileType, mode: u32) -> Builder {
        self.inode += 1;
        Builder::new(name).ino(self.inode).mode(mode).set_mode_file_type(kind)
    }

    fn put(&mut self, entry: Builder, content: &[u8]) -> anyhow::Result<()> {
        let length = u32::try_from(content.len()).context("a file is too big for the archive")?;
        let mut writer = entry.write(&mut self.bytes, length);
        writer.write_all(content)?;
        writer.finish()?;
        Ok(())
    }

    pub(crate) fn folder(&mut self, name: &str) -> anyhow::Result<()> {
        let entry = self.entry(name, ModeFileType::Directory, 0o755);
        self.put(entry, &[])
    }

    pub(crate) fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> anyhow::Result<()> {
        let entry = self.entry(name, ModeFileType::Regular, mode);
        self.put(entry, content)
    }

    /// Adds modules to their folder, and a list with the order in which to load them.
    pub(crate) fn modules(&mut self, list: &str, files: &[PathBuf]) -> anyhow::Result<()> {
        let mut order = String::new();
        for module in files {
            let name = module.file_name().context("a module has a name")?.to_string_lossy().into_owned();
            let name = name.split_inclusive(".ko").next().unwrap_or(&name).to_owned();
            self.file(&format!("modules/{name}"), 0o644, &tool::decompress(module)?)?;
            order += &format!("/modules/{name}\n");
        }
        self.file(list, 0o644, order.as_bytes())
    }

    fn link(&mut self, name: &str, to: &str) -> anyhow::Result<()> {
        let entry = self.entry(name, ModeFileType::Symlink, 0o777);
        self.put(entry, to.as_bytes())
    }

    /// Adds /dev/console, which the kernel opens for PID 1 before anything is mounted.
    fn console(&mut self) -> anyhow::Result<()> {
        let entry = self.entry("dev/console", ModeFileType::Char, 0o600).rdev_major(5).rdev_minor(1);
        self.put(entry, &[])
    }

    pub(crate) fn finish(mut self) -> anyhow::Result<Vec<u8>> {
        trailer(&mut self.bytes)?;
        // The kernel needs the next archive aligned, and skips zeros.
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        Ok(self.bytes)
    }
}
