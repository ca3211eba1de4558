//! Sealing in containers and namespaces, and the reports in them about a sealed machine.

use std::{fs, process::Command};

use anyhow::{Context, Result, ensure};

use super::{BUSYBOX, as_before, enforced_unsealed, lift_all, mem_opens, policy::Cgroup, seal_once};
use crate::{
    guest::Guest,
    program::{Answer, run, stockade},
    scenario::{Boot, Depends, Scenario},
    scenarios::namespaces::inside,
};

/// Scenarios before the guest is sealed.
pub(super) const BEFORE: &[Scenario] = &[Scenario {
    name: "seal: a container seals nothing and says so",
    boot: Boot::Sealed,
    depends: Depends::UserSide,
    run: before,
}];

/// Scenarios in a sealed guest.
pub(super) const AFTER: &[Scenario] = &[
    Scenario {
        name: "seal: it holds for containers and in other cgroups",
        boot: Boot::Sealed,
        depends: Depends::NewestSeries,
        run: holds,
    },
    Scenario {
        name: "seal: from a container nobody says that nothing is enforced",
        boot: Boot::Sealed,
        depends: Depends::UserSide,
        run: told,
    },
];

/// Runs a shell line as root in new namespaces of these kinds and in a new cgroup, as in a privileged container.
fn unshared(kinds: &[&str], line: &str) -> Result<Answer> {
    let cgroup = Cgroup::new("/container")?;
    let mut unshare = Command::new(BUSYBOX);
    // busybox's unshare does not support cgroup namespaces.
    let line = format!("exec /bin/unshare {} sh -c '{line}'", kinds.join(" "));
    unshare.args(["sh", "-c", &line]).env("PATH", "/bin");
    cgroup.runs(&mut unshare)?;
    run(&mut unshare)
}

/// Runs a shell line as root in a new cgroup namespace, with its view of the hierarchy mounted.
fn in_cgroup_namespace(line: &str) -> Result<Answer> {
    use std::os::unix::process::CommandExt;
    let cgroup = Cgroup::new("/container")?;
    let mut shell = Command::new(BUSYBOX);
    let line = format!("umount /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup && {line}");
    shell.args(["sh", "-c", &line]).env("PATH", "/bin");
    cgroup.runs(&mut shell)?;
    // SAFETY: the closure makes async-signal-safe system calls on constants.
    unsafe {
        shell.pre_exec(|| {
            let private = libc::MS_REC | libc::MS_PRIVATE;
            let answer = libc::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWCGROUP)
                | libc::mount(c"none".as_ptr(), c"/".as_ptr(), std::ptr::null(), private, std::ptr::null());
            if answer == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        });
    }
    run(&mut shell)
}

const MAPS: [&str; 2] = ["0 0 4294967295", "0 100000 65536"];

fn before(_: &Guest) -> Result<()> {
    lift_all()?;
    stockade(&["enforce", "integrity"])?.exits(0)?;
    for map in MAPS {
        inside(map, "exec stockade seal")?
            .exits(2)?
            .says("in a user namespace of its own")?
            .says("on the host")?;
        enforced_unsealed()?;
    }
    // Root of the machine may seal in namespaces that hide nothing relevant. In a cgroup namespace it does not see the root cgroup.
    in_cgroup_namespace("exec stockade seal")?.exits(2)?.says("cgroup namespace of its own")?;
    enforced_unsealed()?;
    // In a PID namespace it does not see every process.
    unshared(&["-m", "-p", "-f"], "exec stockade seal")?.exits(2)?.says("pid namespace of its own")?;
    enforced_unsealed()?;
    unshared(&["-m", "-i", "-u", "-n"], "STOCKADE_STOP_AT=alone stockade seal; test $? = 137")?.exits(0)?;
    as_before()
}

fn holds(_: &Guest) -> Result<()> {
    seal_once(&["integrity"])?;
    let mem = "dd if=/dev/mem of=/dev/null count=0";
    ensure!(!mem_opens(), "the root cgroup is let through");
    for answer in [
        unshared(&["-m", "-p", "-f", "-i", "-u", "-n"], mem)?,
        in_cgroup_namespace(mem)?,
        inside("0 0 1", mem)?,
        inside(MAPS[0], mem)?,
    ] {
        answer.exits(1)?.says("Operation not permitted")?;
    }
    // A process in a cgroup nine levels below the root is refused too.
    let mut path = "/deep".to_owned();
    let mut cgroups = vec![Cgroup::new(&path)?];
    for level in 0..8 {
        path += &format!("/{level}");
        cgroups.push(Cgroup::new(&path)?);
    }
    let mut dd = super::policy::opens(BUSYBOX, "/dev/mem");
    let deepest = cgroups.last().context("there are nine")?;
    deepest.runs(&mut dd)?;
    let answer = run(&mut dd)?;
    while cgroups.pop().is_some() {}
    answer.exits(1)?.says("Operation not permitted")?;
    Ok(())
}

fn told(_: &Guest) -> Result<()> {
    seal_once(&["integrity"])?;
    for map in MAPS {
        for command in ["status", "lift --force", "enforce none", "seal"] {
            inside(map, &format!("exec stockade {command}"))?
                .exits(2)?
                .says("in a user namespace of its own")?;
        }
    }
    unshared(&["-m"], "mount -t bpf bpf /sys/fs/bpf && exec stockade status")?
        .exits(0)?
        .says("yes, verified")?;
    unshared(&["-m"], "mount -t tmpfs none /run && exec stockade status")?.exits(0)?.says("yes, verified")?;
    for command in ["lift --force", "enforce none"] {
        in_cgroup_namespace(&format!("exec stockade {command}"))?.exits(2)?;
        ensure!(!mem_opens(), "{command} in a cgroup namespace ended the seal");
    }
    let answer = in_cgroup_namespace("exec stockade status")?;
    ensure!(!answer.out.contains("enforces nothing"), "{}{}", answer.out, answer.err);
    ensure!(answer.code != 1 && !answer.out.contains("root can lift it"), "{}{}", answer.out, answer.err);
    let there = fs::read_to_string("/proc/self/cgroup")?;
    ensure!(there.contains("0::/"), "{there}");
    Ok(())
}
