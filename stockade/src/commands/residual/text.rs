/*!
What was found, for people.
*/
use std::fmt::Write;

use super::{Access, Found, Report};

pub(super) fn text(report: &Report) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "In force: {} by the kernel's own lockdown, {} by Stockade. {} processes looked at.",
        report.native_lockdown,
        report.stockade.as_deref().unwrap_or("nothing"),
        report.processes
    );
    let sections = [
        ("goes on in spite of what is in force", None),
        ("is not refused now, and would go on under integrity", Some("integrity")),
        ("is not refused now, and would go on under confidentiality", Some("confidentiality")),
    ];
    for (title, level) in sections {
        let belongs = |f: &&Found| match level {
            None => f.refused_now_by.is_some(),
            Some(level) => f.refused_now_by.is_none() && f.level == level,
        };
        let found: Vec<&Found> = report.found.iter().filter(belongs).collect();
        if !found.is_empty() {
            let _ = writeln!(out, "\nOpened or loaded before, {title}: {}", found.len());
        }
        for found in found {
            item(&mut out, found);
        }
    }
    if report.found.is_empty() {
        let _ = writeln!(
            out,
            "\nNothing was found{}.",
            if report.not_looked_at.is_empty() { "" } else { " in what could be looked at" }
        );
    }
    if !report.not_looked_at.is_empty() {
        let _ = writeln!(out, "\nNot looked at, and nothing is claimed of it:");
        for missed in &report.not_looked_at {
            let _ = match &missed.hidden_by {
                Some(reason) => {
                    writeln!(
                        out,
                        "  {}: cannot be seen while {reason} is refused ({})",
                        missed.what, missed.why
                    )
                }
                None => writeln!(out, "  {}: {}", missed.what, missed.why),
            };
        }
    }
    let _ = writeln!(out, "\nNever shown by the kernel, and nothing is claimed of it:");
    for line in &report.never_shown {
        let _ = writeln!(out, "  {line}");
    }
    for note in &report.notes {
        let _ = writeln!(out, "note: {note}");
    }
    out
}

fn item(out: &mut String, found: &Found) {
    let _ = write!(out, "  {:<17} {}", found.reason, found.what);
    for descriptor in &found.descriptors {
        let access = match descriptor.access {
            Access::Read => "reading",
            Access::Write => "writing",
            Access::Both => "reading and writing",
        };
        let _ = write!(out, ", open for {access} (descriptor {})", descriptor.number);
    }
    match found.mappings.len() {
        0 => {}
        1 => out.push_str(", mapped once"),
        n => {
            let _ = write!(out, ", mapped {n} times");
        }
    }
    if let Some(seconds) = found.loaded_seconds_ago {
        let _ = write!(out, ", loaded {} ago", age(seconds));
    }
    out.push('\n');
    if let Some(process) = &found.process {
        let _ = write!(out, "{:19} by {} (process {}", "", process.comm, process.pid);
        if let Some(thread) = process.thread {
            let _ = write!(out, ", thread {thread}");
        }
        if let Some(exe) = &process.exe {
            let _ = write!(out, ", {exe}");
        }
        out.push(')');
        if let Some(seconds) = process.started_seconds_ago {
            let _ = write!(out, ", which started {} ago", age(seconds));
        }
        out.push('\n');
    }
    for detail in &found.details {
        let _ = writeln!(out, "{:19} {detail}", "");
    }
    let _ = writeln!(out, "{:19} to do: {}", "", found.advice);
}

fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::age;

    #[test]
    fn ages_are_for_people() {
        assert_eq!(age(0), "0 s");
        assert_eq!(age(119), "119 s");
        assert_eq!(age(7199), "119 min");
        assert_eq!(age(86400 * 3), "3 days");
    }
}
