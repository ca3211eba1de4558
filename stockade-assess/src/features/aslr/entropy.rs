/*!
The entropy of an address in bits, estimated from a sample of addresses.

A correct kernel chooses one of K addresses, all equally likely and a stride apart. The stride is the greatest common divisor of all
differences. The span of n samples is expected to be (n-1)/(n+1) of all places, from which K and log₂ K follow. What is missing from the span, at
both ends together, is distributed as the sum of two exponentials of 1/n each: 2/n is expected, and in one of a thousand samples it is
more than 9.2/n. So the estimate is at most 2/(n ln 2) bits too high, and in 999 of 1000 samples at most 7.2/(n ln 2) too low: with 300
samples 0.01 and 0.035 bits.

This holds only if all addresses are equally likely, which three tests check. The entropy that a test finds missing, beyond chance, is subtracted:

- counts in 16 parts of the span: biased high bits;
- the remainder by 16 of each address: biased low bits;
- equal addresses: more of the n(n-1)/2 pairs than chance gives mean fewer addresses, wherever they are.

A biased bit in the middle, such as bit 14 of 28, is not found unless addresses repeat.
*/

/// The number of parts in which a sample is counted.
const PARTS: u64 = 16;

/// The estimated entropy of an address.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Entropy {
    /// The estimate, in bits.
    pub bits: f64,
    /// The largest error of the estimate in 999 of 1000 samples, in bits.
    pub error: f64,
    /// The number of different addresses in the sample.
    pub places: usize,
    /// Whether all addresses looked equally likely.
    pub even: bool,
}

#[allow(clippy::cast_precision_loss, reason = "addresses have 47 bits, and a double has 53")]
fn real(n: u64) -> f64 {
    n as f64
}

/// Estimates the entropy of a sample; none from fewer than three addresses.
pub(super) fn estimate(sample: &[u64]) -> Option<Entropy> {
    if sample.len() < 3 {
        return None;
    }
    let mut sorted = sample.to_vec();
    sorted.sort_unstable();
    let (low, high) = (*sorted.first()?, *sorted.last()?);
    let n = real(sample.len() as u64);
    let stride = sorted.windows(2).map(|pair| pair[1] - pair[0]).fold(0, gcd);
    if stride == 0 {
        return Some(Entropy { bits: 0.0, error: 0.0, places: 1, even: true });
    }
    let at: Vec<u64> = sorted.iter().map(|address| (address - low) / stride).collect();
    let span = (high - low) / stride;
    let spread = (real(span) * (n + 1.0) / (n - 1.0) + 1.0).log2();

    let parts = PARTS.min(span.saturating_add(1));
    // The parts may differ by one address: of 17 addresses in 16 parts, one part holds two.
    let begin = |part: u64| (u128::from(part) * (u128::from(span) + 1)).div_ceil(u128::from(parts));
    #[allow(clippy::cast_possible_truncation, reason = "a part has no more places than the span")]
    let weights: Vec<f64> = (0..parts).map(|part| real((begin(part + 1) - begin(part)) as u64)).collect();
    #[allow(clippy::cast_possible_truncation, reason = "smaller than the number of parts")]
    let part_of = |place: u64| (u128::from(place) * u128::from(parts) / (u128::from(span) + 1)) as usize;
    let top = missing_bits(at.iter().map(|place| part_of(*place)), &weights);

    // Only where each remainder has nearly the same number of addresses.
    let bottom = if span >= 16 * PARTS {
        #[allow(clippy::cast_possible_truncation, reason = "a remainder by 16")]
        missing_bits(at.iter().map(|place| (place % PARTS) as usize), &[1.0; PARTS as usize])
    } else {
        0.0
    };
    let mut bits = (spread - top - bottom).max(0.0);

    let places = 1 + at.windows(2).filter(|pair| pair[0] != pair[1]).count();
    let pairs = n * (n - 1.0) / 2.0;
    let same: u64 =
        at.chunk_by(|a, b| a == b).map(|run| (run.len() as u64) * (run.len() as u64 - 1) / 2).sum();
    let expected = pairs / bits.exp2();
    // The number of repetitions is nearly Poisson distributed.
    let repeats = real(same) > expected + 4.0 * expected.sqrt() + 2.0;
    if repeats {
        bits = bits.min((pairs / real(same)).log2());
    }
    let error = 7.2 / n / std::f64::consts::LN_2;
    Some(Entropy { bits, error, places, even: top == 0.0 && bottom == 0.0 && !repeats })
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Returns by how many bits the entropy of the counts is below that of the weights; 0 where chance explains the difference.
fn missing_bits(sample: impl Iterator<Item = usize>, weights: &[f64]) -> f64 {
    let mut counts = vec![0_u64; weights.len()];
    for part in sample {
        if let Some(count) = counts.get_mut(part) {
            *count += 1;
        }
    }
    let total: f64 = counts.iter().map(|count| real(*count)).sum();
    let whole: f64 = weights.iter().sum();
    if total <= 0.0 || whole <= 0.0 {
        return 0.0;
    }
    let (mut chi, mut bits) = (0.0, 0.0);
    for (count, weight) in counts.iter().zip(weights) {
        let (seen, meant) = (real(*count) / total, weight / whole);
        chi += total * (seen - meant).powi(2) / meant;
        if seen > 0.0 {
            bits += seen * (seen / meant).log2();
        }
    }
    let freedom = real(weights.len() as u64 - 1);
    // The cube root of chi-square by its degrees of freedom is nearly normal (Wilson and Hilferty). Chance alone exceeds five deviations
    // about three times in ten million.
    let ninth = 2.0 / (9.0 * freedom.max(1.0));
    let limit = freedom * (1.0 - ninth + 5.0 * ninth.sqrt()).powi(3);
    if chi > limit { bits.max(0.0) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// xorshift64*: the sample is the same each time.
    struct Dice(u64);

    impl Dice {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
        }
    }

    fn sample(seed: u64, n: usize, place: impl Fn(&mut Dice) -> u64) -> Entropy {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..10 {
            dice.next();
        }
        estimate(&(0..n).map(|_| 0x5555_5555_4000 + place(&mut dice)).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn uniform_places_are_counted_within_the_error() {
        for k in 1..=34 {
            for seed in 1..=60 {
                for n in [150, 300] {
                    let found = sample(seed, n, |dice| (dice.next() & ((1 << k) - 1)) << 12);
                    let bound = found.error * 1.5;
                    assert!(
                        (found.bits - f64::from(k)).abs() < bound,
                        "{k} bits, {n} samples, seed {seed}: {found:?}"
                    );
                    assert!(found.even, "{k} bits, seed {seed}: {found:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_fixed_has_none_and_few_places_have_few() {
        assert!(sample(1, 300, |_| 0).bits < 1e-9);
        assert_eq!(sample(1, 300, |_| 0).places, 1);
        for seed in 1..=20 {
            // Four addresses, far apart and at irregular distances.
            let few = [0, 0x1234_5000, 0x7fff_1000, 0x10_0000_3000];
            let found = sample(seed, 300, |dice| few[(dice.next() & 3) as usize]);
            assert!((found.bits - 2.0).abs() < 0.2 && !found.even, "{found:?}");
            assert_eq!(found.places, 4);
        }
    }

    #[test]
    fn bias_is_taken_off() {
        for seed in 1..=20 {
            // In 9 of 10 cases in the lowest 1/256 of 2^28: 0.9 · 20 + 0.1 · 28 bits, plus the entropy of that choice.
            let found = sample(seed, 300, |dice| {
                let place = dice.next() & 0x0fff_ffff;
                if dice.next() % 10 == 0 { place << 12 } else { (place >> 8) << 12 }
            });
            assert!(!found.even && found.bits < 26.0, "{found:?}");
            // One of the two lowest bits is always 0.
            let found = sample(seed, 300, |dice| (dice.next() & 0x0fff_fffd) << 12);
            assert!((found.bits - 27.0).abs() < 0.2, "{found:?}");
            // The highest bit is 1 in one of eight cases.
            let found = sample(seed, 300, |dice| {
                let place = dice.next() & 0x07ff_ffff;
                (place | if dice.next() % 8 == 0 { 1 << 27 } else { 0 }) << 12
            });
            assert!(!found.even && (found.bits - 27.54).abs() < 0.3, "{found:?}");
        }
    }

    #[test]
    fn the_stack_s_sum_of_two_choices_is_one_of_thirty_bits() {
        // 2^22 pages and 2^13 bytes, in steps of 16.
        for seed in 1..=20 {
            let found = sample(seed, 300, |dice| ((dice.next() & 0x3f_ffff) << 12) + (dice.next() & 0x1ff0));
            assert!((found.bits - 30.0).abs() < 0.03 && found.even, "{found:?}");
        }
    }

    #[test]
    fn too_few_say_nothing_and_any_number_is_no_trouble() {
        assert_eq!(estimate(&[1, 2]), None);
        for numbers in [[0, u64::MAX, 1], [u64::MAX; 3], [0, 1, 2], [u64::MAX, 0, u64::MAX]] {
            assert!(estimate(&numbers).unwrap().bits.is_finite());
        }
    }
}
