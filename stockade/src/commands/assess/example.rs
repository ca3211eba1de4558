//! An assessment with every verdict, of a machine that does not exist: for tests, and for the picture in the README.
use super::report::Report;

const TEXT: &str = include_str!("../../../tests/data/assessment.json");

/// The example.
pub fn report() -> Report {
    Report::read(TEXT).expect("the example is an assessment")
}

#[test]
fn every_verdict_is_in_the_example() {
    let counts = report().counts;
    let all = [counts.fail, counts.warn, counts.unknown, counts.pass, counts.not_applicable, counts.waived];
    assert!(all.iter().all(|count| *count > 0), "{counts:?}");
}

#[test]
fn it_is_printed_as_it_was_read() {
    let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert!(value(&serde_json::to_string(&report()).unwrap()) == value(TEXT));
}
