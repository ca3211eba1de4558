//! The seal's own behaviour: what is refused before it, what it does, what is still possible after it.
//!
//! A seal lasts until reboot, so what ends sealed has a boot of its own. What has to leave the guest as it was goes first,
//! and plays a seal by having it killed before its last step.

use std::fs::File;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::{lift_all, policy, watching};
use crate::{
    program::{Answer, stockade, with_env},
    scenario::Scenario,
};

mod cgroups;
mod earlier;
mod foreign;
mod killed;
mod life;
mod namespaces;
mod programs;
mod proof;
mod refusals;
mod room;
mod scopes;
mod settings;
mod stacked;
mod trusting;
mod verity;

/// Every scenario of this folder. Those of one boot are played in this order.
pub(super) fn all() -> Vec<Scenario> {
    [
        refusals::SCENARIOS,
        trusting::SCENARIOS,
        killed::SCENARIOS,
        cgroups::SCENARIOS,
        earlier::SCENARIOS,
        namespaces::BEFORE,
        life::SCENARIOS,
        proof::SCENARIOS,
        stacked::SCENARIOS,
        namespaces::AFTER,
        programs::SCENARIOS,
        scopes::SCENARIOS,
        room::SCENARIOS,
        settings::SCENARIOS,
        verity::SCENARIOS,
        life::LAST,
    ]
    .concat()
}

const BUSYBOX: &str = "/bin/busybox";
const PINS: &str = "/sys/fs/bpf/stockade";

/// What status says of what is in force.
fn in_force() -> Result<Value> {
    let answer = stockade(&["status", "--json"])?;
    ensure!(answer.code < 2, "{} ended with {}: {}{}", answer.line, answer.code, answer.out, answer.err);
    Ok(answer.json()?["stockade"].clone())
}

/// Demands a seal that holds, of so many policies.
fn verified(policies: u64) -> Result<Value> {
    let status = stockade(&["status", "--json"])?.exits(0)?.json()?;
    let seal = &status["stockade"]["sealed"];
    ensure!(seal["verified"] == true && seal["policies"] == policies, "no seal of {policies}: {status:#}");
    ensure!(
        status["stockade"]["attachment"] == "root-cgroup" && status["stockade"]["link_id"].is_null(),
        "{status:#}"
    );
    Ok(status)
}

/// Demands integrity enforced, not sealed, and that it is lifted when asked for.
fn as_before() -> Result<()> {
    enforced_unsealed()?;
    stockade(&["lift"])?.exits(0)?.says("Lifted")?;
    ensure!(mem_opens(), "lift has returned, and /dev/mem is still refused");
    ensure!(in_force()?.is_null(), "something is in force after lift");
    Ok(())
}

/// Demands integrity enforced and not sealed.
fn enforced_unsealed() -> Result<()> {
    let now = in_force()?;
    ensure!(now["level"] == "integrity" && now["sealed"].is_null(), "another state: {now:#}");
    ensure!(now["attachment"] != "root-cgroup" && now["link_id"].is_u64(), "another attachment: {now:#}");
    stockade(&["status"])?.exits(0)?.says("no: root can lift it")?;
    ensure!(!mem_opens() && kcore_opens(), "what is refused is not what integrity refuses");
    Ok(())
}

/// Runs a command to be killed at this step, before or after it.
fn killed_at(step: &str, arguments: &[&str]) -> Result<()> {
    with_env(arguments, &[("STOCKADE_STOP_AT", step)])?.exits(-1).map(drop)
}

/// Demands that a seal succeeds up to its last step, and leaves it there: everything but the commit was done, the proof that it
/// decides included. The next command takes it off again.
fn would_seal(arguments: &[&str]) -> Result<()> {
    killed_at("alone", &[&["seal"], arguments].concat())
}

/// Enforces this and seals it, unless that was done in this boot.
fn seal_once(enforce: &[&str]) -> Result<()> {
    if in_force()?["sealed"].is_null() {
        lift_all()?;
        stockade(&[&["enforce"], enforce].concat())?.exits(0)?;
        stockade(&["seal"])?.exits(0)?;
    }
    Ok(())
}

/// Demands of an answer every one of these words.
fn says_all(answer: Answer, words: &[impl AsRef<str>]) -> Result<Answer> {
    words.iter().try_fold(answer, |answer, word| answer.says(word.as_ref()))
}

fn mem_opens() -> bool {
    File::open("/dev/mem").is_ok()
}

fn kcore_opens() -> bool {
    File::open("/proc/kcore").is_ok()
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}
