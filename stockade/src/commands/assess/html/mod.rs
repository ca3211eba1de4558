/*!
The report as one page: a summary for whoever decides, everything for whoever mends it.

The page needs nothing else and may load nothing: its policy lets through its own style and script, by their digests, and that is all.
What was observed may have been chosen by an attacker; maud escapes every text, and addresses are links only when they are https.
Without the script everything is there, only not filtered.
*/
use data_encoding::BASE64;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};
use stockade_assess::Verdict;

use super::{
    changes::Changes,
    report::{Feature, Found, Report, State},
};

mod chart;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// How a finding counts, in the order in which it is told.
const STATES: [State; 6] = [
    State::Is(Verdict::Fail),
    State::Is(Verdict::Warn),
    State::Is(Verdict::Unknown),
    State::Waived,
    State::Is(Verdict::Pass),
    State::Is(Verdict::NotApplicable),
];

/// The page.
pub fn page(report: &Report) -> String {
    let title = format!("{}: what its kernel defends", report.host);
    let policy = format!(
        "default-src 'none'; style-src '{}'; script-src '{}'; base-uri 'none'; form-action 'none'",
        digest(STYLE),
        digest(SCRIPT)
    );
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="referrer" content="no-referrer";
                meta name="generator" content=(format!("stockade {}", report.stockade));
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                a.skip href="#findings" { "Skip to the findings" }
                (head(report))
                main {
                    (first_steps(report))
                    @if let Some(changes) = &report.changes { (changed(changes)) }
                    (accepted(report))
                    (filter(report))
                    div #findings tabindex="-1" {
                        @for feature in &report.features { (card(report, feature)) }
                    }
                }
                (foot(report))
                script { (PreEscaped(SCRIPT)) }
            }
        }
    }
    .into_string()
}

/// Returns the digest of a content as a content security policy spells it.
fn digest(content: &str) -> String {
    format!("sha256-{}", BASE64.encode(&Sha256::digest(content)))
}

fn head(report: &Report) -> Markup {
    let share = |state: State| count(report, state);
    let headline = report.headline();
    let (first, rest) = headline.split_once("; ").unwrap_or((&headline, ""));
    html! {
        header {
            p.over { "Kernel assessment of " strong { (report.host) } }
            h1 { (first) "." }
            @if !rest.is_empty() { p.lead { (rest) "." } }
            p.facts {
                @if let Some(system) = &report.system { (system) ", " }
                "kernel " (report.kernel) ". Assessed on " (report.time.replace('T', " at ").replace('Z', " UTC"))
                " in " (report.ms) " ms" @if !report.measured { ", without what is measured" } "."
            }
            ul.counts aria-label="Findings by verdict" {
                @for state in STATES {
                    @if share(state) > 0 || matches!(state, State::Is(Verdict::Fail | Verdict::Pass)) {
                        li { b class=(key(state)) { (share(state)) } " " (words(state)) }
                    }
                }
            }
            (chart::share(&STATES.map(|state| (key(state), share(state)))))
        }
    }
}

fn first_steps(report: &Report) -> Markup {
    let mut open: Vec<&Found> = report.findings().filter(|found| found.is_open()).collect();
    open.sort_by_key(|found| found.finding.verdict);
    html! {
        @if !open.is_empty() {
            section.card aria-labelledby="open" {
                div.head { h2 #open { "What is open" } p { "the gravest first" } }
                ul.open {
                    @for found in open {
                        li {
                            span class={ "badge " (key(found.state())) } { (found.finding.verdict) } " "
                            span { a href=(format!("#{}", found.id())) { (found.id()) } ": " (found.finding.found) }
                        }
                    }
                }
            }
        }
    }
}

fn changed(changes: &Changes) -> Markup {
    html! {
        section.card aria-labelledby="changes" {
            div.head { h2 #changes { "What changed" } p { "since " (changes.since) ", " (changes.host) ", kernel " (changes.kernel) } }
            @if changes.list.is_empty() { p { "Nothing." } }
            ul.plain {
                @for change in &changes.list {
                    li { (change.id) ": " (change.words()) " (" (change.direction.word()) ")" }
                }
            }
        }
    }
}

fn accepted(report: &Report) -> Markup {
    let waived: Vec<_> =
        report.findings().filter_map(|found| found.waived.as_ref().map(|waived| (found, waived))).collect();
    let root = report.want_root();
    // Unless it has been mended meanwhile, or was not looked at.
    let counts_again = |id: &str| {
        let does = |found: &Found| !matches!(found.finding.verdict, Verdict::Pass | Verdict::NotApplicable);
        report.findings().any(|found| found.id() == id && does(found))
    };
    let (expired, unneeded) =
        report.waivers.as_ref().map(|w| (w.expired.as_slice(), w.unneeded.as_slice())).unwrap_or_default();
    html! {
        @if !waived.is_empty() || !expired.is_empty() || !unneeded.is_empty() {
            section.card aria-labelledby="waivers" {
                div.head { h2 #waivers { "Accepted by waiver" } @if let Some(waivers) = &report.waivers { p { (waivers.file) } } }
                ul.plain {
                    @for (found, waived) in waived {
                        li { a href=(format!("#{}", found.id())) { (found.id()) } " until " (waived.expires) ": " (waived.reason) }
                    }
                    @for waiver in expired {
                        li {
                            (waiver.id) ": the waiver expired on " (waiver.expires) " (" (waiver.reason) ")"
                            @if counts_again(&waiver.id) { "; the finding counts again" }
                        }
                    }
                    @for id in unneeded { li { (id) ": passes, so that this waiver can go" } }
                }
            }
        }
        @if let Some(lacks) = report.lacks.as_ref().filter(|_| !root.is_empty()) {
            section.card aria-labelledby="root" {
                div.head { h2 #root { "What was not seen" } }
                p {
                    @if root.len() == 1 { "1 finding sees more as root; to have it: " }
                    @else { (root.len()) " findings see more as root; to have them: " }
                    (lacks) "."
                }
                p.note { (root.iter().map(|found| found.id()).collect::<Vec<_>>().join(", ")) }
            }
        }
    }
}

fn filter(report: &Report) -> Markup {
    html! {
        // Unhidden by the script, since it does nothing without.
        div.filter hidden role="group" aria-label="Show findings" {
            button type="button" data-state="all" aria-pressed="true" { "All" }
            @for state in STATES {
                @if count(report, state) > 0 {
                    button type="button" data-state=(key(state)) aria-pressed="false" { (words(state)) }
                }
            }
            button.unfold type="button" { "Open or close all" }
            p.says role="status" {}
        }
    }
}

fn card(report: &Report, feature: &Feature) -> Markup {
    let heading = format!("feature-{}", feature.id);
    let mut findings: Vec<&Found> = feature.findings.iter().collect();
    findings.sort_by_key(|found| (found.waived.is_some(), found.finding.verdict));
    let sums: Vec<String> = STATES
        .iter()
        .map(|state| (findings.iter().filter(|found| found.state() == *state).count(), *state))
        .filter(|(count, _)| *count > 0)
        .map(|(count, state)| format!("{count} {}", words(state)))
        .collect();
    html! {
        section.card.feature aria-labelledby=(heading) {
            div.head { h2 id=(heading) { (feature.title) } p { (sums.join(", ")) } }
            (chart::figures(feature))
            @for found in findings { (finding(report, found)) }
        }
    }
}

fn finding(report: &Report, found: &Found) -> Markup {
    let finding = &found.finding;
    let about = &found.about;
    let change = report.changes.as_ref().and_then(|changes| changes.of(found.id()));
    html! {
        details.finding id=(found.id()) data-state=(key(found.state())) {
            summary {
                span class={ "badge " (key(found.state())) } {
                    (finding.verdict) @if found.waived.is_some() { ", waived" }
                }
                span.what {
                    span.found { (finding.found) }
                    span.id { (found.id()) ", " (finding.how.word()) @if let Some(change) = change { "; " (change.words()) } }
                }
            }
            div.inside {
                @if let Some(waived) = &found.waived {
                    p.note { "Accepted until " (waived.expires) ": " (waived.reason) }
                }
                p { strong { "Wanted: " } (about.title) "." }
                p { (about.why) }
                @if !finding.evidence.is_empty() {
                    table {
                        thead { tr { th scope="col" { "What was looked at" } th scope="col" { "What was there" } } }
                        tbody {
                            @for evidence in &finding.evidence {
                                tr { th.code scope="row" { (evidence.source) } td.code { (evidence.observed) } }
                            }
                        }
                    }
                }
                h3 { @if found.is_open() { "What to do" } @else { "How to get it, or keep it" } }
                @for (whose, fix) in about.fix.each() {
                    @if !whose.is_empty() { p.whose { (whose) } }
                    (prose(fix))
                }
                h3 { "More" }
                ul.links {
                    @for link in &about.links {
                        li { @if link.starts_with("https://") { a href=(link) rel="noreferrer" { (link) } } @else { (link) } }
                    }
                    @if !about.cis.is_empty() { li { "CIS: " (about.cis.join(", ")) } }
                    @if !about.hsi.is_empty() { li { "Host Security ID: " (about.hsi.join(", ")) } }
                    @match about.root.as_str() {
                        "yes" => li { "Only root sees it." },
                        "more" => li { "Root sees more of it." },
                        _ => {},
                    }
                }
            }
        }
    }
}

/// Indented lines are commands.
fn prose(text: &str) -> Markup {
    let lines: Vec<&str> = text.lines().collect();
    html! {
        @for block in lines.chunk_by(|a, b| a.starts_with(' ') == b.starts_with(' ')) {
            @if block[0].starts_with(' ') {
                pre { code { (block.iter().map(|line| line.trim()).collect::<Vec<_>>().join("\n")) } }
            } @else {
                @for line in block.iter().filter(|line| !line.trim().is_empty()) { p { (line) } }
            }
        }
    }
}

fn foot(report: &Report) -> Markup {
    html! {
        footer {
            p {
                "Made by stockade " (report.stockade) ". Tried: the kernel was asked to do it, harmlessly. Read: the kernel, the firmware or a file "
                "says so. Derived: it follows from those. What is not known is neither a success nor a failure."
            }
        }
    }
}

fn count(report: &Report, state: State) -> usize {
    report.findings().filter(|found| found.state() == state).count()
}

fn key(state: State) -> &'static str {
    match state {
        State::Is(Verdict::Fail) => "fail",
        State::Is(Verdict::Warn) => "warn",
        State::Is(Verdict::Unknown) => "unknown",
        State::Is(Verdict::Pass) => "pass",
        State::Is(Verdict::NotApplicable) => "not-applicable",
        State::Waived => "waived",
    }
}

fn words(state: State) -> &'static str {
    match state {
        State::Is(verdict) => verdict.word(),
        State::Waived => "waived",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::assess::example;

    #[test]
    fn what_a_process_chose_is_only_text() {
        const EVIL: &str =
            "</style></script><script>alert(1)</script><img src=x onerror=alert(1)>\" onload=\"x";
        let mut report = example::report();
        for found in report.findings_mut() {
            found.finding.found = EVIL.into();
            found.finding.id = EVIL.into();
            found.finding.evidence.iter_mut().for_each(|evidence| {
                evidence.source = EVIL.into();
                evidence.observed = EVIL.into();
            });
            found.finding.measures.iter_mut().for_each(|measure| measure.name = EVIL.into());
            found.about.links = vec!["javascript:alert(1)".into(), EVIL.into()];
            found.about.title = EVIL.into();
        }
        report.host = EVIL.into();
        let page = page(&report);
        assert_eq!(page.matches("<script").count(), 1, "ours");
        assert!(!page.contains("<img") && !page.contains("\" onload") && !page.contains("href=\"javascript"));
    }

    #[test]
    fn the_page_asks_for_nothing() {
        let page = page(&example::report());
        for word in
            ["src=", "@import", "url(", "<link", "<iframe", "http-equiv=\"refresh", " style=\"", " onclick"]
        {
            assert!(!page.contains(word), "{word}");
        }
    }

    #[test]
    fn every_finding_is_on_it_and_every_anchor_leads_somewhere() {
        let report = example::report();
        let page = page(&report);
        for found in report.findings() {
            assert_eq!(page.matches(&format!("<details class=\"finding\" id=\"{}\"", found.id())).count(), 1);
        }
        for anchor in page.split("href=\"#").skip(1) {
            let id = anchor.split('"').next().unwrap();
            assert!(page.contains(&format!("id=\"{id}\"")), "{id}");
        }
    }
}
