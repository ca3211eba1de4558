/*!
The folder that nfpm works in. `source` has copies from the checkout, `made` what is generated. Every file has the time of the last
commit: some formats record it.
*/
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use anyhow::Context;
use flate2::{Compression, GzBuilder};
use stockade_lab::tool;

use super::{SBOM, changelog, crates, maintainer, names, notices, sbom};
use crate::workspace;

/// The paths in the checkout that packages contain.
const SOURCES: [&str; 5] = ["docs", "packaging", "LICENSE-APACHE", "LICENSE-GPL-2.0", "LICENSE-MIT"];

/// Fills the folder. `time` is in seconds since 1970.
pub fn fill(stage: &Path, time: u64) -> anyhow::Result<()> {
    let root = workspace::root();
    for name in SOURCES {
        copy(&root.join(name), &stage.join("source").join(name))?;
    }
    let made = stage.join("made");
    let folder = |name: &str| -> anyhow::Result<PathBuf> {
        let folder = made.join(name);
        fs::create_dir_all(&folder).with_context(|| format!("making the folder {}", folder.display()))?;
        Ok(folder)
    };
    let (pages, completions) = (folder("man")?, folder("completions")?);
    let write = |name: &str, bytes: &[u8]| {
        fs::write(made.join(name), bytes).with_context(|| format!("writing {name} for the packages"))
    };
    let program = made.join("stockade");
    copy(&workspace::target_folder().join("dist/stockade"), &program)?;

    let text = fs::read_to_string(root.join("CHANGELOG.md")).context("reading CHANGELOG.md")?;
    let releases = changelog::read(&text)?;
    let maintainer = maintainer()?;
    write("changelog.Debian.gz", &gzip(changelog::debian(&releases, &maintainer).as_bytes())?)?;
    write("changelog.yaml", changelog::nfpm(&releases, &maintainer).as_bytes())?;

    let crates = crates::shipped()?;
    let bytes = fs::read(&program).with_context(|| format!("reading {}", program.display()))?;
    write(SBOM, &sbom::write(&crates, &bytes, time)?)?;
    write("NOTICES.gz", &gzip(notices::write(&crates)?.as_bytes())?)?;

    let stockade = || tool::command(&program.to_string_lossy());
    tool::output(stockade().arg("man").arg(&pages))?;
    for name in names(&pages)? {
        let page = pages.join(&name);
        let text = fs::read(&page).with_context(|| format!("reading {}", page.display()))?;
        write(&format!("man/{name}.gz"), &gzip(&text)?)?;
        fs::remove_file(&page).with_context(|| format!("removing {}", page.display()))?;
    }
    for (shell, name) in [("bash", "stockade.bash"), ("fish", "stockade.fish"), ("zsh", "_stockade")] {
        let script = tool::output(stockade().args(["completions", shell]))?;
        fs::write(completions.join(name), script).with_context(|| format!("writing {name}"))?;
    }
    set_times(stage, time)
}

/// Compresses like `gzip -9n`: without name and time, so that equal content makes equal bytes.
fn gzip(bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

/// Copies a file, or a folder with all that is in it.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let context = || format!("copying {}", from.display());
    if from.is_dir() {
        fs::create_dir_all(to).with_context(context)?;
        for name in names(from)? {
            copy(&from.join(&name), &to.join(&name))?;
        }
    } else {
        fs::copy(from, to).with_context(context)?;
    }
    Ok(())
}

fn set_times(path: &Path, time: u64) -> anyhow::Result<()> {
    if path.is_dir() {
        for name in names(path)? {
            set_times(&path.join(name), time)?;
        }
    }
    let time = UNIX_EPOCH + Duration::from_secs(time);
    let file = fs::File::open(path).with_context(|| format!("opening {}", path.display()))?;
    file.set_modified(time).with_context(|| format!("setting the time of {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::gzip;

    #[test]
    fn compressed_bytes_have_no_time_and_no_name() {
        let bytes = gzip(b"text").unwrap();
        // Flags and time of the header: RFC 1952, 2.3.
        assert_eq!(bytes[3..8], [0, 0, 0, 0, 0]);
        let mut text = String::new();
        flate2::read::GzDecoder::new(bytes.as_slice()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "text");
    }
}
