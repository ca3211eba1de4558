/*!
An assessment as it is told: what was found with the texts that go with it, what is waived, and the sums.

It is what `--json` prints, and what is read again for `--from` and `--baseline`: by another version perhaps, on another machine.
*/
use anyhow::{Result, bail};
use jiff::{Timestamp, Unit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stockade_assess::{Assessment, Finding, System, Text, Verdict, text};

use super::{changes::Changes, waivers::Waivers};
use crate::output::harmless;

/// Of the document's form. It changes when a reader of the earlier form would be misled.
pub const FORM: u32 = 1;

/// The output of `assess --json`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// The form of this document, 1
    pub form: u32,
    /// The version of Stockade that assessed
    pub stockade: String,
    /// When, by UTC
    pub time: String,
    /// The machine's name
    pub host: String,
    /// The distribution's name, where the machine tells it
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// The kernel's release
    pub kernel: String,
    /// What the caller would have had to do to see and try everything; missing for root
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lacks: Option<String>,
    /// Whether what takes longer than an instant was measured
    pub measured: bool,
    /// How long it took, in milliseconds
    pub ms: u64,
    /// How many findings there are of each verdict
    pub counts: Counts,
    /// Feature by feature; with --baseline only what changed
    pub features: Vec<Feature>,
    /// The file of waivers, where there is one
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waivers: Option<Waivers>,
    /// What changed, with --baseline
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<Changes>,
}

/// How many findings there are of each verdict. Those that are waived are counted as such and nowhere else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// Absent, off or not working
    pub fail: usize,
    /// Weaker than it could be
    pub warn: usize,
    /// Could not be found out
    pub unknown: usize,
    /// There, and works
    pub pass: usize,
    /// Nothing to defend
    pub not_applicable: usize,
    /// Not passing, and accepted by a waiver
    pub waived: usize,
}

/// The findings of a feature.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Feature {
    /// Its id
    pub id: String,
    /// Its name
    pub title: String,
    /// How long its checks took, in milliseconds
    pub ms: u64,
    /// Its findings, in order of ids
    pub findings: Vec<Found>,
}

/// A finding with its texts.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Found {
    /// What was found out
    #[serde(flatten)]
    pub finding: Finding,
    /// What is known about it beforehand
    #[serde(flatten)]
    pub about: About,
    /// Why it is accepted and until when, where a waiver counts
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waived: Option<Waived>,
}

/// The texts of a finding.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct About {
    /// What is so when it passes
    pub title: String,
    /// Whether root sees more: no, more, or yes when only root sees anything
    pub root: String,
    /// Why it matters
    pub why: String,
    /// How to get it
    pub fix: Fix,
    /// Where the kernel documents it
    pub links: Vec<String>,
    /// Recommendations of the CIS benchmarks that it answers
    #[serde(default)]
    pub cis: Vec<String>,
    /// Attributes of fwupd's Host Security ID that it answers
    #[serde(default)]
    pub hsi: Vec<String>,
}

/// How to fix it, everywhere or by family of distributions.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Fix {
    /// Everywhere
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<String>,
    /// Debian, Ubuntu
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub debian: Option<String>,
    /// Fedora, Red Hat Enterprise Linux, CentOS
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fedora: Option<String>,
    /// SUSE, openSUSE
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suse: Option<String>,
}

/// Why a finding is accepted and until when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Waived {
    /// Why
    pub reason: String,
    /// The last day on which that counts, by UTC
    pub expires: String,
}

impl Report {
    /// Of an assessment of this machine, just made.
    pub fn new(assessment: Assessment, system: &System) -> Self {
        let feature = |feature: stockade_assess::runner::Assessed| Feature {
            id: feature.id,
            title: feature.title,
            ms: feature.ms,
            findings: feature.findings.into_iter().filter_map(Found::new).collect(),
        };
        let now = Timestamp::now();
        let mut report = Self {
            form: FORM,
            stockade: env!("CARGO_PKG_VERSION").into(),
            time: now.round(Unit::Second).unwrap_or(now).to_string(),
            host: system.text("/proc/sys/kernel/hostname").unwrap_or_else(|_| "unknown".into()),
            system: distribution(system),
            kernel: assessment.kernel,
            lacks: assessment.lacks,
            measured: assessment.measured,
            ms: assessment.ms,
            counts: Counts::default(),
            features: assessment.features.into_iter().map(feature).collect(),
            waivers: None,
            changes: None,
        };
        report.count();
        report
    }

    /// From what `--json` printed.
    pub fn read(text: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Form {
            form: u32,
        }
        let value: serde_json::Value = match serde_json::from_str(text) {
            Ok(value) => value,
            Err(error) => {
                bail!("this is no JSON: {error}; it has to be what `stockade assess --json` printed")
            }
        };
        match Form::deserialize(&value) {
            Ok(Form { form: FORM }) => {}
            Ok(Form { form }) => bail!(
                "this is an assessment of form {form}, and this program (stockade {}) reads form {FORM}",
                env!("CARGO_PKG_VERSION")
            ),
            Err(_) => {
                bail!("this is JSON, but no assessment: it has to be what `stockade assess --json` printed")
            }
        }
        let mut report: Self = match serde_json::from_value(value) {
            Ok(report) => report,
            // It quotes from the file.
            Err(error) => bail!("this assessment is damaged: {}", harmless(error.to_string())),
        };
        if report.changes.is_some() {
            bail!(
                "this is a comparison, printed with --baseline, and has only what had changed: name an assessment that was printed without"
            );
        }
        if report.findings().next().is_none() {
            bail!("this assessment is damaged: it has no findings");
        }
        report.count();
        Ok(report)
    }

    /// Every finding, feature by feature.
    pub fn findings(&self) -> impl Iterator<Item = &Found> {
        self.features.iter().flat_map(|feature| &feature.findings)
    }

    /// Every finding, to change it.
    pub fn findings_mut(&mut self) -> impl Iterator<Item = &mut Found> {
        self.features.iter_mut().flat_map(|feature| &mut feature.findings)
    }

    /// Keeps some findings, and the features that have any.
    pub fn retain(&mut self, mut keep: impl FnMut(&Found) -> bool) {
        for feature in &mut self.features {
            feature.findings.retain(&mut keep);
        }
        self.features.retain(|feature| !feature.findings.is_empty());
        self.count();
    }

    /// Counts anew, after something was changed.
    pub fn count(&mut self) {
        let mut counts = Counts::default();
        for found in self.findings() {
            *match found.state() {
                State::Waived => &mut counts.waived,
                State::Is(Verdict::Fail) => &mut counts.fail,
                State::Is(Verdict::Warn) => &mut counts.warn,
                State::Is(Verdict::Unknown) => &mut counts.unknown,
                State::Is(Verdict::Pass) => &mut counts.pass,
                State::Is(Verdict::NotApplicable) => &mut counts.not_applicable,
            } += 1;
        }
        self.counts = counts;
    }

    /// Returns the summary, in one sentence that claims no more than was seen.
    pub fn headline(&self) -> String {
        if let Some(changes) = &self.changes {
            return changes.headline();
        }
        let Counts { fail, warn, unknown, pass, waived, .. } = self.counts;
        // What could not be checked, or was accepted, may be off.
        let all_seen = unknown == 0 && waived == 0;
        let mut words = match (fail, warn, pass) {
            (1, ..) => "1 defence is off or does not work".to_owned(),
            (2.., ..) => format!("{fail} defences are off or do not work"),
            (_, 1, _) if all_seen => "No defence is off, and 1 could be stronger".into(),
            (_, 2.., _) if all_seen => format!("No defence is off, and {warn} could be stronger"),
            (_, 1, _) => "1 defence could be stronger".into(),
            (_, 2.., _) => format!("{warn} defences could be stronger"),
            (_, _, 0) if all_seen => "Nothing that was asked for applies here".into(),
            (_, _, 0) => "Nothing was found to work".into(),
            (_, _, 1) if waived > 0 => "1 defence works".into(),
            (..) if waived > 0 => format!("{pass} defences work"),
            (_, _, 1) => "The 1 defence that was checked works".into(),
            _ => format!("All {pass} defences that were checked work"),
        };
        if unknown > 0 {
            words += &format!("; {unknown} could not be checked");
        }
        if waived > 0 {
            words += &format!("; {waived} accepted by waiver");
        }
        words
    }

    /// Findings of which root sees more, where the caller was not root.
    pub fn want_root(&self) -> Vec<&Found> {
        if self.lacks.is_none() {
            return Vec::new();
        }
        let has_more =
            |found: &&Found| found.about.root != "no" && found.finding.verdict != Verdict::NotApplicable;
        self.findings().filter(has_more).collect()
    }
}

/// How a finding counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// By its verdict.
    Is(Verdict),
    /// Not at all: somebody has accepted it.
    Waived,
}

impl Found {
    /// None for what has no text, which the runner lets nobody report.
    fn new(finding: Finding) -> Option<Self> {
        let about = About::of(Text::of(&finding.id)?);
        Some(Self { finding, about, waived: None })
    }

    /// Reports whether something is to be done about it: not if it passes.
    pub fn is_open(&self) -> bool {
        matches!(self.state(), State::Is(Verdict::Fail | Verdict::Warn))
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.finding.id
    }

    /// How it counts.
    pub fn state(&self) -> State {
        if self.waived.is_some() { State::Waived } else { State::Is(self.finding.verdict) }
    }
}

impl About {
    /// A text of this version.
    pub fn of(text: &Text) -> Self {
        let owned = |words: &[&str]| words.iter().map(ToString::to_string).collect();
        let text::Fix { all, debian, fedora, suse } = text.fix;
        Self {
            title: text.title.into(),
            root: match text.root {
                text::Root::No => "no",
                text::Root::More => "more",
                text::Root::Yes => "yes",
            }
            .into(),
            why: text.why.into(),
            fix: Fix {
                all: all.map(Into::into),
                debian: debian.map(Into::into),
                fedora: fedora.map(Into::into),
                suse: suse.map(Into::into),
            },
            links: owned(text.links),
            cis: owned(text.cis),
            hsi: owned(text.hsi),
        }
    }
}

impl Fix {
    /// Each with the name of those it is for; what is for all has none.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("", &self.all),
            ("Debian, Ubuntu", &self.debian),
            ("Fedora, RHEL, CentOS", &self.fedora),
            ("SUSE, openSUSE", &self.suse),
        ]
        .into_iter()
        .filter_map(|(whose, fix)| Some((whose, fix.as_deref()?)))
    }
}

/// Returns the name of the system from os-release(5).
fn distribution(system: &System) -> Option<String> {
    let text = system.text("/etc/os-release").or_else(|_| system.text("/usr/lib/os-release")).ok()?;
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    let name = name.trim().trim_matches(['"', '\'']);
    (!name.is_empty()).then(|| name.chars().take(80).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::assess::example;

    #[test]
    fn the_headline_claims_no_more_than_was_seen() {
        let mut report = example::report();
        for (fail, warn, unknown, pass, waived, words) in [
            (1, 2, 3, 4, 0, "1 defence is off or does not work; 3 could not be checked"),
            (0, 1, 0, 4, 0, "No defence is off, and 1 could be stronger"),
            (0, 2, 0, 4, 1, "2 defences could be stronger; 1 accepted by waiver"),
            (0, 1, 2, 4, 0, "1 defence could be stronger; 2 could not be checked"),
            (0, 0, 0, 4, 0, "All 4 defences that were checked work"),
            (0, 0, 2, 4, 0, "All 4 defences that were checked work; 2 could not be checked"),
            (0, 0, 0, 4, 1, "4 defences work; 1 accepted by waiver"),
            (0, 0, 1, 0, 0, "Nothing was found to work; 1 could not be checked"),
            (0, 0, 0, 0, 0, "Nothing that was asked for applies here"),
        ] {
            report.counts = Counts { fail, warn, unknown, pass, not_applicable: 5, waived };
            assert_eq!(report.headline(), words);
        }
    }

    #[test]
    fn root_sees_no_more_of_what_does_not_apply() {
        let mut report = example::report();
        report.lacks = Some("run this as root".into());
        report.findings_mut().for_each(|found| found.about.root = "more".into());
        let applying = report.findings().filter(|found| found.finding.verdict != Verdict::NotApplicable);
        assert_eq!(report.want_root().len(), applying.count());
    }
}
