//! Stricter policies added to a seal.

use anyhow::{Result, ensure};

use super::{
    BUSYBOX, kcore_opens, life::refusals, mem_opens, policy, policy::expect, policy::opens, proof::all_tried,
    says_all, seal_once, texts, verified,
};
use crate::{
    guest::Guest,
    program::stockade,
    scenario::{Boot, Depends, Scenario},
    scenarios::{
        waiting::until,
        watching::{self, Watching},
    },
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "seal: a stricter policy is added, and then another",
        boot: Boot::Sealed,
        depends: Depends::Series,
        run: added,
    },
    Scenario {
        name: "seal: what one policy refuses the others do not tell again",
        boot: Boot::Sealed,
        depends: Depends::NewestSeries,
        run: once,
    },
];

const VERBOSE: &str = "/sys/kernel/tracing/tracing_on";

fn policies() -> Result<u64> {
    Ok(super::in_force()?["sealed"]["policies"].as_u64().unwrap_or_default())
}

fn added(_: &Guest) -> Result<()> {
    seal_once(&["integrity"])?;
    ensure!(policies()? == 1 && kcore_opens(), "something was added already: play this in a fresh guest");
    // `watch` runs while policies are added.
    let mut watch = Watching::start("/tmp/added")?;
    add_two()?;
    let wanted = ["kcore", "tracefs", "dev-mem"];
    let mut told = Vec::new();
    until("the refusals to be told", || {
        let seen = watch.seen()?;
        let busybox = seen.iter().filter(|e| e["comm"] == "busybox");
        told = busybox.map(|e| e["reason"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>();
        Ok(told.len() >= wanted.len())
    })?;
    ensure!(told == wanted, "{told:?}");
    Ok(())
}

fn add_two() -> Result<()> {
    let report = stockade(&["enforce", "integrity", "--deny", "kcore", "--json"])?.exits(0)?.json()?;
    ensure!(report["change"] == "tightened" && report["undo"].is_null(), "{report:#}");
    ensure!(texts(&report["refused"]).contains(&"kcore") && !report["proven_by"].is_null(), "{report:#}");
    expect(&mut opens(BUSYBOX, "/proc/kcore"), false, "a process after the first addition")?;
    expect(&mut opens(BUSYBOX, VERBOSE), true, "what nobody refuses yet")?;
    let status = verified(2)?;
    ensure!(texts(&status["stockade"]["refused"]).contains(&"kcore"), "{status:#}");
    // The proof also tries the reason that only the added policy refuses.
    all_tried(&status, &["dev-mem", "kcore"])?;
    stockade(&["status"])?.exits(0)?.says("one policy added since")?;
    // The first sealed policy is now laxer than the seal.
    stockade(&["enforce", "integrity"])?.exits(2)?.says("allow instead of deny: kcore\n")?;
    // The seal has no room for scopes.
    policy::write(
        "level = \"integrity\"\n[[scope]]\nname = \"pods\"\ncgroup = \"/pods\"\nlevel = \"confidentiality\"\n",
    )?;
    stockade(&["enforce"])?
        .exits(2)?
        .says("the sealed policy left no room for them (room-for-scopes = true under [seal])")?;
    verified(2)?;

    let answer = stockade(&["enforce", "confidentiality"])?.exits(0)?;
    says_all(answer, &["In force: confidentiality, added to what is sealed", "Sealed: lasts until reboot"])?;
    expect(&mut opens(BUSYBOX, VERBOSE), false, "a process after the second addition")?;
    expect(&mut opens(BUSYBOX, "/dev/mem"), false, "what was refused from the start")?;
    all_tried(&verified(3)?, &["dev-mem", "kcore", "tracefs", "perf"])?;
    stockade(&["status"])?.exits(0)?.says("2 policies added since")?;
    stockade(&["lift"])?.exits(2)?.says("sealed until it is rebooted")?;
    stockade(&["enforce", "confidentiality"])?.exits(0)?.says("Already in force")?;
    verified(3).map(drop)
}

fn once(_: &Guest) -> Result<()> {
    seal_once(&["integrity"])?;
    if policies()? == 1 {
        stockade(&["enforce", "confidentiality"])?.exits(0)?;
    }
    ensure!(!kcore_opens() && !mem_opens(), "not confidentiality");
    for (file, reason) in [("/dev/mem", "dev-mem"), ("/proc/kcore", "kcore")] {
        while !watching::of_dd()?.is_empty() {}
        let before = refusals(reason)?.after;
        watching::dd(file)?;
        watching::dd(file)?;
        let counted = refusals(reason)?.before - before;
        let seen = watching::of_dd()?;
        ensure!(counted == 2 && seen.len() == 2, "2 requests, {counted} counted, told: {seen:?}");
        ensure!(seen.iter().all(|e| e["reason"] == reason), "{seen:?}");
    }
    Ok(())
}
