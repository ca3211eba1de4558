//! Runs the program under test as an administrator would, and checks its answer.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The result of a run of the program.
#[derive(Debug)]
pub struct Answer {
    /// The command line, for messages.
    pub line: String,
    /// Exit status; -1 when a signal ended the process.
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
    /// Requires this exit status.
    ///
    /// # Errors
    /// With the whole output, when the exit status is another.
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

    /// Requires these words in the output, on either stream.
    ///
    /// # Errors
    /// With the whole output, when they are missing.
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

    /// Parses standard output as JSON.
    ///
    /// # Errors
    /// When standard output is not JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.out)
            .with_context(|| format!("{} printed no JSON: {}", self.line, self.out))
    }
}

/// Lifts whatever an earlier scenario enforced.
pub(crate) fn lift_all() -> Result<()> {
    let answer = stockade(&["lift", "--force"])?;
    ensure!(answer.code == 0, "lift --force ended with {}: {}", answer.code, answer.err);
    Ok(())
}
