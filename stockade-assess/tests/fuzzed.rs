//! The fuzzed properties of the assessment's readers, played on seeds, corpora and mutations. `cargo xtask fuzz` looks for new inputs.

#[path = "../../fuzz/src/assess.rs"]
mod properties;
#[path = "../../fuzz/src/replay.rs"]
mod replay;

use replay::{inputs, replay};

/// Mutations of each target's seeds: a second in a debug build.
const MUTATIONS: u32 = 20_000;

#[test]
fn event_logs_are_replayed() {
    for log in inputs("../stockade-assess/src/features/tpm/samples") {
        properties::event_log_is_replayed(&log);
    }
    replay("event-log", properties::event_log_is_replayed, MUTATIONS);
}

#[test]
fn signature_lists_are_replayed() {
    replay("signatures", properties::signatures_are_counted, MUTATIONS);
}

#[test]
fn netlink_answers_are_replayed() {
    replay("xfrm", properties::ipsec_is_judged, MUTATIONS);
}
