/*!
`cargo xtask dist`: the release program, one file that needs nothing of the system it runs on. It is built, checked and placed
here and nowhere else; the lab, the benchmark and the demonstration play this file.
*/
mod image;
mod reproduce;
#[cfg(test)]
mod tests;
mod weak_calls;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail, ensure};
use clap::Args;
use stockade_lab::tool;

use self::image::Image;
pub use self::reproduce::reproducible;
use crate::{setup, workspace};

/// Whether to build the program twice.
#[derive(Debug, Args)]
pub struct Flags {
    /// Build it a second time in a copy of the checkout in another folder, and compare the bytes
    #[arg(long)]
    reproducible: bool,
}

/// The promised size, in bytes: the program stays below it.
const TOO_LARGE: u64 = 6 * 1024 * 1024;

/// How many calls an error lists.
const LISTED: usize = 5;

/// The release program, built, checked and placed.
#[derive(Debug)]
pub struct Program {
    /// The path of the stripped program.
    pub place: PathBuf,
    /// Its build ID in hexadecimal digits.
    pub build_id: String,
    /// The commit it was built from, as the program itself says it.
    pub commit: String,
}

impl std::fmt::Display for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { build_id, commit, .. } = self;
        write!(f, "stockade {}, build id {build_id}, commit {commit}", env!("CARGO_PKG_VERSION"))
    }
}

/// The programs that one run of cargo builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum With {
    /// The program alone.
    Nothing,
    /// The lab's own programs for guests. They share the program's dependencies.
    LabPrograms,
}

/// Builds the program, checks and places it; returns whether a second build made the same bytes, where one was asked for.
pub fn run(flags: &Flags) -> anyhow::Result<bool> {
    if flags.reproducible {
        return reproducible();
    }
    let program = build(With::Nothing)?;
    let bytes =
        fs::metadata(&program.place).with_context(|| format!("reading {}", program.place.display()))?.len();
    println!("{}  {} kB, static PIE, full RELRO", program.place.display(), bytes.div_ceil(1000));
    println!("{program}");
    Ok(true)
}

/// Builds the program, checks it and places it in `target/dist`, with its symbols beside it.
pub fn build(with: With) -> anyhow::Result<Program> {
    setup::need_linker()?;
    let commit = commit();
    let tree = Tree { checkout: workspace::root().to_owned(), target: workspace::target_folder() };
    let built = tree.build(&commit, with)?;
    let build_id = check_file(&built)?;
    let folder = workspace::target_folder().join("dist");
    fs::create_dir_all(&folder).with_context(|| format!("making the folder {}", folder.display()))?;
    // Only a program that passed every check gets the program's name.
    let (place, stripped) = (folder.join("stockade"), folder.join("stockade.new"));
    strip(&built, &stripped)?;
    let size = fs::metadata(&stripped).with_context(|| format!("reading {}", stripped.display()))?.len();
    ensure!(
        size < TOO_LARGE,
        "{} has {size} bytes; SPECIFICATION.md promises less than {TOO_LARGE}",
        stripped.display()
    );
    let symbols = folder.join("stockade.debug");
    tool::output(tool::command("objcopy").arg("--only-keep-debug").arg(&built).arg(&symbols))?;
    fs::rename(&stripped, &place).with_context(|| format!("replacing {}", place.display()))?;
    Ok(Program { place, build_id, commit })
}

/// Writes the program without its symbols. The build ID was made before and stays.
fn strip(built: &Path, place: &Path) -> anyhow::Result<()> {
    tool::output(tool::command("objcopy").arg("--strip-all").arg(built).arg(place)).map(drop)
}

/// A checkout, and the folder where cargo builds it.
struct Tree {
    checkout: PathBuf,
    target: PathBuf,
}

impl Tree {
    /// Runs cargo and returns the path of the linked program, with its symbols.
    fn build(&self, commit: &str, with: With) -> anyhow::Result<PathBuf> {
        let mut cargo = workspace::cargo();
        // Only with the target named: without, macros would be built static too, and they are loaded by the compiler.
        cargo.args([
            "build",
            "--quiet",
            "--release",
            "--target",
            workspace::TARGET,
            "-p",
            "stockade",
            "--bins",
        ]);
        if with == With::LabPrograms {
            // The program needs every feature of its dependencies that these need, so that both are built from one set.
            cargo.args(["-p", "stockade-lab"]);
        }
        cargo.current_dir(&self.checkout).env("CARGO_TARGET_DIR", &self.target);
        cargo
            .env("CARGO_ENCODED_RUSTFLAGS", self.rust_flags()?.join("\u{1f}"))
            .env("STOCKADE_COMMIT", commit);
        workspace::run("building the release program", &mut cargo)?;
        Ok(self.built("stockade"))
    }

    /// Returns the path at which cargo leaves a program.
    fn built(&self, name: &str) -> PathBuf {
        self.target.join(workspace::TARGET).join("release").join(name)
    }

    /// Returns rustc's flags: a static program, a build ID made from its content, and no name of a folder of the building machine.
    fn rust_flags(&self) -> anyhow::Result<Vec<String>> {
        let sysroot =
            tool::text(tool::command("rustc").args(["--print", "sysroot"]).current_dir(&self.checkout))?;
        let version = tool::text(tool::command("rustc").arg("-vV").current_dir(&self.checkout))?;
        let compiler =
            version.lines().find_map(|line| line.strip_prefix("commit-hash: ")).unwrap_or("unknown");
        let mut flags: Vec<String> =
            ["-Ctarget-feature=+crt-static", "-Crelocation-model=pie", "-Clink-arg=-Wl,--build-id=sha1"]
                .map(str::to_owned)
                .into();
        // The last that fits counts: the folder where cargo builds is often in the checkout.
        let folders = [
            (self.checkout.clone(), "/stockade".to_owned()),
            (workspace::cargo_home()?, "/cargo".to_owned()),
            (Path::new(sysroot.trim()).join("lib/rustlib/src/rust"), format!("/rustc/{compiler}")),
            (self.target.clone(), "/target".to_owned()),
        ];
        flags.extend(folders.map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display())));
        Ok(flags)
    }
}

/// Returns the path of a program that was built with the release program.
pub fn built(name: &str) -> PathBuf {
    Tree { checkout: workspace::root().to_owned(), target: workspace::target_folder() }.built(name)
}

/// Returns the commit of the checkout, marked when files differ from it; `unknown` outside a repository.
fn commit() -> String {
    let git = |args: &[&str]| tool::text(Command::new("git").args(args).current_dir(workspace::root()));
    let Ok(head) = git(&["rev-parse", "HEAD"]) else { return "unknown".to_owned() };
    let changed = git(&["status", "--porcelain"]).map_or(true, |changes| !changes.trim().is_empty());
    format!("{}{}", head.trim(), if changed { "-dirty" } else { "" })
}

/// Checks a linked program that has its symbols; returns its build ID.
fn check_file(file: &Path) -> anyhow::Result<String> {
    let bytes = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    check(&bytes).with_context(|| format!("{} is refused", file.display()))
}

/// Checks a linked program that has its symbols; returns its build ID.
///
/// # Errors
/// The first fault, in a sentence of its own.
fn check(program: &[u8]) -> anyhow::Result<String> {
    let image = Image::parse(program)?;
    image.check()?;
    let calls = weak_calls::find(&image)?;
    if !calls.is_empty() {
        let listed: Vec<String> = calls.iter().take(LISTED).map(ToString::to_string).collect();
        let more =
            if calls.len() > LISTED { format!(" and {} more", calls.len() - LISTED) } else { String::new() };
        // Names that begin with an underscore are the C library's own affair.
        let names: Vec<String> =
            weak_calls::undefined(&image).into_iter().filter(|name| !name.starts_with('_')).collect();
        let names = if names.is_empty() {
            String::new()
        } else {
            format!(" (weak and undefined are: {})", names.join(", "))
        };
        bail!(
            "the program calls a function that is not linked, at address 0: in {}{more}{names}; call it by rustix or the \
             standard library instead of libc, or only after its address was compared with null",
            listed.join(", "),
        );
    }
    image.build_id()
}
