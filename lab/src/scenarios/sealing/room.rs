//! Scopes and exceptions added to a seal that has room for them.

use std::{
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use stockade_common::{
    STACKED_MAX, Slot,
    dialogue::{DONE, NO_ROOM},
};

use super::{
    BUSYBOX, in_force, killed_at, lift_all, mem_opens,
    policy::{self, Cgroup, TREE, apply, expect, opens},
    proof::all_tried,
    texts, verified,
};
use crate::{
    attacks::add_lax,
    guest::Guest,
    program::{run, stockade},
    scenario::{Boot, Depends, Scenario},
    scenarios::cgroups::mount,
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "seal: scopes and exceptions are added where there is room",
        boot: Boot::SealedRoom,
        depends: Depends::Series,
        run: added,
    },
    Scenario {
        name: "seal: up to sixteen policies are added where there is room, each once",
        boot: Boot::SealedRoom,
        depends: Depends::NewestSeries,
        run: filled,
    },
];

const VENDOR: &str = "/root/vendor";
const VERBOSE: &str = "/sys/kernel/tracing/tracing_on";

/// The policy that is sealed. The policy that is added begins with it.
const BEGINNING: &str = "level = \"integrity\"\n[seal]\nroom-for-scopes = true\n\
     [[exception]]\nname = \"vendor\"\nreasons = [\"dev-mem\"]\nexe = \"/root/vendor\"\n";

/// The additions: one scope by path and one by pattern, and tracefs refused to every process outside the cgroup `/backup`.
const SCOPES: &str = "[reasons]\ntracefs = \"deny\"\n\
     [[scope]]\nname = \"pods\"\ncgroup = \"/pods\"\nlevel = \"confidentiality\"\n\
     [[scope]]\nname = \"jobs\"\ncgroup = \"/job-*\"\nlevel = \"confidentiality\"\n\
     [[exception]]\nname = \"backup\"\nreasons = [\"tracefs\"]\ncgroup = \"/backup\"\n";

/// One more scope.
const MORE: &str = "[[scope]]\nname = \"more\"\ncgroup = \"/more\"\nlevel = \"confidentiality\"\n";

fn kcore() -> Command {
    opens(BUSYBOX, "/proc/kcore")
}

fn tracing() -> Command {
    opens(BUSYBOX, VERBOSE)
}

fn mem() -> Command {
    opens(BUSYBOX, "/dev/mem")
}

fn added(_: &Guest) -> Result<()> {
    lift_all()?;
    std::fs::copy(BUSYBOX, VENDOR).context("copy busybox")?;
    let pods = Cgroup::new("/pods")?;
    apply(BEGINNING)?;
    // `--best-effort` is needed for the exception only: the room itself leaves nothing open.
    let sealed = stockade(&["seal", "--best-effort", "--json"])?.exits(0)?.json()?;
    ensure!(texts(&sealed["left_open"]).len() == 1, "{sealed:#}");
    verified(1)?;
    pods.expect(kcore(), true)?;
    // This process is excepted before and after the addition.
    let mut running = Command::new(VENDOR);
    running.arg0("busybox").args(["sh", "-c", "read line; : < /dev/mem"]);
    let mut running = running.stdin(Stdio::piped()).stderr(Stdio::null()).spawn()?;

    policy::write(&format!("{BEGINNING}{SCOPES}"))?;
    for step in ["announced", "tables-written"] {
        killed_at(step, &["enforce"])?;
        verified(1)?;
        pods.expect(kcore(), true)?;
    }
    let report = stockade(&["enforce", "--json"])?.exits(0)?.json()?;
    ensure!(report["change"] == "tightened", "{report:#}");
    drop(running.stdin.take());
    ensure!(running.wait()?.success(), "a running program lost its exception by the addition");
    holds(&pods)?;
    let status = verified(2)?;
    all_tried(&status, &["dev-mem", "tracefs"])?;
    let open = texts(&status["stockade"]["sealed"]["left_open"]);
    for words in ["new cgroups", "not counted in the level"] {
        ensure!(open.iter().any(|line| line.contains(words)), "not {words}: {status:#}");
    }
    stockade(&["status"])?.exits(0)?.says("one policy added since")?.says("pods (/pods)")?;

    // The scopes apply to a cgroup that is created anew and to a new one.
    drop(pods);
    let pods = Cgroup::new("/pods")?;
    holds(&pods)?;
    let below = Cgroup::new("/pods/below")?;
    below.expect(kcore(), false)?;
    Cgroup::new("/job-1")?.expect(kcore(), false)?;
    drop(below);
    // An added scope cannot be removed.
    policy::write(BEGINNING)?;
    stockade(&["enforce"])?.exits(2)?.says("the scope pods is gone")?;
    policy::write(&format!("{BEGINNING}{SCOPES}"))?;
    stockade(&["enforce"])?.exits(0)?.says("Already in force")?;
    verified(2)?;
    run(Command::new(BUSYBOX).args(["umount", "-l", TREE]))?.exits(0)?;
    let unmounted = verified(2);
    mount("cgroup2", TREE, "nsdelegate")?;
    unmounted.context("where the cgroup tree is not mounted")?;
    // The cgroup stays for the next scenario.
    std::mem::forget(pods);
    Ok(())
}

/// Requires the decisions of the sealed and the added policy together.
fn holds(pods: &Cgroup) -> Result<()> {
    let vendor = || opens(VENDOR, "/dev/mem");
    let backup = Cgroup::new("/backup")?;
    pods.expect(kcore(), false)?;
    pods.expect(mem(), false)?;
    pods.expect(vendor(), true)?;
    expect(&mut kcore(), true, "the host")?;
    expect(&mut tracing(), false, "the host")?;
    expect(&mut vendor(), true, "the vendor's program")?;
    expect(&mut opens(VENDOR, VERBOSE), false, "the vendor's program for another reason")?;
    backup.expect(tracing(), true)?;
    backup.expect(mem(), false)?;
    ensure!(!mem_opens(), "what was sealed");
    Ok(())
}

fn filled(_: &Guest) -> Result<()> {
    ensure!(!in_force()?["sealed"].is_null(), "play these scenarios together");
    let pods = Cgroup::there("/pods");
    policy::write(&format!("{BEGINNING}{SCOPES}{MORE}"))?;
    // Root adds a policy that allows everything, without the command.
    let policy = Slot { digest: 7, ..Slot::default() };
    ensure!(add_lax(&policy)? == DONE, "not added");
    stockade(&["enforce"])?.exits(0)?.says("added to what is sealed")?;
    let more = Cgroup::new("/more")?;
    more.expect(kcore(), false)?;
    // Root adds such policies until there is no slot left.
    for _ in 3..STACKED_MAX {
        ensure!(add_lax(&policy)? == DONE, "not added");
    }
    ensure!(add_lax(&policy)? == NO_ROOM, "added beyond the room");
    stockade(&["enforce"])?.exits(0)?.says("Already in force")?;
    policy::write(&format!("{BEGINNING}{SCOPES}{}", MORE.replace("more", "most")))?;
    stockade(&["enforce"])?.exits(2)?.says("it has no room for more")?;
    more.expect(kcore(), false)?;
    holds(&pods)?;
    // A policy without scopes needs no slot.
    stockade(&["enforce", "confidentiality"])?.exits(0)?.says("added to what is sealed")?;
    expect(&mut kcore(), false, "the host")?;
    verified(18).map(drop)
}
