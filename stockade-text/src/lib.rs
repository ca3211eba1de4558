/*!
Makes foreign text fit to print: names of processes, BPF programs, pins, cgroups and files, lines of the kernel log, and
whatever else a user or an attacker chose.

Such text must not drive a terminal (control characters, escape sequences), forge a line of output (line breaks), show
something other than it is (marks of direction, characters without width), or fill the screen. All crates use this one, so
that a character which is harmful in one place is not harmless in another.
*/

/// The replacement of a character that is not fit to print.
const INSTEAD: char = '?';

/// Of a text that is longer, only so many characters are printed. A path has at most as many.
pub const LONGEST: usize = 4096;

/// Foreign text in one line: what is not fit to print becomes `?`, bytes that are no UTF-8 become U+FFFD, and what is
/// beyond [`LONGEST`] becomes `…`.
#[must_use]
pub fn harmless(text: impl AsRef<[u8]>) -> String {
    harmless_within(text, LONGEST)
}

/// Does what [`harmless`] does, with another limit.
#[must_use]
pub fn harmless_within(text: impl AsRef<[u8]>, longest: usize) -> String {
    // A character has at most four bytes. What is longer is not looked at, but that there is more.
    let bytes = text.as_ref();
    let bytes = &bytes[..bytes.len().min(longest.saturating_add(1).saturating_mul(4))];
    let text = String::from_utf8_lossy(bytes);
    let mut characters = text.chars().map(|c| if is_harmless(c) { c } else { INSTEAD });
    let mut line: String = characters.by_ref().take(longest).collect();
    if characters.next().is_some() {
        line.push('…');
    }
    line
}

/// A text of ours of several lines, in which foreign text may stand that went through [`harmless`] or was forgotten: line
/// breaks and tabs stay, and everything else that is not fit to print becomes `?`.
#[must_use]
pub fn harmless_lines(text: &str) -> String {
    text.chars().map(|c| if is_harmless(c) || matches!(c, '\n' | '\t') { c } else { INSTEAD }).collect()
}

/// A JSON document in which every character in strings that is not fit to print is escaped, so that nothing is lost and
/// nothing reaches a terminal. Outside of strings JSON has none.
#[must_use]
pub fn harmless_json(document: &str) -> String {
    let mut out = String::with_capacity(document.len());
    for c in document.chars() {
        if is_harmless(c) || matches!(c, '\n' | '\t' | '\r') {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}

/// Whether a character neither drives a terminal, nor ends a line, nor turns the direction of reading, nor is invisible.
#[must_use]
pub fn is_harmless(c: char) -> bool {
    !c.is_control() && !misleads(c)
}

/// Line separators, marks of direction, and what has no width or looks like nothing.
fn misleads(c: char) -> bool {
    matches!(c,
        // Soft hyphen, joiners and fillers that look like nothing.
        '\u{ad}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{2800}' | '\u{3164}' | '\u{ffa0}'
        // Marks, embeddings, overrides and isolates of direction; line and paragraph separators.
        | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        // Variation selectors, the byte order mark, interlinear annotation, tags.
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_become_a_line_or_drive_a_terminal() {
        assert_eq!(harmless("x\n[reasons]\rmsr\u{202e}\u{1b}"), "x?[reasons]?msr??");
        assert_eq!(harmless("\u{1b}]0;title\u{7}\u{1b}[2J"), "?]0;title??[2J");
        // C1: what some terminals take for ESC [ and for ESC ].
        assert_eq!(harmless("\u{9b}2J\u{9d}0;t\u{9c}\u{7f}"), "?2J?0;t??");
        assert_eq!(harmless("a\u{2066}b\u{2069}c\u{61c}d\u{2028}e\u{2029}f"), "a?b?c?d?e?f");
        assert_eq!(harmless("zero\u{200b}width\u{feff}\u{e0041}"), "zero?width??");
        assert_eq!(
            harmless("ordinary: äöü 漢字 “quoted” /a/b-c_d.e"),
            "ordinary: äöü 漢字 “quoted” /a/b-c_d.e"
        );
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_as_such() {
        assert_eq!(harmless(b"a\xffb\xc3"), "a\u{fffd}b\u{fffd}");
        assert_eq!(harmless(b"\x9b2J"), "\u{fffd}2J", "a C1 character as one byte");
        assert_eq!(harmless(b""), "");
    }

    #[test]
    fn a_text_has_an_end() {
        let long = "x".repeat(LONGEST + 1);
        assert_eq!(harmless(&long).chars().count(), LONGEST + 1);
        assert!(harmless(&long).ends_with('…'));
        assert_eq!(harmless(&long[..LONGEST]), long[..LONGEST]);
        assert_eq!(harmless_within("漢漢漢漢漢", 2), "漢漢…");
        assert_eq!(harmless_within("漢漢", 2), "漢漢");
        assert_eq!(harmless_within("漢", 0), "…");
    }

    #[test]
    fn lines_of_ours_stay_lines() {
        assert_eq!(harmless_lines("a\n\tb\u{1b}[2J\r\n"), "a\n\tb?[2J?\n");
    }

    #[test]
    fn json_loses_nothing() {
        assert_eq!(
            harmless_json("{\n  \"a\": \"x\u{202e}\u{9b}\u{e0041}ä\"\n}"),
            "{\n  \"a\": \"x\\u202e\\u009b\\udb40\\udc41ä\"\n}"
        );
    }

    #[test]
    fn no_character_of_a_text_gets_through_that_is_not_fit_to_print() {
        for c in (0..=0x10_ffff).filter_map(char::from_u32) {
            let told = harmless(c.to_string());
            assert!(told.chars().all(is_harmless), "{:x}", u32::from(c));
            assert_eq!(told.chars().count(), 1);
        }
    }
}
