//! Waits for conditions, with limits that hold on a busy host.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};

use crate::guest::patience;

/// Waits until a condition holds. The error after a minute of [`patience`] names the condition.
pub(super) fn until(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let (begin, patience) = (Instant::now(), patience(60));
    while !condition()? {
        ensure!(begin.elapsed() < patience, "waited {} s in vain: {what}", patience.as_secs());
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Runs a closure that must end within a number of seconds, which it gets. If this machine took longer, runs it again with the next, larger number,
/// whatever its result. Returns the end of the time.
pub(super) fn within(seconds: &[u64], mut play: impl FnMut(u64) -> Result<()>) -> Result<Instant> {
    for &seconds in seconds {
        let end = Instant::now() + Duration::from_secs(seconds);
        let answer = play(seconds);
        if Instant::now() < end {
            return answer.map(|()| end);
        }
    }
    bail!("this machine is too slow: it took longer than each of {seconds:?} s")
}
