//! Attacks that exhaust a resource of the kernel while it has to decide.

use std::{fs::File, io, process::Command, thread::sleep, time::Duration};

use super::{
    Attack, Attempt, Outcome, Pins,
    bpf::{self, SOCKET_FILTER},
    calls::{Running, Undo, attack, in_child, shell},
    proof::try_doors_after,
};
use crate::syscall::check;

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new(
        "flood-the-events",
        "be refused twenty thousand times while nobody reads the events",
        Pins::Holds,
        || {
            let through = (0..20_000).filter(|_| File::open("/proc/kcore").is_ok()).count();
            if through == 0 {
                Attempt::refused("every time")
            } else {
                Ok(Outcome::Reached(format!("kcore, {through} times")).into())
            }
        },
    ),
    Attack::new("many-processes", "ask from two hundred processes at once", Pins::Holds, || {
        let line = "for i in $(seq 200); do (dd if=/proc/kcore of=/dev/null bs=1 count=1 2>/dev/null && echo through) & done; wait";
        let said = shell(line)?.exits(0)?.out;
        if said.is_empty() {
            Attempt::refused("each")
        } else {
            Ok(Outcome::Reached(format!("kcore: {said}")).into())
        }
    }),
    Attack::new("processes-without-end", "fork until a limit of processes stops it", Pins::Holds, || {
        let undo = Undo("sleep 1; rmdir /sys/fs/cgroup/attack-bomb");
        shell("cd /sys/fs/cgroup && echo +pids > cgroup.subtree_control && mkdir attack-bomb && echo 300 > attack-bomb/pids.max")?
            .exits(0)?;
        let bomb = Running::shell(
            "echo 0 > /sys/fs/cgroup/attack-bomb/cgroup.procs; f() { f & f & sleep 5; }; f; sleep 5",
        )?;
        sleep(Duration::from_millis(1500));
        let kill = Undo("echo 1 > /sys/fs/cgroup/attack-bomb/cgroup.kill");
        Ok(Attempt::through()?.holding(bomb).holding(kill).holding(undo))
    }),
    Attack::new("no-memory-left", "ask in a cgroup that has no memory left", Pins::Holds, || {
        let undo = Undo("rmdir /sys/fs/cgroup/attack-memory");
        shell("cd /sys/fs/cgroup && echo +memory > cgroup.subtree_control && mkdir attack-memory && echo 1M > attack-memory/memory.max")?
            .exits(0)?;
        let line = "echo 0 > /sys/fs/cgroup/attack-memory/cgroup.procs; \
                    for i in $(seq 20); do dd if=/proc/kcore of=/dev/null bs=1 count=1 2>/dev/null && echo through; done; true";
        // The process does not get through, whether the kernel kills it for lack of memory or refuses the request.
        let said = shell(line)?.out;
        let outcome = if said.is_empty() {
            Outcome::Refused("each".into())
        } else {
            Outcome::Reached(format!("kcore: {said}"))
        };
        Ok(Attempt::from(outcome).holding(undo))
    }),
    Attack::new(
        "no-descriptors-left",
        "ask with limits of one descriptor more, no locked memory and no files",
        Pins::Holds,
        || {
            try_doors_after(|| {
                for (what, most) in
                    [(libc::RLIMIT_NOFILE, 16), (libc::RLIMIT_MEMLOCK, 0), (libc::RLIMIT_FSIZE, 0)]
                {
                    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
                    // SAFETY: the limit lives through the call.
                    check(unsafe { libc::setrlimit(what, &raw const limit) })?;
                }
                Ok(())
            })
        },
    ),
    Attack::new("many-programs", "load two thousand programs", Pins::Holds, || {
        let limit = libc::rlimit { rlim_cur: 4096, rlim_max: 4096 };
        // SAFETY: the limit lives through the call.
        check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
        let load = |_| bpf::load(SOCKET_FILTER, &bpf::returns(0), &bpf::Extra::default());
        let held: io::Result<Vec<_>> = (0..2000).map(load).collect();
        match held {
            Ok(held) => Ok(Attempt::through()?.holding(held)),
            Err(error) => Attempt::refused(error),
        }
    }),
    Attack::new("drop-caches", "have the kernel drop its caches", Pins::Holds, || {
        attack("echo 3 > /proc/sys/vm/drop_caches && echo 1 > /proc/sys/vm/compact_memory")
    }),
    Attack::new("another-watcher", "read the events away, by two commands at once", Pins::Holds, || {
        let watch = || Running::new(Command::new("/bin/stockade").arg("watch"));
        let (one, two) = (watch()?, watch()?);
        sleep(Duration::from_millis(300));
        let outcome = in_child(|| {
            Ok(match File::open("/proc/kcore") {
                Ok(_) => Outcome::Reached("kcore".into()),
                Err(error) => Outcome::Refused(error.to_string()),
            })
        })?;
        Ok(Attempt::from(outcome).holding(one).holding(two))
    }),
];
