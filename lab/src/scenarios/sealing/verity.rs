//! A sealed exception with an fs-verity digest: it holds for the content, not for the inode.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::Write,
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, PermissionsExt},
    },
    process::Command,
};

use anyhow::{Context, Result, ensure};
use stockade_kernel::host;

use super::{
    BUSYBOX,
    policy::{apply, expect, opens, write},
    verified,
};
use crate::{
    guest::Guest,
    program::{run, stockade},
    scenario::{Boot, Depends, Scenario},
    syscall::check,
    userland,
};

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "seal: an exception bound by fs-verity is the content's",
    boot: Boot::SealedVerity,
    depends: Depends::Series,
    run: bound,
}];

const MOUNTED: &str = "/run/verity";
const TOOL: &str = "/run/verity/tool";

fn bound(_: &Guest) -> Result<()> {
    mount()?;
    let whole = fs::read(BUSYBOX)?;
    make(&whole)?;
    write(&excepting("0000000000000000000000000000000000000000000000000000000000000000"))?;
    stockade(&["enforce"])?.exits(2)?.says("which is not under fs-verity")?;
    enable(&File::open(TOOL)?)?;
    let refused = stockade(&["enforce"])?.exits(2)?.says("whose content is another than the policy says")?;
    let said = refused.err.split("verity:sha256:").nth(1).context("the error says which digest there is")?;
    let digest: String = said.chars().take_while(char::is_ascii_hexdigit).collect();
    ensure!(digest.len() == 64, "no digest in: {}", refused.err);
    apply(&excepting(&digest))?;

    // Also with a digest: root can change the behaviour of a process by uprobes.
    stockade(&["seal"])?.exits(2)?.says("or change by uprobes what the program does")?;
    stockade(&["seal", "--best-effort"])?.exits(0)?;
    let binds = !host::is_at_least(6, 18);
    verified(1)?;
    let mut mem = opens(TOOL, "/dev/mem");
    expect(&mut mem, true, "the excepted program")?;
    expect(&mut opens(BUSYBOX, "/dev/mem"), false, "another program")?;
    ensure!(
        OpenOptions::new().write(true).open(TOOL).is_err(),
        "a file under fs-verity was opened for writing"
    );

    // The change time matters only on kernels where the digest cannot be compared.
    fs::set_permissions(TOOL, Permissions::from_mode(0o700))?;
    expect(&mut mem, binds, "the program after its change time changed")?;
    if !binds {
        return Ok(());
    }
    replace(&whole, true)?;
    expect(&mut mem, true, "the same content in another file of that number and generation")?;
    replace(&[&whole, &b"another"[..]].concat(), true)?;
    expect(&mut mem, false, "other content in a file of that number and generation, under fs-verity")?;
    replace(&whole, false)?;
    expect(&mut mem, false, "the same content, not under fs-verity")?;
    verified(1)?;
    Ok(())
}

fn excepting(digest: &str) -> String {
    format!(
        "level = \"integrity\"\n[[exception]]\nname = \"vendor\"\nreasons = [\"dev-mem\"]\nexe = \"{TOOL}\"\ndigest = \"verity:sha256:{digest}\"\n"
    )
}

/// Writes a file system with fs-verity to the scratch disk, and mounts it.
fn mount() -> Result<()> {
    let mut image = File::open(userland::with_verity()).context("open the image of the file system")?;
    let mut device =
        OpenOptions::new().write(true).open(userland::SCRATCH).context("open the disk to write on")?;
    std::io::copy(&mut image, &mut device).context("write the file system")?;
    device.sync_all()?;
    fs::create_dir_all(MOUNTED)?;
    run(Command::new(BUSYBOX).args(["mount", "-t", "ext4", userland::SCRATCH, MOUNTED]))?.exits(0)?;
    Ok(())
}

/// Creates the program's file with this content.
fn make(content: &[u8]) -> Result<()> {
    let mut file = File::create(TOOL)?;
    file.write_all(content)?;
    file.set_permissions(Permissions::from_mode(0o755))?;
    file.sync_all()?;
    Ok(())
}

/// Replaces the program by another file with the same inode number and generation.
fn replace(content: &[u8], under_verity: bool) -> Result<()> {
    let was = (fs::metadata(TOOL)?.ino(), generation(&File::open(TOOL)?)?);
    fs::remove_file(TOOL)?;
    let mut others = Vec::new();
    while others.len() < 64 {
        make(content)?;
        if fs::metadata(TOOL)?.ino() == was.0 {
            break;
        }
        let other = format!("{MOUNTED}/other-{}", others.len());
        fs::rename(TOOL, &other)?;
        others.push(other);
    }
    for other in others {
        fs::remove_file(other)?;
    }
    let file = File::open(TOOL)?;
    set_generation(&file, was.1)?;
    if under_verity {
        enable(&file)?;
    }
    let is = (file.metadata()?.ino(), generation(&file)?);
    ensure!(is == was, "the file in the program's place is {is:?} and not {was:?}");
    Ok(())
}

/// Enables fs-verity on a file by `FS_IOC_ENABLE_VERITY`, with SHA-256 and blocks of 4096 bytes.
fn enable(file: &File) -> Result<()> {
    const ENABLE_VERITY: libc::Ioctl = 0x4080_6685;
    const SHA256: u32 = 1;
    // struct fsverity_enable_arg: version, algorithm, size of a block; no salt and no signature.
    let mut argument = [0u32; 32];
    argument[..3].copy_from_slice(&[1, SHA256, 4096]);
    // SAFETY: the argument lives through the call and has the size that the ioctl number encodes.
    check(unsafe { libc::ioctl(file.as_raw_fd(), ENABLE_VERITY, argument.as_ptr()) })
        .context("put the file under fs-verity")
        .map(drop)
}

/// Returns the generation of an inode by `FS_IOC_GETVERSION`.
fn generation(file: &File) -> Result<u32> {
    const GET_VERSION: libc::Ioctl = 0x8008_7601;
    let mut version = 0;
    // SAFETY: the kernel writes an int, for which `version` has room.
    check(unsafe { libc::ioctl(file.as_raw_fd(), GET_VERSION, &raw mut version) })?;
    Ok(version)
}

/// Sets the generation of an inode by `FS_IOC_SETVERSION`.
fn set_generation(file: &File, version: u32) -> Result<()> {
    const SET_VERSION: libc::Ioctl = 0x4008_7602;
    // SAFETY: the kernel reads an int, which lives through the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), SET_VERSION, &raw const version) })
        .context("set the generation")
        .map(drop)
}
