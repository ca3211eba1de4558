//! docs/tutorial.md: one shell runs each command in order, and each prints the lines that the page shows.

use std::{
    fmt,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use super::lift_all;
use crate::{
    guest::Guest,
    page,
    scenario::{Boot, Depends, Scenario},
};

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "tutorial: its commands print the lines of docs/tutorial.md",
    boot: Boot::SealedTutorial,
    depends: Depends::UserSide,
    run: tutorial,
}];

const TUTORIAL: &str = include_str!("../../../docs/tutorial.md");

/// A command of a console block.
#[derive(Debug, Default, PartialEq, Eq)]
struct Step {
    command: String,
    /// Lines that the page shows below it. Each is part of a line that the command prints, in this order.
    shown: Vec<String>,
}

/// Reads the console blocks of a page. A command begins with `# `; one with a here-document ends with the line END.
fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for block in page::blocks(page).into_iter().filter(|block| block.language == "console") {
        let mut in_document = false;
        for line in block.text.lines() {
            if in_document {
                let step = steps.last_mut().expect("a command began the document");
                step.command = format!("{}\n{line}", step.command);
                in_document = line != "END";
            } else if let Some(command) = line.strip_prefix("# ") {
                in_document = command.ends_with("<<'END'");
                steps.push(Step { command: command.to_owned(), shown: Vec::new() });
            } else if let Some(step) = steps.last_mut() {
                step.shown.push(words(line));
            }
        }
    }
    steps
}

/// Returns the words of a line, without the width of its columns.
fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns the first of the shown lines that is not part of a printed line after that of the previous one.
fn missing<'a>(shown: &'a [String], printed: &[String]) -> Option<&'a String> {
    let mut rest = printed.iter();
    shown.iter().find(|line| !rest.any(|printed| printed.contains(line.as_str())))
}

/// A shell that runs one command after the other, background jobs included.
struct Shell {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// The prefix of the line after a command's output; the exit status follows.
const END: &str = "@@ exit status";

impl Shell {
    fn start() -> Result<Self> {
        let mut command = Command::new("/bin/busybox");
        // The environment of a login shell: with another variable an excepted program would lose its exception.
        command.arg("sh").env_clear().envs([("PATH", "/bin"), ("HOME", "/root"), ("TERM", "dumb")]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("run a shell")?;
        let mut input = child.stdin.take().context("its input was piped")?;
        let output = BufReader::new(child.stdout.take().context("its output was piped")?);
        writeln!(input, "exec 2>&1")?;
        Ok(Self { child, input, output })
    }

    /// Runs a command and returns the lines that it printed, with its exit status.
    fn run(&mut self, command: &str) -> Result<(Vec<String>, i32)> {
        // The newline puts the prefix on a line of its own, also after output without one.
        write!(self.input, "{command}\nprintf '\\n{END} %s\\n' $?\n")?;
        let mut printed = Vec::new();
        loop {
            let mut line = String::new();
            let length = self.output.read_line(&mut line).context("read what the shell prints")?;
            ensure!(length > 0, "the shell ended in {command:?}: {printed:?}");
            if let Some(status) = line.strip_prefix(END) {
                return Ok((printed, status.trim().parse()?));
            }
            printed.push(words(&line));
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tutorial(_: &Guest) -> Result<()> {
    lift_all()?;
    let mut shell = Shell::start()?;
    for step in steps(TUTORIAL) {
        let (printed, status) = shell.run(&step.command)?;
        if let Some(line) = missing(&step.shown, &printed) {
            anyhow::bail!(
                "{step}\ndoes not print {line:?}, but (exit status {status})\n{}",
                printed.join("\n")
            );
        }
        let is_silent = step.shown.is_empty();
        ensure!(!is_silent || status == 0, "{step}\nends with {status}:\n{}", printed.join("\n"));
    }
    Ok(())
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_lines_are_read_from_console_blocks() {
        let page = "text\n```sh\n# no\n```\n```console\n# cat > a <<'END'\n# b\nEND\n# id\nuid=0   gid=0\n```\n# heading\n";
        let document = Step { command: "cat > a <<'END'\n# b\nEND".into(), shown: Vec::new() };
        let id = Step { command: "id".into(), shown: vec!["uid=0 gid=0".into()] };
        assert_eq!(steps(page), [document, id]);
        assert!(steps(TUTORIAL).len() > 20);
    }

    #[test]
    fn lines_are_missing_unless_they_are_printed_in_order() {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(missing(&lines("b\nd"), &lines("a\nb c\nd")), None);
        assert_eq!(missing(&lines("d\nb"), &lines("a\nb c\nd")), Some(&"b".to_owned()));
        assert_eq!(missing(&lines("x"), &[]), Some(&"x".to_owned()));
    }
}
