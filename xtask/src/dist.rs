/*!
`cargo xtask dist`: the program for release, one file that needs nothing of the system it runs on.
*/
use std::fs;

use anyhow::{Context, ensure};

use crate::workspace;

/// The promised size, in bytes: the program stays below it.
const TOO_LARGE: usize = 6 * 1024 * 1024;

/// Builds it and checks that it is static and not too large.
pub fn run() -> anyhow::Result<()> {
    let mut cargo = workspace::cargo_static();
    cargo.args(["--release", "-p", "stockade", "--bin", "stockade"]);
    workspace::run("the release build", &mut cargo)?;
    let built = workspace::target_folder().join(workspace::TARGET).join("release/stockade");
    let program = fs::read(&built).with_context(|| format!("reading {}", built.display()))?;
    ensure!(
        !asks_for_interpreter(&program)?,
        "{} asks for a dynamic loader: it is not static (is the static C library installed?)",
        built.display()
    );
    ensure!(
        program.len() < TOO_LARGE,
        "{} has {} bytes; SPECIFICATION.md promises less than {TOO_LARGE}",
        built.display(),
        program.len()
    );
    let folder = workspace::target_folder().join("dist");
    fs::create_dir_all(&folder).with_context(|| format!("making the folder {}", folder.display()))?;
    let place = folder.join("stockade");
    fs::copy(&built, &place).with_context(|| format!("copying to {}", place.display()))?;
    println!("{}  {} kB, static", place.display(), program.len().div_ceil(1000));
    Ok(())
}

/// Whether an ELF program has a PT_INTERP header.
fn asks_for_interpreter(program: &[u8]) -> anyhow::Result<bool> {
    const PT_INTERP: u64 = 3;
    let number = |at: usize, size: usize| -> anyhow::Result<u64> {
        let bytes = program.get(at..at + size).context("the program is cut short")?;
        Ok(bytes.iter().rev().fold(0, |n, &byte| n << 8 | u64::from(byte)))
    };
    ensure!(program.starts_with(b"\x7fELF\x02\x01"), "the program is not a 64-bit little-endian ELF file");
    let table = usize::try_from(number(0x20, 8)?)?;
    let (size, count) = (usize::try_from(number(0x36, 2)?)?, usize::try_from(number(0x38, 2)?)?);
    for index in 0..count {
        if number(table + index * size, 4)? == PT_INTERP {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::asks_for_interpreter;

    #[test]
    fn a_dynamic_program_is_told_from_a_text() {
        assert!(asks_for_interpreter(&std::fs::read("/bin/sh").unwrap()).unwrap());
        assert!(asks_for_interpreter(b"#!/bin/sh").is_err());
    }
}
