/*!
The report for people at a terminal: sums first, grouped by feature, the worst of each first, and at the end what to do next.

Words say everything; colour only helps to find it.
*/
use std::fmt::Write;

use clap::builder::styling::{AnsiColor, Style};
use stockade_assess::Verdict;
use textwrap::{Options, WordSplitter, core::display_width};

use super::report::{Found, Report, State};
use crate::output::harmless;

/// Narrower than this nothing is made, and wider nothing is easier to read.
const WIDTHS: (usize, usize) = (40, 140);

/// So much has to be left for what was found, or it goes below the name.
const LEFT: usize = 34;

/// The width of the longest word for a verdict.
const WORD: usize = 7;

/// The width of the longest word for how it was established.
const HOW: usize = 7;

/// The report as styled text, at this width.
pub fn table(report: &Report, width: usize, details: bool) -> String {
    let width = width.clamp(WIDTHS.0, WIDTHS.1);
    let ids = report.findings().map(|found| display_width(found.id())).max().unwrap_or_default();
    let mut table = Table { out: String::new(), width, ids, details };
    table.head(report);
    for feature in &report.features {
        let _ = writeln!(table.out, "\n{BOLD}{}{BOLD:#}", harmless(&feature.title));
        let mut findings: Vec<&Found> = feature.findings.iter().collect();
        // Of one verdict they stay in the order of ids.
        findings.sort_by_key(|found| (found.waived.is_some(), found.finding.verdict));
        for found in findings {
            table.finding(report, found);
        }
    }
    table.foot(report);
    table.out
}

const BOLD: Style = Style::new().bold();

struct Table {
    out: String,
    width: usize,
    ids: usize,
    details: bool,
}

impl Table {
    fn head(&mut self, report: &Report) {
        let counts = report.counts;
        let parts = [
            (counts.fail, "fail", style(Verdict::Fail)),
            (counts.warn, "warn", style(Verdict::Warn)),
            (counts.unknown, "unknown", style(Verdict::Unknown)),
            (counts.pass, "pass", style(Verdict::Pass)),
            (counts.not_applicable, "not applicable", style(Verdict::NotApplicable)),
            (counts.waived, "waived", Style::new()),
        ];
        let words: Vec<String> = parts
            .iter()
            .filter(|(count, word, _)| *count > 0 || matches!(*word, "fail" | "pass"))
            .map(|(count, word, style)| format!("{style}{count} {word}{style:#}"))
            .collect();
        self.paragraph(&words.join(", "), "", "");
        self.paragraph(&harmless(&(report.headline() + ".")), "", "");
        let system = report.system.as_ref().map(|name| format!(", {name}")).unwrap_or_default();
        let quick = if report.measured { "" } else { ", nothing measured" };
        let machine = format!(
            "{}{system}, kernel {}; {}, {} ms{quick}",
            report.host, report.kernel, report.time, report.ms
        );
        self.paragraph(&harmless(&machine), "", "  ");
        if let Some(changes) = &report.changes {
            let then =
                format!("compared with {}, kernel {}; {}", changes.host, changes.kernel, changes.since);
            self.paragraph(&harmless(&then), "", "  ");
        }
    }

    fn finding(&mut self, report: &Report, found: &Found) {
        let finding = &found.finding;
        let verdict = finding.verdict;
        let style = if found.waived.is_some() { Style::new().dimmed() } else { style(verdict) };
        let word = format!("  {style}{:<WORD$}{style:#}  ", word(verdict, found.waived.is_some()));
        let mut text = harmless(&finding.found);
        if let Some(change) = report.changes.as_ref().and_then(|changes| changes.of(found.id())) {
            text = format!("[{}: {}] {text}", change.direction.word(), change.words());
        }
        if let Some(waived) = &found.waived {
            let (expires, reason) = (harmless(&waived.expires), harmless(&waived.reason));
            text = format!("(waived until {expires}: {reason}) {text}");
        }
        let columns = 2 + WORD + 2 + self.ids + 2 + HOW + 2;
        let id = harmless(found.id());
        if columns + LEFT <= self.width {
            let first = format!("{word}{id:<ids$}  {:<HOW$}  ", finding.how.word(), ids = self.ids);
            self.paragraph(&text, &first, &" ".repeat(columns));
        } else {
            let _ = writeln!(self.out, "{word}{id}");
            self.paragraph(&format!("{}: {text}", finding.how.word()), "    ", "    ");
        }
        if self.details {
            self.details(found);
        }
    }

    fn details(&mut self, found: &Found) {
        const IN: &str = "      ";
        for evidence in &found.finding.evidence {
            let text = format!("{}: {}", harmless(&evidence.source), harmless(&evidence.observed));
            self.paragraph(&text, &format!("{IN}seen  "), &format!("{IN}      "));
        }
        for measure in &found.finding.measures {
            let wanted = measure.expected.map(|expected| format!(" (should be {})", figure(expected)));
            let text = format!(
                "{}: {} {}{}",
                harmless(&measure.name),
                figure(measure.value),
                harmless(&measure.unit),
                wanted.unwrap_or_default()
            );
            self.paragraph(&text, &format!("{IN}seen  "), &format!("{IN}      "));
        }
        if !matches!(found.state(), State::Is(Verdict::Fail | Verdict::Warn)) {
            return;
        }
        self.paragraph(&harmless(&found.about.why), &format!("{IN}why   "), &format!("{IN}      "));
        for (whose, fix) in found.about.fix.each() {
            let mut first = format!("{IN}do    ");
            if !whose.is_empty() {
                self.paragraph(&format!("{whose}:"), &first, &format!("{IN}      "));
                first = format!("{IN}      ");
            }
            for line in fix.lines() {
                let rest = format!("{IN}      ");
                // Commands stay in one line, so that they can be copied.
                if line.starts_with(' ') {
                    let _ = writeln!(self.out, "{first}{}", harmless(line.trim_end()));
                } else {
                    self.paragraph(&harmless(line), &first, &rest);
                }
                first = rest;
            }
        }
        for link in &found.about.links {
            let _ = writeln!(self.out, "{IN}see   {}", harmless(link));
        }
        self.out.push('\n');
    }

    /// Writes the next steps.
    fn foot(&mut self, report: &Report) {
        self.out.push('\n');
        for (verdict, words) in [
            (Verdict::Fail, "Off or not working"),
            (Verdict::Warn, "Could be stronger"),
            (Verdict::Unknown, "Could not be checked"),
        ] {
            let ids: Vec<&str> = report
                .findings()
                .filter(|found| found.state() == State::Is(verdict))
                .map(Found::id)
                .collect();
            if !ids.is_empty() {
                self.list(words, &ids);
            }
        }
        if let Some(changes) = &report.changes {
            let gone: Vec<&str> = changes
                .list
                .iter()
                .filter(|change| change.is.is_none())
                .map(|change| change.id.as_str())
                .collect();
            if !gone.is_empty() {
                self.list("No longer looked at", &gone);
            }
        }
        if let Some(waivers) = &report.waivers {
            for waiver in &waivers.expired {
                let words =
                    format!("The waiver of {} expired on {} ({}).", waiver.id, waiver.expires, waiver.at);
                self.paragraph(&harmless(&words), "", "  ");
            }
            if !waivers.unneeded.is_empty() {
                let ids: Vec<&str> = waivers.unneeded.iter().map(String::as_str).collect();
                self.list("Waived, and pass: these waivers can go", &ids);
            }
        }
        if let Some(lacks) = &report.lacks {
            let ids: Vec<&str> = report.want_root().into_iter().map(Found::id).collect();
            if !ids.is_empty() {
                let count = if ids.len() == 1 {
                    "1 finding sees".into()
                } else {
                    format!("{} findings see", ids.len())
                };
                self.list(&format!("{count} more as root ({})", harmless(lacks)), &ids);
            }
        }
        if report.findings().any(Found::is_open) && !self.details {
            self.paragraph("Why, and what to do: stockade explain FINDING, or --details for all.", "", "  ");
        }
    }

    fn list(&mut self, words: &str, ids: &[&str]) {
        self.paragraph(&format!("{words}: {}", harmless(ids.join(", "))), "", "  ");
    }

    fn paragraph(&mut self, text: &str, first: &str, rest: &str) {
        let options = Options::new(self.width)
            .initial_indent(first)
            .subsequent_indent(rest)
            // Ids stay whole, so that they can be copied.
            .word_splitter(WordSplitter::NoHyphenation);
        for line in textwrap::wrap(text.trim(), options) {
            let _ = writeln!(self.out, "{}", line.trim_end());
        }
    }
}

/// A figure without digits that say nothing.
pub fn figure(value: f64) -> String {
    if value.abs() >= 100.0 || value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

/// The word in the table: what has to be seen is in capitals.
fn word(verdict: Verdict, waived: bool) -> &'static str {
    match verdict {
        Verdict::Fail if !waived => "FAIL",
        Verdict::Warn if !waived => "WARN",
        Verdict::Fail => "fail",
        Verdict::Warn => "warn",
        Verdict::Unknown => "unknown",
        Verdict::Pass => "pass",
        Verdict::NotApplicable => "n/a",
    }
}

fn style(verdict: Verdict) -> Style {
    match verdict {
        Verdict::Fail => AnsiColor::Red.on_default().bold(),
        Verdict::Warn => AnsiColor::Yellow.on_default(),
        Verdict::Unknown => AnsiColor::Magenta.on_default(),
        Verdict::Pass => AnsiColor::Green.on_default(),
        Verdict::NotApplicable => Style::new().dimmed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::assess::{compare, example};

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn it_fits_at_every_width() {
        for details in [false, true] {
            for width in 40..=200 {
                let text = plain(&table(&example::report(), width, details));
                for line in text.lines() {
                    // Commands and links stay whole, so that they can be copied.
                    let whole = line.get(12..16) == Some("    ") || line.starts_with("      see   http");
                    assert!(whole || display_width(line) <= width, "{width}: {line}");
                }
            }
        }
    }

    #[test]
    fn sums_come_first_and_the_worst_of_a_feature_first() {
        let text = plain(&table(&example::report(), 100, false));
        let first = text.lines().next().unwrap();
        let counts = example::report().counts;
        assert!(first.starts_with(&format!("{} fail, {} warn, ", counts.fail, counts.warn)), "{first}");
        for feature in &example::report().features {
            let at = |found: &Found| text.find(&format!("  {} ", found.id())).unwrap();
            let mut findings: Vec<_> = feature.findings.iter().filter(|f| f.waived.is_none()).collect();
            findings.sort_by_key(|found| at(found));
            assert!(findings.is_sorted_by_key(|found| found.finding.verdict), "{}", feature.id);
        }
    }

    #[test]
    fn every_word_is_there_without_colour() {
        let text = plain(&table(&example::report(), 100, false));
        for word in ["FAIL", "WARN", "unknown", "pass", "n/a", "waived until", "tried", "read", "derived"] {
            assert!(text.contains(word), "{word}\n{text}");
        }
    }

    #[test]
    fn what_a_process_chose_drives_no_terminal() {
        let mut report = example::report();
        for found in report.findings_mut() {
            found.finding.found = "\u{1b}[2J\u{9b}2J\r".into();
            found.about.title = "\u{1b}]0;x\u{7}".into();
            if let Some(waived) = &mut found.waived {
                waived.expires = "\u{1b}[3J".into();
            }
        }
        report.host = "\u{1b}c".into();
        let mut before = report.clone();
        before.time = "\u{1b}[4J".into();
        before.findings_mut().for_each(|found| found.finding.verdict = Verdict::Unknown);
        let alone = table(&report, 80, true);
        compare::compare(&mut report, &before, |_| true);
        let compared = table(&report, 80, true);
        for text in [&alone, &compared] {
            assert!(!plain(text).contains(|c: char| c.is_control() && c != '\n'));
            assert!(text.contains("?[2J?2J?") && text.contains("?[3J"), "{text}");
        }
        assert!(compared.contains("?[4J"), "{compared}");
    }
}
