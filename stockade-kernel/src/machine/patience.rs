/*!
Waits for asynchronous work: for the kernel to detach a program and to free it after its last reference, or for another command to
finish a change.

The limit counts rounds, not only time, since a busy machine does less in the same time: in each later round the kernel completes a grace
period and schedules this process. A program without references is freed within a few rounds.
*/
use std::io;
use std::time::{Duration, Instant};

use crate::sys;

/// Number of rounds that only sleep, which suffice nearly always.
const QUICK: u32 = 100;
/// Number of all rounds.
const ROUNDS: u32 = 400;
/// Minimum time, for an idle machine.
const LEAST: Duration = Duration::from_secs(5);

/// A wait for one event.
#[derive(Debug)]
pub(crate) struct Patience {
    rounds: u32,
    begin: Instant,
}

impl Patience {
    pub fn new() -> Self {
        Self { rounds: 0, begin: Instant::now() }
    }

    /// Waits until the caller should test again; false if the limit is reached.
    pub fn wait(&mut self) -> bool {
        if self.rounds >= ROUNDS && self.begin.elapsed() >= LEAST {
            return false;
        }
        self.rounds = self.rounds.saturating_add(1);
        if self.rounds <= QUICK {
            sys::sleep(Duration::from_millis(1));
        } else {
            sys::sleep(Duration::from_millis(10));
            // If no grace period can be waited for, the rounds count alone.
            let _ = grace_period();
        }
        true
    }

    /// Returns the seconds waited so far, for messages.
    pub fn seconds(&self) -> u64 {
        self.begin.elapsed().as_secs()
    }
}

/// Waits for a grace period, without a limit. Where membarrier(2) refuses (`nohz_full`), another call makes the kernel wait.
pub(crate) fn grace_period() -> io::Result<()> {
    sys::wait_for_grace_period().or_else(|_| sys::wait_for_programs())
}
