/*!
`stockade trust record`: which programs of others a seal would keep out, as a policy to read and to put in place.
*/
use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use anyhow::{Context, Result};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use stockade_kernel::{
    blocked_programs::{self, BlockedPrograms},
    host,
};
use stockade_policy::{
    Source,
    fragment::{self, Fragment, LoadedProgram},
    words::Word,
};

use crate::{Exit, flags, output};

/// Permissions of a new file: a policy is root's alone to write.
const MODE: u32 = 0o644;

/// The output of `trust record --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Report {
    /// The programs that a seal would keep out
    pub programs: Vec<Program>,
    /// Programs that were loaded and are not recorded
    pub not_recorded: Vec<NotRecorded>,
    /// Names of the entries that were added to the file; of all of them where there was none
    pub new_programs: Vec<String>,
    /// Names of the entries that got another tag
    pub new_tags: Vec<String>,
    /// The file that was written; null where none was asked for
    pub file: Option<String>,
    /// The policy file
    pub policy: String,
}

/// A program that a seal would keep out.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Program {
    /// Its id, as `bpftool prog` shows it; another one after each boot
    pub id: u32,
    /// The name it was loaded under
    pub name: String,
    /// lsm, lsm-cgroup, modify-return, ext or cgroup-sysctl
    pub kind: String,
    /// What it is attached to; null for cgroup-sysctl
    pub hook: Option<String>,
    /// Its tag
    pub tag: String,
    /// Who loaded and who holds it, in words
    pub about: String,
}

/// A program that is loaded and not recorded.
#[derive(Debug, Serialize, JsonSchema)]
pub struct NotRecorded {
    /// Its id, as `bpftool prog` shows it
    pub id: u32,
    /// Why
    pub why: String,
}

pub fn run(flags: &flags::Trust, json: bool) -> Result<Exit> {
    let flags::TrustCommand::Record(flags) = &flags.command;
    let found = blocked_programs::look()?;
    let existing = flags.output.as_deref().map(existing).transpose()?.flatten();
    let loaded: Vec<LoadedProgram> = found.programs.iter().map(|(_, program)| program.clone()).collect();
    let fragment = fragment::record(existing.as_ref(), &loaded, &at()).map_err(|problems| {
        let error = anyhow::Error::from(problems);
        match &flags.output {
            Some(file) => error.context(format!("{} is left as it is", file.display())),
            None => error,
        }
    })?;
    if let Some(file) = &flags.output
        && existing.as_ref().is_none_or(|source| source.text() != fragment.text)
    {
        write_whole(file, &fragment.text)?;
    }
    let report = report(&found, fragment, flags.output.as_deref());
    if json {
        output::json(&report)?;
    } else if flags.output.is_some() {
        output::text(&summary(&report))?;
    } else {
        output::text(&printed(&report))?;
    }
    Ok(if report.not_recorded.is_empty() { Exit::Done } else { Exit::No })
}

/// The kernel and the day, for the comment on a tag.
fn at() -> String {
    // The date of a timestamp in UTC is what stands before its T.
    let now = Timestamp::now().to_string();
    format!("Linux {}, {}", host::kernel_release(), now.split('T').next().unwrap_or_default())
}

/// The file that programs are added to, where it is there.
fn existing(file: &Path) -> Result<Option<Source>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(Source::new(&file.display().to_string(), text))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => {
            Err(e).with_context(|| format!("read {}, to which programs would be added", file.display()))
        }
    }
}

/// Writes a file whole or not at all: under another name beside it, which is then renamed.
fn write_whole(file: &Path, text: &str) -> Result<()> {
    // A link stays one.
    let target = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let name = target.file_name().with_context(|| format!("{} names no file", file.display()))?;
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Files in policy.d that begin with a dot are not read.
    let beside = folder.join(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    let mode = fs::metadata(&target).map_or(MODE, |metadata| metadata.permissions().mode() & 0o7777);
    let write = || -> io::Result<()> {
        let mut new = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
        new.set_permissions(fs::Permissions::from_mode(mode))?;
        new.write_all(text.as_bytes())?;
        new.sync_all()?;
        fs::rename(&beside, &target)?;
        File::open(folder)?.sync_all()
    };
    write()
        .inspect_err(|e| {
            if e.kind() != io::ErrorKind::AlreadyExists {
                let _ = fs::remove_file(&beside);
            }
        })
        .with_context(|| format!("write {}", file.display()))
}

fn report(found: &BlockedPrograms, fragment: Fragment, file: Option<&Path>) -> Report {
    let program = |(id, program): &(u32, LoadedProgram)| Program {
        id: *id,
        name: program.name.clone(),
        kind: program.kind.word().to_owned(),
        hook: program.hook.as_ref().map(ToString::to_string),
        tag: program.tag.to_string(),
        about: program.about.clone(),
    };
    Report {
        programs: found.programs.iter().map(program).collect(),
        not_recorded: found
            .not_recorded
            .iter()
            .map(|(id, why)| NotRecorded { id: *id, why: why.clone() })
            .collect(),
        new_programs: fragment.new_programs,
        new_tags: fragment.new_tags,
        file: file.map(|file| file.display().to_string()),
        policy: fragment.text,
    }
}

/// The policy itself, with what is missing in it as comments: it can be redirected to a file.
fn printed(report: &Report) -> String {
    let mut out = report.policy.clone();
    if report.programs.is_empty() {
        out.push_str("\n# No program of others is loaded that a seal would keep out.\n");
    }
    for missing in &report.not_recorded {
        let _ = writeln!(out, "\n# Not recorded: program {}: {}", missing.id, output::harmless(&missing.why));
    }
    out
}

/// Describes the change of the file.
fn summary(report: &Report) -> String {
    let mut out = String::new();
    let file = output::harmless(report.file.as_deref().unwrap_or_default());
    for (what, names) in [("new", &report.new_programs), ("another tag", &report.new_tags)] {
        for name in names {
            let _ = writeln!(out, "  {what}: {}", output::harmless(name));
        }
    }
    for missing in &report.not_recorded {
        let _ = writeln!(out, "  not recorded: program {}: {}", missing.id, output::harmless(&missing.why));
    }
    if report.new_programs.is_empty() && report.new_tags.is_empty() {
        return format!("{file}: it has every program already that could be recorded\n{out}");
    }
    format!(
        "{file}: {} programs recorded\n{out}Nothing is trusted by this yet. Check each program as the file says, then apply the policy with stockade \
         enforce, and seal it.\n",
        report.programs.len()
    )
}
