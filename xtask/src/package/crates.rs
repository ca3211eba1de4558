/*!
The crates that are in the shipped program, as cargo resolves them: its normal dependencies for the one target, and those of the
object that runs in the kernel. Build dependencies and procedural macros run at build time only and are left out.
*/
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use serde_json::Value;
use stockade_lab::tool;

use crate::workspace;

/// A crate in the program.
#[derive(Debug)]
pub struct Crate {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its licence, an SPDX expression in cargo's form.
    pub license: String,
    /// SHA-256 of the file on crates.io; a crate of this workspace has none.
    pub checksum: Option<String>,
    /// The folder of its source.
    pub folder: PathBuf,
    /// The crates that it uses, by [`Crate::id`].
    pub uses: BTreeSet<String>,
}

impl Crate {
    /// Returns name and version.
    pub fn id(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }
}

/// Returns all crates in the program, by [`Crate::id`].
pub fn shipped() -> anyhow::Result<BTreeMap<String, Crate>> {
    let root = workspace::root();
    let mut crates = BTreeMap::new();
    let target = ["--filter-platform", workspace::TARGET];
    collect(
        &metadata(&root.join("Cargo.toml"), &target)?,
        "stockade",
        &checksums(&root.join("Cargo.lock"))?,
        &mut crates,
    )?;
    let kernel = root.join("stockade-ebpf");
    collect(
        &metadata(&kernel.join("Cargo.toml"), &[])?,
        "stockade-ebpf",
        &checksums(&kernel.join("Cargo.lock"))?,
        &mut crates,
    )?;
    // stockade-kernel includes the object.
    let (Some(object), Some(carrier)) = (
        crates.values().find(|c| c.name == "stockade-ebpf").map(Crate::id),
        crates.values_mut().find(|c| c.name == "stockade-kernel"),
    ) else {
        bail!("stockade-kernel or stockade-ebpf is missing among the program's crates");
    };
    carrier.uses.insert(object);
    Ok(crates)
}

fn metadata(manifest: &Path, flags: &[&str]) -> anyhow::Result<Value> {
    let mut cargo = workspace::cargo();
    cargo
        .args(["metadata", "--format-version", "1", "--locked", "--manifest-path"])
        .arg(manifest)
        .args(flags);
    serde_json::from_slice(&tool::output(&mut cargo)?).context("reading the answer of cargo metadata")
}

/// Reads the checksums in Cargo.lock, by name and version.
fn checksums(lock: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let text = fs::read_to_string(lock).with_context(|| format!("reading {}", lock.display()))?;
    let lock: toml::Table = text.parse().with_context(|| format!("reading {}", lock.display()))?;
    let packages =
        lock.get("package").and_then(toml::Value::as_array).context("Cargo.lock lists no packages")?;
    let entry = |package: &toml::Value| -> Option<(String, String)> {
        let field = |name: &str| package.get(name).and_then(toml::Value::as_str);
        Some((format!("{}@{}", field("name")?, field("version")?), field("checksum")?.to_owned()))
    };
    Ok(packages.iter().filter_map(entry).collect())
}

fn collect(
    metadata: &Value,
    root: &str,
    checksums: &BTreeMap<String, String>,
    crates: &mut BTreeMap<String, Crate>,
) -> anyhow::Result<()> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages: BTreeMap<String, Value> =
        list(&metadata["packages"]).into_iter().map(|p| (text(&p["id"]), p)).collect();
    let nodes: BTreeMap<String, Value> =
        list(&metadata["resolve"]["nodes"]).into_iter().map(|n| (text(&n["id"]), n)).collect();
    let is_macro = |id: &str| {
        list(&packages[id]["targets"])
            .iter()
            .any(|t| list(&t["kind"]).iter().any(|kind| kind == "proc-macro"))
    };
    let name = |id: &str| format!("{}@{}", text(&packages[id]["name"]), text(&packages[id]["version"]));
    let mut open: Vec<String> =
        packages.iter().filter(|(_, p)| p["name"] == root).map(|(id, _)| id.clone()).collect();
    if open.is_empty() {
        bail!("cargo metadata does not list {root}");
    }
    while let Some(id) = open.pop() {
        let package = &packages[&id];
        if crates.contains_key(&name(&id)) {
            continue;
        }
        let normal =
            |dependency: &Value| list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
        let used: Vec<String> = list(&nodes[&id]["deps"])
            .iter()
            .filter(|dependency| normal(dependency))
            .map(|dependency| text(&dependency["pkg"]))
            .filter(|id| !is_macro(id))
            .collect();
        let manifest = PathBuf::from(text(&package["manifest_path"]));
        let made = Crate {
            name: text(&package["name"]),
            version: text(&package["version"]),
            license: text(&package["license"]),
            checksum: checksums.get(&name(&id)).cloned(),
            folder: manifest.parent().context("a manifest lies in a folder")?.to_owned(),
            uses: used.iter().map(|id| name(id)).collect(),
        };
        crates.insert(name(&id), made);
        open.extend(used);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{collect, shipped};

    #[test]
    fn only_what_is_in_the_program_counts() {
        let package = |name: &str, kind: &str| serde_json::json!({ "id": name, "name": name, "version": "1.0.0", "license": "MIT", "manifest_path": format!("/{name}/Cargo.toml"), "targets": [{ "kind": [kind] }] });
        let dep = |name: &str, kind: Option<&str>| serde_json::json!({ "pkg": name, "dep_kinds": [{ "kind": kind }] });
        let metadata = serde_json::json!({
            "packages": [package("main", "bin"), package("used", "lib"), package("macro", "proc-macro"), package("syn", "lib"), package("build", "lib"), package("test", "lib")],
            "resolve": { "nodes": [
                { "id": "main", "deps": [dep("used", None), dep("macro", None), dep("build", Some("build")), dep("test", Some("dev"))] },
                { "id": "used", "deps": [] }, { "id": "macro", "deps": [dep("syn", None)] },
            ] },
        });
        let mut crates = BTreeMap::new();
        collect(&metadata, "main", &BTreeMap::new(), &mut crates).unwrap();
        assert_eq!(crates.keys().collect::<Vec<_>>(), ["main@1.0.0", "used@1.0.0"]);
        assert!(collect(&metadata, "other", &BTreeMap::new(), &mut crates).is_err());
    }

    #[test]
    fn the_program_and_its_kernel_object_are_there_with_checksums_and_licences() {
        let crates = shipped().unwrap();
        for name in ["stockade", "stockade-ebpf", "aya", "aya-ebpf", "clap"] {
            assert!(crates.values().any(|c| c.name == name), "{name} is missing");
        }
        for name in ["serde_derive", "proptest", "xtask"] {
            assert!(crates.values().all(|c| c.name != name), "{name} is not in the program");
        }
        for c in crates.values() {
            assert!(!c.license.is_empty(), "{} has no licence", c.name);
            assert_eq!(c.checksum.is_none(), c.folder.starts_with(crate::workspace::root()), "{}", c.name);
            assert!(
                c.uses.iter().all(|id| crates.contains_key(id)),
                "{} uses a crate that is not listed",
                c.name
            );
        }
    }
}
