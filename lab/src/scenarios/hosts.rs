/*!
`check-host` attaches a program before it reports that the host can enforce. On hosts that cannot, every command gives the same reason.
*/
use std::{fs, io, path::Path};

use anyhow::{Context, Result, bail, ensure};
use stockade_kernel::{
    host::{self, Tracing},
    programs,
};

use super::lift_all;
use crate::{
    guest::Guest,
    program::{stockade, with_env},
    scenario::{Boot, Depends, Scenario, Skip},
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "check-host tries an attachment and leaves nothing behind",
        boot: Boot::Plain,
        depends: Depends::Series,
        run: tries,
    },
    Scenario {
        name: "check-host that is killed in its trial leaves nothing behind",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: killed,
    },
    Scenario {
        name: "check-host leaves a policy in force alone",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: in_force,
    },
    Scenario {
        name: "check-host says no where an attached program is never asked",
        boot: Boot::Plain,
        depends: Depends::NewestSeries,
        run: silenced,
    },
    Scenario {
        name: "a kernel without the function tracer is named by check-host and enforce",
        boot: Boot::Plain,
        depends: Depends::Series,
        run: no_tracer,
    },
    Scenario {
        name: "on a kernel older than 5.15 every command that would enforce says so",
        boot: Boot::TooOld,
        depends: Depends::UserSide,
        run: too_old,
    },
];

const SWITCH: &str = "/proc/sys/kernel/ftrace_enabled";

fn kcore_opens() -> bool {
    fs::File::open("/proc/kcore").is_ok()
}

/// Returns the number of loaded BPF programs, and whether /proc/kcore opens, which some kernels lack.
fn machine() -> Result<(usize, bool)> {
    Ok((programs::look(None)?.looked_at, kcore_opens()))
}

/// Requires that no pin and no program of Stockade is left, and that the machine is as before.
fn nothing_is_left(before: (usize, bool)) -> Result<()> {
    // `status` waits until the kernel has freed programs without references.
    stockade(&["status"])?.exits(1)?.says("enforces nothing")?;
    ensure!(!Path::new("/sys/fs/bpf/stockade").exists(), "something is pinned");
    let now = machine()?;
    ensure!(
        now == before,
        "programs that are loaded, and whether /proc/kcore opens: {now:?}, and before {before:?}"
    );
    Ok(())
}

fn tries(_: &Guest) -> Result<()> {
    no_tracer_is_another_story()?;
    lift_all()?;
    let before = machine()?;
    let told = stockade(&["check-host", "--json"])?.exits(0)?.json()?;
    let trial =
        told["checks"].as_array().into_iter().flatten().find(|check| check["name"] == "trial attachment");
    let trial = trial.context("check-host has no trial attachment")?;
    ensure!(trial["ok"] == true, "{trial}");
    ensure!(trial["found"].as_str().is_some_and(|found| found.contains("reached it")), "{trial}");
    nothing_is_left(before)
}

fn killed(_: &Guest) -> Result<()> {
    no_tracer_is_another_story()?;
    lift_all()?;
    let before = machine()?;
    for step in ["loaded", "attached", "heard"] {
        with_env(&["check-host"], &[("STOCKADE_STOP_AT", step)])?.exits(-1)?;
        nothing_is_left(before).with_context(|| format!("killed at {step}"))?;
    }
    stockade(&["check-host"])?.exits(0)?.says("was taken off again")?;
    nothing_is_left(before)
}

fn in_force(_: &Guest) -> Result<()> {
    no_tracer_is_another_story()?;
    lift_all()?;
    stockade(&["enforce", "confidentiality"])?.exits(0)?;
    let state = || -> Result<_> {
        let status = stockade(&["status", "--json"])?.exits(0)?.json()?;
        let mut policy = status["stockade"].clone();
        // The only field that changes without a command.
        policy["applied_seconds_ago"].take();
        Ok((policy, programs::look(None)?.looked_at))
    };
    let before = state()?;
    stockade(&["check-host"])?.exits(0)?.says("not needed: a policy is in force")?;
    let after = state()?;
    ensure!(before == after, "{} programs, {}\n{} programs, {}", before.1, before.0, after.1, after.0);
    ensure!(!kcore_opens(), "/proc/kcore is open again");
    lift_all()
}

/// While kernel.ftrace_enabled is 0, a program is attached but never called.
fn silenced(_: &Guest) -> Result<()> {
    no_tracer_is_another_story()?;
    lift_all()?;
    let before = machine()?;
    match fs::write(SWITCH, "0") {
        Ok(()) => {}
        Err(e) if matches!(e.raw_os_error(), Some(libc::EBUSY | libc::EOPNOTSUPP)) => {
            return Err(Skip(format!("this kernel keeps its tracing switch on: {e}")).into());
        }
        Err(e) => return Err(e).with_context(|| format!("write 0 to {SWITCH}")),
    }
    let told = (|| {
        stockade(&["check-host"])?.exits(1)?.says("did not reach it")?.says("sysctl kernel.ftrace_enabled=1")
    })();
    fs::write(SWITCH, "1").with_context(|| format!("write 1 to {SWITCH}"))?;
    told?;
    nothing_is_left(before)
}

/// Skips the scenario on kernels without the function tracer, which [`no_tracer`] covers.
fn no_tracer_is_another_story() -> Result<()> {
    match host::tracing() {
        Tracing::Missing => Err(Skip("this kernel has no function tracer".into()).into()),
        Tracing::On | Tracing::Off => Ok(()),
    }
}

fn no_tracer(_: &Guest) -> Result<()> {
    if host::tracing() != Tracing::Missing {
        return Err(Skip("this kernel has the function tracer".into()).into());
    }
    let before = machine()?;
    let told = stockade(&["check-host"])?
        .exits(1)?
        .says("CONFIG_FUNCTION_TRACER=y")?
        .says("This host cannot enforce")?;
    stockade(&["enforce", "integrity"])?
        .exits(2)?
        .says("CONFIG_FUNCTION_TRACER=y")
        .with_context(|| format!("check-host said\n{}", told.out))?;
    nothing_is_left(before)
}

/// The commands that change the policy in force, `check-host` and `status`.
fn too_old(_: &Guest) -> Result<()> {
    let release = host::kernel_release();
    if host::is_new_enough().is_ok() {
        bail!("{release} is not older than 5.15: this guest is for kernels that are");
    }
    let sentence =
        format!("kernel {release} is older than 5.15, the oldest kernel on which Stockade can enforce");
    let commands = [
        &["enforce", "integrity"][..],
        &["seal"],
        &["grant", "kcore", "--unit", "oncall.slice", "--for", "1m"],
    ];
    for command in commands {
        stockade(command)?.exits(2)?.says(&sentence)?;
    }
    stockade(&["check-host"])?.exits(1)?.says(&sentence)?.says("This host cannot enforce")?;
    stockade(&["status"])?.exits(1)?.says("enforces nothing")?;
    match fs::metadata("/sys/fs/bpf/stockade") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        there => bail!("something is pinned: {there:?}"),
    }
    ensure!(kcore_opens(), "/proc/kcore does not open");
    Ok(())
}
