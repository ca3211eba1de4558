//! The behaviour of a seal, from its start on.

use std::{fs, path::Path};

use anyhow::{Result, ensure};
use serde_json::Value;

use super::{
    BUSYBOX, PINS, in_force, kcore_opens, lift_all, mem_opens, policy, says_all, seal_once, texts, verified,
    watching::{self, Watching, one_of_dd},
};
use crate::{
    guest::Guest,
    program::{run, stockade},
    scenario::{Boot, Depends, Scenario},
};

pub(super) const SCENARIOS: &[Scenario] = &[
    // From here on the guest is sealed.
    Scenario {
        name: "seal: integrity is sealed and verified",
        boot: Boot::Sealed,
        depends: Depends::Series,
        run: sealed,
    },
    Scenario {
        name: "seal: it needs nothing but the kernel",
        boot: Boot::Sealed,
        depends: Depends::NewestSeries,
        run: needs_nothing,
    },
    Scenario {
        name: "seal: there is no way back",
        boot: Boot::Sealed,
        depends: Depends::Series,
        run: no_way_back,
    },
    Scenario {
        name: "seal: a laxer policy is refused, with every reason",
        boot: Boot::Sealed,
        depends: Depends::UserSide,
        run: laxer,
    },
    Scenario {
        name: "seal: watch and counters go on",
        boot: Boot::Sealed,
        depends: Depends::NewestSeries,
        run: goes_on,
    },
    Scenario {
        name: "seal: grants cannot be added",
        boot: Boot::Sealed,
        depends: Depends::UserSide,
        run: no_grant,
    },
];

/// Scenarios that come after every other sealed one.
pub(super) const LAST: &[Scenario] = &[Scenario {
    name: "seal: without its description it holds and is not added to",
    boot: Boot::Sealed,
    depends: Depends::UserSide,
    run: lost,
}];

fn sealed(_: &Guest) -> Result<()> {
    lift_all()?;
    stockade(&["enforce", "integrity"])?.exits(0)?;
    let refused = in_force()?["refused"].clone();
    let mut watch = Watching::start("/tmp/sealed")?;
    seals(&refused)?;
    one_of_dd(&mut watch)
}

fn seals(refused: &Value) -> Result<()> {
    let report = stockade(&["seal", "--json"])?.exits(0)?.json()?;
    ensure!(report["level"] == "integrity" && report["refused"] == *refused, "{report:#}");
    ensure!(texts(&report["left_open"]).is_empty() && texts(&report["trusted"]).is_empty(), "{report:#}");
    let hooks = texts(&report["hooks"]);
    ensure!(["locked_down", "bpf", "bpf_prog"].iter().all(|hook| hooks.contains(hook)), "{hooks:?}");
    let status = verified(1)?;
    let now = &status["stockade"];
    ensure!(now["level"] == "integrity" && now["refused"] == *refused && now["described"] == true, "{now:#}");
    ensure!(texts(&status["warnings"]).is_empty(), "{status:#}");
    stockade(&["status"])?
        .exits(0)?
        .says("yes, verified: until reboot, since")?
        .says("held by the root cgroup")?;
    ensure!(!mem_opens() && kcore_opens(), "what is refused is not what integrity refuses");
    let doors = crate::scenarios::enforcement::doors()?;
    let shut = doors.values().filter(|(answer, _)| answer == "refused-by-stockade").count();
    ensure!(shut >= 10, "only {shut} doors are shut: {doors:?}");
    Ok(())
}

/// The seal needs no pins, no mounts and no processes.
fn needs_nothing(_: &Guest) -> Result<()> {
    seal_once(&["integrity"])?;
    ensure!(!Path::new(PINS).exists(), "something is pinned still");
    let unmount = |path: &str| run(std::process::Command::new(BUSYBOX).args(["umount", "-l", path]));
    let mount = |kind: &str, path: &str| {
        run(std::process::Command::new(BUSYBOX).args(["mount", "-t", kind, kind, path]))?.exits(0)
    };
    for (kind, path) in [("bpf", "/sys/fs/bpf"), ("cgroup2", "/sys/fs/cgroup")] {
        unmount(path)?.exits(0)?;
        let held = !mem_opens();
        let status = verified(1);
        mount(kind, path)?;
        ensure!(held, "{path} is unmounted, and /dev/mem opens");
        status?;
    }
    verified(1).map(drop)
}

fn no_way_back(_: &Guest) -> Result<()> {
    seal_once(&["integrity"])?;
    for command in [&["lift"][..], &["lift", "--force"], &["seal"], &["seal", "--best-effort"]] {
        stockade(command)?.exits(2)?.says("not possible: this machine is sealed until it is rebooted")?;
    }
    let answer = stockade(&["lift", "--json"])?.exits(2)?;
    ensure!(answer.json()?["error"].is_string(), "{}", answer.out);
    stockade(&["enforce", "integrity"])?.exits(0)?.says("Already in force")?.says("lasts until reboot")?;
    let again = stockade(&["enforce", "integrity", "--json"])?.exits(0)?.json()?;
    ensure!(again["change"] == "unchanged" && again["undo"].is_null(), "{again:#}");
    ensure!(!mem_opens(), "/dev/mem opens");
    verified(1).map(drop)
}

fn laxer(_: &Guest) -> Result<()> {
    seal_once(&["integrity"])?;
    let before = in_force()?;
    let refused = texts(&before["refused"]);
    ensure!(refused.len() > 10, "{before:#}");
    let all = ["allow instead of deny: ", "would let through more"];
    says_all(says_all(stockade(&["enforce", "none"])?.exits(2)?, &all)?, &refused)?;
    let answer = stockade(&["enforce", "integrity", "--audit"])?.exits(2)?.says("audit instead of deny: ")?;
    says_all(answer, &refused)?;
    let one = stockade(&["enforce", "confidentiality", "--allow", "dev-mem"])?.exits(2)?;
    let one = one.says("allow instead of deny: dev-mem\n")?;
    ensure!(!one.err.contains("msr"), "more is named than is laxer: {}", one.err);
    stockade(&["enforce", "integrity", "--audit-reason", "msr"])?
        .exits(2)?
        .says("audit instead of deny: msr")?;
    stockade(&["enforce", "integrity", "--unknown-reasons", "allow"])?
        .exits(2)?
        .says("unknown-reasons: allow")?;
    let exception = "level = \"integrity\"\n[[exception]]\nname = \"vendor\"\nreasons = [\"dev-mem\"]\nexe = \"/bin/busybox\"\n";
    policy::write(exception)?;
    let answer = stockade(&["enforce"]);
    fs::remove_file(policy::POLICY)?;
    answer?.exits(2)?.says("the exception vendor is new")?;
    let after = verified(1)?;
    ensure!(after["stockade"]["refused"] == before["refused"], "{after:#}");
    ensure!(!mem_opens(), "/dev/mem opens");
    Ok(())
}

/// The numbers of refusals for a reason before and after a call of `status`, whose proof of the seal tries each reason once.
pub(super) struct Refusals {
    pub before: u64,
    pub after: u64,
}

pub(super) fn refusals(reason: &str) -> Result<Refusals> {
    let now = in_force()?;
    let counters = now["counters"].as_array().cloned().unwrap_or_default();
    let counter = counters.iter().find(|counter| counter["reason"] == reason);
    let before = counter.and_then(|counter| counter["refused"].as_u64()).unwrap_or_default();
    let tried = texts(&now["sealed"]["proof"]["refused"]).contains(&reason);
    Ok(Refusals { before, after: before + u64::from(tried) })
}

/// Each request has one event and is counted once.
fn goes_on(_: &Guest) -> Result<()> {
    seal_once(&["integrity"])?;
    while !watching::of_dd()?.is_empty() {}
    let before = refusals("dev-mem")?.after;
    for _ in 0..3 {
        watching::dd("/dev/mem")?;
    }
    let counted = refusals("dev-mem")?.before - before;
    let seen = watching::of_dd()?;
    ensure!(counted == 3 && seen.len() == 3, "3 requests, {counted} counted, {} told: {seen:?}", seen.len());
    let of_stockade = |e: &serde_json::Value| e["verdict"] == "refused" && e["by"] == "stockade";
    ensure!(seen.iter().all(of_stockade), "{seen:?}");
    Ok(())
}

fn no_grant(_: &Guest) -> Result<()> {
    seal_once(&["integrity"])?;
    stockade(&["grant", "dev-mem", "--for", "10m", "--exe", BUSYBOX, "--name", "incident"])?
        .exits(2)?
        .says("sealed until it is rebooted")?
        .says("the exception incident is new")?;
    stockade(&["grant", "--list"])?.exits(1)?.says("Nothing is granted")?;
    ensure!(!mem_opens(), "/dev/mem opens");
    Ok(())
}

fn lost(_: &Guest) -> Result<()> {
    seal_once(&["integrity"])?;
    let policies = in_force()?["sealed"]["policies"].as_u64().unwrap_or_default();
    fs::remove_dir_all("/run/stockade")?;
    let status = verified(policies)?;
    ensure!(status["stockade"]["described"] == false, "{status:#}");
    stockade(&["status"])?.exits(0)?.says("yes, verified")?.says("the description of the policy")?;
    stockade(&["enforce", "confidentiality", "--deny", "bpf-write-user"])?
        .exits(2)?
        .says("description of the sealed policy")?;
    stockade(&["lift", "--force"])?.exits(2)?.says("sealed until it is rebooted")?;
    ensure!(!mem_opens(), "/dev/mem opens");
    verified(policies).map(drop)
}
