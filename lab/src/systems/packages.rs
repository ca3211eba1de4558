/*!
A disk with a repository for the guest's apt: the package under test in `old/`, and the same package with a higher version in `new/`, for an
upgrade.
*/
use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};

use crate::tool;

/// The suffix of the version in `new/`.
const SUFFIX: &str = "+lab1";

const SIZE: &str = "160M";

/// A disk with the repository.
#[derive(Clone, Debug)]
pub struct Repository {
    /// The disk.
    pub disk: PathBuf,
    /// The version in `old/`.
    pub version: String,
    /// The version in `new/`.
    pub newer: String,
}

/// Writes the repository with this package into a folder that is created afresh.
pub fn write(package: &Path, folder: &Path) -> anyhow::Result<Repository> {
    let field = |name: &str| {
        tool::text(tool::command("dpkg-deb").arg("-f").arg(package).arg(name))
            .map(|text| text.trim().to_owned())
            .with_context(|| format!("{} is no Debian package that can be read", package.display()))
    };
    let (name, version) = (field("Package")?, field("Version")?);
    ensure!(name == "stockade", "{} is the package {name} and should be stockade", package.display());
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    let tree = folder.join("repository");
    let (old, new) = (tree.join("old"), tree.join("new"));
    for side in [&old, &new] {
        fs::create_dir_all(side).with_context(|| format!("making the folder {}", side.display()))?;
    }
    let newer = format!("{version}{SUFFIX}");
    fs::copy(package, old.join("stockade.deb")).context("copying the package")?;

    let content = folder.join("content");
    tool::output(tool::command("dpkg-deb").arg("-R").arg(package).arg(&content))?;
    let control = content.join("DEBIAN/control");
    let text = fs::read_to_string(&control).context("reading the package's control file")?;
    let raised = text.replace(&format!("Version: {version}\n"), &format!("Version: {newer}\n"));
    ensure!(raised != text, "the control file of {} has no line with its version", package.display());
    fs::write(&control, raised).context("writing the package's control file")?;
    let build = ["-Znone", "--root-owner-group", "-b"];
    tool::output(tool::command("dpkg-deb").args(build).arg(&content).arg(new.join("stockade.deb")))?;

    for side in [&old, &new] {
        let mut scan = tool::command("dpkg-scanpackages");
        let list = tool::output(scan.arg(".").current_dir(side))?;
        fs::write(side.join("Packages"), list).context("writing the list of packages")?;
    }
    let disk = folder.join("packages.ext4");
    tool::output(tool::command("truncate").args(["-s", SIZE]).arg(&disk))?;
    tool::output(tool::command("mke2fs").args(["-q", "-t", "ext4", "-F", "-d"]).arg(&tree).arg(&disk))?;
    fs::remove_dir_all(&content).context("removing the unpacked package")?;
    Ok(Repository { disk, version, newer })
}
