/*!
The mounted cgroup hierarchies, and the cgroup of this process in each.
*/
use procfs_core::process::MountInfo;

use super::MOUNTS;
use crate::{System, Unread};

const OWN: &str = "/proc/self/cgroup";

/// The controllers of version 1, which appear among the mount options.
const OLD_CONTROLLERS: [&str; 14] = [
    "blkio",
    "cpu",
    "cpuacct",
    "cpuset",
    "devices",
    "freezer",
    "hugetlb",
    "memory",
    "misc",
    "net_cls",
    "net_prio",
    "perf_event",
    "pids",
    "rdma",
];

/// All mounted hierarchies.
#[derive(Debug)]
pub(super) struct Hierarchies {
    pub(super) all: Vec<Hierarchy>,
    /// The reason why the controllers of one hierarchy are not known; then none can be reported missing.
    pub(super) unread: Option<Unread>,
}

/// A mounted hierarchy.
#[derive(Debug)]
pub(super) struct Hierarchy {
    /// The cgroup version, 1 or 2.
    pub(super) version: u8,
    /// The mount point.
    pub(super) mount: String,
    /// The controllers that can be used in it.
    pub(super) controllers: Vec<String>,
    /// The cgroup of this process, below the mount point; none if it is not below the mounted root.
    own: Option<String>,
}

impl Hierarchies {
    pub(super) fn read(system: &System) -> Result<Self, Unread> {
        let mounts = system.text(MOUNTS)?;
        let own = system.text(OWN)?;
        let mut all: Vec<Hierarchy> = Vec::new();
        let mut unread = None;
        for mount in mounts.lines().filter_map(|line| MountInfo::from_line(line).ok()) {
            let point = mount.mount_point.to_string_lossy().into_owned();
            let version = match mount.fs_type.as_str() {
                "cgroup" => 1,
                "cgroup2" => 2,
                _ => continue,
            };
            let mut controllers: Vec<String> = if version == 2 {
                let listed = system.text(&format!("{point}/cgroup.controllers")).unwrap_or_else(|why| {
                    unread = Some(why);
                    String::new()
                });
                listed.split_whitespace().map(str::to_owned).collect()
            } else {
                mount
                    .super_options
                    .into_keys()
                    .filter(|option| OLD_CONTROLLERS.contains(&option.as_str()))
                    .collect()
            };
            controllers.sort();
            // A hierarchy that is mounted twice counts once.
            if all.iter().any(|other| other.version == version && other.controllers == controllers) {
                continue;
            }
            let own = path(&own, version, &controllers).and_then(|path| below(path, &mount.root));
            all.push(Hierarchy { version, mount: point, controllers, own });
        }
        Ok(Self { all, unread })
    }

    /// Returns the hierarchies of version 1.
    pub(super) fn of_version_1(&self) -> Vec<&Hierarchy> {
        self.all.iter().filter(|hierarchy| hierarchy.version == 1).collect()
    }

    /// Returns the hierarchy of version 2.
    pub(super) fn of_version_2(&self) -> Option<&Hierarchy> {
        self.all.iter().find(|hierarchy| hierarchy.version == 2)
    }

    /// Returns the hierarchy that has a controller, by its version 2 name.
    pub(super) fn with(&self, controller: &str) -> Option<&Hierarchy> {
        let old = if controller == "io" { "blkio" } else { controller };
        self.all.iter().find(|hierarchy| {
            let name = if hierarchy.version == 1 { old } else { controller };
            hierarchy.controllers.iter().any(|has| has == name)
        })
    }
}

impl Hierarchy {
    /// Returns the folder of this process's cgroup and those of its ancestors.
    pub(super) fn own_and_above(&self) -> Vec<String> {
        let mut folders = Vec::new();
        let Some(own) = &self.own else { return folders };
        let mut path = own.trim_end_matches('/');
        loop {
            folders.push(format!("{}{path}", self.mount.trim_end_matches('/')));
            match path.rsplit_once('/') {
                Some((above, _)) => path = above,
                None => return folders,
            }
        }
    }
}

/// Returns the path from a line `number:controllers:path`; version 2 has the number 0 and no controllers.
fn path<'a>(own: &'a str, version: u8, controllers: &[String]) -> Option<&'a str> {
    own.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (names, path) = rest.split_once(':')?;
        let is_it = if version == 2 {
            names.is_empty()
        } else {
            names.split(',').any(|name| controllers.iter().any(|controller| controller == name))
        };
        is_it.then_some(path)
    })
}

/// Returns a path relative to the mount point, where `root` is the root of the mount in the hierarchy.
fn below(path: &str, root: &str) -> Option<String> {
    let rest = path.strip_prefix(root.trim_end_matches('/'))?;
    let is_below = rest.is_empty() || rest.starts_with('/');
    (is_below && !path.split('/').any(|part| part == "..")).then(|| rest.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_in_both_versions() {
        let system = System::fake(&[
            (
                MOUNTS,
                "30 23 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                 garbage\n\
                 31 23 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                 32 23 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
                 33 23 0:28 / /mnt rw - cgroup cgroup rw,memory\n\
                 34 23 0:30 /box /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n",
            ),
            (OWN, "4:memory:/a/b\n5:pids:/elsewhere\n1:name=systemd:/c\n0::/d\n"),
            ("/sys/fs/cgroup/unified/cgroup.controllers", "cpu\n"),
        ]);
        let hierarchies = Hierarchies::read(&system).unwrap();
        assert_eq!(hierarchies.all.len(), 4);
        assert_eq!(hierarchies.with("cpu").unwrap().version, 2);
        assert_eq!(
            hierarchies.with("memory").unwrap().own_and_above(),
            ["/sys/fs/cgroup/memory/a/b", "/sys/fs/cgroup/memory/a", "/sys/fs/cgroup/memory"]
        );
        assert_eq!(
            hierarchies.of_version_2().unwrap().own_and_above(),
            ["/sys/fs/cgroup/unified/d", "/sys/fs/cgroup/unified"]
        );
        assert!(hierarchies.with("pids").unwrap().own_and_above().is_empty());
        assert!(hierarchies.with("io").is_none());
    }

    #[test]
    fn what_is_out_of_sight_is_not_guessed() {
        assert_eq!(below("/a/b", "/a").as_deref(), Some("/b"));
        assert_eq!(below("/", "/").as_deref(), Some("/"));
        assert_eq!(below("/ab", "/a"), None);
        assert_eq!(below("/../a", "/"), None);
    }
}
