//! Any bytes are read or refused, never a panic; what was read is shown, and what is shown reads as the same policy.
//! `cargo xtask fuzz` runs this.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stockade_policy::{Source, merge::merge, read, show};

fuzz_target!(|bytes: &[u8]| {
    let source = Source::new("policy.toml", String::from_utf8_lossy(bytes));
    let document = match read(&source) {
        Ok(document) => document,
        Err(problems) => {
            assert!(!problems.list.is_empty());
            // Telling what is wrong cuts the text at places that come from the input. Drawing takes as long as all the
            // rest, so one input in eight is drawn.
            if bytes.len() % 8 == 0 {
                assert!(!drives_a_terminal(&problems.render(false)));
            }
            assert!(!drives_a_terminal(&problems.to_string()));
            return;
        }
    };
    let policy = merge([document]).expect("one file is right by itself or not at all");
    let shown = show(&policy);
    assert!(!drives_a_terminal(&shown));
    match read(&Source::new("shown", &*shown)) {
        Ok(again) => {
            let again = merge([again]).expect("what is shown is right");
            assert_eq!(again.without_origins(), policy.without_origins(), "{shown}");
        }
        Err(problems) => panic!("{}\n{shown}", problems.render(false)),
    }
});

fn drives_a_terminal(text: &str) -> bool {
    text.contains(|c: char| c.is_control() && c != '\n')
}
