//! The readers of policies and waivers. Their input is a file that an administrator wrote, or that an attacker left.

use std::{collections::BTreeSet, sync::LazyLock};

use stockade_policy::{
    Source,
    check::{Disk, Machine, Now, check},
    compile::compile,
    interpret::KernelReason,
    merge::merge,
    model::Clock,
    read, read_waivers, show,
};
use stockade_reasons::Level;

/// A machine without programs.
static EMPTY: LazyLock<Disk> = LazyLock::new(|| {
    let root = std::env::temp_dir().join("stockade-fuzz-empty");
    std::fs::create_dir_all(&root).expect("an empty folder can be made");
    Disk::new(&root).expect("an empty folder can be read")
});

/// Checks and compiles each policy that can be read.
pub fn policy_is_checked_and_compiled(bytes: &[u8]) {
    let Ok(document) = read(&Source::new("policy.toml", String::from_utf8_lossy(bytes))) else { return };
    let policy = merge([document]).expect("one file is right by itself or not at all");
    let now = "2026-06-01T12:00:00Z".parse().expect("a time");
    let machine = Machine {
        native: Some(Level::Integrity),
        auto: Some(Level::None),
        reasons: Some(stockade_reasons::all().iter().map(|r| r.id.to_owned()).collect::<BTreeSet<_>>()),
        now,
        files: &*EMPTY,
        cgroups: &|_| Some(Vec::new()),
        function: &|_| Some(false),
        setting: &|_| Now::Absent,
    };
    for finding in check(&policy, &machine).findings {
        assert!(!finding.message.is_empty());
    }
    let reasons: Vec<KernelReason> = (1..)
        .zip(stockade_reasons::all())
        .map(|(number, reason)| KernelReason {
            number,
            id: Some(reason.id),
            enum_name: reason.enum_name.to_owned(),
            level: reason.level,
            debugger: reason.debugger,
        })
        .collect();
    let policy = policy.with_units(|unit| format!("/system.slice/{unit}"));
    if let Ok(tables) = compile(&policy, Level::None, &reasons, Clock { wall: now, boot_ns: 1 << 40 }) {
        assert_eq!(tables.words.watched & !tables.words.watched_anywhere, 0);
        assert_eq!(tables.words.deny & !tables.words.watched, 0);
    }
}

/// Reads a policy or refuses it. The output of `show` has to read as the same policy.
pub fn policy_survives_show(bytes: &[u8]) {
    let source = Source::new("policy.toml", String::from_utf8_lossy(bytes));
    let document = match read(&source) {
        Ok(document) => document,
        Err(problems) => {
            assert!(!problems.list.is_empty());
            // An error quotes the input. Drawing takes as long as all the rest, so one input in eight is drawn.
            if bytes.len().is_multiple_of(8) {
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
}

/// Ids of findings that exist.
const FINDINGS: &[&str] = &["aslr.stack", "ksm.running", "tpm.event-log"];

/// Reads waivers or refuses them. No finding may be waived twice or for ever.
pub fn waivers_are_read(bytes: &[u8]) {
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
            if bytes.len().is_multiple_of(8) {
                assert!(!drives_a_terminal(&problems.render(false)));
            }
            assert!(!drives_a_terminal(&problems.to_string()));
        }
    }
}

/// Reports whether a text has control characters other than line ends.
fn drives_a_terminal(text: &str) -> bool {
    text.contains(|c: char| c.is_control() && c != '\n')
}
