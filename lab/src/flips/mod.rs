/*!
Flips: two guests that differ in one thing, or one guest before and after a change, and the findings of `stockade assess` that must differ
with it, and no others.

Flips by boot are in [`BOOTED`]; guests send their findings to the host, which compares them. Changes in a running guest are compared in the
guest (`scenarios/flips/`).
*/
use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

mod booted;

pub use booted::{BASES, BOOTED};

use crate::boots::Boot;

/// The verdict of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the words say it")]
pub enum Verdict {
    Fail,
    Warn,
    Unknown,
    Pass,
    NotApplicable,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Verdict::Fail => "fail",
            Verdict::Warn => "warn",
            Verdict::Unknown => "unknown",
            Verdict::Pass => "pass",
            Verdict::NotApplicable => "not applicable",
        }
    }
}

/// One finding of an assessment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The verdict of the finding.
    pub verdict: Verdict,
    /// The text and evidence of the finding, for reports and for [`Flip::shows`].
    pub said: String,
}

/// The findings of `stockade assess`, by id.
pub type Answers = BTreeMap<String, Answer>;

/// The findings in a guest, for the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assessed {
    /// Whether slow measurements were made.
    pub measured: bool,
    /// The findings.
    pub answers: Answers,
}

/// A finding that must differ.
#[derive(Clone, Copy, Debug)]
pub struct Flip {
    /// The finding's id.
    pub finding: &'static str,
    /// The verdict without the difference.
    pub before: Verdict,
    /// The verdict with the difference.
    pub after: Verdict,
    /// Words that the finding with the difference must contain; empty for none.
    pub shows: &'static str,
    /// Another verdict that is right with the difference, with its words, for kernels with another configuration.
    pub or: Option<(Verdict, &'static str)>,
}

impl Flip {
    /// Allows another verdict too, with these words.
    #[must_use]
    pub const fn or(self, after: Verdict, shows: &'static str) -> Self {
        Self { or: Some((after, shows)), ..self }
    }
}

/// A boot that differs from another in one thing.
#[derive(Clone, Copy, Debug)]
pub struct Booted {
    /// The boot with the difference.
    pub boot: Boot,
    /// The boot without it.
    pub base: Boot,
    /// Whether the findings with slow measurements are compared.
    pub measured: bool,
    /// The findings that must differ.
    pub flips: &'static [Flip],
    /// Findings that may differ too because of this one thing, on some kernels or on all.
    pub also: &'static [&'static str],
}

/// Makes a flip, for tables.
#[must_use]
pub const fn flip(finding: &'static str, before: Verdict, after: Verdict, shows: &'static str) -> Flip {
    Flip { finding, before, after, shows, or: None }
}

/// Reads the output of `stockade assess --json`.
pub fn read(document: &Value) -> Result<Answers> {
    let features = document["features"].as_array().context("there are no features")?;
    let mut answers = Answers::new();
    for finding in features.iter().flat_map(|f| f["findings"].as_array().into_iter().flatten()) {
        let id = finding["id"].as_str().context("a finding has no id")?;
        let verdict = Verdict::deserialize(&finding["verdict"])
            .with_context(|| format!("{id} has a verdict that is none: {}", finding["verdict"]))?;
        let mut said = finding["found"].as_str().unwrap_or_default().to_owned();
        for evidence in finding["evidence"].as_array().into_iter().flatten() {
            let word = |name: &str| evidence[name].as_str().unwrap_or_default().to_owned();
            said += &format!("; {}: {}", word("source"), word("observed"));
        }
        let twice = answers.insert(id.to_owned(), Answer { verdict, said });
        ensure!(twice.is_none(), "{id} is there twice");
    }
    ensure!(!answers.is_empty(), "there are no findings");
    Ok(answers)
}

/// Requires that every flip happened and that no other finding differs. The error lists everything that is wrong.
pub fn judge(flips: &[Flip], also: &[&str], before: &Answers, after: &Answers) -> Result<()> {
    let mut wrong = Vec::new();
    for flip in flips {
        let is_other = |answer: &Answer| {
            flip.or.is_some_and(|(verdict, shows)| answer.verdict == verdict && answer.said.contains(shows))
        };
        for (answers, wanted, when, shows) in
            [(before, flip.before, "without", ""), (after, flip.after, "with", flip.shows)]
        {
            match answers.get(flip.finding) {
                Some(answer) if answer.verdict == wanted && answer.said.contains(shows) => {}
                Some(answer) if when == "with" && is_other(answer) => {}
                Some(answer) => wrong.push(format!(
                    "{} {when}: {}, not {}{}: {}",
                    flip.finding,
                    answer.verdict.word(),
                    wanted.word(),
                    if shows.is_empty() { String::new() } else { format!(" with {shows:?}") },
                    answer.said
                )),
                None => wrong.push(format!("{} {when}: there is no such finding", flip.finding)),
            }
        }
    }
    let expected: BTreeSet<&str> =
        flips.iter().map(|flip| flip.finding).chain(also.iter().copied()).collect();
    let ids: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for id in ids.into_iter().filter(|id| !expected.contains(id.as_str())) {
        let (old, new) = (before.get(id), after.get(id));
        if old.map(|answer| answer.verdict) != new.map(|answer| answer.verdict) {
            let told = |answer: Option<&Answer>| {
                answer.map_or_else(|| "nothing".to_owned(), |a| format!("{} ({})", a.verdict.word(), a.said))
            };
            wrong.push(format!("{id} differs too: {} → {}", told(old), told(new)));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Compares every boot that one kernel played with its base. Returns the flips by name, with what is wrong.
#[must_use]
pub fn judge_booted(played: &BTreeMap<(Boot, bool), Answers>) -> Vec<(Boot, String, Result<()>)> {
    let mut results = Vec::new();
    for booted in BOOTED {
        let Some(after) = played.get(&(booted.boot, booted.measured)) else { continue };
        let name: Vec<String> = booted
            .flips
            .iter()
            .map(|f| format!("{} {} → {}", f.finding, f.before.word(), f.after.word()))
            .collect();
        let result = match played.get(&(booted.base, booted.measured)) {
            Some(before) => judge(booted.flips, booted.also, before, after),
            None => Err(anyhow::anyhow!("the guest {} said nothing to compare with", booted.base)),
        };
        results.push((booted.boot, format!("flips {}", name.join(", ")), result));
    }
    results
}

#[cfg(test)]
mod tests {
    use super::{Answer, Answers, BASES, BOOTED, Verdict, flip, judge, read};

    fn answers(of: &[(&str, Verdict)]) -> Answers {
        of.iter()
            .map(|(id, verdict)| ((*id).to_owned(), Answer { verdict: *verdict, said: "a word".into() }))
            .collect()
    }

    #[test]
    fn what_differs_has_to_be_what_must() {
        let before = answers(&[("a", Verdict::Pass), ("b", Verdict::Pass)]);
        let after = answers(&[("a", Verdict::Fail), ("b", Verdict::Pass)]);
        let flips = [flip("a", Verdict::Pass, Verdict::Fail, "word")];
        judge(&flips, &[], &before, &after).unwrap();
        assert!(judge(&flips, &[], &before, &before).is_err(), "it has to flip");
        assert!(judge(&[], &[], &before, &after).is_err(), "nothing else may flip");
        judge(&[], &["a"], &before, &after).unwrap();
        assert!(judge(&[flip("a", Verdict::Pass, Verdict::Fail, "else")], &[], &before, &after).is_err());
        let otherwise = flip("a", Verdict::Pass, Verdict::Warn, "").or(Verdict::Fail, "word");
        judge(&[otherwise], &[], &before, &after).unwrap();
        assert!(judge(&[otherwise], &[], &before, &before).is_err());
        assert!(judge(&[flip("c", Verdict::Pass, Verdict::Fail, "")], &[], &before, &after).is_err());
    }

    #[test]
    fn an_assessment_is_read() {
        let document = serde_json::json!({"features": [{"findings": [{"id": "x.y", "verdict": "not-applicable",
            "found": "so", "evidence": [{"source": "s", "observed": "o"}]}]}]});
        let answers = read(&document).unwrap();
        assert_eq!(answers["x.y"], Answer { verdict: Verdict::NotApplicable, said: "so; s: o".into() });
        assert!(read(&serde_json::json!({"features": []})).is_err());
    }

    #[test]
    fn each_difference_has_flips_and_a_base() {
        for booted in BOOTED {
            assert!(!booted.flips.is_empty() && BASES.contains(&booted.base), "{}", booted.boot);
        }
    }
}
