//! The seal: the states that it refuses to seal, its effect, and the operations that stay possible.
//!
//! A seal lasts until reboot, so scenarios that end sealed have boots of their own. Scenarios that must leave the guest unsealed come first, and
//! play a seal by killing it before its last step.

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

/// Returns every scenario of this folder. Those of one boot are played in this order.
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

/// Returns the report of `status` about the policy in force.
fn in_force() -> Result<Value> {
    let answer = stockade(&["status", "--json"])?;
    ensure!(answer.code < 2, "{} ended with {}: {}{}", answer.line, answer.code, answer.out, answer.err);
    Ok(answer.json()?["stockade"].clone())
}

/// Requires a verified seal of this many policies, and returns the report of `status`.
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

/// Requires that integrity is enforced and not sealed, and that `lift` lifts it.
fn as_before() -> Result<()> {
    enforced_unsealed()?;
    stockade(&["lift"])?.exits(0)?.says("Lifted")?;
    ensure!(mem_opens(), "lift has returned, and /dev/mem is still refused");
    ensure!(in_force()?.is_null(), "something is in force after lift");
    Ok(())
}

/// Requires that integrity is enforced and not sealed.
fn enforced_unsealed() -> Result<()> {
    let now = in_force()?;
    ensure!(now["level"] == "integrity" && now["sealed"].is_null(), "another state: {now:#}");
    ensure!(now["attachment"] != "root-cgroup" && now["link_id"].is_u64(), "another attachment: {now:#}");
    stockade(&["status"])?.exits(0)?.says("no: root can lift it")?;
    ensure!(!mem_opens() && kcore_opens(), "what is refused is not what integrity refuses");
    Ok(())
}

/// Runs a command that kills itself at this step.
fn killed_at(step: &str, arguments: &[&str]) -> Result<()> {
    with_env(arguments, &[("STOCKADE_STOP_AT", step)])?.exits(-1).map(drop)
}

/// Requires that a seal succeeds up to the commit, its proof included, and kills it there. The next command removes the leftovers.
fn would_seal(arguments: &[&str]) -> Result<()> {
    killed_at("alone", &[&["seal"], arguments].concat())
}

/// Enforces a policy and seals it, unless this boot is sealed already.
fn seal_once(enforce: &[&str]) -> Result<()> {
    if in_force()?["sealed"].is_null() {
        lift_all()?;
        stockade(&[&["enforce"], enforce].concat())?.exits(0)?;
        stockade(&["seal"])?.exits(0)?;
    }
    Ok(())
}

/// Requires each of these texts in an answer.
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
