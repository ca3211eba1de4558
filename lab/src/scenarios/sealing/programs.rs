//! Sealed exceptions by program: the processes that they cover, and the changes that stay possible.

use std::{
    fs,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::{
    BUSYBOX, in_force, lift_all, mem_opens,
    policy::{Tool, apply, expect, opens},
    verified, watching,
};
use crate::{
    guest::Guest,
    program::stockade,
    scenario::{Boot, Depends, Scenario},
};

pub(super) const SCENARIOS: &[Scenario] = &[
    // One sequence: the seal stays, so each scenario continues where the previous one ended.
    Scenario {
        name: "seal: an excepted program gets through and no other",
        boot: Boot::SealedPrograms,
        depends: Depends::Series,
        run: sealed,
    },
    Scenario {
        name: "seal: a program loses its exception as ever",
        boot: Boot::SealedPrograms,
        depends: Depends::Series,
        run: lost,
    },
    Scenario {
        name: "seal: what was granted before it ends by itself",
        boot: Boot::SealedPrograms,
        depends: Depends::NewestSeries,
        run: ends,
    },
    Scenario {
        name: "seal: a grant can be revoked and no other made",
        boot: Boot::SealedPrograms,
        depends: Depends::NewestSeries,
        run: revoked,
    },
    Scenario {
        name: "seal: a sealed exception can be taken away",
        boot: Boot::SealedPrograms,
        depends: Depends::NewestSeries,
        run: taken_away,
    },
];

// The excepted programs, whose files are kept through all scenarios.
const VENDOR: &str = "/root/vendor";
const ENDING: &str = "/root/ending";
const REVOKED: &str = "/root/revoked";

fn copy(path: &str) -> Result<()> {
    fs::copy(BUSYBOX, path).with_context(|| format!("copy busybox to {path}"))?;
    Ok(())
}

fn mem(program: &str) -> Command {
    opens(program, "/dev/mem")
}

fn policies() -> Result<u64> {
    Ok(in_force()?["sealed"]["policies"].as_u64().unwrap_or_default())
}

/// Returns a command that runs the program as a shell, which reads a line and then opens /dev/mem.
fn shell(program: &str) -> Command {
    let mut command = Command::new(program);
    command.arg0("busybox").args(["sh", "-c", "read line; : < /dev/mem"]);
    command.stdin(Stdio::piped()).stderr(Stdio::null());
    command
}

/// The duration of a grant that is made before the seal.
const GRANTED: Duration = Duration::from_secs(25);
const SINCE: &str = "/run/granted-at";

fn uptime() -> Result<f64> {
    let text = fs::read_to_string("/proc/uptime")?;
    text.split(' ').next().context("/proc/uptime is empty")?.parse().context("/proc/uptime")
}

fn sealed(_: &Guest) -> Result<()> {
    lift_all()?;
    for program in [VENDOR, ENDING, REVOKED] {
        copy(program)?;
    }
    let mut running = Command::new(VENDOR);
    let mut running = running.arg0("busybox").args(["sleep", "60"]).spawn()?;
    let pid = running.id();
    apply(&format!(
        "level = \"integrity\"\n[[exception]]\nname = \"vendor\"\nreasons = [\"dev-mem\"]\nexe = \"{VENDOR}\"\n"
    ))?;
    let mut labelled = shell(VENDOR).spawn()?;
    stockade(&["grant", "dev-mem", "--for", "10m", "--exe", REVOKED, "--name", "revoked"])?.exits(0)?;
    stockade(&["grant", "dev-mem", "--for", "25s", "--exe", ENDING, "--name", "ending"])?.exits(0)?;
    fs::write(SINCE, uptime()?.to_string())?;
    let word = stockade(&["seal"]);
    let answer = stockade(&["seal", "--best-effort"]);
    running.kill()?;
    running.wait()?;
    word?.exits(2)?.says("root can be whom these exceptions are for")?.says("vendor, revoked, ending")?;
    let answer = answer?.exits(0)?.says("excepted: vendor, revoked, ending")?;
    answer.says(&format!("{VENDOR} runs as process {pid} and is excepted only once it is started anew"))?;
    // A shell that was labelled before the seal loses its exception too.
    drop(labelled.stdin.take());
    ensure!(!labelled.wait()?.success(), "a program that ran before the seal got through");

    for program in [VENDOR, ENDING, REVOKED] {
        expect(&mut mem(program), true, program)?;
    }
    expect(&mut mem(BUSYBOX), false, "another program")?;
    ensure!(!mem_opens(), "this program got through");
    let copy = Tool::new("/root/copy")?;
    expect(&mut copy.opens_mem(), false, "a copy of the program")?;
    expect(&mut opens(VENDOR, "/sys/kernel/debug/sched/verbose"), false, "the program for another reason")?;
    let status = verified(1)?;
    let names = status["stockade"]["exceptions"].as_array().cloned().unwrap_or_default();
    ensure!(names.len() == 3 && names.iter().any(|e| e["name"] == "vendor"), "{status:#}");
    let seen = watching::events(&stockade(&["watch", "--no-follow", "--json"])?.exits(0)?.out)?;
    let excepted = |e: &&serde_json::Value| e["verdict"] == "excepted" && e["exception"] == "vendor";
    ensure!(seen.iter().any(|e| excepted(&e)), "no event of the exception's use: {seen:?}");
    Ok(())
}

/// The sealed programs label processes themselves. Opening the memory of a labelled process is refused, and the process keeps its exception.
fn lost(_: &Guest) -> Result<()> {
    ensure!(policies()? >= 1, "play these scenarios together");
    expect(mem(VENDOR).env("LD_PRELOAD", "/tmp"), false, "with a loader's variable")?;
    expect(mem(VENDOR).env("LC_ALL", "C.UTF-8"), true, "with a locale")?;
    expect(mem(VENDOR).env("LC_ALL", "/tmp"), false, "with a locale of root's making")?;
    let mut traced = mem(VENDOR);
    // SAFETY: the closure makes one async-signal-safe call, which takes numbers only.
    unsafe {
        traced.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    ensure!(!super::policy::traced_through(traced)?, "a traced program got through");
    for look in [false, true] {
        let mut child = shell(VENDOR).spawn()?;
        sleep(Duration::from_millis(300));
        if look {
            let opened = fs::OpenOptions::new().write(true).open(format!("/proc/{}/mem", child.id()));
            ensure!(opened.is_err(), "the memory of the excepted program was opened");
        }
        drop(child.stdin.take());
        let status = child.wait()?;
        ensure!(status.success(), "opening its memory was tried: {look}, and it ended with {status}");
    }
    let mut other = Command::new(VENDOR);
    let line = format!("exec {BUSYBOX} dd if=/dev/mem of=/dev/null count=0");
    other.arg0("busybox").args(["sh", "-c", &line]);
    expect(&mut other, false, "a program executed by the excepted one")?;
    verified(1).map(drop)
}

fn ends(_: &Guest) -> Result<()> {
    ensure!(policies()? >= 1, "play these scenarios together");
    let since: f64 = fs::read_to_string(SINCE)?.parse()?;
    let left = GRANTED.as_secs_f64() - (uptime()? - since);
    if left > 3.0 {
        expect(&mut mem(ENDING), true, "during the grant")?;
    }
    sleep(Duration::from_secs_f64(left.max(0.0) + 1.0));
    expect(&mut mem(ENDING), false, "after the grant's end")?;
    expect(&mut mem(REVOKED), true, "a grant that has not ended")?;
    stockade(&["grant", "--list"])?.exits(0)?.says("revoked: dev-mem")?;
    // The policy applied again lacks the expired grant.
    stockade(&["enforce"])?.exits(0)?;
    expect(&mut mem(ENDING), false, "after the policy was applied again")?;
    expect(&mut mem(REVOKED), true, "a grant that outlives it")?;
    let policies = policies()?;
    stockade(&["enforce"])?.exits(0)?.says("Already in force")?;
    verified(policies).map(drop)
}

fn revoked(_: &Guest) -> Result<()> {
    let before = policies()?;
    ensure!(before >= 1, "play these scenarios together");
    stockade(&["grant", "msr", "--for", "10m", "--exe", REVOKED, "--name", "another"])?
        .exits(2)?
        .says("sealed until it is rebooted")?
        .says("the exception another is new")?;
    stockade(&["grant", "dev-mem", "--for", "10m", "--exe", ENDING, "--name", "ending"])?
        .exits(2)?
        .says("sealed until it is rebooted")?;
    expect(&mut mem(ENDING), false, "a program whose grant has ended")?;
    stockade(&["grant", "--revoke", "revoked"])?.exits(0)?.says("Revoked revoked")?;
    expect(&mut mem(REVOKED), false, "after it was revoked")?;
    expect(&mut mem(VENDOR), true, "the exception that stays")?;
    expect(&mut mem(BUSYBOX), false, "another program")?;
    stockade(&["grant", "--list"])?.exits(1)?.says("Nothing is granted")?;
    verified(before + 1).map(drop)
}

fn taken_away(_: &Guest) -> Result<()> {
    let before = policies()?;
    ensure!(before >= 1, "play these scenarios together");
    stockade(&["enforce", "integrity"])?.exits(0)?.says("added to what is sealed")?;
    expect(&mut mem(VENDOR), false, "a program without its exception")?;
    verified(before + 1)?;
    // The policy file still has the exception.
    stockade(&["enforce"])?.exits(2)?.says("the exception vendor is new")?;
    expect(&mut mem(VENDOR), false, "a program whose exception was not given back")?;
    Ok(())
}
