//! Grants: exceptions for a time, which end without anybody's doing.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use super::{Cgroup, Tool, apply, expect, lift_all, opens, stockade, waiting, watched};
use crate::{
    guest::Guest,
    scenario::{Boot, Depends, Scenario},
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "a grant ends by itself", boot: Boot::Plain, depends: Depends::Series, run: ends },
    Scenario {
        name: "setting the clock moves no grant's end",
        boot: Boot::Plain,
        depends: Depends::Series,
        run: clock,
    },
    Scenario {
        name: "grants are listed, revoked and outlive a policy",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: life,
    },
    Scenario {
        name: "grants that make no sense are refused",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: nonsense,
    },
];

const TOOL: &str = "/tmp/bpftool";

fn ends(_: &Guest) -> Result<()> {
    lift_all()?;
    let tool = Tool::new(TOOL)?;
    stockade(&["enforce", "integrity"])?.exits(0)?;
    expect(&mut tool.opens_mem(), false, "before the grant")?;
    let end = waiting::within(&[4, 15, 50], |seconds| {
        stockade(&["grant", "--revoke", "grant-bpftool"])?;
        stockade(&["grant", "dev-mem", "--for", &format!("{seconds}s"), "--exe", TOOL])?
            .exits(0)?
            .says("Undo with: stockade grant --revoke")?;
        expect(&mut tool.opens_mem(), true, "during the grant")?;
        expect(&mut opens("/bin/busybox", "/dev/mem"), false, "another program during the grant")?;
        let seen = watched()?;
        ensure!(
            seen.iter().any(|e| e["verdict"] == "excepted" && e["exception"] == "grant-bpftool"),
            "no event of the grant's use: {seen:?}"
        );
        Ok(())
    })?;
    waiting::until("the grant's end", || Ok(!super::through(&mut tool.opens_mem())?))?;
    ensure!(Instant::now() >= end, "the grant ended before its time");
    stockade(&["grant", "--list"])?.exits(1)?.says("Nothing is granted")?;
    Ok(())
}

/// Root can set the clock, and with it nothing here.
fn clock(_: &Guest) -> Result<()> {
    lift_all()?;
    let tool = Tool::new(TOOL)?;
    stockade(&["enforce", "integrity"])?.exits(0)?;
    stockade(&["grant", "dev-mem", "--for", "5s", "--exe", TOOL])?.exits(0)?;
    let set_back = |seconds: i64| -> Result<()> {
        // SAFETY: timespec is plain data.
        let mut now: libc::timespec = unsafe { std::mem::zeroed() };
        // SAFETY: a live timespec.
        unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut now) };
        now.tv_sec -= seconds;
        // SAFETY: as above.
        let answer = unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const now) };
        ensure!(answer == 0, "the clock could not be set");
        Ok(())
    };
    set_back(3600)?;
    // Writing the tables anew must not begin anew either.
    let other = stockade(&["grant", "msr", "--for", "1h", "--exe", TOOL]);
    sleep(Duration::from_secs(6));
    let through = super::through(&mut tool.opens_mem());
    set_back(-3600)?;
    other?.exits(0)?;
    ensure!(!through?, "the clock was set back, and the grant went on");
    Ok(())
}

fn life(_: &Guest) -> Result<()> {
    lift_all()?;
    let tool = Tool::new(TOOL)?;
    let oncall = Cgroup::new("/oncall.slice")?;
    apply("level = \"integrity\"\n")?;
    stockade(&["grant", "dev-mem", "--for", "10m", "--exe", TOOL, "--name", "incident"])?.exits(0)?;
    stockade(&["grant", "dev-mem", "--for", "10m", "--unit", "oncall.slice"])?
        .exits(0)?
        .says("grant-oncall-slice")?;
    stockade(&["grant", "dev-mem", "--for", "10m", "--exe", TOOL, "--name", "incident"])?
        .exits(2)?
        .says("already")?;
    let list = stockade(&["grant", "--list", "--json"])?.exits(0)?.json()?;
    ensure!(list["grants"].as_array().map(Vec::len) == Some(2), "{list}");
    oncall.expect(opens("/bin/busybox", "/dev/mem"), true)?;
    // The policy is applied again, and another one.
    apply("level = \"integrity\"\n")?;
    expect(&mut tool.opens_mem(), true, "after the same policy")?;
    apply("level = \"confidentiality\"\n")?;
    expect(&mut tool.opens_mem(), true, "after another policy")?;
    stockade(&["status"])?.exits(0)?.says("grant          incident: dev-mem")?;
    stockade(&["grant", "--revoke", "incident"])?.exits(0)?.says("Revoked incident")?;
    expect(&mut tool.opens_mem(), false, "after it was revoked")?;
    oncall.expect(opens("/bin/busybox", "/dev/mem"), true)?;
    lift_all()?;
    apply("level = \"integrity\"\n")?;
    oncall.expect(opens("/bin/busybox", "/dev/mem"), false)?;
    Ok(())
}

fn nonsense(_: &Guest) -> Result<()> {
    lift_all()?;
    stockade(&["grant", "dev-mem", "--for", "10m", "--exe", "/bin/busybox"])?
        .exits(2)?
        .says("nothing is enforced")?;
    stockade(&["grant", "--list"])?.exits(1)?;
    stockade(&["enforce", "integrity"])?.exits(0)?;
    for (arguments, words) in [
        (&["grant", "dev-mem", "--exe", "/bin/busybox"][..], "--for"),
        (&["grant", "dev-mem", "--for", "10m"], "--unit"),
        (&["grant", "dev-mem", "--for", "soon", "--exe", "/bin/busybox"], "10m"),
        (&["grant", "dev-mem", "--for", "-5m", "--exe", "/bin/busybox"], "longer than nothing"),
        (&["grant", "dev-men", "--for", "5m", "--exe", "/bin/busybox"], "dev-mem"),
        (&["grant", "xfrm-secret", "--for", "5m", "--exe", "/bin/busybox"], "xfrm-secret"),
        (&["grant", "dev-mem", "--for", "5m", "--exe", "busybox"], "absolute"),
        (&["grant", "dev-mem", "--for", "5m", "--exe", "/no/such/program"], "cannot be opened"),
        (&["grant", "dev-mem", "--for", "5m", "--cgroup", "pods"], "pods"),
        (&["grant", "--revoke", "nobody"], "nothing is granted"),
    ] {
        stockade(arguments)?.exits(2)?.says(words)?;
    }
    stockade(&["grant", "--list"])?.exits(1)?;
    Ok(())
}
