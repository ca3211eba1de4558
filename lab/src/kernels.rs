/*!
The kernels of the lab: distribution kernels, fetched as packages and kept in the cache.

```text
kernels/<id>/root/          the unpacked packages, with /lib/modules
kernels/<id>/vmlinux        the kernel to boot
kernels/<id>/release        its release; written last
kernels/<id>/base-N.cpio    the part of the initrd that depends on the kernel only
```
*/
use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};

use crate::{
    cache,
    debian::{self, Archive, Suite},
    tool, vmlinux,
};

/// A kernel that can be booted.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The short name, such as `6.12-cloud`.
    pub id: String,
    /// The release, as `uname -r` prints it; empty for a kernel given by path.
    pub release: String,
    /// The image that QEMU loads.
    pub image: PathBuf,
    /// The folder of the cache for files made from this kernel.
    pub folder: PathBuf,
}

/// A kernel that the lab can fetch.
#[derive(Clone, Copy, Debug)]
struct Known {
    id: &'static str,
    meta_package: &'static str,
    /// The beginning of the expected release; another release means that the suite has a newer series now.
    release: &'static str,
    suite: Suite,
    role: Role,
}

/// The purpose of a kernel in the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Every scenario is played on it.
    Enforces,
    /// Scenarios are played on it only when it is asked for by name, or when every kernel is.
    OnRequest,
    /// The kernel is too old: Stockade refuses to enforce on it, and only the scenarios about that are played.
    Refused,
}

const KNOWN: [Known; 9] = [
    Known {
        id: "5.10-generic",
        meta_package: "linux-image-amd64",
        release: "5.10.",
        suite: Suite::Bullseye,
        role: Role::Refused,
    },
    Known {
        id: "6.1-cloud",
        meta_package: "linux-image-cloud-amd64",
        release: "6.1.",
        suite: Suite::Own,
        role: Role::Enforces,
    },
    Known {
        id: "6.1-generic",
        meta_package: "linux-image-amd64",
        release: "6.1.",
        suite: Suite::Own,
        role: Role::Enforces,
    },
    Known {
        id: "6.1-rt",
        meta_package: "linux-image-rt-amd64",
        release: "6.1.",
        suite: Suite::Own,
        role: Role::OnRequest,
    },
    Known {
        id: "6.12-cloud",
        meta_package: "linux-image-6.12-cloud-amd64",
        release: "6.12.",
        suite: Suite::Own,
        role: Role::Enforces,
    },
    Known {
        id: "6.12-generic",
        meta_package: "linux-image-6.12-amd64",
        release: "6.12.",
        suite: Suite::Own,
        role: Role::Enforces,
    },
    Known {
        id: "6.12-rt",
        meta_package: "linux-image-6.12-rt-amd64",
        release: "6.12.",
        suite: Suite::Own,
        role: Role::OnRequest,
    },
    Known {
        id: "7-cloud",
        meta_package: "linux-image-cloud-amd64",
        release: "7.",
        suite: Suite::Development,
        role: Role::Enforces,
    },
    Known {
        id: "7-generic",
        meta_package: "linux-image-amd64",
        release: "7.",
        suite: Suite::Development,
        role: Role::Enforces,
    },
];

/// Returns the short names of the kernels that play every scenario, oldest first.
#[must_use]
pub fn ids() -> Vec<&'static str> {
    KNOWN.iter().filter(|known| known.role == Role::Enforces).map(|known| known.id).collect()
}

/// Returns the short names of all kernels, oldest first, with those that are played only when asked for by name.
#[must_use]
pub fn every_id() -> Vec<&'static str> {
    KNOWN.iter().map(|known| known.id).collect()
}

/// Returns the role of the kernel with this name. A kernel given by path plays everything.
#[must_use]
pub fn role(id: &str) -> Role {
    KNOWN.iter().find(|known| known.id == id).map_or(Role::OnRequest, |known| known.role)
}

impl Kernel {
    /// Returns its series, such as `6.12`, without the flavour.
    #[must_use]
    pub fn series(&self) -> &str {
        self.id.split('-').next().unwrap_or(&self.id)
    }

    /// Returns the packaged image, for boots by firmware; a kernel given by path has none.
    #[must_use]
    pub fn bzimage(&self) -> Option<PathBuf> {
        packaged_image(&self.folder.join("root"), &self.release)
    }

    /// Returns the kernel's configuration file from its package; a kernel given by path has none.
    #[must_use]
    pub fn config(&self) -> Option<PathBuf> {
        let root = self.folder.join("root");
        let candidates =
            [format!("boot/config-{}", self.release), format!("lib/modules/{}/config", self.release)];
        candidates.map(|path| root.join(path)).into_iter().find(|path| path.exists())
    }

    /// Returns the file of a module of its package.
    pub fn module(&self, name: &str) -> anyhow::Result<PathBuf> {
        let root = self.folder.join("root");
        let mut modinfo = tool::command("modinfo");
        modinfo.arg("-b").arg(&root).args(["-k", &self.release, "-F", "filename", name]);
        let path = tool::text(&mut modinfo).with_context(|| format!("{} has no module {name}", self.id))?;
        Ok(PathBuf::from(path.trim()))
    }
}

fn packaged_image(root: &Path, release: &str) -> Option<PathBuf> {
    let candidates =
        [root.join(format!("boot/vmlinuz-{release}")), root.join(format!("lib/modules/{release}/vmlinuz"))];
    candidates.into_iter().find(|path| path.exists())
}

/// Reports whether the kernel with this name is in the cache.
#[must_use]
pub fn is_fetched(id: &str) -> bool {
    cache::folder().is_ok_and(|folder| folder.join("kernels").join(id).join("release").exists())
}

/// Returns the kernel with this name: from the cache, or fetched when it is not there or `refresh` is asked for.
pub fn get(id: &str, refresh: bool) -> anyhow::Result<Kernel> {
    let Some(known) = KNOWN.iter().find(|known| known.id == id) else {
        bail!("there is no kernel {id} in the lab; there are {}", every_id().join(", "));
    };
    let folder = cache::folder()?.join("kernels").join(id);
    if refresh || !folder.join("release").exists() {
        eprintln!("fetching the kernel {id} …");
        debian::with(known.suite, refresh, |archive| fetch(known, &folder, archive))
            .with_context(|| format!("fetching the kernel {id}"))?;
    }
    let release = fs::read_to_string(folder.join("release"))?.trim_end().to_owned();
    Ok(Kernel { id: id.to_owned(), release, image: folder.join("vmlinux"), folder })
}

/// Returns a kernel of the developer's own, a bzImage or an ELF vmlinux. It has no modules.
pub fn given(path: &Path) -> anyhow::Result<Kernel> {
    let image = fs::read(path).with_context(|| format!("reading the kernel {}", path.display()))?;
    let folder = cache::folder()?.join("kernels").join("given");
    fs::create_dir_all(&folder).with_context(|| format!("making the folder {}", folder.display()))?;
    let mut kernel = Kernel { id: "given".into(), release: String::new(), image: path.to_owned(), folder };
    if !vmlinux::is_elf(&image) {
        // An image from which no vmlinux can be extracted boots as it is, only slower.
        match vmlinux::extract(&image, &kernel.folder) {
            Ok(elf) => {
                kernel.image = kernel.folder.join("vmlinux");
                cache::write(&kernel.image, &elf)?;
            }
            Err(error) => eprintln!("{}: {error:#}; booting the image as it is", path.display()),
        }
    }
    Ok(kernel)
}

fn fetch(known: &Known, folder: &Path, archive: &Archive) -> anyhow::Result<()> {
    ensure!(archive.knows(known.meta_package), "the package source has no {}", known.meta_package);
    let closure = archive.closure(known.meta_package)?;
    let numbered = |package: &&String| {
        package
            .strip_prefix("linux-image-")
            .is_some_and(|v| v.starts_with(known.release) && v.ends_with("-amd64"))
    };
    let release = closure
        .iter()
        .find(numbered)
        .and_then(|package| package.strip_prefix("linux-image-"))
        .with_context(|| format!("{} leads to no kernel {}x", known.meta_package, known.release))?;
    // Older series have the image and the modules in one package, newer ones in several whose names end with the release.
    let is_part = |package: &&String| {
        package.strip_prefix("linux-").and_then(|p| p.strip_suffix(release)).is_some_and(|p| p.ends_with('-'))
    };
    let packages: Vec<String> =
        closure.iter().filter(is_part).filter(|p| archive.knows(p)).cloned().collect();
    cache::replace_folder(folder, |fresh| {
        let root = fresh.join("root");
        archive.unpack(&packages, &root)?;
        if !root.join("lib").exists() {
            std::os::unix::fs::symlink("usr/lib", root.join("lib")).context("linking lib to usr/lib")?;
        }
        let image = packaged_image(&root, release)
            .with_context(|| format!("{} contain no kernel image", packages.join(", ")))?;
        let bytes = fs::read(&image).with_context(|| format!("reading {}", image.display()))?;
        fs::write(fresh.join("vmlinux"), vmlinux::extract(&bytes, fresh)?).context("writing vmlinux")?;
        tool::output(tool::command("depmod").arg("-b").arg(&root).arg(release))?;
        fs::write(fresh.join("release"), release).context("writing the kernel's release")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_is_refused_is_not_among_the_usual_ones() {
        assert_eq!(role("5.10-generic"), Role::Refused);
        assert!(every_id().contains(&"5.10-generic") && !ids().contains(&"5.10-generic"));
    }
}
