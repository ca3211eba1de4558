/*!
Waivers: read from the file, laid upon what was found.
*/
use std::{
    fs,
    io::{self, Read},
    path::Path,
};

use anyhow::{Context, Result};
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use stockade_assess::{Text, Verdict};
use stockade_policy::{Source, Waiver, read::LARGEST, read_waivers};

use super::{
    report::{Report, Waived},
    waivers::{Expired, Waivers},
};
use crate::output;

/// Where the machine has them.
pub const FILE: &str = "/etc/stockade/assess.toml";

/// A file of waivers that was read.
#[derive(Debug)]
pub struct File {
    name: String,
    waivers: Vec<Waiver>,
}

impl File {
    /// Reads this file; without one named, that of the machine, which need not be there.
    pub fn read(named: Option<&Path>) -> Result<Option<Self>> {
        let path = named.unwrap_or(Path::new(FILE));
        let bytes = fs::File::open(path).and_then(|file| {
            let mut bytes = Vec::new();
            file.take(LARGEST as u64 + 1).read_to_end(&mut bytes).map(|_| bytes)
        });
        let text = match bytes {
            Ok(bytes) => String::from_utf8(bytes)
                .with_context(|| format!("read the waivers in {}: this is not UTF-8 text", path.display()))?,
            Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("read the waivers in {}", path.display()));
            }
        };
        let known: Vec<&str> = Text::all().iter().map(|text| text.id).collect();
        let name = output::harmless(path.display().to_string());
        let waivers = read_waivers(&Source::new(&name, text), &known)?;
        Ok(Some(Self { name, waivers }))
    }

    /// Lays them upon a report.
    pub fn apply(&self, report: &mut Report) {
        lay(report, &self.name, &self.waivers, TimeZone::UTC.to_datetime(Timestamp::now()).date());
    }
}

fn lay(report: &mut Report, file: &str, waivers: &[Waiver], today: Date) {
    let mut came = Waivers { file: file.to_owned(), expired: Vec::new(), unneeded: Vec::new() };
    for found in report.findings_mut() {
        found.waived = None;
    }
    for waiver in waivers {
        let id = &waiver.finding.value;
        if waiver.is_over(today) {
            came.expired.push(Expired {
                id: id.clone(),
                reason: waiver.reason.value.clone(),
                expires: waiver.expires.value.to_string(),
                at: waiver.finding.origin.to_string(),
            });
            continue;
        }
        // One that was not looked at this time is no mistake.
        let Some(found) = report.findings_mut().find(|found| found.id() == id) else { continue };
        match found.finding.verdict {
            Verdict::Pass => came.unneeded.push(id.clone()),
            // On another machine that has the same file it may apply.
            Verdict::NotApplicable => {}
            Verdict::Fail | Verdict::Warn | Verdict::Unknown => {
                found.waived = Some(Waived {
                    reason: waiver.reason.value.clone(),
                    expires: waiver.expires.value.to_string(),
                });
            }
        }
    }
    report.waivers = Some(came);
    report.count();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::assess::example;

    fn laid(text: &str) -> Report {
        let known = ["aslr.stack", "ksm.running", "nx.stack", "random.vm-fork"];
        let waivers = read_waivers(&Source::new("assess.toml", text), &known).unwrap();
        let mut report = example::report();
        lay(&mut report, "assess.toml", &waivers, "2026-06-01".parse().unwrap());
        report
    }

    fn waiver(id: &str, expires: &str) -> String {
        format!("[[waiver]]\nfinding = \"{id}\"\nreason = \"because\"\nexpires = {expires}\n")
    }

    #[test]
    fn a_waived_finding_keeps_its_verdict_and_counts_as_waived() {
        let (before, after) = (laid("").counts, laid(&waiver("ksm.running", "2026-06-01")));
        assert_eq!((before.warn, before.waived), (after.counts.warn + 1, 0));
        assert_eq!(after.counts.waived, 1);
        let found = after.findings().find(|found| found.id() == "ksm.running").unwrap();
        assert_eq!(found.finding.verdict, Verdict::Warn);
        assert_eq!(found.waived.as_ref().unwrap().reason, "because");
    }

    #[test]
    fn one_that_is_over_counts_no_longer_and_is_told() {
        let text = waiver("ksm.running", "2026-05-31")
            + &waiver("nx.stack", "2027-01-01")
            + &waiver("random.vm-fork", "2027-01-01");
        let report = laid(&text);
        let waivers = report.waivers.as_ref().unwrap();
        assert_eq!(report.counts.waived, 0);
        assert_eq!(
            (waivers.expired[0].id.as_str(), waivers.expired[0].at.as_str()),
            ("ksm.running", "assess.toml:2")
        );
        assert_eq!(waivers.unneeded, ["nx.stack"], "it passes; the other does not apply here");
    }
}
