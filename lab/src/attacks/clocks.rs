/*!
Attacks on exceptions and grants: they extend one, make one, or ask Stockade itself to end enforcement.

The policy of these attacks excepts one cgroup, and a grant of some seconds another.
*/
use std::{fs, path::Path, thread::sleep, time::Duration};

use anyhow::{Context, Result, ensure};

use super::{
    Attack, Attempt, Outcome, Pins, Setting,
    calls::{in_child, shell},
};
use crate::{program::stockade, syscall::check};

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new(
        "set-the-clock-back",
        "set the clock back, so that a grant does not end",
        Pins::Holds,
        || {
            with_the_clock_at(-3600, || {
                sleep(until_the_end()?);
                excepted(GRANTED)
            })
        },
    )
    .under(Setting::Exceptions),
    Attack::new(
        "set-the-clock-to-the-grant",
        "set the clock back to before a grant that has ended",
        Pins::Holds,
        || {
            sleep(until_the_end()?);
            with_the_clock_at(-60, || excepted(GRANTED))
        },
    )
    .under(Setting::Exceptions),
    Attack::new(
        "slow-the-clock",
        "have adjtimex slow the clock since boot by a tenth, and use a grant three tenths after its end",
        Pins::Holds,
        || {
            let left = until_the_end()?;
            slow_clock(true)?;
            let began = raw_clock();
            while raw_clock().saturating_sub(began) < left.mul_f64(1.3) {
                sleep(Duration::from_millis(200));
            }
            let outcome = excepted(GRANTED);
            slow_clock(false)?;
            Ok(outcome?.into())
        },
    )
    .under(Setting::Exceptions),
    Attack::new(
        "time-namespace-before-the-end",
        "use a grant that has ended, with a clock since boot set back by a time namespace",
        Pins::Holds,
        || {
            sleep(until_the_end()?);
            in_child(|| {
                // SAFETY: takes flags only.
                check(unsafe { libc::unshare(libc::CLONE_NEWTIME) })?;
                fs::write("/proc/self/timens_offsets", "boottime -10 0\nmonotonic -10 0\n")?;
                // This process's children are in the new namespace; the process itself enters it by execve on some kernels only.
                in_child(|| excepted(GRANTED))
            })
            .map(Attempt::from)
        },
    )
    .under(Setting::Exceptions),
    Attack::new("grant", "grant oneself something by stockade grant", Pins::Falls, || {
        asked(&["grant", "dev-mem", "--for", "10m", "--cgroup", ASKED, "--name", "attack"], ASKED)
    })
    .under(Setting::Exceptions)
    .refused_when_sealed(),
    Attack::new("enforce-less", "apply a laxer policy by stockade enforce", Pins::Falls, || {
        command(&["enforce", "none"])
    })
    .refused_when_sealed(),
    Attack::new("enforce-audit", "apply a policy that only audits by stockade enforce", Pins::Falls, || {
        command(&["enforce", "confidentiality", "--audit"])
    })
    .refused_when_sealed(),
    Attack::new("enforce-an-exception", "apply a policy with an exception for oneself", Pins::Falls, || {
        write_policy(&[ASKED])?;
        asked(&["enforce"], ASKED)
    })
    .under(Setting::Exceptions)
    .refused_when_sealed(),
    Attack::new("lift", "end enforcement by stockade lift", Pins::Falls, || command(&["lift"]))
        .refused_when_sealed(),
    Attack::new("lift-by-force", "end enforcement by stockade lift --force", Pins::Falls, || {
        command(&["lift", "--force"])
    })
    .refused_when_sealed(),
    Attack::new(
        "move-into-the-exception",
        "move into a cgroup that is excepted, and ask there for something else",
        Pins::Holds,
        || {
            let list = format!("/sys/fs/cgroup{EXCEPTED}/cgroup.procs");
            let line = format!("echo 0 > {list} && dd if=/proc/kcore of=/dev/null bs=1 count=1");
            let answer = shell(&line)?;
            if answer.code == 0 {
                Ok(Outcome::Reached("kcore".into()).into())
            } else {
                Attempt::refused(answer.err)
            }
        },
    )
    .under(Setting::Exceptions),
];

const POLICY: &str = "/etc/stockade/policy.toml";
/// The cgroup that is excepted as long as the policy is in force.
const EXCEPTED: &str = "/attack-excepted";
/// The cgroup that is excepted by the grant.
const GRANTED: &str = "/attack-granted";
/// The cgroup for which root asks for an exception.
const ASKED: &str = "/attack-asked";
const GRANT_SECONDS: u64 = 20;
/// The file with the end of the grant, on the clock since boot.
const END: &str = "/run/attacks/grant-ends";

/// Applies the policy, gives the grant, and checks that both let through the cgroups that they name.
pub(super) fn enforce() -> Result<()> {
    for cgroup in [EXCEPTED, GRANTED, ASKED] {
        fs::create_dir_all(format!("/sys/fs/cgroup{cgroup}"))?;
    }
    write_policy(&[EXCEPTED])?;
    stockade(&["enforce"])?.exits(0)?;
    let time = format!("{GRANT_SECONDS}s");
    stockade(&["grant", "dev-mem", "--for", &time, "--cgroup", GRANTED, "--name", "attack-granted"])?
        .exits(0)?;
    fs::write(END, (since_boot() + GRANT_SECONDS).to_string())?;
    for (cgroup, wanted) in [(EXCEPTED, true), (GRANTED, true), (ASKED, false)] {
        let got = matches!(excepted(cgroup)?, Outcome::Reached(_));
        ensure!(got == wanted, "before the attack, excepted in {cgroup}: {got}");
    }
    Ok(())
}

/// Removes the policy, so that no later command reads it.
pub(super) fn forget() {
    let _ = fs::remove_file(POLICY);
}

fn write_policy(excepted: &[&str]) -> Result<()> {
    let mut text = "level = \"confidentiality\"\n".to_owned();
    for cgroup in excepted {
        text += &format!("[[exception]]\nname = \"lab\"\nreasons = [\"dev-mem\"]\ncgroup = \"{cgroup}\"\n");
    }
    fs::create_dir_all(Path::new(POLICY).parent().context("it is in a folder")?)?;
    fs::write(POLICY, text).with_context(|| format!("write {POLICY}"))
}

/// Returns the seconds since boot.
fn since_boot() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the timespec lives through the call.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) };
    now.tv_sec.cast_unsigned()
}

/// Returns the time until the grant has ended for certain.
fn until_the_end() -> Result<Duration> {
    let end: u64 = fs::read_to_string(END)?.parse()?;
    Ok(Duration::from_secs((end + 2).saturating_sub(since_boot())))
}

/// Tries to open /dev/mem from a process in this cgroup.
fn excepted(cgroup: &str) -> Result<Outcome> {
    let line =
        format!("echo 0 > /sys/fs/cgroup{cgroup}/cgroup.procs && exec dd if=/dev/mem of=/dev/null count=0");
    let answer = shell(&line)?;
    Ok(if answer.code == 0 {
        Outcome::Reached(format!("/dev/mem in {cgroup}"))
    } else {
        Outcome::Refused(answer.err)
    })
}

fn with_the_clock_at(seconds: i64, attack: impl FnOnce() -> Result<Outcome>) -> Result<Attempt> {
    let set = |by: i64| -> Result<()> {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the timespec lives through the call.
        unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut now) };
        now.tv_sec += by;
        // SAFETY: the timespec lives through the call.
        check(unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const now) })
            .context("set the clock")?;
        Ok(())
    };
    set(seconds)?;
    let outcome = attack();
    set(-seconds)?;
    Ok(outcome?.into())
}

/// Sets the length of a tick, by which the kernel slows its clocks to no less than nine tenths.
fn slow_clock(slow: bool) -> Result<()> {
    // SAFETY: timex is plain data, for which zeros are valid.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    timex.modes = libc::ADJ_TICK;
    timex.tick = if slow { 9_000 } else { 10_000 };
    // SAFETY: timex lives through the call.
    check(unsafe { libc::adjtimex(&raw mut timex) }.min(0)).context("slow the clock").map(drop)
}

/// Reads CLOCK_MONOTONIC_RAW, which adjtimex does not slow and no BPF program can read.
fn raw_clock() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the timespec lives through the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_RAW, &raw mut now) };
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or_default())
}

/// Runs a command of Stockade.
fn command(arguments: &[&str]) -> Result<Attempt> {
    let answer = stockade(arguments)?;
    if answer.code == 0 { Attempt::through() } else { Attempt::refused(answer.err) }
}

/// Runs a command of Stockade that would let a cgroup through.
fn asked(arguments: &[&str], cgroup: &str) -> Result<Attempt> {
    let attempt = command(arguments)?;
    match excepted(cgroup)? {
        reached @ Outcome::Reached(_) => Ok(reached.into()),
        _ => Ok(attempt),
    }
}
