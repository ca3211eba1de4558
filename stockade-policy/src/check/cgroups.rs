/*!
The cgroups that are there right now, and which of them a place names.
*/
use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use crate::model::Place;

/// Paths of cgroups, as places have them.
#[derive(Clone, Debug, Default)]
pub struct Cgroups(BTreeSet<String>);

impl Cgroups {
    /// Everything below the folder where the hierarchy of version 2 is mounted.
    ///
    /// # Errors
    /// When that folder cannot be listed. Cgroups that vanish meanwhile are passed over.
    pub fn read(mount: &Path) -> io::Result<Self> {
        let mut found = BTreeSet::from(["/".to_owned()]);
        let mut left: Vec<(PathBuf, String)> = vec![(mount.into(), String::new())];
        let mut first = true;
        while let Some((folder, path)) = left.pop() {
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) if first => return Err(error),
                Err(_) => continue,
            };
            first = false;
            for entry in entries.flatten() {
                // A name that is not UTF-8 is none that a policy could say.
                if let (Ok(kind), Ok(name)) = (entry.file_type(), entry.file_name().into_string())
                    && kind.is_dir()
                {
                    let path = format!("{path}/{name}");
                    found.insert(path.clone());
                    left.push((entry.path(), path));
                }
            }
        }
        Ok(Self(found))
    }

    #[cfg(test)]
    pub(super) fn of(paths: &[&str]) -> Self {
        Self(paths.iter().map(|path| (*path).to_owned()).collect())
    }

    /// The paths of those that a place names, those below them not among them.
    #[must_use]
    pub fn named_by(&self, place: &Place) -> Vec<String> {
        match place {
            Place::Path(path) => self.0.get(path).into_iter().cloned().collect(),
            Place::Glob { .. } => self.0.iter().filter(|path| place.names(path)).cloned().collect(),
            Place::Unit(unit) => {
                let is_unit = |path: &&String| crate::unit::is_of(path, unit);
                self.0.iter().filter(is_unit).cloned().collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_the_cgroups_it_names() {
        let folder = tempfile::tempdir().unwrap();
        let mount = folder.path();
        for path in ["system.slice/web-1.scope/inner", "system.slice/web-2.scope", "system.slice/a.service"] {
            fs::create_dir_all(mount.join(path)).unwrap();
        }
        fs::write(mount.join("system.slice/cgroup.procs"), "").unwrap();
        let cgroups = Cgroups::read(mount).unwrap();
        let glob = |suffix: &str| Place::Glob { prefix: "/system.slice/web-".into(), suffix: suffix.into() };
        for (place, count) in [
            (Place::Path("/".into()), 1),
            (Place::Path("/system.slice".into()), 1),
            (Place::Path("/system.slice/cgroup.procs".into()), 0),
            (glob(".scope"), 2),
            (glob(".service"), 0),
            (Place::Unit("a.service".into()), 1),
            (Place::Unit("b.service".into()), 0),
        ] {
            assert_eq!(cgroups.named_by(&place).len(), count, "{place}");
        }
        assert!(Cgroups::read(&mount.join("gone")).is_err());
    }
}
