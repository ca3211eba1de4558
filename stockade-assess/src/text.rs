/*!
What there is to say about a finding whatever the machine: the files in `findings/`, one for each.
*/
use schemars::JsonSchema;
use serde::Serialize;

include!(concat!(env!("OUT_DIR"), "/texts.rs"));

/// What is known about a finding beforehand.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct Text {
    /// The finding's id, `feature.thing`. Stable.
    pub id: &'static str,
    /// What is so when it passes, in a few words
    pub title: &'static str,
    /// Whether root sees more
    pub root: Root,
    /// Why it matters, in two sentences
    pub why: &'static str,
    /// How to get it
    pub fix: Fix,
    /// Where the kernel documents it
    pub links: &'static [&'static str],
    /// Recommendations of the CIS benchmarks that it answers, with the version of the benchmark, such as `Debian 12 v1.1.0 1.5.1`
    pub cis: &'static [&'static str],
    /// Attributes of fwupd's Host Security ID that it answers, such as `org.fwupd.hsi.Uefi.SecureBoot`
    pub hsi: &'static [&'static str],
}

/// Whether root sees more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Root {
    /// Everybody sees the same.
    No,
    /// Everybody sees something, root more.
    More,
    /// Only root sees anything.
    Yes,
}

/// How to fix it, everywhere or by family of distributions.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct Fix {
    /// Everywhere
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all: Option<&'static str>,
    /// Debian, Ubuntu
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debian: Option<&'static str>,
    /// Fedora, Red Hat Enterprise Linux, CentOS
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fedora: Option<&'static str>,
    /// SUSE, openSUSE
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suse: Option<&'static str>,
}

impl Text {
    /// Every text, in order of ids.
    #[must_use]
    pub fn all() -> &'static [Text] {
        TEXTS
    }

    /// Returns the text of a finding.
    #[must_use]
    pub fn of(id: &str) -> Option<&'static Text> {
        TEXTS.binary_search_by(|text| text.id.cmp(id)).ok().map(|at| &TEXTS[at])
    }

    /// Those of a feature's findings.
    pub fn of_feature(feature: &str) -> impl Iterator<Item = &'static Text> {
        TEXTS.iter().filter(move |text| text.feature() == feature)
    }

    /// The feature it is about: what stands before the full stop.
    #[must_use]
    pub fn feature(&self) -> &'static str {
        self.id.split_once('.').map_or(self.id, |(feature, _)| feature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features;

    #[test]
    fn every_text_is_found_by_its_id_and_belongs_to_a_feature() {
        for text in Text::all() {
            assert_eq!(Text::of(text.id).map(|found| found.id), Some(text.id));
            assert!(features::ALL.iter().any(|feature| feature.id == text.feature()), "{}", text.id);
        }
        assert!(Text::of("aslr.nothing").is_none());
    }

    #[test]
    fn a_command_that_a_fix_begins_with_keeps_its_line() {
        let fix = Text::of("nx.kernel").unwrap().fix.fedora.unwrap();
        let command = "    grubby --update-kernel=ALL --remove-args=rodata=off";
        assert_eq!(fix.lines().collect::<Vec<_>>(), [command, "Then reboot."]);
    }

    #[test]
    fn every_feature_has_texts() {
        for feature in features::ALL {
            assert!(Text::of_feature(feature.id).next().is_some(), "{}", feature.id);
        }
    }
}
