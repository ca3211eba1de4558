/*!
`cargo xtask setup`: what has to be on the machine, asked for before anything is installed.
*/
use std::{
    io::{self, BufRead, IsTerminal, Write},
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

/// For guests with a TPM.
pub const TPM: Packages = &["swtpm"];

/// For guests that boot by EFI firmware, with and without Secure Boot.
pub const FIRMWARE: Packages = &["ovmf", "systemd-boot-efi", "sbsigntool", "binutils", "openssl"];

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

/// What judges whether a page is accessible, and what its file's digest is.
const AXE: (&str, &str) = ("4.14.1", "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c");

/// LLVM's folder, of the version that goes with the compiler above.
pub const LLVM: &str = "/usr/lib/llvm-22";

/// The linker's version. Another one makes another object.
pub const BPF_LINKER: &str = "0.13.0";

/// Installs everything.
pub fn run() -> anyhow::Result<()> {
    need(&[LINKER, LAB, FIRMWARE, TPM, BPF, BROWSER])?;
    println!("bpf-linker: {}", bpf_linker()?.display());
    println!("everything is there");
    Ok(())
}

/// Sees to it that these packages are installed.
pub fn need(purposes: &[Packages]) -> anyhow::Result<()> {
    let missing: Vec<&str> = purposes.concat().into_iter().filter(|package| !is_installed(package)).collect();
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

/// Sees to it that there is a C compiler, which also links, and objcopy, whatever packages they are from.
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

/// Where tools of the right version are, apart from whatever the developer has.
fn tools() -> anyhow::Result<PathBuf> {
    Ok(cache::folder()?.join("tools"))
}

/// The folder of the linker for BPF programs, built when it is not there yet.
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

/// cargo-deny, the developer's own or one in the cache.
pub fn cargo_deny() -> anyhow::Result<PathBuf> {
    if tool::output(tool::command("cargo-deny").arg("--version")).is_ok() {
        return Ok("cargo-deny".into());
    }
    let program = tools()?.join("bin/cargo-deny");
    if !program.exists() {
        eprintln!("building cargo-deny, which takes a few minutes …");
        workspace::run("building cargo-deny", &mut install_cargo("cargo-deny")?)?;
    }
    Ok(program)
}

/// cargo-fuzz, the developer's own or one in the cache.
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

/// axe-core's one file, from the registry of npm.
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

fn install_cargo(package: &str) -> anyhow::Result<Command> {
    let mut cargo = workspace::cargo();
    let root = tools().context("finding a place for tools")?;
    cargo.args(["install", package, "--locked", "--quiet", "--force", "--root"]).arg(root);
    cargo.env_remove("CARGO_TARGET_DIR");
    Ok(cargo)
}
