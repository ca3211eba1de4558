/*!
`cargo xtask bpf`: compiles the programs that run in the kernel. The object is committed, so that users
need stable Rust only; its provenance stands beside it, and CI compares both with what the sources make.
*/
use std::{
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use clap::Args;
use sha2::{Digest, Sha256};
use stockade_lab::tool;

use crate::{setup, workspace};

/// Whether to compare instead of writing.
#[derive(Debug, Args)]
pub struct Flags {
    /// Compile, and compare with what is committed instead of replacing it
    #[arg(long)]
    pub check: bool,
}

const TARGET: &str = "bpfel-unknown-none";
const OBJECT: &str = "stockade-kernel/bpf/stockade.bpf.o";
const PROVENANCE: &str = "stockade-kernel/bpf/provenance.toml";

/// The sources of the object, without the toolchain.
const SOURCES: [&str; 7] = [
    "stockade-common/Cargo.toml",
    "stockade-common/src",
    "stockade-ebpf/.cargo",
    "stockade-ebpf/Cargo.lock",
    "stockade-ebpf/Cargo.toml",
    "stockade-ebpf/build.rs",
    "stockade-ebpf/src",
];

/// Returns whether the committed object is the one that the sources make.
pub fn run(flags: &Flags) -> anyhow::Result<bool> {
    setup::need(&[setup::BPF])?;
    let linker = setup::bpf_linker()?;
    let object = compile(&linker)?;
    let provenance = provenance(&linker, &object)?;
    let (object_file, provenance_file) = (workspace::root().join(OBJECT), workspace::root().join(PROVENANCE));
    if flags.check {
        let same = compare(&object_file, &object)? & compare(&provenance_file, provenance.as_bytes())?;
        if same {
            println!("{OBJECT} is what its sources make");
        }
        return Ok(same);
    }
    fs::create_dir_all(object_file.parent().expect("the object has a folder"))
        .context("making the object's folder")?;
    fs::write(&object_file, &object).with_context(|| format!("writing {OBJECT}"))?;
    fs::write(&provenance_file, provenance).with_context(|| format!("writing {PROVENANCE}"))?;
    println!("{OBJECT}: {} bytes", object.len());
    Ok(true)
}

/// Returns whether the committed object is the one that was compiled from the sources as they are, by the provenance beside it: the
/// digests of object and sources are compared, and nothing is compiled. `cargo xtask bpf --check` compiles.
pub fn is_committed() -> anyhow::Result<bool> {
    let file = workspace::root().join(PROVENANCE);
    let written = fs::read_to_string(&file).with_context(|| format!("reading {PROVENANCE}"))?;
    let object = fs::read(workspace::root().join(OBJECT)).with_context(|| format!("reading {OBJECT}"))?;
    let is = [("object", Sha256::digest(&object).to_vec()), ("sources", sources_digest(workspace::root())?)];
    let mut same = true;
    for (what, digest) in is {
        let line = format!("{what} = \"sha256:{}\"", hex(&digest));
        if !written.lines().any(|l| l == line) {
            eprintln!(
                "{PROVENANCE} does not say {line}: run `cargo xtask bpf` and commit both files in its folder"
            );
            same = false;
        }
    }
    Ok(same)
}

fn compare(committed: &Path, made: &[u8]) -> anyhow::Result<bool> {
    let name = committed.strip_prefix(workspace::root()).unwrap_or(committed).display();
    let found = match fs::read(committed) {
        Ok(found) => found,
        Err(error) => {
            eprintln!("{name} cannot be read ({error}); `cargo xtask bpf` makes it");
            return Ok(false);
        }
    };
    if found == made {
        return Ok(true);
    }
    let kept = workspace::lab_folder()?.join(committed.file_name().context("a committed file has a name")?);
    fs::write(&kept, made).with_context(|| format!("writing {}", kept.display()))?;
    eprintln!(
        "{name} is not what its sources make ({} bytes committed, {} made, kept in {}): run `cargo xtask bpf` and commit both files in its folder",
        found.len(),
        made.len(),
        kept.display()
    );
    Ok(false)
}

fn compile(linker: &Path) -> anyhow::Result<Vec<u8>> {
    let target = workspace::target_folder().join("bpf");
    let mut cargo = tool::command("/usr/bin/cargo");
    // The compiler is the distribution's, whatever rustup's cargo has set for its own children.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        let rust = ["CARGO", "RUSTUP_", "RUSTC", "RUSTFLAGS", "RUSTDOC"]
            .iter()
            .any(|prefix| name.starts_with(prefix));
        if rust && name != "CARGO_HOME" {
            cargo.env_remove(&*name);
        }
    }
    cargo.env("PATH", search_path(linker)).env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
    cargo.arg("build").arg("--release").arg("--quiet").arg("--locked").arg("--target-dir").arg(&target);
    // The object must not depend on where the checkout is; these flags add to those in the crate's own configuration.
    let remap = [(workspace::root().to_owned(), "/stockade"), (workspace::cargo_home()?, "/cargo")];
    let flags = remap.map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()));
    cargo.arg("--config").arg(format!("target.{TARGET}.rustflags={flags:?}"));
    cargo.current_dir(workspace::root().join("stockade-ebpf"));
    workspace::run("compiling the BPF programs", &mut cargo)?;
    strip(&target.join(TARGET).join("release/stockade"), &target.join("stockade.bpf.o"))
}

/// Removes debug information, and names that depend on the checkout's folder: the compiler puts a hash
/// into the names of functions, and cargo makes it from the path of a crate outside the BPF crate's own
/// workspace, as stockade-common is. The kernel and the loader go by names that are not mangled.
fn strip(built: &Path, stripped: &Path) -> anyhow::Result<Vec<u8>> {
    let names = tool::text(tool::command(&format!("{}/bin/llvm-nm", setup::LLVM)).arg("-j").arg(built))?;
    let mut objcopy = tool::command(&format!("{}/bin/llvm-objcopy", setup::LLVM));
    objcopy.arg("--strip-debug");
    // Type information of our own is not handed to the kernel, and names the folders where cargo keeps its sources.
    objcopy.args(["--remove-section=.BTF", "--remove-section=.BTF.ext"]);
    for name in names.lines().filter(|name| name.starts_with("_R")) {
        objcopy.arg(format!("--redefine-sym={name}={}", without_hashes(name)));
    }
    tool::output(objcopy.arg(built).arg(stripped))?;
    fs::read(stripped).with_context(|| format!("reading {}", stripped.display()))
}

/// Returns a mangled name with the hash of each crate (`Cs…_`, Rust's v0 mangling) taken out.
fn without_hashes(name: &str) -> String {
    let mut parts = name.split("Cs");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push('C');
        match part.split_once('_') {
            // A length follows: it was a hash and not a word of the program.
            Some((hash, rest))
                if hash.chars().all(|c| c.is_ascii_alphanumeric())
                    && rest.starts_with(|c: char| c.is_ascii_digit()) =>
            {
                plain.push_str(rest);
            }
            _ => {
                plain.push('s');
                plain.push_str(part);
            }
        }
    }
    plain
}

fn search_path(linker: &Path) -> String {
    format!("{}:{}/bin:/usr/bin:/bin", linker.display(), setup::LLVM)
}

fn provenance(linker: &Path, object: &[u8]) -> anyhow::Result<String> {
    let first_line = |program: &str, flag: &str| -> anyhow::Result<String> {
        let text = tool::text(tool::command(program).arg(flag).env_remove("RUSTUP_TOOLCHAIN"))?;
        Ok(text.lines().next().unwrap_or_default().trim().to_owned())
    };
    let bpf_linker = first_line(&linker.join("bpf-linker").to_string_lossy(), "--version")?;
    let llvm = first_line(&format!("{}/bin/llvm-config", setup::LLVM), "--version")?;
    Ok(format!(
        "# Written by `cargo xtask bpf`; `cargo xtask bpf --check` compares.\n\
         object = \"sha256:{}\"\n\
         sources = \"sha256:{}\"\n\
         rustc = \"{}\"\n\
         bpf-linker = \"{bpf_linker}\"\n\
         llvm = \"{llvm}\"\n",
        hex(&Sha256::digest(object)),
        hex(&sources_digest(workspace::root())?),
        first_line("/usr/bin/rustc", "--version")?,
    ))
}

/// Returns the digest of every source file in the order of their paths: path, a zero byte, length (8 bytes, little-endian), content.
fn sources_digest(root: &Path) -> anyhow::Result<Vec<u8>> {
    let mut files = Vec::new();
    for source in SOURCES {
        list(root, Path::new(source), &mut files)?;
    }
    files.sort();
    if files.is_empty() {
        bail!("{} holds no sources of BPF programs", root.display());
    }
    let mut digest = Sha256::new();
    for file in files {
        let content = fs::read(root.join(&file)).with_context(|| format!("reading {}", file.display()))?;
        digest.update(file.to_string_lossy().as_bytes());
        digest.update([0]);
        digest.update((content.len() as u64).to_le_bytes());
        digest.update(&content);
    }
    Ok(digest.finalize().to_vec())
}

fn list(root: &Path, path: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let place = root.join(path);
    if place.is_dir() {
        for entry in fs::read_dir(&place).with_context(|| format!("listing {}", place.display()))? {
            list(root, &path.join(entry?.file_name()), files)?;
        }
    } else if place.exists() {
        files.push(path.to_owned());
    }
    Ok(())
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::without_hashes;

    #[test]
    fn names_do_not_depend_on_the_folder() {
        let name = "_RNvNtCsbhSsTxWZowN_8stockade6decide15refuse_or_audit";
        assert_eq!(without_hashes(name), "_RNvNtC8stockade6decide15refuse_or_audit");
        assert_eq!(without_hashes("locked_down"), "locked_down");
    }
}
