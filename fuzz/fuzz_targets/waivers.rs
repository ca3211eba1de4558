//! Any bytes are read as waivers or refused, never a panic, and nothing is waived without an end. `cargo xtask fuzz` runs this.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stockade_policy::{Source, read_waivers};

const FINDINGS: &[&str] = &["aslr.stack", "ksm.running", "tpm.event-log"];

fuzz_target!(|bytes: &[u8]| {
    let source = Source::new("assess.toml", String::from_utf8_lossy(bytes));
    match read_waivers(&source, FINDINGS) {
        Ok(waivers) => {
            for (at, waiver) in waivers.iter().enumerate() {
                assert!(FINDINGS.contains(&waiver.finding.value.as_str()));
                assert!(!waiver.reason.value.trim().is_empty());
                assert!(!waiver.is_over(waiver.expires.value));
                assert!(waivers[..at].iter().all(|other| other.finding.value != waiver.finding.value));
            }
        }
        Err(problems) => {
            assert!(!problems.list.is_empty());
            if bytes.len() % 8 == 0 {
                assert!(!drives_a_terminal(&problems.render(false)));
            }
            assert!(!drives_a_terminal(&problems.to_string()));
        }
    }
});

fn drives_a_terminal(text: &str) -> bool {
    text.contains(|c: char| c.is_control() && c != '\n')
}
