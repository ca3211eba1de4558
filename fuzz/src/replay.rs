//! Replays inputs in plain tests: seeds, corpora, and mutations that are the same in every run.

use std::{fs, path::Path};

/// Returns the files of a folder below fuzz/ in the order of their names; none where there is no such folder.
pub fn inputs(folder: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz").join(folder);
    let mut files: Vec<_> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|file| file.path()).collect();
    files.sort();
    files.iter().filter_map(|file| fs::read(file).ok()).collect()
}

/// Plays the seeds of a target, the inputs that the fuzzer has reached on this machine, those that it found, and mutations of the seeds.
pub fn replay(target: &str, property: fn(&[u8]), mutations: u32) {
    let seeds = inputs(&format!("seeds/{target}"));
    assert!(!seeds.is_empty(), "{target} has no seeds");
    for folder in ["corpus", "artifacts"] {
        for input in inputs(&format!("{folder}/{target}")) {
            property(&input);
        }
    }
    for seed in &seeds {
        property(seed);
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..mutations {
        let mut input = seeds[random.below(seeds.len())].clone();
        for _ in 0..=random.below(4) {
            mutate(&mut input, &seeds, &mut random);
        }
        property(&input);
    }
}

/// Changes an input as libFuzzer does: a bit, a byte, a number, a part left out, repeated, or taken from another seed.
fn mutate(input: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    /// Numbers at the borders of sizes and counts.
    const NUMBERS: [u32; 10] =
        [0, 1, 0x7f, 0xff, 0x100, 0xffff, 0x1_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];
    if input.is_empty() {
        input.push(0);
    }
    let at = random.below(input.len());
    let end = at + random.below(input.len() - at + 1);
    match random.below(7) {
        0 => input[at] ^= 1 << random.below(8),
        1 => input[at] = NUMBERS[random.below(NUMBERS.len())].to_le_bytes()[0],
        2 => {
            let number = NUMBERS[random.below(NUMBERS.len())].to_le_bytes();
            // Numbers are aligned more often than not.
            let at = if random.below(4) == 0 { at } else { at & !3 };
            for (byte, new) in input[at..].iter_mut().zip(number) {
                *byte = new;
            }
        }
        3 => input.truncate(at),
        4 => drop(input.drain(at..end)),
        5 => {
            let part = input[at..end].to_vec();
            input.splice(at..at, part);
        }
        _ => {
            let other = &seeds[random.below(seeds.len())];
            let from = random.below(other.len() + 1);
            input.truncate(at);
            input.extend(&other[from..]);
        }
    }
}

/// xorshift64*, so that a failure happens again.
struct Random(u64);

impl Random {
    /// Returns a number below `limit`, which is not 0.
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let limit = limit as u64;
        let number = (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % limit;
        usize::try_from(number).expect("it is below a usize")
    }
}
