//! `status` on a sealed machine tries every refused reason that can be tried without an effect, and reports the others as not tried.

use anyhow::{Result, ensure};
use serde_json::Value;

use super::{in_force, lift_all, seal_once, texts, verified};
use crate::{
    guest::Guest,
    program::stockade,
    scenario::{Boot, Depends, Scenario},
    scenarios::watching::events,
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "seal: status tries every reason that is refused, and lists those that it cannot try",
        boot: Boot::Sealed,
        depends: Depends::Flavour,
        run: integrity,
    },
    Scenario {
        name: "seal: what status tries is counted and told, by a process of its own name",
        boot: Boot::Sealed,
        depends: Depends::NewestSeries,
        run: told,
    },
    Scenario {
        name: "seal: every reason of sealed confidentiality is tried",
        boot: Boot::SealedConfidentiality,
        depends: Depends::Series,
        run: confidentiality,
    },
];

/// Requires that each refused reason was tried and refused, or is listed as not tried with a cause, and that `wanted` were tried.
pub(super) fn all_tried(status: &Value, wanted: &[&str]) -> Result<()> {
    let now = &status["stockade"];
    let proof = &now["sealed"]["proof"];
    let tried = texts(&proof["refused"]);
    let untried = proof["not_tried"].as_array().cloned().unwrap_or_default();
    let mut told: Vec<&str> = tried.clone();
    told.extend(untried.iter().filter_map(|untried| untried["reason"].as_str()));
    told.sort_unstable();
    let mut refused = texts(&now["refused"]);
    refused.sort_unstable();
    ensure!(told == refused, "{told:?} are told, and {refused:?} are refused");
    ensure!(wanted.iter().all(|reason| tried.contains(reason)), "of {wanted:?} only {tried:?} were tried");
    for untried in &untried {
        let known = untried["cause"] == "absent" || untried["cause"] == "has-effect";
        ensure!(known && untried["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{untried}");
    }
    ensure!(proof["conclusion"] == "verified", "{proof:#}");
    Ok(())
}

/// Reasons that can be tried without an effect on every kernel of the lab, by level.
const OF_INTEGRITY: [&str; 5] = ["module-signature", "kexec", "ioport", "debugfs", "bpf-write-user"];
const OF_CONFIDENTIALITY: [&str; 5] = ["kcore", "kprobes", "bpf-read-kernel", "perf", "tracefs"];

fn integrity(_: &Guest) -> Result<()> {
    seal_once(&["integrity"])?;
    all_tried(&verified(1)?, &OF_INTEGRITY)?;
    stockade(&["status"])?
        .exits(0)?
        .says("refused reasons tried now, and refused by the seal")?
        .says("not tried: ")?
        .says("tiocsserial")?
        .says("(no attempt without an effect)")?;
    Ok(())
}

fn told(_: &Guest) -> Result<()> {
    seal_once(&["integrity"])?;
    while !events(&stockade(&["watch", "--no-follow", "--json"])?.exits(0)?.out)?.is_empty() {}
    let first = in_force()?;
    let second = in_force()?;
    let tried = texts(&first["sealed"]["proof"]["refused"]);
    ensure!(tried.len() >= OF_INTEGRITY.len(), "{first:#}");
    let refused = |status: &Value, reason: &str| {
        let counters = status["counters"].as_array().into_iter().flatten();
        counters.filter(|c| c["reason"] == reason).filter_map(|c| c["refused"].as_u64()).sum::<u64>()
    };
    let seen = events(&stockade(&["watch", "--no-follow", "--json"])?.exits(0)?.out)?;
    for reason in tried {
        let counted = refused(&second, reason) - refused(&first, reason);
        let told = seen.iter().filter(|e| e["reason"] == reason && e["comm"] == "stockade-proof").count();
        // For one request some kernels ask lockdown several times, such as while they verify a BPF program.
        let once = counted == 1 || reason.starts_with("bpf-") && counted > 1;
        let alike = u64::try_from(told)? == 2 * counted;
        ensure!(once && alike, "{reason}: {counted} counted of one proof, {told} told of two");
    }
    Ok(())
}

fn confidentiality(_: &Guest) -> Result<()> {
    lift_all()?;
    stockade(&["enforce", "confidentiality"])?.exits(0)?;
    stockade(&["seal"])?.exits(0)?;
    let all = [&OF_INTEGRITY[..], &OF_CONFIDENTIALITY[..]].concat();
    all_tried(&verified(1)?, &all)
}
