/*!
One line on the terminal that says how far it is, once it has taken half a second. Nothing where nobody looks.
*/
use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

/// The time before progress is shown.
const PATIENCE: Duration = Duration::from_millis(500);

/// The line.
pub struct Progress {
    begin: Instant,
    /// Empty until something is.
    shown: String,
    wanted: bool,
}

impl Progress {
    /// None yet.
    pub fn new() -> Self {
        // A terminal that cannot go back to the beginning of a line would be filled with them.
        let can = std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self { begin: Instant::now(), shown: String::new(), wanted: can && io::stderr().is_terminal() }
    }

    /// So many are done, and this is being looked at.
    pub fn at(&mut self, title: &str, done: usize, of: usize) {
        if !self.wanted || self.shown.is_empty() && self.begin.elapsed() < PATIENCE {
            return;
        }
        let line = line(title, done, of, textwrap::termwidth());
        if line != self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K{line}");
            self.shown = line;
        }
    }
}

/// Takes the line off again.
impl Drop for Progress {
    fn drop(&mut self) {
        if !self.shown.is_empty() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// Cut at the terminal's width: a line that goes on below cannot be taken off.
fn line(title: &str, done: usize, of: usize, width: usize) -> String {
    format!("assessing, {done} of {of} done: {title} …").chars().take(width.saturating_sub(1)).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_line_fits() {
        assert_eq!(super::line("ASLR", 3, 18, 80), "assessing, 3 of 18 done: ASLR …");
        assert_eq!(super::line("ASLR", 3, 18, 20).len(), 19);
    }
}
