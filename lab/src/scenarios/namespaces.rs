//! Root of a user namespace, as in a container: it gets the answers that native lockdown gives, and no command makes a false report.

use std::{
    fs,
    io::Write,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::lift_all;
use crate::raw::{Caller, Entry, answers, shut};
use crate::{
    guest::Guest,
    program::{Answer, run, stockade},
    scenario::{Boot, Depends, Scenario},
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "root of a user namespace is refused as root is",
        boot: Boot::Plain,
        depends: Depends::NewestSeries,
        run: refused,
    },
    Scenario {
        name: "events of a container name the machine's user",
        boot: Boot::Plain,
        depends: Depends::NewestSeries,
        run: user,
    },
    Scenario {
        name: "in a container nothing is claimed and nothing changed",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: claims,
    },
    Scenario {
        name: "a container removes pins only with root's own number",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: remove_pins,
    },
    Scenario {
        name: "behind another BPF file system nothing is claimed to be free",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: another_bpffs,
    },
];

const NOBODY: u32 = 65534;

/// Some doors need no capability: there only lockdown refuses a container whose root has user id 0 of the machine.
fn refused(_: &Guest) -> Result<()> {
    lift_all()?;
    let container = || answers(Entry::Native, Caller::Container(0));
    let before = container()?;
    for (level, doors_shut) in [("integrity", 4), ("confidentiality", 5)] {
        stockade(&["enforce", level])?.exits(0)?;
        let (here, machine) = (container()?, answers(Entry::Native, Caller::Root)?);
        for ((door, here), (_, machine)) in here.iter().zip(&machine) {
            ensure!(
                *here != 0 || *machine == 0,
                "{level}: {door} is refused to root and free in a container"
            );
        }
        let count = shut(&before, &here);
        ensure!(count >= doors_shut, "{level} shut {count} doors: before {before:?}, now {here:?}");
    }
    Ok(())
}

fn user(_: &Guest) -> Result<()> {
    lift_all()?;
    stockade(&["enforce", "integrity"])?.exits(0)?;
    answers(Entry::Native, Caller::Container(NOBODY))?;
    let seen = stockade(&["watch", "--no-follow", "--json"])?.exits(0)?.out;
    let event = seen
        .lines()
        .map(serde_json::from_str::<serde_json::Value>)
        .filter_map(Result::ok)
        .find(|event| event["reason"] == "pci-access")
        .with_context(|| format!("no refusal of pci-access in {seen}"))?;
    ensure!(event["uid"] == NOBODY, "{event}");
    Ok(())
}

/// Runs a shell line as root of new namespaces of every kind, with this uid map. The shell has capabilities only after the exec that follows the
/// map.
pub(super) fn inside(map: &str, line: &str) -> Result<Answer> {
    let root = map.split(' ').nth(1).context("a map has three numbers")?.parse()?;
    let mut unshare = Command::new("/bin/busybox");
    unshare.args(["unshare", "-U", "-m", "-p", "-f", "-i", "-u", "-n", "sh", "-c"]).env("PATH", "/bin");
    let mut child = unshare
        .arg(format!("read go; {line}"))
        .uid(root)
        .gid(root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let of = |what: &str| format!("/proc/{}/{what}", child.id());
    let mine = fs::read_link("/proc/self/ns/user")?;
    while fs::read_link(of("ns/user"))? == mine {
        std::thread::sleep(Duration::from_millis(1));
    }
    // Only a process outside the namespace may map more than one user.
    for (file, text) in [("setgroups", "deny"), ("uid_map", map), ("gid_map", map)] {
        fs::write(of(file), text).with_context(|| format!("write {text} to {}", of(file)))?;
    }
    child.stdin.take().context("it was piped")?.write_all(b"go\n")?;
    let output = child.wait_with_output()?;
    Ok(Answer {
        line: format!("{line} in a container with users {map}"),
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Plays maps with only root of the machine, with every user and with other users. A container that does not see the pins must not report that
/// nothing is enforced.
fn claims(_: &Guest) -> Result<()> {
    let root_of_the_machine = ("0 0 1", "/bin/busybox mount -t tmpfs none /sys/fs/bpf && ");
    let maps = [root_of_the_machine, ("0 0 4294967295", ""), ("0 100000 65536", "")];
    lift_all()?;
    nothing_is_claimed(root_of_the_machine)?;
    stockade(&["status"])?.exits(1)?.says("enforces nothing")?;
    stockade(&["enforce", "confidentiality"])?.exits(0)?;
    for container in maps {
        nothing_is_claimed(container)?;
    }
    let status = stockade(&["status", "--json"])?.json()?;
    ensure!(status["stockade"]["level"] == "confidentiality", "a container changed it: {status}");
    Ok(())
}

fn nothing_is_claimed((map, prepare): (&str, &str)) -> Result<()> {
    let stockade = |arguments: &str| inside(map, &format!("{prepare}exec stockade {arguments}"));
    for arguments in ["status", "enforce integrity", "lift --force", "watch --no-follow"] {
        stockade(arguments)?.exits(2)?.says("in a user namespace of its own")?.says("on the host")?;
    }
    stockade("residual")?.exits(2)?.says("outside the container")?.says("nothing was looked at")?;
    stockade("check-host")?.exits(1)?.says("in a container")?.says("cannot enforce")?;
    let answer = stockade("probe --json")?.exits(2)?;
    let doors = answer.json()?;
    let doors = doors["doors"].as_array().context("probe lists doors")?;
    for door in doors {
        let answer = door["answer"].as_str().unwrap_or_default();
        ensure!(["needs-root", "never-tried", "not-present"].contains(&answer), "{map}: {door}");
    }
    let needing = doors.iter().filter(|door| door["answer"] == "needs-root").count();
    ensure!(needing >= 14, "{map}: only {needing} doors need root");
    Ok(())
}

/// Root of the machine with another BPF file system, as in a privileged container.
fn another_bpffs(_: &Guest) -> Result<()> {
    lift_all()?;
    let line = "mount -t bpf bpf /sys/fs/bpf && exec stockade";
    let inside = |arguments: &str| {
        let mut unshare = Command::new("/bin/busybox");
        unshare.args(["unshare", "-m", "sh", "-c", &format!("{line} {arguments}")]).env("PATH", "/bin");
        run(&mut unshare)
    };
    inside("status")?.exits(1)?.says("enforces nothing")?;
    stockade(&["enforce", "confidentiality"])?.exits(0)?;
    for arguments in ["status", "enforce integrity", "lift"] {
        inside(arguments)?.exits(2)?.says("a program of Stockade's is loaded")?.says("nsenter")?;
    }
    ensure!(fs::File::open("/proc/kcore").is_err(), "it was lifted from behind another BPF file system");
    // Stockade refuses these doors, and `probe`, which does not see the pins, attributes the refusals to something else.
    let doors = inside("probe --json")?.exits(0)?.json()?;
    let doors = doors["doors"].as_array().context("probe lists doors")?;
    let refused = doors.iter().filter(|door| door["answer"] == "refused-by-other").count();
    ensure!(refused >= 14, "only {refused} doors are refused by something else");
    stockade(&["lift"])?.exits(0)?;
    inside("status")?.exits(1)?.says("enforces nothing")?;
    Ok(())
}

/// A weakness that SECURITY.md names: a process with user id 0 owns the files of root.
fn remove_pins(_: &Guest) -> Result<()> {
    lift_all()?;
    let kcore_opens = || fs::File::open("/proc/kcore").is_ok();
    stockade(&["enforce", "confidentiality"])?.exits(0)?;
    let remove = "rm -rf /sys/fs/bpf/stockade";
    inside("0 100000 65536", remove)?.exits(1)?;
    stockade(&["status"])?.exits(0)?;
    ensure!(!kcore_opens(), "a container with users of its own ended enforcement");
    inside("0 0 1", remove)?.exits(0)?;
    stockade(&["status"])?.exits(1)?;
    ensure!(kcore_opens(), "the pins are gone, and enforcement goes on");
    Ok(())
}
