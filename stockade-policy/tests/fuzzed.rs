//! The fuzzed properties, played on the fuzzer's seeds, on what it has reached on this machine, and on every seed cut short or
//! with a line taken out. `cargo xtask fuzz` looks for new inputs.

#[path = "../../fuzz/src/policy.rs"]
mod properties;
#[path = "../../fuzz/src/replay.rs"]
#[expect(dead_code, reason = "policies are text, whose mutations are cuts and missing lines")]
mod replay;

use replay::inputs;

type Property = fn(&[u8]);

/// Each property with the folders of its inputs below fuzz/.
const PROPERTIES: [(&str, Property, &[&str]); 3] = [
    ("read", properties::policy_survives_show, &["seeds/read", "corpus/read", "artifacts/read"]),
    ("argue", properties::policy_is_checked_and_compiled, &["seeds/read", "corpus/argue", "artifacts/argue"]),
    ("waivers", properties::waivers_are_read, &["seeds/waivers", "corpus/waivers", "artifacts/waivers"]),
];

#[test]
fn seeds_and_corpora_are_replayed() {
    for (name, property, folders) in PROPERTIES {
        let inputs: Vec<_> = folders.iter().flat_map(|folder| inputs(folder)).collect();
        assert!(!inputs.is_empty(), "{name} has no seeds");
        for input in &inputs {
            property(input);
        }
    }
}

#[test]
fn seeds_cut_short_are_replayed() {
    for (_, property, folders) in PROPERTIES {
        for seed in inputs(folders[0]) {
            for end in 0..seed.len() {
                property(&seed[..end]);
            }
        }
    }
}

#[test]
fn seeds_without_one_line_are_replayed() {
    for (_, property, folders) in PROPERTIES {
        for seed in inputs(folders[0]) {
            let lines: Vec<&[u8]> = seed.split_inclusive(|byte| *byte == b'\n').collect();
            for without in 0..lines.len() {
                let kept = lines.iter().enumerate().filter(|(at, _)| *at != without);
                property(&kept.flat_map(|(_, line)| line.iter().copied()).collect::<Vec<u8>>());
            }
        }
    }
}
