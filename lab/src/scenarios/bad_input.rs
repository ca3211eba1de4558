//! Mistakes of administrators, and hosts that lack a requirement: the message is clear, and no policy is applied in part.

use std::{fs, os::unix::process::CommandExt, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use super::{Mounted, lift_all};
use crate::{
    guest::Guest,
    program::{run, stockade},
    scenario::{Boot, Depends, Scenario, Skip},
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "an unknown reason gets the nearest one",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: unknown_reason,
    },
    Scenario {
        name: "contradictory flags are refused",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: contradictions,
    },
    Scenario {
        name: "without root nothing happens",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: not_root,
    },
    Scenario {
        name: "without a BPF file system it says how to mount it",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: no_bpffs,
    },
    Scenario {
        name: "without securityfs it says how to mount it",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: no_securityfs,
    },
    Scenario {
        name: "a lock that is not given up is told",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: busy,
    },
    Scenario {
        name: "a program that cannot be proven is not left behind",
        boot: Boot::Plain,
        depends: Depends::NewestSeries,
        run: unproven,
    },
    Scenario {
        name: "without BTF it says what is missing",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: no_btf,
    },
    Scenario {
        name: "a half-removed pin folder is told and can be lifted",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: half_removed,
    },
    Scenario {
        name: "pins of another version are not misread",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: other_version,
    },
    Scenario {
        name: "a policy of another layout is not misread",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: other_layout,
    },
    Scenario {
        name: "explain knows reasons and kernel lines",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: explain,
    },
    Scenario {
        name: "a closed pipe is a success",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: closed_pipe,
    },
];

fn unchanged(what: impl FnOnce() -> Result<()>) -> Result<()> {
    what()?;
    stockade(&["status"])?.exits(1)?.says("enforces nothing")?;
    ensure!(!Path::new("/sys/fs/bpf/stockade").exists(), "something was pinned");
    Ok(())
}

fn unknown_reason(_: &Guest) -> Result<()> {
    lift_all()?;
    unchanged(|| {
        stockade(&["enforce", "integrity", "--allow", "kexce"])?.exits(2)?.says("did you mean kexec?")?;
        stockade(&["enforce", "integrity", "--allow", "zzzzzzzz"])?.exits(2)?.says("the reasons are:")?;
        stockade(&["probe", "dev-men"])?.exits(2)?.says("did you mean dev-mem?")?;
        stockade(&["enforce", "integrityy"])?.exits(2)?.says("integrity")?;
        Ok(())
    })
}

fn contradictions(_: &Guest) -> Result<()> {
    lift_all()?;
    unchanged(|| {
        stockade(&["enforce", "integrity", "--allow", "msr", "--deny", "msr"])?
            .exits(2)?
            .says("msr is named by both --allow and --deny")?;
        stockade(&["enforce", "integrity", "--audit-reason", "msr", "--deny", "LOCKDOWN_MSR"])?
            .exits(2)?
            .says("both --deny and --audit-reason")?;
        stockade(&["enforce", "none", "--audit"])?.exits(2)?.says("nothing to audit")?;
        Ok(())
    })
}

fn not_root(_: &Guest) -> Result<()> {
    lift_all()?;
    unchanged(|| {
        let nobody = |args: &[&str]| run(Command::new("/bin/stockade").args(args).uid(65534).gid(65534));
        nobody(&["enforce", "integrity"])?.exits(2)?.says("run this as root")?;
        nobody(&["lift"])?.exits(2)?.says("run this as root")?;
        nobody(&["check-host"])?.exits(1)?.says("run this as root")?;
        nobody(&["probe"])?.exits(2)?.says("needs root")?;
        Ok(())
    })?;
    stockade(&["enforce", "integrity"])?.exits(0)?;
    let nobody = |args: &[&str]| run(Command::new("/bin/stockade").args(args).uid(65534).gid(65534));
    nobody(&["status"])?.exits(2)?.says("root")?;
    nobody(&["lift"])?.exits(2)?;
    stockade(&["status"])?.exits(0)?;
    Ok(())
}

fn no_bpffs(_: &Guest) -> Result<()> {
    lift_all()?;
    unchanged(|| {
        let _covered = Mounted::tmpfs("/sys/fs/bpf")?;
        stockade(&["enforce", "integrity"])?.exits(2)?.says("mount -t bpf bpf /sys/fs/bpf")?;
        stockade(&["check-host"])?.exits(1)?.says("mount -t bpf bpf /sys/fs/bpf")?;
        Ok(())
    })
}

fn no_securityfs(_: &Guest) -> Result<()> {
    lift_all()?;
    unchanged(|| {
        let _covered = Mounted::tmpfs("/sys/kernel/security")?;
        let mount = "mount -t securityfs securityfs /sys/kernel/security";
        for command in [&["enforce", "integrity"][..], &["status"], &["probe"]] {
            stockade(command)?.exits(2)?.says(mount)?;
        }
        stockade(&["check-host"])?.exits(1)?.says(mount)?;
        Ok(())
    })
}

fn busy(_: &Guest) -> Result<()> {
    lift_all()?;
    unchanged(|| {
        let lock = fs::File::open("/sys/fs/bpf")?;
        lock.lock().context("lock the BPF file system")?;
        stockade(&["enforce", "integrity"])?.exits(2)?.says("another stockade is changing the policy")?;
        Ok(())
    })
}

/// While kernel.ftrace_enabled is 0, a program is attached but never called.
fn unproven(_: &Guest) -> Result<()> {
    let switch = "/proc/sys/kernel/ftrace_enabled";
    lift_all()?;
    match fs::write(switch, "0") {
        Ok(()) => {}
        Err(e) if matches!(e.raw_os_error(), Some(libc::EBUSY | libc::EOPNOTSUPP)) => {
            return Err(Skip(format!("this kernel keeps its tracing switch on: {e}")).into());
        }
        Err(e) => return Err(e).context("write ftrace_enabled"),
    }
    let refused = unchanged(|| {
        let answer = stockade(&["enforce", "confidentiality"])?.exits(2)?;
        answer.says("ftrace_enabled")?.says("nothing was changed")?;
        ensure!(fs::File::open("/proc/kcore").is_ok(), "kcore is refused");
        Ok(())
    });
    fs::write(switch, "1")?;
    refused?;
    ensure!(fs::File::open("/proc/kcore").is_ok(), "it was left behind, and came to life");
    stockade(&["enforce", "confidentiality"])?.exits(0)?;
    ensure!(fs::File::open("/proc/kcore").is_err(), "the next enforce did not take");
    Ok(())
}

fn no_btf(_: &Guest) -> Result<()> {
    lift_all()?;
    unchanged(|| {
        let _covered = Mounted::tmpfs("/sys/kernel/btf")?;
        stockade(&["enforce", "integrity"])?.exits(2)?.says("CONFIG_DEBUG_INFO_BTF")?;
        fs::write("/sys/kernel/btf/vmlinux", b"not BTF at all, not at all")?;
        stockade(&["enforce", "integrity"])?.exits(2)?.says("damaged")?;
        Ok(())
    })
}

fn half_removed(_: &Guest) -> Result<()> {
    for pin in ["policy", "counters", "events"] {
        lift_all()?;
        stockade(&["enforce", "confidentiality"])?.exits(0)?;
        fs::remove_file(format!("/sys/fs/bpf/stockade/{pin}"))?;
        for command in [&["status"][..], &["enforce", "integrity"], &["lift"]] {
            stockade(command)?.exits(2)?.says("is incomplete")?.says(pin)?.says("lift --force")?;
        }
        ensure!(fs::File::open("/proc/kcore").is_err(), "enforcement ended though the link is pinned");
        stockade(&["lift", "--force"])?.exits(0)?;
        ensure!(fs::File::open("/proc/kcore").is_ok(), "lift --force did not end it");
    }
    // Without the pinned link nothing is enforced, and the next `enforce` loads everything anew.
    stockade(&["enforce", "confidentiality"])?.exits(0)?;
    fs::remove_file("/sys/fs/bpf/stockade/link")?;
    stockade(&["status"])?.exits(1)?;
    stockade(&["enforce", "integrity"])?.exits(0)?.says("In force: integrity.")?;
    Ok(())
}

fn other_version(_: &Guest) -> Result<()> {
    lift_all()?;
    stockade(&["enforce", "confidentiality"])?.exits(0)?;
    // A policy map of another version: the pin of the ring buffer is moved to the name of the policy map.
    fs::remove_file("/sys/fs/bpf/stockade/policy")?;
    fs::rename("/sys/fs/bpf/stockade/events", "/sys/fs/bpf/stockade/policy").context("move a pin")?;
    for command in [&["status"][..], &["enforce", "integrity"], &["lift"]] {
        stockade(command)?.exits(2)?.says("another version of Stockade")?.says("lift --force")?;
    }
    ensure!(fs::File::open("/proc/kcore").is_err(), "enforcement ended");
    stockade(&["lift", "--force"])?.exits(0)?;
    ensure!(fs::File::open("/proc/kcore").is_ok(), "lift --force did not end it");
    Ok(())
}

/// Raises the layout number in the policy map by one, as a later version of Stockade would write it.
fn other_layout(_: &Guest) -> Result<()> {
    lift_all()?;
    stockade(&["enforce", "confidentiality"])?.exits(0)?;
    stockade_kernel::lab::rewrite_layout(stockade_common::LAYOUT + 1)?;
    let this = format!("this one reads layout {}", stockade_common::LAYOUT);
    for command in [&["status"][..], &["enforce", "integrity"], &["watch", "--no-follow"], &["lift"]] {
        stockade(command)?.exits(2)?.says("another version of Stockade")?.says(&this)?;
    }
    ensure!(fs::File::open("/proc/kcore").is_err(), "enforcement ended");
    stockade(&["lift", "--force"])?.exits(0)?;
    ensure!(fs::File::open("/proc/kcore").is_ok(), "lift --force did not end it");
    Ok(())
}

fn explain(_: &Guest) -> Result<()> {
    stockade(&["explain", "dev-mem"])?.exits(0)?.says("/dev/mem,kmem,port")?;
    stockade(&[
        "explain",
        "[   12.5] Lockdown: dd: /dev/mem,kmem,port is restricted; see man kernel_lockdown.7",
    ])?
    .exits(0)?
    .says("Asked for by: dd")?;
    stockade(&["explain", "nonsense"])?.exits(2)?;
    let json = stockade(&["explain", "kcore", "--json"])?.exits(0)?.json()?;
    ensure!(json["level"] == "confidentiality", "{json}");
    Ok(())
}

fn closed_pipe(_: &Guest) -> Result<()> {
    let mut shell = Command::new("/bin/busybox");
    // The reader of the pipe has exited before `stockade` writes.
    let line = "(sleep 1; stockade explain dev-mem; echo status=$? >&2) | true";
    shell.args(["sh", "-c", line]).env("PATH", "/bin");
    let answer = run(&mut shell)?;
    ensure!(answer.err.trim() == "status=0", "{answer:?}");
    Ok(())
}
