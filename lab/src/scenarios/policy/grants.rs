//! Grants: exceptions that expire without a command.

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
        depends: Depends::NewestSeries,
        run: clock,
    },
    Scenario {
        name: "a wrong clock hides nothing that is let through",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: wrong_clock,
    },
    Scenario {
        name: "a slowed clock lengthens a grant no more than is told",
        boot: Boot::Plain,
        depends: Depends::NewestSeries,
        run: slowed_clock,
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

/// Setting the clock back does not extend a grant.
fn clock(_: &Guest) -> Result<()> {
    lift_all()?;
    let tool = Tool::new(TOOL)?;
    stockade(&["enforce", "integrity"])?.exits(0)?;
    stockade(&["grant", "dev-mem", "--for", "5s", "--exe", TOOL])?.exits(0)?;
    let set_back = |seconds: i64| -> Result<()> {
        // SAFETY: timespec has integers only, for which zeros are valid.
        let mut now: libc::timespec = unsafe { std::mem::zeroed() };
        // SAFETY: the timespec lives through the call.
        unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut now) };
        now.tv_sec -= seconds;
        // SAFETY: the timespec lives through the call, which only reads it.
        let answer = unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const now) };
        ensure!(answer == 0, "the clock could not be set");
        Ok(())
    };
    set_back(3600)?;
    // A second grant writes the tables anew, which must not restart the first.
    let other = stockade(&["grant", "msr", "--for", "1h", "--exe", TOOL]);
    sleep(Duration::from_secs(6));
    let through = super::through(&mut tool.opens_mem());
    set_back(-3600)?;
    other?.exits(0)?;
    ensure!(!through?, "the clock was set back, and the grant went on");
    Ok(())
}

fn now(clock: libc::clockid_t) -> libc::timespec {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the timespec lives through the call.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    now
}

/// Another date on the real-time clock. When this is dropped, the clock is right again.
struct Date {
    right: i64,
    began: i64,
}

impl Date {
    fn new() -> Self {
        Self { right: now(libc::CLOCK_REALTIME).tv_sec, began: now(libc::CLOCK_BOOTTIME).tv_sec }
    }

    fn set(seconds: i64) -> Result<()> {
        let time = libc::timespec { tv_sec: seconds, tv_nsec: 0 };
        // SAFETY: the timespec lives through the call.
        let answer = unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const time) };
        ensure!(answer == 0, "the clock could not be set");
        Ok(())
    }
}

impl Drop for Date {
    fn drop(&mut self) {
        let _ = Self::set(self.right + now(libc::CLOCK_BOOTTIME).tv_sec - self.began);
    }
}

/// The clock is wrong while a policy is applied and a grant is made, and is corrected afterwards.
fn wrong_clock(_: &Guest) -> Result<()> {
    const BATTERYLESS: i64 = 1_000;
    // Two dates: November 2026, and half a year later.
    const WRONG: i64 = 1_793_600_000;
    const RIGHT: i64 = 1_810_000_000;
    lift_all()?;
    let tool = Tool::new(TOOL)?;
    let other = Tool::new("/tmp/dated")?;
    let policy = |expires: &str| {
        format!(
            "level = \"integrity\"\n[[exception]]\nname = \"dated\"\nreasons = [\"dev-mem\"]\n\
             exe = \"/tmp/dated\"\nexpires = {expires}\n"
        )
    };
    let date = Date::new();
    stockade(&["enforce", "integrity"])?.exits(0)?;
    Date::set(BATTERYLESS)?;
    stockade(&["status"])?
        .exits(0)?
        .says("the clock says 1970-01-01, before this version of Stockade was made")?;
    let granted = &["grant", "dev-mem", "--for", "10m", "--exe", TOOL, "--name", "running"][..];
    stockade(granted)?.exits(2)?.says("the clock says 1970-01-01")?.says("set it")?;
    std::fs::create_dir_all("/etc/stockade")?;
    std::fs::write("/etc/stockade/policy.toml", policy("2019-01-01T00:00:00Z"))?;
    stockade(&["enforce"])?.exits(0)?.says("the exception dated has expired: it is left out")?;
    expect(&mut other.opens_mem(), false, "nobody can say whether its exception has expired")?;
    Date::set(WRONG)?;
    apply(&policy("2026-12-31T00:00:00Z"))?;
    stockade(granted)?.exits(0)?.says("adjtimex")?;
    Date::set(RIGHT)?;
    expect(&mut tool.opens_mem(), true, "granted, and the date was set")?;
    expect(&mut other.opens_mem(), true, "excepted, and the date was set")?;
    let status = stockade(&["status", "--json"])?.exits(0)?.json()?;
    let listed = status["stockade"]["exceptions"].as_array().cloned().unwrap_or_default();
    for name in ["running", "dated"] {
        let left = listed.iter().find(|e| e["name"] == name).and_then(|e| e["seconds_left"].as_u64());
        ensure!(left.is_some_and(|left| left > 0), "{name} is let through and not listed: {status:#}");
    }
    let list = stockade(&["grant", "--list", "--json"])?.exits(0)?.json()?;
    let left = list["grants"][0]["seconds_left"].as_u64();
    ensure!(left.is_some_and(|left| (500..=600).contains(&left)), "{list:#}");
    let answer = stockade(&["enforce"])?.exits(0)?;
    ensure!(!answer.out.contains("Already in force"), "it is not worked out anew: {}", answer.out);
    expect(&mut other.opens_mem(), false, "the exception has expired, and the policy was applied again")?;
    expect(&mut tool.opens_mem(), true, "a grant outlives that")?;
    stockade(&["enforce"])?.exits(0)?.says("Already in force")?;
    // The clock of a machine without a battery, with the policy already in force.
    Date::set(BATTERYLESS)?;
    stockade(&["enforce"])?.exits(0)?.says("Already in force")?;
    drop(date);
    Ok(())
}

/// A grant on clocks that root slows by adjtimex(2).
fn slowed_clock(_: &Guest) -> Result<()> {
    const SECONDS: i64 = 6;
    let tick = |length: libc::c_long| -> Result<()> {
        // SAFETY: timex has integers only, for which zeros are valid.
        let mut timex: libc::timex = unsafe { std::mem::zeroed() };
        timex.modes = libc::ADJ_TICK;
        timex.tick = length;
        // SAFETY: the timex lives through the call.
        ensure!(unsafe { libc::adjtimex(&raw mut timex) } >= 0, "the clock could not be slowed");
        Ok(())
    };
    lift_all()?;
    let tool = Tool::new(TOOL)?;
    stockade(&["enforce", "integrity"])?.exits(0)?;
    tick(9_000)?;
    let played = (|| {
        stockade(&["grant", "dev-mem", "--for", &format!("{SECONDS}s"), "--exe", TOOL])?
            .exits(0)?
            .says("which root can slow by adjtimex(2)")?;
        let began = now(libc::CLOCK_MONOTONIC_RAW).tv_sec;
        stockade(&["status"])?.exits(0)?.says("the clock since boot is slowed by 10 % (adjtimex)")?;
        expect(&mut tool.opens_mem(), true, "during the grant")?;
        // 30 % longer than the grant, and one second for the fraction at the start.
        while now(libc::CLOCK_MONOTONIC_RAW).tv_sec - began <= SECONDS * 13 / 10 + 1 {
            sleep(Duration::from_millis(100));
        }
        expect(&mut tool.opens_mem(), false, "three tenths after the grant's end")
    })();
    tick(10_000)?;
    played
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
    // Grants outlive the same policy applied again, and another policy.
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
