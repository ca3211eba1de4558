//! Attacks on Stockade's processes, program and files, while `stockade watch` runs.

use std::{fs, io, process::Command, ptr, thread::sleep, time::Duration};

use anyhow::Result;

use super::{
    Attack, Attempt, Pins,
    calls::{Running, Undo, attack, shell},
};
use crate::syscall::check;

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new("kill", "end every process of Stockade's by SIGKILL", Pins::Holds, || {
        let watch = watch()?;
        Attempt::from_result(watch.send(libc::SIGKILL))
    }),
    Attack::new("stop", "stop every process of Stockade's by SIGSTOP", Pins::Holds, || {
        let watch = watch()?;
        Ok(Attempt::from_result(watch.send(libc::SIGSTOP))?.holding(watch))
    }),
    Attack::new("trace", "trace a process of Stockade's, and hold it", Pins::Holds, || {
        let watch = watch()?;
        Ok(Attempt::from_result(trace(watch.pid()))?.holding(watch))
    }),
    Attack::new("kill-a-cgroup", "end processes of Stockade's by cgroup.kill", Pins::Holds, || {
        let (watch, undo) = in_cgroup("attack-kill")?;
        let killed = fs::write("/sys/fs/cgroup/attack-kill/cgroup.kill", "1");
        Ok(Attempt::from_result(killed)?.holding(watch).holding(undo))
    }),
    Attack::new("freeze-a-cgroup", "freeze processes of Stockade's", Pins::Holds, || {
        let (watch, undo) = in_cgroup("attack-kill")?;
        let frozen = fs::write("/sys/fs/cgroup/attack-kill/cgroup.freeze", "1");
        Ok(Attempt::from_result(frozen)?.holding(watch).holding(undo))
    }),
    Attack::new(
        "replace-the-program",
        "put another program in the place of /bin/stockade",
        Pins::Holds,
        || {
            let undo = Undo("mv -f /bin/stockade.away /bin/stockade");
            Ok(attack("mv /bin/stockade /bin/stockade.away && cp /bin/busybox /bin/stockade")?.holding(undo))
        },
    ),
    Attack::new(
        "remove-the-description",
        "remove what Stockade has written down of the policy",
        Pins::Holds,
        || {
            let undo = Undo("[ -d /run/away ] && mv /run/away /run/stockade");
            Ok(attack("mv /run/stockade /run/away")?.holding(undo))
        },
    ),
    Attack::ends_everyone("sysrq-e", "have the kernel send SIGTERM to every process but PID 1", || {
        sysrq("e")
    }),
    Attack::ends_everyone("sysrq-i", "have the kernel send SIGKILL to every process but PID 1", || {
        sysrq("i")
    }),
];

/// Starts a process of Stockade.
fn watch() -> Result<Running> {
    let watch = Running::new(Command::new("/bin/stockade").arg("watch"))?;
    sleep(Duration::from_millis(300));
    Ok(watch)
}

fn in_cgroup(name: &str) -> Result<(Running, Undo)> {
    let undo = Undo("sleep 0.2; rmdir /sys/fs/cgroup/attack-kill");
    shell(&format!("mkdir -p /sys/fs/cgroup/{name}"))?.exits(0)?;
    let watch = watch()?;
    fs::write(format!("/sys/fs/cgroup/{name}/cgroup.procs"), watch.pid().to_string())?;
    Ok((watch, undo))
}

fn trace(pid: i32) -> io::Result<()> {
    let call = |request: u32| {
        // SAFETY: neither request accesses memory of this process: the data is a set of options.
        check(unsafe { libc::ptrace(request, pid, ptr::null_mut::<u8>(), ptr::null_mut::<u8>()) })
    };
    call(libc::PTRACE_SEIZE)?;
    call(libc::PTRACE_INTERRUPT).map(drop)
}

/// Presses a sysrq key. The key kills this process too, so a result means that it did not work.
fn sysrq(key: &str) -> Result<Attempt> {
    Attempt::from_result(fs::write("/proc/sysrq-trigger", key))
}
