/*!
stockade.policy(5), made from docs/policy-language.md: the small part of Markdown which that page uses, in roff.
*/
use std::iter::Peekable;

use roff::{Inline, Roff, bold, italic, roman};

const REFERENCE: &str = include_str!("../../docs/policy-language.md");

/// The page in roff.
pub fn policy_page() -> String {
    let mut roff = Roff::new();
    let version = format!("stockade {}", env!("CARGO_PKG_VERSION"));
    roff.control("TH", ["stockade.policy", "5", " ", version.as_str(), "File formats"]);
    section(&mut roff, "NAME");
    roff.text([roman("stockade.policy - what is refused on this machine, and to whom")]);
    section(&mut roff, "DESCRIPTION");
    let mut lines = REFERENCE.lines().skip(1).peekable();
    while let Some(line) = lines.next() {
        if let Some(heading) = line.strip_prefix("## ") {
            section(&mut roff, &heading.to_uppercase());
        } else if line.starts_with("```") {
            roff.control("PP", []).control("RS", ["4"]).control("nf", []);
            lines.by_ref().take_while(|code| *code != "```").for_each(|code| {
                roff.text([roman(code)]);
            });
            roff.control("fi", []).control("RE", []);
        } else if let Some(row) = line.strip_prefix("| ") {
            // The first row and the rule below it name the columns.
            if lines.next_if(|next| next.starts_with("|---")).is_none() {
                let (tag, text) = row.trim_end_matches('|').split_once(" | ").unwrap_or((row, ""));
                roff.control("TP", []).text(inlines(tag)).text(inlines(text.trim()));
            }
        } else if let Some((mark, text)) = item(line) {
            let whole = with_what_goes_on(text, &mut lines);
            roff.control("IP", [mark.as_str(), "4"]).text(inlines(&whole));
        } else if !line.is_empty() {
            let whole = with_what_goes_on(line, &mut lines);
            roff.control("PP", []).text(inlines(&whole));
        }
    }
    roff.render()
}

fn section(roff: &mut Roff, heading: &str) {
    roff.control("SH", [heading]);
}

/// A paragraph or an item is as many lines as come before something else begins.
fn with_what_goes_on<'l>(first: &str, lines: &mut Peekable<impl Iterator<Item = &'l str>>) -> String {
    let mut whole = first.trim().to_owned();
    while let Some(next) = lines.next_if(|next| !begins_something(next)) {
        whole.push(' ');
        whole.push_str(next.trim());
    }
    whole
}

fn begins_something(line: &str) -> bool {
    line.is_empty() || line.starts_with(['#', '|']) || line.starts_with("```") || item(line).is_some()
}

/// The mark and text of an item of a list.
fn item(line: &str) -> Option<(String, &str)> {
    if let Some(text) = line.strip_prefix("- ") {
        return Some(("-".into(), text));
    }
    let (number, text) = line.split_once(". ")?;
    number.parse::<u8>().ok().map(|_| (format!("{number}."), text))
}

/// `code` and **strong** are bold, *emphasis* is italic.
fn inlines(text: &str) -> Vec<Inline> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['`', '*']) {
        let mark = if rest[at..].starts_with("**") { "**" } else { &rest[at..=at] };
        let after = &rest[at + mark.len()..];
        let Some(end) = after.find(mark) else { break };
        out.push(roman(&rest[..at]));
        out.push(if mark == "*" { italic(&after[..end]) } else { bold(&after[..end]) });
        rest = &after[end + mark.len()..];
    }
    out.push(roman(rest));
    out
}

#[cfg(test)]
mod tests {
    use stockade_policy::read::keys;

    #[test]
    fn the_page_describes_every_key() {
        let page = super::policy_page();
        for key in
            [keys::TOP, keys::SETTINGS, keys::SCOPE, keys::EXCEPTION, keys::ACCEPT, keys::SEAL, keys::TRUST]
                .concat()
        {
            let escaped = key.replace('-', "\\-");
            let described = [
                format!("\\fB{escaped}\\fR"),
                format!("\\fB[{escaped}]\\fR"),
                format!("\\fB[[{escaped}]]\\fR"),
            ];
            assert!(described.iter().any(|key| page.contains(key)), "{key}\n{page}");
        }
    }

    #[test]
    fn no_markdown_is_left() {
        let page = super::policy_page();
        assert!(!page.contains('`') && !page.contains("**") && !page.contains("|---"), "{page}");
        assert!(
            page.contains(".SH EXCEPTIONS\n") && page.contains(".IP \"1.\" 4\n")
                || page.contains(".IP 1. 4\n"),
            "{page}"
        );
    }

    #[test]
    fn a_star_in_code_is_a_star() {
        let line = roff::Roff::new().text(super::inlines("one `*` and `a*b`, *so*")).to_roff();
        assert_eq!(line, "one \\fB*\\fR and \\fBa*b\\fR, \\fIso\\fR\n");
    }

    /// Every example of the reference is right by itself.
    #[test]
    fn the_examples_are_policies() {
        let mut examples = super::REFERENCE.split("```toml\n").skip(1).peekable();
        assert!(examples.peek().is_some());
        for example in examples {
            let text = example.split("```").next().unwrap();
            let read = stockade_policy::read(&stockade_policy::Source::new("docs/policy-language.md", text));
            assert!(read.is_ok(), "{}", read.unwrap_err().render(false));
        }
    }
}
