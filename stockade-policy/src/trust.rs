/*!
Whether a policy is root's alone: whoever else could write it, or swap a folder on the way to it, would decide what
root applies.
*/
use std::{
    collections::VecDeque,
    ffi::OsString,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
};

/// The kernel's own limit for symbolic links on the way to a file.
const LINKS: u32 = 40;

const ROOT: u32 = 0;
/// Write permission of group and others. An access list that lets somebody else write shows in the group's.
const WRITE_BY_OTHERS: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// Why a path is not to be believed.
#[derive(Debug, thiserror::Error)]
pub enum Untrusted {
    /// Somebody else's.
    #[error("{} belongs to user {uid}, who could change the policy{}; `chown root:root` it, or put the policy elsewhere", .path.display(), on_the_way(.to, .path))]
    Owner {
        /// The file or folder of another user.
        path: PathBuf,
        /// On the way to this.
        to: PathBuf,
        /// To whom.
        uid: u32,
    },
    /// Others may write.
    #[error("{} can be written by others than root (mode {mode:04o}), who could change the policy{}; `chmod go-w` it, or put the policy elsewhere", .path.display(), on_the_way(.to, .path))]
    Writable {
        /// The file or folder that others can write.
        path: PathBuf,
        /// On the way to this.
        to: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It could not be looked at.
    #[error("who may write {} could not be told: {source}", .path.display())]
    Unknown {
        /// The file or folder that could not be read.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn on_the_way(to: &Path, path: &Path) -> String {
    if to == path { String::new() } else { format!(" {}", to.display()) }
}

/// Whether only root can change what is read under this path: the file, every folder on the way, and every symbolic link.
/// A folder for everybody with the sticky bit on the way, such as /tmp, is no obstacle: root's files in it stay root's.
/// A folder that is itself what is asked about is: who may add a file to policy.d can mask another.
///
/// # Errors
/// With the first part of the path that others can change, and what to do about it.
pub fn trustworthy(path: &Path) -> Result<(), Untrusted> {
    only_by(&[ROOT], path)
}

fn only_by(owners: &[u32], path: &Path) -> Result<(), Untrusted> {
    let unknown = |path: &Path| {
        let path = path.to_owned();
        move |source| Untrusted::Unknown { path, source }
    };
    let absolute = std::env::current_dir().map_err(unknown(path))?.join(path);
    let mut ahead: VecDeque<OsString> = parts(&absolute).collect();
    let mut here = PathBuf::from("/");
    let mut links = 0;
    let mut meta = check(owners, &here, path)?;
    // By hand, part by part from the top: once a folder is found to be root's, nobody else can swap what is below.
    while let Some(part) = ahead.pop_front() {
        if part == ".." {
            here.pop();
            continue;
        }
        here.push(part);
        meta = check(owners, &here, path)?;
        if !meta.is_symlink() {
            continue;
        }
        links += 1;
        if links > LINKS {
            return Err(unknown(path)(io::Error::from_raw_os_error(libc::ELOOP)));
        }
        let target = fs::read_link(&here).map_err(unknown(&here))?;
        here.pop();
        if target.is_absolute() {
            here = PathBuf::from("/");
        }
        for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
            ahead.push_front(part);
        }
    }
    if meta.is_dir() && meta.mode() & WRITE_BY_OTHERS != 0 {
        return Err(Untrusted::Writable { path: here, to: path.to_owned(), mode: meta.mode() & 0o7777 });
    }
    Ok(())
}

fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

fn check(owners: &[u32], path: &Path, to: &Path) -> Result<fs::Metadata, Untrusted> {
    let meta =
        fs::symlink_metadata(path).map_err(|source| Untrusted::Unknown { path: path.to_owned(), source })?;
    let (path, to) = (|| path.to_owned(), || to.to_owned());
    if !owners.contains(&meta.uid()) {
        return Err(Untrusted::Owner { path: path(), to: to(), uid: meta.uid() });
    }
    let shared = meta.is_dir() && meta.mode() & STICKY != 0;
    // Nobody can write a symbolic link, whatever its permissions say.
    if meta.mode() & WRITE_BY_OTHERS != 0 && !shared && !meta.is_symlink() {
        return Err(Untrusted::Writable { path: path(), to: to(), mode: meta.mode() & 0o7777 });
    }
    Ok(meta)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// The verdict for the user who runs the tests, who need not be root.
    fn verdict(path: &Path) -> Result<(), String> {
        let me = fs::metadata("/proc/self").unwrap().uid();
        only_by(&[ROOT, me], path).map_err(|e| e.to_string())
    }

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_file_is_as_trustworthy_as_the_way_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let (above, file, link) =
            (folder.path().join("a"), folder.path().join("a/policy.toml"), folder.path().join("link"));
        fs::create_dir(&above).unwrap();
        mode(&above, 0o755);
        fs::write(&file, "").unwrap();
        mode(&file, 0o644);
        symlink("a/../a/policy.toml", &link).unwrap();
        assert_eq!(verdict(&file), Ok(()));
        assert_eq!(verdict(&link), Ok(()));

        mode(&file, 0o664);
        for path in [&file, &link] {
            let said = verdict(path).unwrap_err();
            assert!(
                said.contains("policy.toml can be written by others") && said.contains("mode 0664"),
                "{said}"
            );
        }
        mode(&file, 0o644);
        mode(&above, 0o757);
        let said = verdict(&link).unwrap_err();
        assert!(said.contains("/a can be written by others"), "{said}");
        assert!(said.contains("the policy /") && said.contains("/link; `chmod go-w` it"), "{said}");
        mode(&above, 0o1777);
        assert_eq!(verdict(&file), Ok(()), "as /tmp");
        assert!(verdict(&above).is_err(), "anybody may add files");
    }

    #[test]
    fn what_is_not_there_or_leads_nowhere_is_not_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        symlink("link", &link).unwrap();
        assert!(verdict(&link).unwrap_err().contains("could not be told"));
        assert!(verdict(&folder.path().join("nothing")).unwrap_err().contains("could not be told"));
    }

    #[test]
    fn somebody_elses_file_is_named_with_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let said = only_by(&[u32::MAX], folder.path()).unwrap_err().to_string();
        assert!(said.starts_with("/ belongs to user 0"), "{said}");
    }
}
