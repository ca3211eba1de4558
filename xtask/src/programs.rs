/*!
The programs that are put into guests: the release program as it is shipped, and the lab's own beside it.
*/
use anyhow::Context;
use stockade_lab::{initrd::Program, protocol::Listed, tool};

use crate::dist::{self, With};

/// The lab's own.
const PROGRAMS: [(&str, &str); 5] = [
    ("stockade-guest-init", "init"),
    ("stockade-demo", "bin/stockade-demo"),
    ("stockade-bench", "bin/stockade-bench"),
    ("stockade-seal-at-boot", "bin/stockade-seal-at-boot"),
    ("stockade-conformance", "bin/stockade-conformance"),
];

/// Builds them all, and says which release program is played.
pub fn build() -> anyhow::Result<Vec<Program>> {
    let release = dist::build(With::LabPrograms)?;
    println!("program: {release}");
    let mut programs = vec![Program { source: release.place, target: "bin/stockade".to_owned() }];
    programs.extend(
        PROGRAMS.map(|(name, target)| Program { source: dist::built(name), target: target.to_owned() }),
    );
    Ok(programs)
}

/// The scenarios that were built, by the guest's own account.
pub fn scenarios() -> anyhow::Result<Vec<Listed>> {
    let init = dist::built("stockade-guest-init");
    let text = tool::text(tool::command(&init.to_string_lossy()).arg("--list"))?;
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("reading the scenario {line}")))
        .collect()
}
