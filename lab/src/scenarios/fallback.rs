//! Kernels whose active security modules do not include bpf: the weaker attachment (modify-return), and the reports about it.

use std::{fs::File, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use stockade_kernel::host;
use stockade_reasons::Level;

use super::{enforcement::expect, lift_all, waiting::until, watching::Watching};
use crate::{
    guest::Guest,
    program::stockade,
    scenario::{Boot, Depends, Scenario},
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "without bpf among the modules both levels shut their doors",
        boot: Boot::NoBpfLsm,
        depends: Depends::Flavour,
        run: levels,
    },
    Scenario {
        name: "the weaker attachment is named, with why",
        boot: Boot::NoBpfLsm,
        depends: Depends::UserSide,
        run: named,
    },
    Scenario {
        name: "the weaker attachment audits, reports and ends",
        boot: Boot::NoBpfLsm,
        depends: Depends::Series,
        run: audit,
    },
    Scenario {
        name: "what the weaker attachment skips is counted",
        boot: Boot::NoBpfLsm,
        depends: Depends::NewestSeries,
        run: skipped,
    },
    // Last, since native lockdown cannot be lowered.
    Scenario {
        name: "the weaker attachment beside native lockdown",
        boot: Boot::NoBpfLsm,
        depends: Depends::NewestSeries,
        run: beside_native,
    },
    Scenario {
        name: "audited by the weaker attachment and refused by native is one line",
        boot: Boot::NoBpfLsm,
        depends: Depends::NewestSeries,
        run: one_line,
    },
    Scenario {
        name: "followed, what native refuses after the weaker attachment is one line each",
        boot: Boot::NoBpfLsm,
        depends: Depends::NewestSeries,
        run: one_line_each,
    },
];

fn levels(_: &Guest) -> Result<()> {
    lift_all()?;
    expect(|_, _| false)?;
    stockade(&["enforce", "integrity"])?.exits(0)?.says("proven: a real request")?;
    expect(|_, integrity| integrity)?;
    stockade(&["enforce", "confidentiality", "--allow", "pci-access"])?.exits(0)?;
    expect(|reason, _| reason != "pci-access")
}

fn named(_: &Guest) -> Result<()> {
    lift_all()?;
    let told = stockade(&["check-host"])?.exits(0)?.says("modify-return, which is weaker")?.says(",bpf")?;
    told.says("for cgroups and units; for programs only where bpf")?;
    let enforced = stockade(&["enforce", "integrity", "--json"])?.exits(0)?.json()?;
    ensure!(enforced["attachment"] == "modify-return", "{enforced}");
    stockade(&["enforce", "confidentiality"])?.exits(0)?.says("modify-return, which is weaker")?;
    stockade(&["status"])?
        .exits(0)?
        .says("modify-return, the weaker way")?
        .says("bpf is not among the active security modules")?;
    let status = stockade(&["status", "--json"])?.exits(0)?.json()?;
    ensure!(status["stockade"]["attachment"] == "modify-return", "{status}");
    Ok(())
}

fn audit(_: &Guest) -> Result<()> {
    lift_all()?;
    stockade(&["enforce", "confidentiality", "--audit"])?.exits(0)?;
    expect(|_, _| false)?;
    stockade(&["watch", "--no-follow"])?.exits(0)?.says("audited /dev/mem,kmem,port: stockade")?;
    stockade(&["enforce", "confidentiality"])?.exits(0)?;
    ensure!(File::open("/proc/kcore").is_err(), "no process of ours is alive, and kcore opens");
    stockade(&["lift"])?.exits(0)?;
    ensure!(File::open("/proc/kcore").is_ok(), "lift has returned, and kcore is still refused");
    Ok(())
}

/// Eight processes request a port at once. On a kernel that may preempt a task within a decision, some requests succeed because the program was
/// skipped, and `status` counts them; on other kernels none does.
fn skipped(_: &Guest) -> Result<()> {
    lift_all()?;
    let switches = host::may_switch_in_kernel();
    let expected = match switches {
        Some(true) => "so root can bring that about",
        Some(false) => "so that does not happen",
        None => bail!("debugfs is mounted, and the model of preemption cannot be told"),
    };
    stockade(&["enforce", "integrity"])?.exits(0)?.says(expected)?;
    let through = super::load::ports_granted(8, Duration::from_secs(3))?;
    let status = stockade(&["status", "--json"])?.exits(0)?.json()?;
    let skipped = status["stockade"]["skipped"].as_u64().unwrap_or_default();
    ensure!(
        through == 0 || switches == Some(true),
        "{through} requests got through a kernel that does not switch"
    );
    ensure!(through <= skipped, "{through} requests got through, and only {skipped} are told: {status}");
    Ok(())
}

/// Raises native lockdown to integrity, unless an earlier scenario did.
fn raise_native() -> Result<()> {
    if host::native_lockdown()? < Level::Integrity {
        std::fs::write("/sys/kernel/security/lockdown", "integrity")?;
    }
    Ok(())
}

fn beside_native(_: &Guest) -> Result<()> {
    lift_all()?;
    raise_native()?;
    stockade(&["enforce", "confidentiality", "--allow", "ioport"])?
        .exits(0)?
        .says("the kernel's own lockdown is at integrity too")?;
    let report = stockade(&["probe", "--json"])?.exits(0)?.json()?;
    for door in report["doors"].as_array().into_iter().flatten() {
        let wanted = if door["reason"] == "ioport" { "refused-by-native" } else { "refused-by-stockade" };
        let answer = door["answer"].as_str().unwrap_or_default();
        ensure!(!answer.starts_with("refused") || answer == wanted, "{door}");
    }
    stockade(&["status"])?.exits(0)?.says("what Stockade lets through it still refuses")?;
    stockade(&["lift"])?.exits(0)?.says("stays at integrity")?;
    Ok(())
}

fn one_line(_: &Guest) -> Result<()> {
    lift_all()?;
    raise_native()?;
    // The kernel writes at most ten lockdown lines in five seconds.
    std::thread::sleep(Duration::from_secs(6));
    stockade(&["enforce", "confidentiality", "--audit"])?.exits(0)?;
    super::watching::of_dd()?;
    super::watching::dd("/dev/mem")?;
    super::watching::dd("/proc/kcore")?;
    let seen = super::watching::of_dd()?;
    let told: Vec<_> =
        seen.iter().map(|e| (e["reason"].as_str(), e["verdict"].as_str(), e["by"].as_str())).collect();
    ensure!(
        told == [
            (Some("dev-mem"), Some("refused"), Some("native")),
            (Some("kcore"), Some("audited"), Some("stockade"))
        ],
        "{seen:?}"
    );
    Ok(())
}

/// Makes requests at any moment of `watch`'s loop, also between its reads of the kernel log and of the events.
fn one_line_each(_: &Guest) -> Result<()> {
    const REQUESTS: usize = 8;
    lift_all()?;
    raise_native()?;
    stockade(&["enforce", "integrity", "--audit"])?.exits(0)?;
    // The kernel writes at most ten lockdown lines in five seconds.
    std::thread::sleep(Duration::from_secs(6));
    // Each run of `watch` shows earlier lines of the kernel log again, whose events were read before.
    let old = super::watching::of_dd()?.iter().filter(|e| e["type"] == "native").count();
    let mut watch = Watching::start("/tmp/one-line-each")?;
    for _ in 0..REQUESTS {
        super::watching::dd("/dev/mem")?;
    }
    let mut seen = Vec::new();
    let of_dd = |seen: &[Value]| seen.iter().filter(|e| e["comm"] == "dd").count();
    let events = |seen: &[Value]| {
        let refused_by_native = |e: &&Value| e["comm"] == "dd" && e["type"] == "event" && e["by"] == "native";
        seen.iter().filter(refused_by_native).count()
    };
    let came = until("an event of each request", || {
        seen = watch.seen()?;
        Ok(events(&seen) >= REQUESTS)
    });
    came.with_context(|| format!("{REQUESTS} requests: {seen:?}"))?;
    // A surplus event would come with the next round of `watch`.
    std::thread::sleep(Duration::from_millis(1500));
    let seen = watch.seen()?;
    ensure!(events(&seen) == REQUESTS, "{} events for {REQUESTS} requests: {seen:?}", events(&seen));
    let all = of_dd(&seen);
    ensure!(all == REQUESTS + old, "{all} lines, not {REQUESTS} and {old} of before: {seen:?}");
    Ok(())
}
