/*!
How answers are printed. Plain text is for people and may change; JSON is for programs and follows
docs/schema/. Nothing that a process chose for itself reaches a terminal unescaped.
*/
use std::io::{self, Write};

use anstream::{AutoStream, ColorChoice};
use anyhow::Context;
use schemars::JsonSchema;
use serde::Serialize;
use stockade_policy::{LoadError, Problems};

pub use stockade_text::harmless;
use stockade_text::{harmless_json, harmless_lines};

/// The JSON output when a command failed.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Failure {
    /// The failure and its remedy.
    pub error: String,
    /// What is wrong with the policy or the waivers, one by one, where that is why
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Mistake>,
}

/// One mistake in a policy or a file of waivers.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Mistake {
    /// The file
    pub file: String,
    /// Line, from 1
    pub line: u32,
    /// Column in characters, from 1
    pub column: Option<usize>,
    /// What is wrong
    pub what: String,
    /// What would be right
    pub help: Option<String>,
}

/// The operation that fails when the output cannot be written.
const PRINTED: &str = "write to standard output";

/// Prints one JSON document.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let document = serde_json::to_string_pretty(value).map_err(io::Error::from);
    document.and_then(|document| writeln!(out, "{}", harmless_json(&document))).context(PRINTED)
}

/// Prints text, at once. Names of others in it have gone through [`harmless`], which keeps them from forging a line; what was
/// forgotten does not reach the terminal as an escape sequence.
pub fn text(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let end: &[u8] = if text.ends_with('\n') { b"" } else { b"\n" };
    out.write_all(harmless_lines(text).as_bytes())
        .and_then(|()| out.write_all(end))
        .and_then(|()| out.flush())
        .context(PRINTED)
}

/// Prints text with styles, which are left out where they are not wanted: not a terminal, `NO_COLOR`.
pub fn styled(text: &str) -> anyhow::Result<()> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context(PRINTED)
}

/// Tells why a command could not be asked. A wrong file is shown with the lines in question.
pub fn failure(error: &anyhow::Error, as_json: bool) {
    let wrong = match error.downcast_ref::<LoadError>() {
        Some(LoadError::Invalid(problems)) => Some(("the policy has", problems)),
        _ => error
            .downcast_ref::<Problems>()
            .map(|problems| (if problems.list.len() == 1 { "there is" } else { "there are" }, problems)),
    };
    if as_json {
        let problems = wrong.map(|(_, problems)| mistakes(problems)).unwrap_or_default();
        // Nobody is left to tell when this fails.
        let _ = json(&Failure { error: said(error), problems });
    }
    match wrong {
        Some((what_has, problems)) => {
            let colour = AutoStream::choice(&io::stderr()) != ColorChoice::Never;
            let count = problems.list.len();
            let mistakes = if count == 1 { "1 mistake".into() } else { format!("{count} mistakes") };
            eprintln!("{}\nstockade: {what_has} {mistakes}; nothing was done", problems.render(colour));
        }
        None => eprintln!("{}", harmless_lines(&format!("stockade: {}", said(error)))),
    }
}

/// An error with its causes. A cause that the error before it tells already is not said again.
fn said(error: &anyhow::Error) -> String {
    let mut said = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if said.is_empty() {
            said = cause;
        } else if !said.contains(&cause) {
            said = format!("{said}: {cause}");
        }
    }
    said
}

fn mistakes(problems: &Problems) -> Vec<Mistake> {
    let mistake = |problem: &stockade_policy::Problem| Mistake {
        file: problem.at.file.to_string(),
        line: problem.at.line,
        column: problems.column(problem),
        what: problem.what.clone(),
        help: problem.help.clone(),
    };
    problems.list.iter().map(mistake).collect()
}

#[cfg(test)]
mod tests {
    use std::{error::Error, fmt, io};

    use anyhow::Context;

    /// An error whose message ends with its cause.
    #[derive(Debug)]
    struct Read(io::Error);

    impl fmt::Display for Read {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "read FILE: {}", self.0)
        }
    }

    impl Error for Read {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn a_cause_is_told_once() {
        let refused = Read(io::Error::from_raw_os_error(libc::EACCES));
        let error = Err::<(), _>(refused).context("the policy is left as it was").unwrap_err();
        let said = "the policy is left as it was: read FILE: Permission denied (os error 13)";
        assert_eq!(super::said(&error), said);
        let error = anyhow::anyhow!("first").context("second");
        assert_eq!(super::said(&error), "second: first");
    }

    #[test]
    fn a_name_cannot_forge_a_line() {
        assert_eq!(super::harmless("a\nLockdown: b\u{1b}[2J\u{202e}"), "a?Lockdown: b?[2J?");
    }
}
