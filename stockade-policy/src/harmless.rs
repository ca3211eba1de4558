/*!
Names that processes chose, made fit to print.
*/

/// With everything replaced that drives a terminal, ends a line, or turns the direction of reading: a name must
/// not become a line of a policy or a log, nor hide one.
#[must_use]
pub fn harmless(name: &str) -> String {
    name.chars().map(|c| if c.is_control() || misleads(c) { '?' } else { c }).collect()
}

/// Line separators, marks of direction, and what has no width.
fn misleads(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_name_cannot_become_a_line_of_a_policy() {
        assert_eq!(super::harmless("x\n[reasons]\rmsr\u{202e}\u{1b}"), "x?[reasons]?msr??");
    }
}
