/*!
The SBOM of the program, in CycloneDX's form.
*/
use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use cyclonedx_bom::{
    external_models::{spdx::SpdxExpression, uri::Purl},
    models::{
        component::{Classification, Component, Components, Scope},
        dependency::{Dependencies, Dependency},
        hash::{Hash, HashAlgorithm, HashValue, Hashes},
        license::{LicenseChoice, Licenses},
        metadata::Metadata,
    },
    prelude::{Bom, DateTime, SpecVersion, Validate},
};
use sha2::{Digest, Sha256};
use stockade_lab::tool;

use super::crates::Crate;
use crate::workspace;

/// Lists the crates, Rust's standard library and the C library, with their dependencies; checked against the schema before it is returned.
pub fn write(crates: &BTreeMap<String, Crate>, program: &[u8], time: u64) -> anyhow::Result<Vec<u8>> {
    let rustc = tool::text(tool::command("rustc").current_dir(workspace::root()).arg("--version"))
        .context("asking for the compiler's version")?;
    let rustc = rustc.split_whitespace().nth(1).context("rustc --version names no version")?.to_owned();
    let glibc = tool::text(tool::command("getconf").arg("GNU_LIBC_VERSION"))
        .context("asking for the C library's version")?;
    let glibc =
        glibc.split_whitespace().nth(1).context("getconf names no version of the C library")?.to_owned();

    let (main, others): (Vec<&Crate>, Vec<&Crate>) = crates.values().partition(|c| c.name == "stockade");
    let main = main.first().context("the program is missing among its crates")?;
    let mut application = component(main)?;
    application.component_type = Classification::Application;
    application.hashes = Some(sha256(format!("{:x}", Sha256::digest(program))));

    let mut components = others.into_iter().map(component).collect::<anyhow::Result<Vec<_>>>()?;
    let mut std =
        Component::new(Classification::Library, "rust-std", &rustc, Some(format!("rust-std@{rustc}")));
    std.licenses = Some(license("MIT OR Apache-2.0")?);
    std.purl = Some(Purl::new("generic", "rust-std", &rustc)?);
    let mut libc = Component::new(Classification::Library, "glibc", &glibc, Some(format!("glibc@{glibc}")));
    libc.licenses = Some(license("LGPL-2.1-or-later")?);
    libc.purl = Some(Purl::new("generic", "glibc", &glibc)?);
    let (std_ref, libc_ref) = (format!("rust-std@{rustc}"), format!("glibc@{glibc}"));
    components.extend([std, libc]);

    let mut dependencies: Vec<Dependency> = crates
        .iter()
        .map(|(id, c)| Dependency {
            dependency_ref: id.clone(),
            dependencies: c.uses.iter().cloned().collect(),
        })
        .collect();
    let of_main = dependencies.iter_mut().find(|d| d.dependency_ref == main.id());
    of_main.context("the program is missing among its crates")?.dependencies.push(std_ref.clone());
    dependencies.push(Dependency { dependency_ref: std_ref, dependencies: vec![libc_ref.clone()] });
    dependencies.push(Dependency { dependency_ref: libc_ref, dependencies: Vec::new() });

    let time = jiff::Timestamp::from_second(i64::try_from(time)?).context("the time of the last commit")?;
    let bom = Bom {
        // Random numbers would make each build another one.
        serial_number: None,
        metadata: Some(Metadata {
            timestamp: Some(DateTime::try_from(time.to_string()).context("the time of the last commit")?),
            tools: None,
            authors: None,
            component: Some(application),
            manufacture: None,
            supplier: None,
            licenses: None,
            properties: None,
            lifecycles: None,
        }),
        components: Some(Components(components)),
        dependencies: Some(Dependencies(dependencies)),
        ..Bom::default()
    };
    let verdict = bom.validate_version(SpecVersion::V1_5);
    ensure!(verdict.passed(), "the SBOM is not in CycloneDX's form: {verdict:?}");
    let mut out = Vec::new();
    bom.output_as_json(&mut out, SpecVersion::V1_5).context("writing the SBOM")?;
    out.push(b'\n');
    Ok(out)
}

fn component(krate: &Crate) -> anyhow::Result<Component> {
    let mut component =
        Component::new(Classification::Library, &krate.name, &krate.version, Some(krate.id()));
    component.scope = Some(Scope::Required);
    component.licenses =
        Some(license(&krate.license).with_context(|| format!("the licence of {}", krate.id()))?);
    if let Some(checksum) = &krate.checksum {
        component.hashes = Some(sha256(checksum.clone()));
        component.purl = Some(Purl::new("cargo", &krate.name, &krate.version)?);
    }
    Ok(component)
}

fn license(expression: &str) -> anyhow::Result<Licenses> {
    // Old crates write "MIT/Apache-2.0".
    let expression = SpdxExpression::parse_lax(expression.to_owned())?;
    Ok(Licenses(vec![LicenseChoice::Expression(expression)]))
}

fn sha256(digest: String) -> Hashes {
    Hashes(vec![Hash { alg: HashAlgorithm::SHA_256, content: HashValue(digest) }])
}

#[cfg(test)]
mod tests {
    use super::write;
    use crate::package::crates;

    #[test]
    fn the_sbom_is_the_same_twice_and_names_program_crates_and_libraries() {
        let crates = crates::shipped().unwrap();
        let bom = write(&crates, b"program", 1).unwrap();
        assert_eq!(bom, write(&crates, b"program", 1).unwrap());
        let json: serde_json::Value = serde_json::from_slice(&bom).unwrap();
        assert_eq!(json["specVersion"], "1.5");
        assert_eq!(json["metadata"]["timestamp"], "1970-01-01T00:00:01Z");
        assert_eq!(json["metadata"]["component"]["name"], "stockade");
        let components = json["components"].as_array().unwrap();
        assert_eq!(components.len(), crates.len() - 1 + 2);
        let aya = components.iter().find(|c| c["name"] == "aya").unwrap();
        assert_eq!(aya["purl"], format!("pkg:cargo/aya@{}", aya["version"].as_str().unwrap()));
        assert_eq!(aya["hashes"][0]["alg"], "SHA-256");
    }
}
