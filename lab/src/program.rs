//! The program under test, run as an administrator would, and what it answered.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// What a run of the program left behind.
#[derive(Debug)]
pub struct Answer {
    /// The command line, for messages.
    pub line: String,
    /// Exit status; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// Runs `stockade` with these arguments.
///
/// # Errors
/// When it cannot be started.
pub fn stockade(args: &[&str]) -> Result<Answer> {
    with_env(args, &[])
}

/// Runs `stockade` with these arguments and environment variables.
///
/// # Errors
/// When it cannot be started.
pub fn with_env(args: &[&str], env: &[(&str, &str)]) -> Result<Answer> {
    run(Command::new("/bin/stockade").args(args).envs(env.iter().copied()))
}

/// Runs any command.
///
/// # Errors
/// When it cannot be started.
pub fn run(command: &mut Command) -> Result<Answer> {
    let line = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("run {line}"))?;
    Ok(Answer {
        line,
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

impl Answer {
    /// Demands an exit status.
    ///
    /// # Errors
    /// With everything the program said, when it is another.
    pub fn exits(self, code: i32) -> Result<Self> {
        ensure!(
            self.code == code,
            "{} ended with {}, not {code}\n{}{}",
            self.line,
            self.code,
            self.out,
            self.err
        );
        Ok(self)
    }

    /// Demands words in what it printed, on either stream.
    ///
    /// # Errors
    /// With everything the program said, when they are missing.
    pub fn says(self, words: &str) -> Result<Self> {
        ensure!(
            self.out.contains(words) || self.err.contains(words),
            "{} does not say {words:?}\n{}{}",
            self.line,
            self.out,
            self.err
        );
        Ok(self)
    }

    /// Its JSON document.
    ///
    /// # Errors
    /// When standard output is something else.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.out)
            .with_context(|| format!("{} printed no JSON: {}", self.line, self.out))
    }
}
