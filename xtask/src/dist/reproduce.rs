/*!
The comparison of two builds in two folders, which have to make the same bytes.
*/
use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use stockade_lab::tool;

use super::{Tree, With};
use crate::workspace;

/// Builds the program here and in a copy of the checkout in another folder, and compares the bytes. Both are full builds, since
/// the second shares nothing with the first.
pub fn reproducible() -> anyhow::Result<bool> {
    let here = super::build(With::Nothing)?;
    let folder = workspace::target_folder().join("reproduce");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    let tree = Tree { checkout: folder.join("another/checkout"), target: folder.join("built") };
    copy_checkout(workspace::root(), &tree.checkout)?;
    let there = folder.join("stockade");
    super::strip(&tree.build(&here.commit, With::Nothing)?, &there)?;
    let read = |file: &Path| fs::read(file).with_context(|| format!("reading {}", file.display()));
    let (first, second) = (read(&here.place)?, read(&there)?);
    match first_difference(&first, &second) {
        None => {
            println!("two builds in two folders make the same {} bytes: {here}", first.len());
            Ok(true)
        }
        Some(at) => {
            println!(
                "two builds in two folders differ from byte {at:#x} on: {} ({} bytes) and {} ({} bytes)",
                here.place.display(),
                first.len(),
                there.display(),
                second.len()
            );
            Ok(false)
        }
    }
}

/// Returns the offset of the first difference of two files.
fn first_difference(first: &[u8], second: &[u8]) -> Option<usize> {
    (first != second).then(|| first.iter().zip(second).take_while(|(a, b)| a == b).count())
}

/// Copies the files that git tracks and the new ones that it does not ignore, as they are in the folder now.
fn copy_checkout(from: &Path, to: &Path) -> anyhow::Result<()> {
    let mut git = tool::command("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(from);
    let list = tool::text(&mut git).context("listing the checkout's files")?;
    let files: Vec<PathBuf> = list.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from).collect();
    ensure!(!files.is_empty(), "{} has no files that git knows", from.display());
    for file in files {
        let (source, place) = (from.join(&file), to.join(&file));
        // Deleted in the folder and not yet in the index.
        if !source.exists() {
            continue;
        }
        let parent = place.parent().expect("a file in the checkout has a folder");
        fs::create_dir_all(parent).with_context(|| format!("making the folder {}", parent.display()))?;
        fs::copy(&source, &place).with_context(|| format!("copying {}", source.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_first_byte_that_differs_is_told() {
        assert_eq!(super::first_difference(b"same", b"same"), None);
        assert_eq!(super::first_difference(b"same", b"sane"), Some(2));
        assert_eq!(super::first_difference(b"same", b"sam"), Some(3), "one is shorter");
    }
}
