//! Whatever can be read can be argued about, compiled and shown, never a panic. `cargo xtask fuzz` runs this.
#![no_main]

use std::{collections::BTreeSet, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use stockade_policy::{
    Source,
    check::{Disk, Machine, Now, check},
    compile::compile,
    interpret::KernelReason,
    merge::merge,
    model::Clock,
    read,
};
use stockade_reasons::Level;

/// A machine without programs.
static EMPTY: LazyLock<Disk> = LazyLock::new(|| {
    let root = std::env::temp_dir().join("stockade-fuzz-empty");
    std::fs::create_dir_all(&root).expect("an empty folder");
    Disk::new(&root).expect("a folder")
});

fuzz_target!(|bytes: &[u8]| {
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
});
