/*!
Waiting for the kernel to finish something that it does later: to take a program off its hook and to forget it once nobody holds it, or
for another command that is in the middle of a change.

Patience is counted in the kernel's progress, since a busy machine does less in the same time: in rounds, and in each of the later ones the
kernel finishes a grace period and gives this process a processor. A program that nobody holds is gone after a few.
*/
use std::time::{Duration, Instant};

use crate::{slots::grace_period, sys};

/// Rounds that only sleep: nearly everything is done by then.
const QUICK: u32 = 100;
/// All rounds.
const ROUNDS: u32 = 400;
/// Not less than this, on a machine with nothing else to do.
const LEAST: Duration = Duration::from_secs(5);

/// How long is waited for one thing.
#[derive(Debug)]
pub(crate) struct Patience {
    rounds: u32,
    begin: Instant,
}

impl Patience {
    pub fn new() -> Self {
        Self { rounds: 0, begin: Instant::now() }
    }

    /// Waits for the next look. False when there was one often enough.
    pub fn wait(&mut self) -> bool {
        if self.rounds >= ROUNDS && self.begin.elapsed() >= LEAST {
            return false;
        }
        self.rounds = self.rounds.saturating_add(1);
        if self.rounds <= QUICK {
            sys::sleep(Duration::from_millis(1));
        } else {
            sys::sleep(Duration::from_millis(10));
            // Where the kernel refuses to be waited for, the rounds count alone.
            let _ = grace_period();
        }
        true
    }

    /// How long it was waited, for messages.
    pub fn seconds(&self) -> u64 {
        self.begin.elapsed().as_secs()
    }
}
