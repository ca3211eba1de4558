/*!
A whole policy from its files, or everything that is wrong with it.
*/
use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    files::{self, Files, Found, HOST, PassedOver, Unreadable, VENDOR},
    merge::{DEFAULT, merge},
    model::{LevelChoice, Policy},
    problem::Problem,
    problems::Problems,
    read::{LARGEST, read},
    source::Source,
    trust::{Untrusted, trustworthy},
};

/// Where a policy is.
#[derive(Clone, Copy, Debug)]
pub enum Where<'p> {
    /// Where a system has it, below this root: `/`, or the folder of an image.
    System(&'p Path),
    /// In these files or folders, later ones over earlier ones; never empty.
    Named(&'p [PathBuf]),
}

/// Whether files may be others' than root's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Only to look at it.
    Any,
    /// To apply it: see [`trustworthy`].
    RootOnly,
}

/// A policy and what it was read from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The policy of all files together.
    pub policy: Policy,
    /// The files in their order, with their text, which messages about the policy quote.
    pub sources: Vec<Source>,
    /// Files that were there and not read.
    pub passed_over: Vec<PassedOver>,
}

/// Why there is no policy.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No file says anything.
    #[error("there is no policy: none of {} says anything; write {}, for instance `level = \"auto\"`, or name one with --policy", .looked.join(", "), .write.display())]
    Nothing {
        /// Where was looked.
        looked: Vec<String>,
        /// Where to write one.
        write: PathBuf,
    },
    /// A file is there and cannot be read.
    #[error("read {}: {source}", .path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others than root could write it.
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    /// It is wrong.
    #[error(transparent)]
    Invalid(#[from] Problems),
}

impl From<Unreadable> for LoadError {
    fn from(e: Unreadable) -> Self {
        Self::Unreadable { path: e.path, source: e.source }
    }
}

/// Loads a policy.
///
/// # Errors
/// When there is none, a file cannot be read, is not root's alone though that is demanded, or is wrong: then with
/// everything that is wrong with any of them.
pub fn load(from: Where, trust: Trust) -> Result<Loaded, LoadError> {
    let files = match from {
        Where::System(root) => files::system(root)?,
        Where::Named(paths) => files::named(paths)?,
    };
    if trust == Trust::RootOnly {
        let found = files.found.iter().map(|found| &found.path);
        found.chain(&files.folders).try_for_each(|path| trustworthy(path))?;
    }
    if files.found.is_empty()
        && let Where::System(root) = from
    {
        return Err(nothing(root));
    }
    let (loaded, problems) = read_all(files);
    if problems.is_empty() { Ok(loaded) } else { Err(Problems::new(problems, loaded.sources).into()) }
}

fn nothing(root: &Path) -> LoadError {
    let below = |path: &str| root.join(path.trim_start_matches('/'));
    let places = [VENDOR, HOST]
        .iter()
        .flat_map(|folder| ["policy.toml", "policy.d/*.toml"].map(|f| below(folder).join(f)));
    LoadError::Nothing {
        looked: places.map(|path| path.display().to_string()).collect(),
        write: below(HOST).join("policy.toml"),
    }
}

fn read_all(files: Files) -> (Loaded, Vec<Problem>) {
    let (mut sources, mut documents, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    for found in files.found {
        let (source, problem) = text(&found);
        if let Some(problem) = problem {
            problems.push(problem);
            sources.push(source);
            continue;
        }
        match read(&source) {
            Ok(document) => documents.push(document),
            Err(wrong) => problems.extend(wrong.list),
        }
        sources.push(source);
    }
    // What is wrong together can only be told of files that are right.
    let policy = merge(documents).unwrap_or_else(|wrong| {
        problems.extend(wrong);
        Policy::level(LevelChoice::Auto, DEFAULT)
    });
    (Loaded { policy, sources, passed_over: files.passed_over }, problems)
}

fn text(found: &Found) -> (Source, Option<Problem>) {
    let name = found.path.display().to_string();
    let source = Source::new(&name, String::from_utf8_lossy(&found.bytes));
    let problem = match std::str::from_utf8(&found.bytes) {
        Ok(_) => None,
        // Cut in the middle of a character by the limit: the size is what is wrong.
        Err(_) if found.bytes.len() > LARGEST => None,
        Err(e) => {
            let at = e.valid_up_to();
            let problem = Problem::new("this is not UTF-8 text", source.origin(&(at..at + 1)));
            Some(problem.help("save the file as UTF-8; `file` tells what it is now"))
        }
    };
    (source, problem)
}
