/*!
How answers are printed. Plain text is for people and may change; JSON is for programs and follows
docs/schema/. Nothing that a process chose for itself reaches a terminal unescaped.
*/
use std::io::{self, Write};

use schemars::JsonSchema;
use serde::Serialize;

/// What is printed in JSON when a command could not be asked.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Failure {
    /// What went wrong and what to do.
    pub error: String,
}

/// Prints one JSON document.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value).map_err(io::Error::from)?;
    writeln!(out)?;
    Ok(())
}

/// Prints text, at once.
pub fn text(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(())
}

/// Control characters replaced, so that a process's name cannot drive a terminal or forge a log line.
pub fn harmless(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_name_cannot_forge_a_line() {
        assert_eq!(super::harmless("a\nLockdown: b\u{1b}[2J"), "a?Lockdown: b?[2J");
    }
}
