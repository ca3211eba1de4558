//! Many requests at once: the policy in force decides each, and each has an event or is counted as a lost event.

use std::{
    fs,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde_json::Value;

use super::{
    enforcement, lift_all,
    waiting::until,
    watching::{Watching, events},
};
use crate::{
    guest::Guest,
    program::stockade,
    scenario::{Boot, Depends, Scenario},
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "a storm loses no event uncounted",
        boot: Boot::Plain,
        depends: Depends::Series,
        run: storm,
    },
    Scenario {
        name: "a storm on two processors loses no event uncounted",
        boot: Boot::TwoProcessors,
        depends: Depends::NewestSeries,
        run: storm,
    },
    Scenario {
        name: "events that nobody reads are lost and counted",
        boot: Boot::Plain,
        depends: Depends::NewestSeries,
        run: lost,
    },
    Scenario {
        name: "no request slips through while policies are swapped",
        boot: Boot::Plain,
        depends: Depends::Series,
        run: swaps,
    },
    Scenario {
        name: "no request slips through two processors while policies are swapped",
        boot: Boot::TwoProcessors,
        depends: Depends::Series,
        run: swaps,
    },
    Scenario {
        name: "two commands at once take turns on two processors",
        boot: Boot::TwoProcessors,
        depends: Depends::UserSide,
        run: enforcement::at_once,
    },
];

/// Eight processes request a port as fast as they can for five seconds, while `watch` runs. The number of refusals has to be the number of events
/// that were read and of those that were counted as lost.
fn storm(_: &Guest) -> Result<()> {
    lift_all()?;
    stockade(&["enforce", "integrity"])?.exits(0)?;
    let mut reader = Watching::start("/tmp/storm")?;
    let through = ports_granted(8, Duration::from_secs(5))?;
    ensure!(through == 0, "{through} requests were not refused");
    let (refused, lost) = counted()?;
    let (mut seen, mut told_lost) = (0, 0);
    // `watch` has caught up when its file stops growing and has every event. If that does not happen, the checks below report the missing ones.
    let _ = until("every event", || {
        let size = fs::metadata("/tmp/storm")?.len();
        sleep(Duration::from_millis(2500));
        if fs::metadata("/tmp/storm")?.len() == size {
            (seen, told_lost) = told(&reader.seen()?);
        }
        Ok(seen + told_lost >= refused)
    });
    drop(reader);
    fs::remove_file("/tmp/storm")?;
    println!("storm: {refused} refusals, {seen} events read, {lost} lost and counted");
    ensure!(refused > 1000, "a storm of {refused} refusals is none");
    ensure!(seen + lost == refused, "{refused} refusals, {seen} events, {lost} lost");
    ensure!(told_lost == lost, "watch told of {told_lost} lost events, {lost} were lost");
    Ok(())
}

/// Returns the numbers of events about refused ports and of events reported as lost, from the output of `watch`.
fn told(lines: &[Value]) -> (u64, u64) {
    let (mut seen, mut lost) = (0, 0);
    for line in lines {
        match line["type"].as_str() {
            Some("event") if line["reason"] == "ioport" => seen += 1,
            Some("lost") => lost += line["events"].as_u64().unwrap_or_default(),
            _ => {}
        }
    }
    (seen, lost)
}

/// Returns the numbers of refused requests for a port and of lost events, from `status`.
fn counted() -> Result<(u64, u64)> {
    let status = stockade(&["status", "--json"])?.exits(0)?.json()?;
    let counters = status["stockade"]["counters"].as_array().cloned().unwrap_or_default();
    let of_ports = counters.iter().find(|counter| counter["reason"] == "ioport");
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    Ok((
        of_ports.map_or(0, |counter| number(&counter["refused"])),
        number(&status["stockade"]["lost_events"]),
    ))
}

/// Makes more refusals than the ring buffer has room for, without a reader.
fn lost(_: &Guest) -> Result<()> {
    const REQUESTS: u64 = 10_000;
    lift_all()?;
    stockade(&["enforce", "integrity"])?.exits(0)?;
    let (before, none) = counted()?;
    ensure!(none == 0, "{none} events were lost before anything happened");
    for _ in 0..REQUESTS {
        // SAFETY: ioperm takes numbers only, and the port is not used.
        ensure!(unsafe { libc::ioperm(0x80, 1, 1) } != 0, "a request was not refused");
    }
    let (refused, lost) = counted()?;
    ensure!(refused - before == REQUESTS, "{} of {REQUESTS} requests were counted", refused - before);
    ensure!(lost > 0, "{REQUESTS} events found room in a buffer for some thousands");
    stockade(&["status"])?.exits(0)?.says(&format!("{lost} events found the buffer full"))?;
    let seen = events(&stockade(&["watch", "--no-follow", "--json"])?.exits(0)?.out)?;
    let read = seen.iter().filter(|event| event["type"] == "event").count() as u64;
    let told: u64 = seen.iter().filter_map(|event| event["events"].as_u64()).sum();
    ensure!(read + lost == refused, "{refused} refusals, {read} events, {lost} lost");
    ensure!(told == lost, "watch told of {told} lost events, {lost} were lost");
    Ok(())
}

/// Four processes request a port as fast as they can while policies that refuse it replace each other.
fn swaps(_: &Guest) -> Result<()> {
    lift_all()?;
    stockade(&["enforce", "integrity"])?.exits(0)?;
    let mut swaps = 0;
    let through = ports_granted_while(4, Duration::from_secs(6), |deadline| {
        // A higher priority than the requesting processes have: the scenario tests requests during changes, not the scheduling of changes.
        // SAFETY: setpriority takes numbers only. Commands that are started later inherit the priority.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) };
        for level in ["confidentiality", "integrity"].into_iter().cycle() {
            // A busy host takes longer for four swaps.
            if Instant::now() > deadline && swaps >= 4 {
                break;
            }
            stockade(&["enforce", level])?.exits(0)?.says("instead of the policy before")?;
            swaps += 1;
        }
        Ok(())
    })?;
    let (refused, _) = counted()?;
    println!("{swaps} swaps, {refused} refusals, {through} let through");
    ensure!(through == 0, "{through} requests were let through while both policies refuse them");
    ensure!(refused > 1000, "{refused} refusals are no load");
    Ok(())
}

/// Lets processes request a port as fast as they can for this time, and returns how often it was granted.
pub(super) fn ports_granted(processes: u32, duration: Duration) -> Result<u64> {
    ports_granted_while(processes, duration, |_| Ok(()))
}

/// Lets processes request a port while this process runs `meanwhile`, which gets the deadline and may take longer.
fn ports_granted_while(
    processes: u32,
    duration: Duration,
    meanwhile: impl FnOnce(Instant) -> Result<()>,
) -> Result<u64> {
    let deadline = Instant::now() + duration;
    let shared = Shared::new()?;
    let children: Vec<_> = (0..processes).map(|_| asking(&shared)).collect();
    let done = meanwhile(deadline);
    sleep(deadline.saturating_duration_since(Instant::now()));
    shared.told().over.store(true, Ordering::Relaxed);
    for child in children {
        // SAFETY: waitpid takes a null pointer when no status is wanted; the child is this process's.
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    }
    done?;
    Ok(shared.told().granted.load(Ordering::Relaxed))
}

/// The state that children share with this process.
struct Told {
    /// The number of granted requests.
    granted: AtomicU64,
    /// Whether the children have to stop.
    over: AtomicBool,
}

/// Memory that children share with this process.
struct Shared(*mut libc::c_void);

impl Shared {
    fn new() -> Result<Self> {
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: an anonymous mapping at an address that the kernel chooses replaces no mapping.
        let page = unsafe { libc::mmap(std::ptr::null_mut(), size_of::<Told>(), protection, flags, -1, 0) };
        ensure!(page != libc::MAP_FAILED, "map a page: {}", std::io::Error::last_os_error());
        Ok(Self(page))
    }

    fn told(&self) -> &Told {
        // SAFETY: the mapping is large enough, page-aligned, zeroed, which is a valid value, and lives as long as `self`.
        unsafe { &*self.0.cast() }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: `new` mapped this address with this size, and no reference outlives `self`.
        unsafe { libc::munmap(self.0, size_of::<Told>()) };
    }
}

fn asking(shared: &Shared) -> libc::pid_t {
    // SAFETY: the child only requests a port and leaves through _exit; it takes no lock and allocates nothing.
    match unsafe { libc::fork() } {
        0 => {
            while !shared.told().over.load(Ordering::Relaxed) {
                // SAFETY: ioperm takes numbers only, and the port is not used.
                if unsafe { libc::ioperm(0x80, 1, 1) } == 0 {
                    shared.told().granted.fetch_add(1, Ordering::Relaxed);
                    // SAFETY: ioperm takes numbers only.
                    unsafe { libc::ioperm(0x80, 1, 0) };
                }
            }
            // SAFETY: _exit takes a number; it ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(0) }
        }
        child => child,
    }
}
