/*!
The health tests of NIST SP 800-90B, section 4.4: what fails them is stuck or grossly biased. What passes may still be predictable.
*/

/// Samples in a window of the adaptive proportion test, for samples of more than one bit.
pub(super) const WINDOW: usize = 512;

/// A sound source fails at a given place once in 2 to the power of this: the rarest that the document recommends, since a fleet asks often.
const RARE: f64 = 40.0;

/// The failure of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ill {
    /// One value came so often in a row.
    Repeats(u32),
    /// One value came so often in a window.
    Prefers(u32),
}

impl std::fmt::Display for Ill {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ill::Repeats(times) => write!(f, "one byte came {times} times in a row (repetition count test)"),
            Ill::Prefers(times) => {
                write!(f, "one byte came {times} times among {WINDOW} (adaptive proportion test)")
            }
        }
    }
}

/// How often is too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cutoffs {
    /// In a row.
    pub in_a_row: u32,
    /// In a window.
    pub in_window: u32,
}

impl Cutoffs {
    /// For a source that claims this much entropy a byte, in bits.
    pub fn of(entropy: f64) -> Self {
        let entropy = entropy.clamp(1.0, 8.0);
        // At most 41.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 41")]
        let in_a_row = 1 + (RARE / entropy).ceil() as u32;
        Self { in_a_row, in_window: 1 + critical((-entropy).exp2()) }
    }
}

/// The least number of hits in a window that is exceeded less than once in 2^[`RARE`], with this chance for each.
fn critical(chance: f64) -> u32 {
    let rare = (-RARE).exp2();
    let n = f64::from(u16::try_from(WINDOW).unwrap_or(u16::MAX));
    // The tail is summed from its small end, where nothing is lost: the chance of exactly n hits, n - 1 hits, …
    let (mut logarithm, mut tail, mut hits) = (n * chance.ln(), 0.0, n);
    loop {
        tail += logarithm.exp();
        if tail > rare || hits < 1.0 {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "between 0 and WINDOW"
            )]
            return hits as u32;
        }
        logarithm += (hits / (n - hits + 1.0)).ln() + (1.0 - chance).ln() - chance.ln();
        hits -= 1.0;
    }
}

/// Runs both tests.
pub(super) fn examine(sample: &[u8], cutoffs: Cutoffs) -> Result<(), Ill> {
    let mut run = 0;
    let mut last = None;
    for byte in sample {
        run = if last == Some(byte) { run + 1 } else { 1 };
        last = Some(byte);
        if run >= cutoffs.in_a_row {
            return Err(Ill::Repeats(run));
        }
    }
    for window in sample.chunks_exact(WINDOW) {
        let count = memchr::memchr_iter(window[0], window).count();
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        if count >= cutoffs.in_window {
            return Err(Ill::Prefers(count));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A generator that is good enough to look random.
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_be_bytes()[3]
        };
        (0..length).map(|_| next()).collect()
    }

    #[test]
    fn cutoffs_are_those_of_the_documents_formulas() {
        // 1 + ceil(40 / H), 1 + CRITBINOM(512, 2^-H, 1 - 2^-40), computed with exact fractions.
        assert_eq!(Cutoffs::of(8.0), Cutoffs { in_a_row: 6, in_window: 19 });
        assert_eq!(Cutoffs::of(4.0), Cutoffs { in_a_row: 11, in_window: 78 });
        assert_eq!(Cutoffs::of(1.0), Cutoffs { in_a_row: 41, in_window: 336 });
    }

    #[test]
    fn noise_passes() {
        assert_eq!(examine(&noise(65536), Cutoffs::of(8.0)), Ok(()));
        assert_eq!(examine(&[], Cutoffs::of(8.0)), Ok(()));
    }

    #[test]
    fn a_stuck_source_fails_at_once_and_late() {
        assert_eq!(examine(&[255; 100], Cutoffs::of(8.0)), Err(Ill::Repeats(6)));
        let mut late = noise(65536);
        late[65530..].fill(7);
        assert!(matches!(examine(&late, Cutoffs::of(8.0)), Err(Ill::Repeats(_))));
        assert_eq!(examine(&[0; 100], Cutoffs::of(1.0)), Err(Ill::Repeats(41)));
    }

    #[test]
    fn an_alternating_source_fails() {
        let alternating: Vec<u8> = (0..4096).map(|at| if at % 2 == 0 { 0x55 } else { 0xaa }).collect();
        assert_eq!(examine(&alternating, Cutoffs::of(8.0)), Err(Ill::Prefers(256)));
    }

    #[test]
    fn a_biased_source_fails() {
        // Every tenth byte is zero.
        let mut biased = noise(65536);
        for byte in biased.iter_mut().step_by(10) {
            *byte = 0;
        }
        assert!(matches!(examine(&biased, Cutoffs::of(8.0)), Err(Ill::Prefers(_))));
    }
}
