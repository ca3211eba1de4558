/*!
`stockade grant`: an exception with a time limit, added to the policy in force.
*/
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use jiff::SignedDuration;
use schemars::JsonSchema;
use serde::Serialize;
use stockade_kernel::{Error, btf::KernelTypes, enforce::amend, host, read_back::read_back};
use stockade_policy::{
    Source,
    model::{Exception, SLOWEST_PERCENT, Said},
    read,
};

use super::status::ExceptionLine;
use crate::{Exit, flags, output};

const GRANT: &str = "stockade grant";

/// The output of `grant --list --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct List {
    /// What is granted and has not ended
    pub grants: Vec<ExceptionLine>,
}

/// The output of `grant --json` when something was granted or revoked.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Report {
    /// The grant
    pub grant: ExceptionLine,
    /// Whether it was revoked; otherwise it was granted
    pub revoked: bool,
    /// How to undo it; null when it was revoked
    pub undo: Option<String>,
    /// What the administrator should know
    pub notices: Vec<String>,
}

pub fn run(flags: &flags::Grant, json: bool) -> Result<Exit> {
    if flags.list {
        return list(json);
    }
    let mut revoked = None;
    let (applied, grant) = if let Some(name) = &flags.revoke {
        let applied = amend(|policy| {
            let at = policy.exceptions.iter().position(|e| e.granted && e.name.value == *name);
            let at = at.ok_or_else(|| {
                Error::Request(format!(
                    "nothing is granted under the name {name}; stockade grant --list tells what is"
                ))
            })?;
            revoked = Some(policy.exceptions.remove(at));
            Ok(())
        })?;
        let revoked = revoked.context("a grant was taken out")?;
        (applied, revoked)
    } else {
        let mut grant = grant(flags)?;
        let applied = amend(|policy| {
            let taken = |name: &str| policy.exceptions.iter().any(|e| e.name.value == name);
            if flags.name.is_some() && taken(&grant.name.value) {
                return Err(Error::Request(format!(
                    "there is an exception called {} already; choose another --name, or revoke that one first",
                    grant.name.value
                )));
            }
            let stem = grant.name.value.clone();
            for number in 2.. {
                if !taken(&grant.name.value) {
                    break;
                }
                grant.name.value = format!("{stem}-{number}");
            }
            policy.exceptions.push(grant.clone());
            Ok(())
        })?;
        (applied, grant)
    };
    let revoked = flags.revoke.is_some();
    let report = Report {
        undo: (!revoked).then(|| format!("stockade grant --revoke {}", grant.name.value)),
        grant: ExceptionLine::of(&grant, host::now()),
        revoked,
        notices: applied
            .notices
            .iter()
            .map(ToString::to_string)
            .chain((!revoked).then(|| slack(&grant)).flatten())
            .collect(),
    };
    if json {
        output::json(&report)?;
    } else {
        output::text(&text(&report))?;
    }
    Ok(Exit::Done)
}

fn grant(flags: &flags::Grant) -> Result<Exception> {
    let time = flags.time.as_deref().context("--for says for how long: for instance --for 10m")?;
    let time: SignedDuration = time
        .parse()
        .map_err(|e| anyhow!("--for {time:?} is no time ({e}); write for instance 10m, 2h, 1h 30m"))?;
    if !time.is_positive() {
        bail!("--for has to be longer than nothing");
    }
    let now = host::now();
    if let Some(wrong) = host::implausible(now) {
        bail!("{wrong}: set it (date -s, or wait until it is synchronised), then grant");
    }
    let ends = u64::try_from(time.as_nanos()).ok().and_then(|time| now.boot_ns.checked_add(time));
    let expires = now.wall.checked_add(time).ok();
    let (Some(ends), Some(expires)) = (ends, expires) else { bail!("--for is longer than any machine runs") };
    let reasons = super::reasons(&flags.reasons)?;

    // Said in the policy's own words, so that it is read and argued about as an exception in a file is.
    let mut text = toml::Table::new();
    let word = |text: &str| toml::Value::String(text.to_owned());
    text.insert("name".into(), word(&flags.name.clone().unwrap_or_else(|| name(flags))));
    text.insert("reasons".into(), reasons.iter().map(|reason| word(reason.id)).collect::<Vec<_>>().into());
    for (key, value) in [("unit", &flags.unit), ("cgroup", &flags.cgroup)] {
        if let Some(value) = value {
            text.insert(key.into(), word(value));
        }
    }
    if let Some(exe) = &flags.exe {
        let exe = exe.to_str().context("--exe: the path has to be UTF-8")?;
        text.insert("exe".into(), word(exe));
        text.insert("inherit".into(), flags.inherit.into());
    }
    if let Some(uid) = flags.uid {
        text.insert("uid".into(), i64::from(uid).into());
    }
    let mut table = toml::Table::new();
    table.insert("exception".into(), vec![toml::Value::Table(text)].into());
    let document = read(&Source::new(GRANT, table.to_string()))?;
    let mut grant = document.exceptions.into_iter().next().context("one exception was written")?;
    grant.granted = true;
    grant.expires = Some(Said::at(expires, GRANT));
    grant.ends_boot_ns = Some(ends);
    Ok(grant)
}

/// By how much root can lengthen a grant.
fn slack(grant: &Exception) -> Option<String> {
    let left = grant.left_ns(host::now())? / 1_000_000_000;
    let longest = left.saturating_mul(100).div_ceil(SLOWEST_PERCENT);
    Some(format!(
        "it ends by the clock since boot, which root can slow by adjtimex(2): after {longest} s at the latest, instead of {left} s"
    ))
}

/// From the subject.
fn name(flags: &flags::Grant) -> String {
    let program =
        flags.exe.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let subject = program.or_else(|| flags.unit.clone()).or_else(|| flags.cgroup.clone()).unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    format!("grant-{}", subject.trim_matches('/').chars().map(plain).collect::<String>())
}

fn list(json: bool) -> Result<Exit> {
    let types = KernelTypes::of_running_kernel()?;
    let now = host::now();
    let state = read_back(&types)?;
    let policy = match state {
        None => None,
        Some(state) => Some(
            state
                .description
                .context("the description of the policy in force is lost: what is granted cannot be told")?
                .policy,
        ),
    };
    let exceptions = policy.map(|policy| policy.exceptions).unwrap_or_default();
    let alive = exceptions.iter().filter(|e| e.granted && !e.has_ended(now));
    let list = List { grants: alive.map(|grant| ExceptionLine::of(grant, now)).collect() };
    if json {
        output::json(&list)?;
    } else if list.grants.is_empty() {
        output::text("Nothing is granted.")?;
    } else {
        let left = |grant: &ExceptionLine| {
            grant.seconds_left.map_or_else(String::new, |left| format!(", {left} s left"))
        };
        let line = |grant: &ExceptionLine| format!("{}{}", describe(grant), left(grant));
        output::text(&list.grants.iter().map(line).collect::<Vec<_>>().join("\n"))?;
    }
    Ok(if list.grants.is_empty() { Exit::No } else { Exit::Done })
}

fn describe(grant: &ExceptionLine) -> String {
    let until = grant.ends.as_ref().map_or_else(String::new, |ends| format!(" until {ends}"));
    format!("{}: {} for {}{until}", grant.name, grant.reasons.join(", "), grant.subject)
}

fn text(report: &Report) -> String {
    let verb = if report.revoked { "Revoked" } else { "Granted" };
    let mut out = format!("{verb} {}\n", describe(&report.grant));
    for notice in &report.notices {
        out += &format!("  note: {notice}\n");
    }
    if let Some(undo) = &report.undo {
        out += &format!("Undo with: {undo}\n");
    }
    out
}
