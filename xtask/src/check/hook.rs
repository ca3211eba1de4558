/*!
The pre-commit hook that runs `cargo xtask check`. It is installed on request only, and never in place of another hook.
*/
use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{self, Path, PathBuf},
};

use anyhow::{Context, bail};
use stockade_lab::tool;

/// The hook. git sets variables such as `GIT_INDEX_FILE` for hooks; tests that make repositories of their own must not inherit them.
const HOOK: &str = "#!/bin/sh
# Made by `cargo xtask check --install-hook`. `git commit --no-verify` skips it once; removing this file uninstalls it.
unset $(git rev-parse --local-env-vars)
exec cargo xtask check
";

/// Installs the hook in the repository of this checkout, where git looks for hooks (`core.hooksPath` included), and returns the report about it.
pub fn install(checkout: &Path) -> anyhow::Result<String> {
    let ask = |question: &[&str]| -> anyhow::Result<PathBuf> {
        let mut git = tool::command("git");
        let answer = tool::text(git.current_dir(checkout).arg("rev-parse").args(question));
        Ok(path::absolute(checkout.join(answer.context("asking git for the folder of its hooks")?.trim()))?)
    };
    let folder = ask(&["--git-path", "hooks"])?;
    let own = [ask(&["--git-common-dir"])?, ask(&["--show-toplevel"])?];
    if !own.iter().any(|own| folder.starts_with(own)) {
        bail!(
            "git runs the hooks in {} (core.hooksPath) for more than this repository, so nothing was installed",
            folder.display()
        );
    }
    fs::create_dir_all(&folder).with_context(|| format!("making the folder {}", folder.display()))?;
    let path = folder.join("pre-commit");
    // O_EXCL also refuses a symlink that leads nowhere.
    match OpenOptions::new().write(true).create_new(true).mode(0o755).open(&path) {
        Ok(mut file) => {
            file.write_all(HOOK.as_bytes()).with_context(|| format!("writing {}", path.display()))?;
            Ok(format!("installed {}", path.display()))
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if fs::read(&path).is_ok_and(|there| there == HOOK.as_bytes()) {
                return Ok(format!("{} is this hook already", path.display()));
            }
            bail!(
                "{} is another hook and was left as it is; to run both, add the line `cargo xtask check` to it",
                path.display()
            );
        }
        Err(error) => Err(error).with_context(|| format!("making {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt, symlink},
        path::Path,
    };

    use stockade_lab::tool;

    use super::{HOOK, install};

    /// Runs git in a folder.
    fn git(folder: &Path, arguments: &[&str]) {
        tool::output(tool::command("git").current_dir(folder).args(arguments)).unwrap();
    }

    fn repository() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        git(folder.path(), &["init", "--quiet"]);
        // The developer's own setting must not be followed.
        git(folder.path(), &["config", "core.hooksPath", ".git/hooks"]);
        folder
    }

    #[test]
    fn the_hook_is_installed_once_and_executable() {
        let folder = repository();
        assert!(install(folder.path()).unwrap().starts_with("installed "));
        let path = folder.path().join(".git/hooks/pre-commit");
        assert_eq!(fs::read_to_string(&path).unwrap(), HOOK);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o111, 0o111);
        assert!(install(folder.path()).unwrap().ends_with("is this hook already"));
    }

    #[test]
    fn another_hook_is_left_as_it_is() {
        let folder = repository();
        let path = folder.path().join(".git/hooks/pre-commit");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "#!/bin/sh\nexit 0\n").unwrap();
        assert!(install(folder.path()).unwrap_err().to_string().contains("another hook"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "#!/bin/sh\nexit 0\n");
        fs::remove_file(&path).unwrap();
        symlink("nowhere", &path).unwrap();
        assert!(install(folder.path()).is_err());
        assert!(path.is_symlink() && !path.exists());
    }

    #[test]
    fn the_folder_that_git_is_configured_with_gets_the_hook() {
        let folder = repository();
        git(folder.path(), &["config", "core.hooksPath", "of-mine"]);
        install(folder.path()).unwrap();
        assert!(folder.path().join("of-mine/pre-commit").exists());
    }

    #[test]
    fn hooks_of_every_repository_are_left_as_they_are() {
        let (folder, elsewhere) = (repository(), tempfile::tempdir().unwrap());
        git(folder.path(), &["config", "core.hooksPath", elsewhere.path().to_str().unwrap()]);
        assert!(install(folder.path()).unwrap_err().to_string().contains("core.hooksPath"));
        assert!(!elsewhere.path().join("pre-commit").exists());
    }
}
