/*!
What this kernel really defends: each defence is asked for, tried where that is harmless, and told with its evidence.

| file | what it owns |
|---|---|
| `features/` | the checks, one file for each defence of the kernel |
| `findings/` (data) | the texts: what a finding is about, why it matters, how to fix it |
| `finding.rs` | a finding: verdict, how it was established, evidence, figures |
| `system.rs`, `config.rs`, `processes.rs` | the machine as checks see it; a folder of files in tests |
| `modprobe.rs` | which modules there are, and what keeps them from loading by themselves |
| `mandatory.rs` | which module for mandatory access control decides here |
| `runner.rs` | every check in a child of its own, with a limit |
| `child.rs` | children: of the runner, and of checks that try what could end a process |
| `proof.rs` | the doors of stockade-probe, for the proof of a seal |
| `nobody.rs` | what a child of a check gives up to be like every user |

A check reports each of its findings once. What it did not report when it ended, died or was stopped is unknown, with the reason: the
list of findings is the same on every machine. Nothing is changed: what is tried is undone or dies with its child.

A folder of files can stand in for a machine; nothing is tried there:

```
use stockade_assess::{System, Verdict, assess, features};

let folder = tempfile::tempdir()?;
std::fs::create_dir_all(folder.path().join("sys/kernel/mm/ksm"))?;
std::fs::write(folder.path().join("sys/kernel/mm/ksm/run"), "1\n")?;
let wanted: Vec<_> = features::ALL.iter().filter(|feature| feature.id == "ksm").copied().collect();
let assessment = assess(&System::below(folder.path()), &wanted, 1, |_, _, _| {});
let mut findings = assessment.features.iter().flat_map(|feature| &feature.findings);
let running = findings.find(|finding| finding.id == "ksm.running").expect("every finding is reported");
assert_eq!(running.verdict, Verdict::Warn);
# Ok::<(), std::io::Error>(())
```
*/
#![deny(missing_docs)]

mod acceleration;
mod af_alg;
mod algorithms;
mod answers;
pub mod child;
pub mod config;
mod efi;
pub mod features;
pub mod finding;
#[cfg(test)]
mod findings_page;
#[cfg(test)]
mod garbage;
mod instructions;
mod keys;
mod mandatory;
mod modprobe;
pub mod nobody;
pub mod processes;
pub mod proof;
pub mod runner;
pub mod system;
pub mod text;
mod vectors;

pub use config::Config;
pub use finding::{Evidence, Finding, How, Measure, Verdict, few};
pub use runner::{Assessment, Feature, Report, assess};
pub use system::{System, Unread};
pub use text::Text;

/// Returns every feature, in the order of reports.
#[must_use]
pub fn everything() -> &'static [Feature] {
    features::ALL
}
