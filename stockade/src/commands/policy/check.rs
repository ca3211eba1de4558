/*!
`stockade policy check`: what speaks against a policy, before it is applied.
*/
use std::{fmt::Write, fs, io, path::Path};

use anstream::{AutoStream, ColorChoice};
use anyhow::{Context, Result};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use stockade_kernel::{
    btf::{self, KernelTypes},
    host::{self, SecureBoot},
};
use stockade_policy::{
    Loaded, Problem, Source,
    check::{self, About, Cgroups, Code, Disk, Finding, Machine, Now, Severity},
    load,
    load::{Trust, Where},
    model::{Origin, Place},
    render::{self, Gravity},
};
use stockade_reasons::{Level, Reason};

use super::NotRead;
use crate::{Exit, flags, output, sarif};

const CGROUPS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// Where the text of a message is broken.
const WIDTH: usize = 100;

/// The output of `policy check --format json`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Report {
    /// The files that were read, later ones over earlier ones
    pub files: Vec<String>,
    /// Files that were there and not read
    pub not_read: Vec<NotRead>,
    /// What was found: the worst first, accepted ones last
    pub findings: Vec<Found>,
    /// What could not be looked at: nothing was argued about that
    pub not_looked_at: Vec<String>,
    /// Errors that nobody accepted
    pub errors: usize,
    /// Warnings that nobody accepted
    pub warnings: usize,
    /// Notes that nobody accepted
    pub notes: usize,
    /// Findings that somebody accepted
    pub accepted: usize,
}

/// One finding.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Found {
    /// The code, such as SP001
    pub code: String,
    /// The code in words
    pub name: String,
    /// error, warning or note
    pub severity: String,
    /// key, scope or exception
    pub about: String,
    /// The key, or the name of the scope or exception
    pub about_name: String,
    /// What is wrong
    pub message: String,
    /// Why that matters
    pub why: String,
    /// What to do
    pub remedy: String,
    /// The sentence that is to blame
    pub at: At,
    /// Other sentences that have to do with it
    pub related: Vec<At>,
    /// Why somebody accepted it; null when nobody did
    pub accepted: Option<String>,
}

/// A place in a policy.
#[derive(Debug, Serialize, JsonSchema)]
pub struct At {
    /// The file, or a word such as default
    pub file: String,
    /// Line, from 1; null where there are no lines
    pub line: Option<usize>,
    /// Column in characters, from 1; null where there are no lines
    pub column: Option<usize>,
    /// A few words for this place; may be empty
    pub words: String,
}

pub fn run(flags: &flags::PolicyCheck, json: bool) -> Result<Exit> {
    let image = Some(flags.root.as_path()).filter(|root| *root != Path::new("/"));
    let from = if flags.policy.is_empty() { Where::System(&flags.root) } else { Where::Named(&flags.policy) };
    let loaded = load(from, Trust::Any)?;
    let report = argue(&loaded, image)?;
    let format = if json { flags::Format::Json } else { flags.format };
    match format {
        flags::Format::Text => output::text(&text(
            &report,
            &loaded,
            AutoStream::choice(&std::io::stdout()) != ColorChoice::Never,
        ))?,
        flags::Format::Json => output::json(&document(&report, &loaded))?,
        flags::Format::Sarif => output::json(&log(&report, &loaded.sources))?,
    }
    let tolerated = if flags.strict { None } else { Some(Severity::Note) };
    Ok(if report.worst() > tolerated { Exit::No } else { Exit::Done })
}

/// Argues with what this machine shows; of an image only its files are known.
fn argue(loaded: &Loaded, image: Option<&Path>) -> Result<check::Report> {
    let root = image.unwrap_or(Path::new("/"));
    let files = Disk::new(root).with_context(|| format!("look at the files in {}", root.display()))?;
    let this = image.is_none();
    let cgroups = if this { cgroups() } else { None };
    let reasons = if this { KernelTypes::of_running_kernel().ok() } else { None };
    let machine = Machine {
        native: this.then(host::native_lockdown).and_then(Result::ok),
        auto: this.then(host::secure_boot).and_then(Result::ok).map(|secure_boot| match secure_boot {
            SecureBoot::On => Level::Integrity,
            SecureBoot::Off | SecureBoot::NoEfi => Level::None,
        }),
        reasons: reasons.map(|types| {
            let known = types.reasons.iter().filter_map(|r| stockade_reasons::by_enum_name(&r.enum_name));
            known.filter(|reason| is_asked_here(reason)).map(|reason| reason.id.to_owned()).collect()
        }),
        now: Timestamp::now(),
        files: &files,
        cgroups: &|place: &Place| cgroups.as_ref().map(|cgroups| cgroups.named_by(place)),
        function: &|name: &str| if this { btf::function(name).ok().map(|id| id.is_some()) } else { None },
        setting: &|name: &str| if this { setting(name) } else { Now::Unknown },
    };
    Ok(check::check(&loaded.policy, &machine))
}

/// The kernel numbers the reasons of all architectures, but asks only for those of its own.
fn is_asked_here(reason: &Reason) -> bool {
    reason.architecture == "all" || std::env::consts::ARCH.starts_with(reason.architecture)
}

fn setting(name: &str) -> Now {
    match fs::read_to_string(Path::new("/proc/sys").join(name)) {
        Ok(value) => Now::Is(value.trim_end().to_owned()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Now::Absent,
        Err(_) => Now::Unknown,
    }
}

fn cgroups() -> Option<Cgroups> {
    let mount = CGROUPS.iter().map(Path::new).find(|mount| host::is_cgroup2(mount))?;
    Cgroups::read(mount).ok()
}

fn text(report: &check::Report, loaded: &Loaded, colour: bool) -> String {
    let mut out = String::new();
    for finding in &report.findings {
        if let Some(why) = &finding.accepted {
            let _ = writeln!(
                out,
                "accepted[{}]: {}: {}\n  because: {}\n",
                finding.code.id,
                finding.origin,
                finding.message,
                output::harmless(why)
            );
            continue;
        }
        let gravity = match finding.severity {
            Severity::Error => Gravity::Error,
            Severity::Warning => Gravity::Warning,
            Severity::Note => Gravity::Note,
        };
        let _ = writeln!(
            out,
            "{}",
            render::message(gravity, Some(finding.code.id), &problem(finding), &loaded.sources, colour)
        );
        paragraph(&mut out, "why", &finding.why);
        paragraph(&mut out, "do", &finding.remedy);
        paragraph(
            &mut out,
            "see",
            &format!("{} or: stockade explain {}", finding.code.page(), finding.code.id),
        );
        out.push('\n');
    }
    for passed_over in &loaded.passed_over {
        let _ = writeln!(
            out,
            "not read: {}",
            output::harmless(format!("{}: {}", passed_over.path.display(), passed_over.why))
        );
    }
    for unseen in &report.unseen {
        let _ = writeln!(out, "could not look at {}", output::harmless(unseen));
    }
    let count = |severity: Severity| {
        let count = report.count(severity);
        format!("{count} {severity}{}", if count == 1 { "" } else { "s" })
    };
    let _ = writeln!(
        out,
        "{}, {}, {}; {} accepted",
        count(Severity::Error),
        count(Severity::Warning),
        count(Severity::Note),
        report.accepted()
    );
    out
}

fn problem(finding: &Finding) -> Problem {
    let mut problem =
        Problem::new(output::harmless(&finding.message), finding.origin.clone()).label(&finding.label);
    for (origin, words) in &finding.related {
        problem = problem.also(origin.clone(), words);
    }
    problem
}

/// A word and a text behind it, broken into lines.
fn paragraph(out: &mut String, word: &str, text: &str) {
    let mut line = format!("  {word:>4}:");
    for word in output::harmless(text.replace('\n', " ")).split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > WIDTH {
            let _ = writeln!(out, "{line}");
            line = " ".repeat(7);
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(out, "{line}");
}

fn document(report: &check::Report, loaded: &Loaded) -> Report {
    let sources = &loaded.sources;
    let not_read = loaded.passed_over.iter();
    let found = |finding: &Finding| Found {
        code: finding.code.id.into(),
        name: finding.code.name.into(),
        severity: finding.severity.to_string(),
        about: finding.about.kind().into(),
        about_name: finding.about.name().into(),
        message: finding.message.clone(),
        why: finding.why.clone(),
        remedy: finding.remedy.clone(),
        at: at(&finding.origin, &finding.label, sources),
        related: finding.related.iter().map(|(origin, words)| at(origin, words, sources)).collect(),
        accepted: finding.accepted.clone(),
    };
    Report {
        files: super::files(loaded),
        not_read: not_read
            .map(|file| NotRead { file: file.path.display().to_string(), why: file.why.clone() })
            .collect(),
        findings: report.findings.iter().map(found).collect(),
        not_looked_at: report.unseen.clone(),
        errors: report.count(Severity::Error),
        warnings: report.count(Severity::Warning),
        notes: report.count(Severity::Note),
        accepted: report.accepted(),
    }
}

fn at(origin: &Origin, words: &str, sources: &[Source]) -> At {
    let region = region(origin, sources);
    At {
        file: origin.file.to_string(),
        line: region.map(|region| region.start_line),
        column: region.map(|region| region.start_column),
        words: words.into(),
    }
}

/// Where a sentence is, if it is in one of the files.
fn region(origin: &Origin, sources: &[Source]) -> Option<sarif::Region> {
    let source = sources.iter().find(|source| origin.line > 0 && *source.name() == *origin.file)?;
    let (start, end) = (origin.span.0 as usize, origin.span.1 as usize);
    Some(sarif::Region {
        start_line: source.line(start),
        start_column: source.column(start),
        end_line: source.line(end),
        end_column: source.column(end),
    })
}

fn log(report: &check::Report, sources: &[Source]) -> sarif::Log {
    let codes = check::codes();
    let rule = |code: &&'static Code| {
        let help = format!("{} See {}.", code.remedy, code.page());
        sarif::Rule::new(code.id, code.name, level(code.severity), code.title, code.explanation, help)
    };
    let place = |origin: &Origin| match region(origin, sources) {
        Some(region) => sarif::Location::file(&origin.file, region),
        None => sarif::Location::nowhere().about(&origin.file, "source"),
    };
    let result = |finding: &Finding| {
        let index = codes.iter().position(|code| *code == finding.code).unwrap_or_default();
        let about = match &finding.about {
            About::Key(_) => "member",
            About::Scope(_) | About::Exception(_) => "object",
        };
        let message = format!("{}. {} {}", finding.message, finding.why, finding.remedy);
        let location = place(&finding.origin).about(finding.about.name(), about).words(&finding.label);
        let result =
            sarif::Finding::new((finding.code.id, index), level(finding.severity), message, location)
                .related(finding.related.iter().map(|(origin, words)| place(origin).words(words)));
        match &finding.accepted {
            Some(why) => result.accepted(why),
            None => result,
        }
    };
    sarif::Log::new(
        codes.iter().map(rule).collect(),
        report.findings.iter().map(result).collect(),
        &report.unseen,
    )
}

fn level(severity: Severity) -> sarif::Level {
    match severity {
        Severity::Error => sarif::Level::Error,
        Severity::Warning => sarif::Level::Warning,
        Severity::Note => sarif::Level::Note,
    }
}
