//! Plays an attack on pins or on the seal, and checks the requirement on it.

use std::{fs, path::Path, thread::sleep, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use stockade_kernel::host;

use super::{
    Attack, Attempt, Outcome, Pins, Play, Sealed, Setting,
    begin::{FOLDER, enforce, is_sealed},
    clocks, ftrace,
    mount_namespace::{MountNamespace, mount_again, wait_until_free},
    of_scenario, prepared,
    proof::{Prover, opened, shut, wait_for},
};
use crate::{
    guest::Guest,
    program::{lift_all, stockade},
    protocol::AGAIN,
    scenario::Skip,
};

/// The doors that were shut before every process was killed.
const SHUT: &str = "/run/attacks/shut";

/// The time after which asynchronous effects of an attack have happened.
const SETTLED: Duration = Duration::from_millis(200);

fn attack(guest: &Guest) -> Result<Attack> {
    let name = guest.scenario().context("only a scenario's process plays attacks")?;
    of_scenario(name).with_context(|| format!("{name} is no attack"))
}

/// Plays an attack on enforcement that hangs on pins.
pub(super) fn pins_only(guest: &Guest) -> Result<()> {
    let attack = attack(guest)?;
    fs::create_dir_all(FOLDER)?;
    let prover = Prover::new()?;
    if let Some(shut) = before_the_end(&attack)? {
        let opened = opened(&shut, &prover.root()?)?;
        lift_all()?;
        return as_expected(&attack, false, &Outcome::Through, &opened);
    }
    lift_all()?;
    wait_until_free()?;
    let namespace = MountNamespace::enter(attack.setting)?;
    let played = play_in_namespace(guest, &attack, &prover);
    // While ftrace is off, the kernel cannot detach programs from a function, and loses track of it.
    let played = played.and(ftrace::on_again());
    drop(namespace);
    // In the attack's own mount namespace enforcement has ended with it; in the guest's it has to be lifted.
    let ended = if attack.setting == Setting::Guest { lift_all() } else { wait_until_free() };
    clocks::forget();
    played.and(ended)
}

fn play_in_namespace(guest: &Guest, attack: &Attack, prover: &Prover) -> Result<()> {
    enforce(attack.setting)?;
    let (root, child) = (shut(&prover.root()?)?, shut(&prover.child()?)?);
    let attempt = match attack.play {
        Play::Now(run) => run()?,
        Play::Prepared(prepare) => prepare()?()?,
        Play::EndsEveryone(run) => ends_everyone(guest, &root, run)?,
    };
    skip_if_impossible(&attempt.outcome)?;
    let expected = falls(attack.pins_only, guest)?;
    let mut now_open = Vec::new();
    if expected {
        wait_for(5, || {
            now_open = opened(&root, &prover.root()?)?;
            Ok(!now_open.is_empty())
        })?;
    } else {
        sleep(SETTLED);
        now_open = opened(&root, &prover.root()?)?;
        now_open.extend(opened(&child, &prover.child()?)?);
    }
    let judged = as_expected(attack, expected, &attempt.outcome, &now_open);
    drop(attempt);
    judged
}

fn as_expected(attack: &Attack, falls: bool, outcome: &Outcome, opened: &[String]) -> Result<()> {
    let fell = !opened.is_empty() || matches!(outcome, Outcome::Reached(_));
    ensure!(
        fell == falls,
        "pins only: listed as {:?}, and it {}; the attempt: {outcome:?}; open now: {opened:?}",
        attack.pins_only,
        if fell { "falls" } else { "holds" }
    );
    ensure!(
        attack.pins_only != Pins::Open || *outcome == Outcome::Through,
        "pins only: listed as a way in that is open, and it was not let in: {outcome:?}"
    );
    Ok(())
}

fn falls(expected: Pins, guest: &Guest) -> Result<bool> {
    Ok(match expected {
        Pins::Falls => true,
        Pins::FallsBefore(major, minor) => {
            let release = guest.kernel_release()?;
            let mut numbers = release.split(['.', '-']).map_while(|word| word.parse::<u32>().ok());
            let (Some(a), Some(b)) = (numbers.next(), numbers.next()) else {
                bail!("{release} does not begin with two numbers");
            };
            (a, b) < (major, minor)
        }
        Pins::Holds | Pins::Open => false,
    })
}

fn skip_if_impossible(outcome: &Outcome) -> Result<()> {
    match outcome {
        Outcome::Impossible(why) => Err(Skip(why.clone()).into()),
        _ => Ok(()),
    }
}

/// Runs an attack that kills every process, after which PID 1 plays the scenario again.
fn ends_everyone(guest: &Guest, shut: &[String], run: fn() -> Result<Attempt>) -> Result<Attempt> {
    fs::write(SHUT, serde_json::to_vec(shut)?)?;
    fs::write(AGAIN, guest.scenario().unwrap_or_default())?;
    let attempt = run();
    sleep(Duration::from_secs(10));
    fs::remove_file(AGAIN)?;
    fs::remove_file(SHUT)?;
    match attempt?.outcome {
        impossible @ Outcome::Impossible(_) => Ok(impossible.into()),
        outcome => bail!("{outcome:?}, and this process was not ended"),
    }
}

/// Returns the doors that were shut before every process was killed, if this is the scenario's second process.
fn before_the_end(attack: &Attack) -> Result<Option<Vec<String>>> {
    if !matches!(attack.play, Play::EndsEveryone(_)) || !Path::new(SHUT).exists() {
        return Ok(None);
    }
    let shut = serde_json::from_slice(&fs::read(SHUT)?)?;
    fs::remove_file(SHUT)?;
    Ok(Some(shut))
}

/// Plays an attack on the seal, which is made before the first attack of a boot.
pub(super) fn sealed(guest: &Guest) -> Result<()> {
    let judged = play_sealed(guest);
    // If ftrace is off, later attacks would fail because of this one.
    ftrace::on_again()?;
    judged
}

fn play_sealed(guest: &Guest) -> Result<()> {
    let attack = attack(guest)?;
    fs::create_dir_all(FOLDER)?;
    prepared::seal(attack.boot(true))?;
    let prover = Prover::new()?;
    if let Some(shut) = before_the_end(&attack)? {
        still_sealed(&attack, &Outcome::Through, &opened(&shut, &prover.root()?)?)?;
        return is_sealed(&stockade(&["status", "--json"])?.exits(0)?.json()?);
    }
    let (root, child) = (shut(&prover.root()?)?, shut(&prover.child()?)?);
    let (mut attempt, mut process) = (None, None);
    let outcome = match attack.play {
        Play::Now(run) => attempt.insert(run()?).outcome.clone(),
        Play::EndsEveryone(run) => ends_everyone(guest, &root, run)?.outcome,
        Play::Prepared(_) => process.insert(prepared::Process::find(attack.name)?).go()?,
    };
    skip_if_impossible(&outcome)?;
    sleep(SETTLED);
    let mut now_open = opened(&root, &prover.root()?)?;
    mount_again()?;
    now_open.extend(opened(&child, &prover.child()?)?);
    still_sealed(&attack, &outcome, &now_open)?;
    drop((attempt, process));
    // The doors also have to be shut after the attack has released its resources.
    mount_again()?;
    still_sealed(&attack, &outcome, &opened(&root, &prover.root()?)?)?;
    is_sealed(&stockade(&["status", "--json"])?.exits(0)?.json()?)
}

fn still_sealed(attack: &Attack, outcome: &Outcome, opened: &[String]) -> Result<()> {
    ensure!(opened.is_empty(), "the seal is broken: open now: {opened:?}; the attempt: {outcome:?}");
    ensure!(!matches!(outcome, Outcome::Reached(_)), "the attack got through the seal: {outcome:?}");
    let demanded = match attack.sealed {
        Sealed::Holds => false,
        Sealed::Refused => true,
        Sealed::RefusedBefore(major, minor) => !host::is_at_least(major, minor),
    };
    ensure!(
        !demanded || matches!(outcome, Outcome::Refused(_)),
        "sealed, the attempt itself has to be refused, and it was let in: {outcome:?}"
    );
    Ok(())
}
