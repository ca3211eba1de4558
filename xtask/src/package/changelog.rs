/*!
CHANGELOG.md, read once and written in the forms that packages have: Debian's, and the list that nfpm turns into rpm's.
*/
use anyhow::{Context, bail, ensure};
use jiff::civil::Date;
use serde_json::json;

/// The kinds of changes, in the order of Keep a Changelog.
const KINDS: [&str; 6] = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"];

/// Columns of a Debian changelog.
const WIDTH: usize = 80;

/// One release.
#[derive(Debug, PartialEq, Eq)]
pub struct Release {
    /// The version, as in Cargo.toml.
    pub version: String,
    /// The day of the release.
    date: Date,
    /// Kind and text of each change; the text is one line, without marks.
    changes: Vec<(&'static str, String)>,
}

/// Reads the releases, the newest first. A section `## Unreleased` above them is allowed and left out.
pub fn read(text: &str) -> anyhow::Result<Vec<Release>> {
    let mut releases: Vec<Release> = Vec::new();
    let (mut kind, mut unreleased, mut in_entry) = (None, false, false);
    for (number, line) in (1..).zip(text.lines()) {
        let refuse = |why: &str| format!("CHANGELOG.md line {number}: {why}: {line}");
        if let Some(title) = line.strip_prefix("## ") {
            (kind, in_entry) = (None, false);
            unreleased = title == "Unreleased";
            if unreleased {
                ensure!(releases.is_empty(), refuse("Unreleased has to stand above all releases"));
                continue;
            }
            let (version, date) =
                title.split_once(" - ").with_context(|| refuse("not `## VERSION - YYYY-MM-DD`"))?;
            let date = date.parse().with_context(|| refuse("not `## VERSION - YYYY-MM-DD`"))?;
            ensure!(
                releases.last().is_none_or(|newer| newer.date >= date),
                refuse("this release is newer than the one above it")
            );
            releases.push(Release { version: version.into(), date, changes: Vec::new() });
        } else if let Some(title) = line.strip_prefix("### ") {
            in_entry = false;
            let known = KINDS.into_iter().find(|kind| *kind == title);
            kind = Some(known.with_context(|| {
                refuse("not one of Added, Changed, Deprecated, Removed, Fixed, Security")
            })?);
        } else if unreleased || releases.is_empty() {
            // The introduction, and changes that no package has yet.
        } else if let Some(entry) = line.strip_prefix("- ") {
            let kind =
                kind.with_context(|| refuse("a change without a kind (### Added, ### Fixed, …) above it"))?;
            let release =
                releases.last_mut().expect("the branch before covers the text above the first release");
            release.changes.push((kind, plain(entry)));
            in_entry = true;
        } else if line.is_empty() {
            in_entry = false;
        } else if in_entry && line.starts_with("  ") {
            let release = releases.last_mut().expect("an entry belongs to a release");
            let (_, entry) = release.changes.last_mut().expect("in_entry is set with an entry");
            entry.push(' ');
            entry.push_str(&plain(line.trim()));
        } else if kind.is_some() {
            bail!(refuse("neither a change (`- …`) nor the continuation of one (two spaces)"));
        }
    }
    for release in &releases {
        ensure!(!release.changes.is_empty(), "CHANGELOG.md: release {} has no changes", release.version);
    }
    ensure!(!releases.is_empty(), "CHANGELOG.md has no release");
    Ok(releases)
}

/// Returns the changelog in the form of deb-changelog(5).
pub fn debian(releases: &[Release], maintainer: &str) -> String {
    let mut out = String::new();
    for release in releases {
        let urgency =
            if release.changes.iter().any(|(kind, _)| *kind == "Security") { "high" } else { "medium" };
        out.push_str(&format!("stockade ({}) unstable; urgency={urgency}\n", release.version));
        let mut last = "";
        for (kind, text) in &release.changes {
            if *kind != last {
                out.push_str(&format!("\n  [ {kind} ]\n"));
                last = kind;
            }
            for (index, line) in wrap(text, WIDTH - 4).iter().enumerate() {
                out.push_str(if index == 0 { "  * " } else { "    " });
                out.push_str(line);
                out.push('\n');
            }
        }
        out.push_str(&format!(
            "\n -- {maintainer}  {}\n\n",
            release.date.strftime("%a, %d %b %Y 00:00:00 +0000")
        ));
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

/// Returns the changelog in the form that nfpm reads: YAML, of which JSON is a part.
pub fn nfpm(releases: &[Release], maintainer: &str) -> String {
    let entries: Vec<_> = releases
        .iter()
        .map(|release| {
            let notes: Vec<_> =
                release.changes.iter().map(|(kind, text)| json!({ "note": wrap(&format!("{kind}: {text}"), WIDTH - 2).join("\n  ") })).collect();
            json!({
                "semver": format!("{}-1", release.version),
                "date": format!("{}T00:00:00Z", release.date),
                "packager": maintainer,
                "changes": notes,
            })
        })
        .collect();
    format!("{:#}\n", serde_json::Value::from(entries))
}

/// Removes Markdown's marks: packages' changelogs are plain text.
fn plain(text: &str) -> String {
    text.replace('`', "").replace("**", "")
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.into()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::{debian, nfpm, read};

    const TWO: &str = "# Changelog\n\nWords.\n\n## Unreleased\n\n- not yet\n\n## 0.2.0 - 2027-01-02\n\n### Fixed\n\n- `seal` no longer\n  fails\n\n\
                       ## 0.1.0 - 2026-11-30\n\nThe first.\n\n### Added\n\n- one\n- two\n";

    #[test]
    fn the_newest_release_is_the_workspaces_version() {
        let text = std::fs::read_to_string(crate::workspace::root().join("CHANGELOG.md")).unwrap();
        assert_eq!(read(&text).unwrap()[0].version, env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn the_changelog_of_the_deb_has_debians_form() {
        let text = debian(&read(TWO).unwrap(), "A <a@b.c>");
        assert_eq!(
            text,
            "stockade (0.2.0) unstable; urgency=medium\n\n  [ Fixed ]\n  * seal no longer fails\n\n -- A <a@b.c>  Sat, 02 Jan 2027 00:00:00 +0000\n\n\
             stockade (0.1.0) unstable; urgency=medium\n\n  [ Added ]\n  * one\n  * two\n\n -- A <a@b.c>  Mon, 30 Nov 2026 00:00:00 +0000\n"
        );
        assert!(debian(&read(TWO).unwrap(), "A <a@b.c>").lines().all(|line| line.len() <= 80));
    }

    #[test]
    fn the_changelog_of_the_rpm_names_release_and_kind() {
        let text = nfpm(&read(TWO).unwrap(), "A <a@b.c>");
        assert!(
            text.contains("\"semver\": \"0.2.0-1\"")
                && text.contains("\"note\": \"Fixed: seal no longer fails\""),
            "{text}"
        );
    }

    #[test]
    fn mistakes_in_the_changelog_are_told_with_their_line() {
        for (text, line) in [
            ("## 0.1.0\n", "line 1"),
            ("## 0.1.0 - 2026-13-01\n", "line 1"),
            ("## 0.1.0 - 2026-12-01\n\n- one\n", "line 3"),
            ("## 0.1.0 - 2026-12-01\n\n### New\n", "line 3"),
            ("## 0.1.0 - 2026-12-01\n\n### Added\n\n- one\nmore\n", "line 6"),
            ("## 0.1.0 - 2026-12-01\n\n### Added\n\n- one\n\n## 0.2.0 - 2026-12-02\n", "line 7"),
            ("## 0.1.0 - 2026-12-01\n\n### Added\n\n- one\n\n## Unreleased\n", "line 7"),
            ("## 0.1.0 - 2026-12-01\n", "has no changes"),
            ("# Changelog\n", "has no release"),
        ] {
            let error = format!("{:#}", read(text).unwrap_err());
            assert!(error.contains(line), "{text:?}: {error}");
        }
    }
}
