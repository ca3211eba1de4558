//! Waiting for what has to come, however long a busy host lets a guest take for it.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};

use crate::guest::patience;

/// Waits until a condition holds. Fails, with what was waited for, when it does not come to hold.
pub(super) fn until(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let (begin, patience) = (Instant::now(), patience(60));
    while !condition()? {
        ensure!(begin.elapsed() < patience, "waited {} s in vain: {what}", patience.as_secs());
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Plays what has to be over within a number of seconds, which it is told: few at first, and more where this machine took
/// longer than that, whatever came of it. Returns when the time is over.
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
