//! Attacks that move processes between cgroups, or unmount and remake cgroups.

use std::{fs, path::PathBuf};

use anyhow::Context;

use super::{
    Attack, Attempt, Pins,
    calls::{Undo, attack},
    proof::try_doors_after,
};
use crate::syscall::check;

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new("unmount-cgroups", "unmount the cgroup hierarchy", Pins::Holds, || {
        attack("umount -l /sys/fs/cgroup")
    }),
    Attack::new("move-cgroups", "mount the cgroup hierarchy elsewhere instead", Pins::Holds, || {
        let undo = Undo("umount -l /tmp/elsewhere");
        Ok(attack(
            "umount -l /sys/fs/cgroup; mkdir -p /tmp/elsewhere && mount -t cgroup2 none /tmp/elsewhere",
        )?
        .holding(undo))
    }),
    Attack::new("cgroups-of-version-1", "give a controller to a hierarchy of version 1", Pins::Holds, || {
        let undo = Undo("umount /tmp/pids");
        Ok(attack("mkdir -p /tmp/pids && mount -t cgroup -o pids none /tmp/pids")?.holding(undo))
    }),
    Attack::new(
        "remake-cgroups",
        "delete cgroups and make them again, two hundred times",
        Pins::Holds,
        || {
            attack(
                "cd /sys/fs/cgroup; [ -d attack-proof ] && rmdir attack-proof; \
             for i in $(seq 200); do mkdir attack-again && rmdir attack-again || exit 1; done; mkdir attack-proof",
            )
        },
    ),
    Attack::new("deep-cgroups", "move into a cgroup forty levels down", Pins::Holds, || {
        let folders: Vec<PathBuf> = (1..=40)
            .map(|depth| {
                std::iter::once("/sys/fs/cgroup").chain(std::iter::repeat_n("deep", depth)).collect()
            })
            .collect();
        for folder in &folders {
            fs::create_dir(folder).with_context(|| format!("make {}", folder.display()))?;
        }
        let list = folders.last().context("there are forty")?.join("cgroup.procs");
        let answer = try_doors_after(|| Ok(fs::write(&list, "0")?));
        for folder in folders.iter().rev() {
            fs::remove_dir(folder).with_context(|| format!("remove {}", folder.display()))?;
        }
        answer
    }),
    Attack::new("move-back-and-forth", "move between two cgroups before every attempt", Pins::Holds, || {
        let undo = Undo("cd /sys/fs/cgroup && rmdir attack-here attack-there");
        for folder in ["here", "there"] {
            fs::create_dir(format!("/sys/fs/cgroup/attack-{folder}"))?;
        }
        let mut answer = Attempt::through();
        for turn in 0..10 {
            let folder = if turn % 2 == 0 { "here" } else { "there" };
            answer = try_doors_after(|| {
                Ok(fs::write(format!("/sys/fs/cgroup/attack-{folder}/cgroup.procs"), "0")?)
            });
        }
        Ok(answer?.holding(undo))
    }),
    Attack::new("cgroup-namespace", "enter a cgroup namespace of one's own", Pins::Holds, || {
        let undo = Undo("rmdir /sys/fs/cgroup/attack-space");
        fs::create_dir("/sys/fs/cgroup/attack-space")?;
        let answer = try_doors_after(|| {
            fs::write("/sys/fs/cgroup/attack-space/cgroup.procs", "0")?;
            // SAFETY: takes flags only.
            check(unsafe { libc::unshare(libc::CLONE_NEWCGROUP) })?;
            Ok(())
        });
        Ok(answer?.holding(undo))
    }),
    Attack::new("threaded-cgroups", "move into a threaded cgroup", Pins::Holds, || {
        let undo = Undo("rmdir /sys/fs/cgroup/attack-threads");
        fs::create_dir("/sys/fs/cgroup/attack-threads")?;
        let answer = try_doors_after(|| {
            fs::write("/sys/fs/cgroup/attack-threads/cgroup.type", "threaded")?;
            Ok(fs::write("/sys/fs/cgroup/attack-threads/cgroup.threads", "0")?)
        });
        Ok(answer?.holding(undo))
    }),
];
