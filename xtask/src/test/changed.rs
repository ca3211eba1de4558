/*!
The effects of a change: `cargo xtask test --changed` plays the steps that it can affect.
*/
use std::{collections::BTreeSet, path::Path};

use anyhow::{Context, ensure};
use serde_json::Value;
use stockade_lab::tool;

use crate::workspace;

/// The part of the lab that a change can affect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lab {
    /// Nothing.
    #[default]
    Nothing,
    /// Scenarios whose outcome depends on our user side alone.
    UserSide,
    /// Everything that the tests play.
    Everything,
}

/// The steps and packages that a change can affect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is affected or not, whatever the others are")]
pub struct Affected {
    /// The changed files.
    pub files: Vec<String>,
    /// The packages of the workspace that have to be built and tested anew.
    pub packages: BTreeSet<String>,
    /// The packages among these that have a changed file of their own, or whose tests replay or follow one. The others need one of them.
    pub direct: BTreeSet<String>,
    /// The part of the lab.
    pub lab: Lab,
    /// Whether the kernel-side object may be stale.
    pub object: bool,
    /// Whether the set of dependencies may have changed.
    pub dependencies: bool,
    /// Whether the packages may have changed.
    pub package: bool,
    /// Whether the book of the documentation may have changed.
    pub documents: bool,
    /// Whether the page of `assess --html` may have changed.
    pub page: bool,
}

/// The packages whose tests replay the properties and seeds below fuzz/.
const REPLAY: [&str; 3] = ["stockade-assess", "stockade-kernel", "stockade-policy"];

/// The folders of packages that decide in the kernel or call it: a kernel's answer can depend on them.
const KERNEL: [&str; 5] = ["stockade-common", "stockade-ebpf", "stockade-kernel", "stockade-probe", "lab"];

/// Returns the files that differ from a commit, those not yet added to git included.
pub fn files(base: &str) -> anyhow::Result<Vec<String>> {
    let git = |arguments: &[&str]| {
        tool::text(tool::command("git").current_dir(workspace::root()).args(arguments))
            .with_context(|| format!("asking git what differs from {base}"))
    };
    let commit = format!("{base}^{{commit}}");
    let mut known = tool::command("git");
    known.current_dir(workspace::root()).args([
        "rev-parse",
        "--verify",
        "--quiet",
        "--end-of-options",
        &commit,
    ]);
    let asked = tool::finish(&mut known)?;
    // Any other status is an error of git itself, which the next command reports.
    ensure!(asked.status.code() != Some(1), "--changed: this checkout has no commit {base:?}");
    let mut files: BTreeSet<String> =
        git(&["diff", "--name-only", base, "--"])?.lines().map(str::to_owned).collect();
    files.extend(git(&["ls-files", "--others", "--exclude-standard"])?.lines().map(str::to_owned));
    Ok(files.into_iter().collect())
}

/// Returns the workspace's packages: name, folder, and the packages of the workspace that each needs.
pub fn packages() -> anyhow::Result<Vec<Package>> {
    let mut cargo = workspace::cargo();
    let text =
        tool::text(cargo.args(["metadata", "--format-version=1", "--no-deps", "--offline", "--quiet"]))
            .or_else(|_| {
                tool::text(workspace::cargo().args([
                    "metadata",
                    "--format-version=1",
                    "--no-deps",
                    "--quiet",
                ]))
            })?;
    let metadata: Value = serde_json::from_str(&text).context("reading what cargo metadata printed")?;
    let root = format!("{}/", workspace::root().display());
    let list = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let package = |value: &Value| -> Option<Package> {
        let manifest = value["manifest_path"].as_str()?.strip_prefix(&root)?;
        let needs = value["dependencies"].as_array()?.iter().filter(|need| need["path"].is_string());
        Some(Package {
            name: value["name"].as_str()?.to_owned(),
            folder: manifest.strip_suffix("Cargo.toml")?.to_owned(),
            needs: needs.filter_map(|need| Some(need["name"].as_str()?.to_owned())).collect(),
        })
    };
    list.iter()
        .map(|value| package(value).context("cargo metadata describes a package without a manifest"))
        .collect()
}

/// A package of the workspace.
#[derive(Clone, Debug)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its folder, with a slash at the end.
    pub folder: String,
    /// The packages of the workspace that it needs.
    pub needs: Vec<String>,
}

/// Works out the effects of a change of these files.
#[must_use]
pub fn affected(files: Vec<String>, packages: &[Package]) -> Affected {
    let mut found = Affected::default();
    for file in &files {
        let is_in = |folder: &str| file.starts_with(folder);
        if let Some(package) = packages.iter().find(|package| is_in(&package.folder)) {
            found.packages.insert(package.name.clone());
            found.direct.insert(package.name.clone());
            let kernel = KERNEL.iter().any(|name| is_in(&format!("{name}/")));
            let lab = if package.name == "xtask" {
                Lab::Nothing
            } else if kernel && !is_in("stockade-kernel/tests/") {
                Lab::Everything
            } else {
                Lab::UserSide
            };
            found.lab = found.lab.max(lab);
        }
        found.object |= is_in("stockade-ebpf/") || is_in("stockade-common/") || is_in("stockade-kernel/bpf/");
        found.package |= is_in("packaging/") || is_in("xtask/src/package");
        found.page |= is_in("stockade/src/commands/assess/") || is_in("stockade-assess/findings/");
        match file.as_str() {
            "Cargo.toml" | "Cargo.lock" | "rust-toolchain.toml" | ".cargo/config.toml" => {
                found.packages.extend(packages.iter().map(|package| package.name.clone()));
                found.lab = Lab::Everything;
                found.dependencies = true;
            }
            "deny.toml" => found.dependencies = true,
            // Tests compare these documents with the code.
            _ if is_in("docs/")
                || Path::new(file).extension().is_some_and(|e| e == "md")
                || is_in("packaging/") =>
            {
                found.documents = true;
                let readers = ["stockade", "stockade-assess", "stockade-policy", "stockade-reasons", "xtask"];
                found.packages.extend(readers.map(str::to_owned));
                // The tests of xtask follow every link.
                found.direct.insert("xtask".to_owned());
            }
            _ if is_in("stockade-ebpf/") => {
                found.lab = Lab::Everything;
                found.packages.insert("stockade-kernel".to_owned());
            }
            _ if is_in("fuzz/") => {
                found.packages.extend(REPLAY.map(str::to_owned));
                found.direct.extend(REPLAY.map(str::to_owned));
            }
            _ => {}
        }
    }
    // A package that needs a changed one is affected too.
    loop {
        let more: Vec<String> = packages
            .iter()
            .filter(|package| package.needs.iter().any(|need| found.packages.contains(need)))
            .map(|package| package.name.clone())
            .filter(|name| !found.packages.contains(name))
            .collect();
        if more.is_empty() {
            break;
        }
        found.packages.extend(more);
    }
    found.files = files;
    found
}

#[cfg(test)]
mod tests {
    use super::{Affected, Lab, Package, affected, packages};

    fn of(files: &[&str]) -> Affected {
        affected(files.iter().map(ToString::to_string).collect(), &packages().unwrap())
    }

    #[test]
    fn a_change_of_user_side_plays_the_user_side() {
        let found = of(&["stockade-policy/src/diff.rs"]);
        assert_eq!(found.lab, Lab::UserSide);
        assert!(found.packages.contains("stockade") && found.packages.contains("stockade-policy"));
        assert!(!found.packages.contains("stockade-reasons") && !found.object && !found.dependencies);
    }

    #[test]
    fn a_change_of_what_decides_plays_everything() {
        assert_eq!(of(&["stockade-ebpf/src/decide.rs"]).lab, Lab::Everything);
        assert_eq!(of(&["lab/src/attacks/bpf.rs"]).lab, Lab::Everything);
        let shared = of(&["stockade-common/src/decide.rs"]);
        assert!(shared.object && shared.lab == Lab::Everything);
        assert!(of(&["Cargo.lock"]).dependencies);
    }

    #[test]
    fn a_change_of_a_document_plays_no_guest() {
        let found = of(&["docs/seal.md"]);
        assert_eq!(found.lab, Lab::Nothing);
        assert!(found.packages.contains("stockade-policy"));
    }

    #[test]
    fn a_package_with_a_changed_file_is_direct_and_those_that_need_it_are_not() {
        let direct = |files: &[&str]| of(files).direct.into_iter().collect::<Vec<_>>();
        assert_eq!(direct(&["stockade-policy/src/diff.rs"]), ["stockade-policy"]);
        assert_eq!(
            direct(&["stockade-assess/findings/tpm/new.toml", "lab/src/tool.rs"]),
            ["stockade-assess", "stockade-lab"]
        );
        assert_eq!(direct(&["docs/seal.md"]), ["xtask"]);
        assert_eq!(direct(&["fuzz/seeds/read/full.toml"]), super::REPLAY);
        // Other versions of dependencies change no package, but each has to be compiled.
        let lock = of(&["Cargo.lock"]);
        assert!(lock.direct.is_empty() && lock.packages.len() == packages().unwrap().len());
    }

    #[test]
    fn direct_packages_are_among_the_affected_ones() {
        for package in packages().unwrap() {
            let found = of(&[&format!("{}Cargo.toml", package.folder), "README.md", "fuzz/Cargo.toml"]);
            assert!(found.direct.is_subset(&found.packages), "{}", package.name);
        }
    }

    #[test]
    fn every_package_of_the_workspace_has_its_folder() {
        let all = packages().unwrap();
        assert!(all.iter().any(|package: &Package| package.name == "xtask" && package.folder == "xtask/"));
        for package in all {
            let found = of(&[&format!("{}src/lib.rs", package.folder)]);
            assert!(found.packages.contains(&package.name), "{}", package.name);
        }
    }
}
