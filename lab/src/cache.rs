/*!
The cache of the lab's downloads: `$XDG_CACHE_HOME/stockade`, or `~/.cache/stockade`.
*/
use std::{
    env, fs,
    path::{Path, PathBuf},
    process,
};

use anyhow::Context;

/// Returns the cache's folder, and creates it if needed.
pub fn folder() -> anyhow::Result<PathBuf> {
    let base = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|p| p.is_absolute())
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set: there is no place for the cache")?;
    let folder = base.join("stockade");
    fs::create_dir_all(&folder).with_context(|| format!("making the folder {}", folder.display()))?;
    Ok(folder)
}

/// Replaces a folder whole or not at all: `fill` works in a temporary folder beside it, which is then renamed.
pub fn replace_folder(folder: &Path, fill: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let name = folder.file_name().context("a folder of the cache has a name")?.to_string_lossy();
    let beside = |what: &str| folder.with_file_name(format!(".{name}.{what}-{}", process::id()));
    let (fresh, old) = (beside("new"), beside("old"));
    remove(&fresh)?;
    fs::create_dir_all(&fresh).with_context(|| format!("making the folder {}", fresh.display()))?;
    if let Err(error) = fill(&fresh) {
        let _ = fs::remove_dir_all(&fresh);
        return Err(error);
    }
    if folder.exists() {
        fs::rename(folder, &old).with_context(|| format!("moving {} aside", folder.display()))?;
    }
    fs::rename(&fresh, folder)
        .with_context(|| format!("moving {} to {}", fresh.display(), folder.display()))?;
    remove(&old)
}

/// Writes a file whole or not at all.
pub fn write(file: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut name = file.file_name().context("a file of the cache has a name")?.to_owned();
    name.push(format!(".new-{}", process::id()));
    let fresh = file.with_file_name(name);
    fs::write(&fresh, bytes).with_context(|| format!("writing {}", fresh.display()))?;
    fs::rename(&fresh, file).with_context(|| format!("moving {} to {}", fresh.display(), file.display()))
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    Ok(())
}
