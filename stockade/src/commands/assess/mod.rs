/*!
`stockade assess`: what this kernel really defends, proven by trying.

```text
the machine, or --from ─▶ Report ─ waivers ─ baseline ─▶ table, JSON, SARIF, JUnit, HTML
```

| file | what it owns |
|---|---|
| `report.rs` | what was found with its texts and sums: the JSON, in both directions |
| `compare.rs` | compares with an earlier assessment |
| `waivers.rs`, `changes.rs` | what is accepted, and what changed |
| `table.rs`, `sarif.rs`, `junit.rs`, `html/` | one form each |
| `progress.rs` | the line on the terminal while it takes long |
*/
use std::{
    fs::{self, File},
    io::{self, IsTerminal, Read, Write},
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use stockade_assess::{System, Verdict, assess};

use self::{
    changes::Direction,
    progress::Progress,
    report::{Found, Report, State},
};
use crate::{
    Exit,
    flags::{self, FailOn},
    names::Names,
    output,
};

pub mod changes;
mod compare;
#[cfg(test)]
pub mod example;
mod html;
mod junit;
mod progress;
pub mod report;
mod sarif;
mod table;
mod waiver_file;
mod waivers;

/// The maximum size of an assessment that is read, in bytes. A complete one has a hundredth.
const LARGEST: u64 = 32 << 20;

/// Where the text of the table is broken when nobody sees a terminal.
const WIDTH: usize = 100;

/// How AppArmor confines this process.
const PROFILE: &str = "/proc/self/attr/apparmor/current";

pub fn run(flags: &flags::Assess, json: bool) -> Result<Exit> {
    // Whatever is wrong with what was asked for is told before the machine is asked.
    let forms = forms(flags, json)?;
    let names = Names::of(&flags.names);
    let waivers = match (&flags.from, &flags.config) {
        // What was waived then is in the report.
        (Some(_), None) => None,
        (_, file) => waiver_file::File::read(file.as_deref())?,
    };
    let baseline = flags.baseline.as_deref().map(read).transpose()?;
    let mut report = match &flags.from {
        Some(path) => read(path)?,
        None => ask(&names, !flags.quick)?,
    };
    report.retain(|found| names.has(found.id()));
    if let Some(path) = &flags.from {
        let missing = names.without(&report.findings().map(Found::id).collect::<Vec<_>>());
        if !missing.is_empty() {
            bail!("the assessment in {} has nothing of: {}", path.display(), missing.join(", "));
        }
    }
    if let Some(waivers) = waivers {
        waivers.apply(&mut report);
    }
    if let Some(baseline) = baseline {
        compare::compare(&mut report, &baseline, |id| names.has(id));
    }
    for (form, path) in forms {
        form.write(&report, flags, path.as_deref())?;
    }
    let decides = report.findings().any(|found| counts(&report, found, flags.fail_on));
    Ok(if decides { Exit::No } else { Exit::Done })
}

fn ask(names: &Names, measures: bool) -> Result<Report> {
    let who = match fs::read_to_string(PROFILE) {
        Ok(said) => {
            confining(&said).map(|profile| format!("AppArmor's profile {}", output::harmless(profile)))
        }
        // Everybody may read his own, but for who is confined.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Some(format!("a security module, which refuses to let it read {PROFILE},"))
        }
        Err(_) => None,
    };
    if let Some(who) = who {
        bail!(
            "{who} confines this process: what it refuses would be told as what the kernel refuses; run it unconfined: \
             aa-exec -p unconfined -- stockade assess"
        );
    }
    let system = System::live(measures);
    let at_once = thread::available_parallelism().map_or(1, usize::from);
    let mut progress = Progress::new();
    let assessment =
        assess(&system, &names.features(), at_once, |title, done, of| progress.at(title, done, of));
    drop(progress);
    Ok(Report::new(assessment, &system))
}

/// The profile by which AppArmor refuses something to a process, from what the kernel says of it: `name (mode)`. Of several profiles
/// with different modes, which is `mixed`, one refuses; so may one of a mode that comes later.
fn confining(said: &str) -> Option<&str> {
    let (profile, mode) = said.trim_end_matches(['\0', '\n']).rsplit_once(" (")?;
    (!matches!(mode.trim_end_matches(')'), "complain" | "unconfined")).then_some(profile)
}

fn read(path: &Path) -> Result<Report> {
    let told = || format!("read the assessment in {}", path.display());
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes)).with_context(told)?;
    if bytes.len() as u64 > LARGEST {
        return Err(anyhow::anyhow!("it has more than {} MiB, which no assessment has", LARGEST >> 20))
            .with_context(told);
    }
    Report::read(&String::from_utf8_lossy(&bytes)).with_context(told)
}

/// Whether a finding makes the exit status 1. With a baseline only what got worse does, or can be told no more.
fn counts(report: &Report, found: &Found, fail_on: FailOn) -> bool {
    let changed = match &report.changes {
        None => true,
        Some(changes) => changes
            .of(found.id())
            .is_some_and(|change| matches!(change.direction, Direction::Worse | Direction::Unclear)),
    };
    changed && is_covered(fail_on, found.state())
}

fn is_covered(fail_on: FailOn, state: State) -> bool {
    let State::Is(verdict) = state else { return false };
    match verdict {
        Verdict::Fail => fail_on >= FailOn::Fail,
        Verdict::Warn => fail_on >= FailOn::Warn,
        Verdict::Unknown => fail_on >= FailOn::Unknown,
        Verdict::Pass | Verdict::NotApplicable => false,
    }
}

/// A form in which a report is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Table,
    Json,
    Sarif,
    Junit,
    Html,
}

/// Every form that was asked for, with its file; none is standard output, where one form always goes.
fn forms(flags: &flags::Assess, json: bool) -> Result<Vec<(Form, Option<PathBuf>)>> {
    let asked = [
        ("--sarif", Form::Sarif, &flags.sarif),
        ("--junit", Form::Junit, &flags.junit),
        ("--html", Form::Html, &flags.html),
    ];
    let mut forms: Vec<(Form, Option<PathBuf>)> = Vec::new();
    let mut printed = if json { vec![("--json", Form::Json)] } else { Vec::new() };
    for (flag, form, path) in asked {
        match path.as_deref() {
            None => {}
            Some(path) if path == Path::new("-") => printed.push((flag, form)),
            Some(path) => {
                if forms.iter().any(|(_, other)| other.as_deref() == Some(path)) {
                    bail!("{flag} and another form cannot both be written to {}", path.display());
                }
                forms.push((form, Some(path.to_owned())));
            }
        }
    }
    if let [(first, _), (second, _), ..] = printed[..] {
        bail!("{first} and {second} cannot both be printed: give one of them a file, as in {second}=FILE");
    }
    forms.push((printed.first().map_or(Form::Table, |(_, form)| *form), None));
    Ok(forms)
}

impl Form {
    fn write(self, report: &Report, flags: &flags::Assess, path: Option<&Path>) -> Result<()> {
        let text = match self {
            Form::Table => {
                let width = if io::stdout().is_terminal() { textwrap::termwidth() } else { WIDTH };
                return output::styled(&table::table(report, width, flags.details));
            }
            Form::Json => json(report)?,
            Form::Sarif => json(&sarif::log(report))?,
            Form::Junit => junit::document(report, |found| counts(report, found, flags.fail_on))?,
            Form::Html => html::page(report),
        };
        match path {
            Some(path) => write(path, &text).with_context(|| format!("write {}", path.display())),
            None => output::text(&text),
        }
    }
}

/// Writes a file whole: half a report could pass for one, so an empty one is left when there is no room.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    match file.write_all(text.as_bytes()) {
        // A pipe, whose reader has read enough. What is printed is for somebody else.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => {
            // A device cannot be emptied.
            let _ = file.set_len(0);
            Err(error)
        }
        Ok(()) => Ok(()),
    }
}

fn json(value: &impl Serialize) -> Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::confining;

    #[test]
    fn a_profile_that_refuses_is_told_from_one_that_logs() {
        assert_eq!(confining("stockade (enforce)\n"), Some("stockade"));
        assert_eq!(confining("a (b) (kill)"), Some("a (b)"));
        assert_eq!(confining("stockade (user)\n"), Some("stockade"));
        assert_eq!(confining("a//&b (mixed)\n"), Some("a//&b"));
        assert_eq!(confining("stockade (complain)\n"), None);
        assert_eq!(confining("a//&:ns:unconfined (unconfined)\n"), None);
        assert_eq!(confining("unconfined\n"), None);
        assert_eq!(confining(""), None);
    }
}
