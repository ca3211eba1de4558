/*!
What a policy says without effect: the kernel refuses first, has no such check, or nothing is left to except.
*/
use std::{collections::BTreeMap, path::Path};

use stockade_reasons::{Level, all};

use super::{
    About, Case, Finding, Report, Severity, code,
    falls::{about, subject},
    list, scopes,
};
use crate::model::{Exception, Mode, Place, Reasons, Said, Verdict, known};

pub(super) fn argue(case: &Case<'_>, report: &mut Report) {
    if case.machine.native.is_none() {
        report
            .unseen
            .push("the level of the kernel's own lockdown: what it refuses first is not told".into());
    }
    if case.machine.reasons.is_none() {
        report.unseen.push("the kernel's reasons: whether it has those that are named is not told".into());
    }
    if case.machine.auto.is_none() && case.policy.level.value == crate::model::LevelChoice::Auto {
        report.unseen.push("Secure Boot: level auto is taken for integrity".into());
    }
    native(case, report);
    absent(case, report);
    places_there(case, report);
    single_reasons(case, report);
    exceptions(case, report);
}

/// Each table of single reasons, and what it belongs to.
fn tables<'a>(case: &Case<'a>) -> impl Iterator<Item = (Option<&'a str>, &'a Reasons)> {
    let scopes = case.policy.scopes.iter().map(|scope| (Some(scope.name.value.as_str()), &scope.reasons));
    std::iter::once((None, &case.policy.reasons)).chain(scopes)
}

fn owner(scope: Option<&str>, id: &str) -> About {
    scope.map_or_else(|| About::Key(format!("reasons.{id}")), |name| About::Scope(name.into()))
}

fn native(case: &Case<'_>, report: &mut Report) {
    let Some(native) = case.machine.native.filter(|native| *native > Level::None) else { return };
    let why = format!(
        "The kernel's own lockdown is at {native}, is asked before Stockade, and cannot be lowered before a reboot."
    );
    for (scope, reasons) in tables(case) {
        for (id, said) in
            reasons.iter().filter(|(id, said)| said.value != Verdict::Deny && case.native_refuses(id))
        {
            let message = format!("{id} stays refused: the kernel's own lockdown refuses it first");
            report.findings.push(
                Finding::new(&code::SHADOWED_BY_NATIVE, owner(scope, id), &said.origin, message)
                    .label("has no effect here")
                    .why(&why),
            );
        }
    }
    let level = case.level_at(None);
    if case.policy.mode.value == Mode::Audit && level > Level::None && native >= level {
        report.findings.push(
            Finding::new(
                &code::SHADOWED_BY_NATIVE,
                About::Key("mode".into()),
                &case.policy.mode.origin,
                format!("there is nothing to audit: the kernel's own lockdown refuses all of {level} first"),
            )
            .why(&why),
        );
    }
    for exception in case.active_exceptions() {
        let refused: Vec<_> =
            exception.reasons.iter().filter(|said| case.native_refuses(&said.value)).collect();
        if let Some(first) = refused.first() {
            let message = format!(
                "{} stays refused for {}: the kernel's own lockdown refuses it first",
                list(refused.iter().map(|said| said.value.as_str())),
                subject(exception)
            );
            report.findings.push(
                Finding::new(&code::SHADOWED_BY_NATIVE, about(exception), &first.origin, message)
                    .label("has no effect here")
                    .why(&why),
            );
        }
    }
}

fn absent(case: &Case<'_>, report: &mut Report) {
    let mut finding = |about: About, id: &str, said: &crate::model::Origin| {
        if !case.has(id) {
            let reason = known(id);
            let where_found = match reason.architecture {
                "all" => format!("It is in Linux from {} on.", reason.first_version),
                only => format!("It is in Linux from {} on, for {only} only.", reason.first_version),
            };
            let message = format!("this kernel has no check for {id}: naming it changes nothing here");
            report.findings.push(Finding::new(&code::REASON_ABSENT, about, said, message).why(where_found));
        }
    };
    for (scope, reasons) in tables(case) {
        for (id, said) in reasons {
            finding(owner(scope, id), id, &said.origin);
        }
    }
    for exception in case.active_exceptions() {
        for said in &exception.reasons {
            finding(about(exception), &said.value, &said.origin);
        }
    }
}

fn places_there(case: &Case<'_>, report: &mut Report) {
    let scopes = case.policy.scopes.iter().map(|s| (About::Scope(s.name.value.clone()), &s.place));
    let exceptions = case.active_exceptions().filter_map(|e| Some((about(e), e.place.as_ref()?)));
    for (about, place) in scopes.chain(exceptions) {
        match (case.machine.cgroups)(&place.value) {
            None => report.unseen.push("the cgroups: whether places name any is not told".into()),
            Some(paths) if paths.is_empty() => report.findings.push(not_there(case, about, place)),
            Some(_) => {}
        }
    }
}

fn not_there(case: &Case<'_>, about: About, place: &Said<Place>) -> Finding {
    let (severity, message) = match &place.value {
        Place::Path(path) => (Severity::Warning, format!("there is no cgroup {path}")),
        Place::Glob { .. } => (Severity::Note, format!("no cgroup matches {} right now", place.value)),
        Place::Unit(unit) => match case.machine.files.unit(unit).path {
            Ok(path) => (
                Severity::Note,
                format!("{unit} has no cgroup right now: it is not running. systemd will start it in {path}"),
            ),
            // `enforce` refuses it too.
            Err(unplaced) => (Severity::Error, unplaced.to_string()),
        },
    };
    Finding::new(&code::MATCHES_NOTHING, about, &place.origin, message).severity(severity)
}

fn single_reasons(case: &Case<'_>, report: &mut Report) {
    let level = case.level_at(None);
    for (id, said) in &case.policy.reasons {
        if said.value == Verdict::Allow && known(id).level > level {
            let message = format!("{id} is not refused at level {level} anyway: allowing it changes nothing");
            report.findings.push(
                Finding::new(
                    &code::REASON_NEEDLESS,
                    About::Key(format!("reasons.{id}")),
                    &said.origin,
                    message,
                )
                .related(&case.policy.level.origin, "the level"),
            );
        }
    }
}

fn exceptions(case: &Case<'_>, report: &mut Report) {
    let policy = case.policy;
    let denied_on_host = all().iter().any(|reason| case.host.denies(reason.id));
    let nothing_denied = !denied_on_host && !scopes::deny_anything(case);
    if policy.mode.value == Mode::Audit
        && nothing_denied
        && let Some(first) = case.active_exceptions().next()
    {
        report.findings.push(
            Finding::new(
                &code::AUDIT_WITH_EXCEPTIONS,
                About::Key("mode".into()),
                &policy.mode.origin,
                "nothing is refused anyway: the exceptions only keep what they name out of the reports",
            )
            .related(&first.name.origin, "an exception"),
        );
    }
    // What contains an exception has the same program or none.
    let mut by_exe: BTreeMap<Option<&Path>, Vec<(usize, &Exception)>> = BTreeMap::new();
    for (at, exception) in case.active_exceptions().enumerate() {
        by_exe.entry(exe(exception)).or_default().push((at, exception));
    }
    let with = |exe| by_exe.get(&exe).map_or(&[][..], Vec::as_slice).iter();
    for (at, exception) in case.active_exceptions().enumerate() {
        report.findings.extend(needless(case, exception));
        let same = exe(exception).map(|exe| with(Some(exe))).into_iter().flatten();
        let larger = same.chain(with(None)).find(|(n, other)| {
            // Of two equal ones the later is the superfluous one.
            *n != at && covers(other, exception) && (*n < at || !covers(exception, other))
        });
        if let Some((_, other)) = larger {
            report.findings.push(
                Finding::new(
                    &code::EXCEPTION_COVERED,
                    about(exception),
                    &exception.name.origin,
                    format!(
                        "exception {:?} contains everything of {:?}",
                        other.name.value, exception.name.value
                    ),
                )
                .label("changes nothing")
                .related(&other.name.origin, "contains it"),
            );
        }
    }
}

fn exe(exception: &Exception) -> Option<&Path> {
    exception.exe.as_ref().map(|exe| exe.value.as_path())
}

fn needless(case: &Case<'_>, exception: &Exception) -> Option<Finding> {
    let needless: Vec<_> =
        exception.reasons.iter().filter(|said| !case.watched.contains(said.value.as_str())).collect();
    let first = needless.first()?;
    let ids = list(needless.iter().map(|said| said.value.as_str()));
    let all = needless.len() == exception.reasons.len();
    let message = if all {
        format!("exception {:?} changes nothing: {ids} is refused nowhere", exception.name.value)
    } else {
        format!("{ids} is refused nowhere: excepting it changes nothing")
    };
    Some(
        Finding::new(&code::EXCEPTION_NEEDLESS, about(exception), &first.origin, message)
            .severity(if all { Severity::Warning } else { Severity::Note })
            .related(&case.policy.level.origin, "the level does not refuse it"),
    )
}

/// Whether everything that `inner` lets through `outer` does as well.
fn covers(outer: &Exception, inner: &Exception) -> bool {
    fn same<T: PartialEq>(outer: Option<&Said<T>>, inner: Option<&Said<T>>) -> bool {
        outer.is_none_or(|outer| inner.is_some_and(|inner| outer.value == inner.value))
    }
    let named = |id: &str| outer.reasons.iter().any(|said| said.value == id);
    inner.reasons.iter().all(|said| named(&said.value))
        && same(outer.exe.as_ref(), inner.exe.as_ref())
        && same(outer.digest.as_ref(), inner.digest.as_ref())
        && same(outer.uid.as_ref(), inner.uid.as_ref())
        && outer.place.as_ref().is_none_or(|outer| {
            inner.place.as_ref().is_some_and(|inner| outer.value.covers_all(&inner.value))
        })
        && (outer.inherit.value || !inner.inherit.value)
        && outer
            .expires
            .as_ref()
            .is_none_or(|outer| inner.expires.as_ref().is_some_and(|inner| outer.value >= inner.value))
}
