/*!
What falls with what is let through: the implication graph of the reasons table, held against what the policy refuses.
*/
use stockade_reasons::{Implies, Level, Reason, all, by_id, closure};

use super::{About, Case, Finding, Report, Severity, code, list};
use crate::model::{Digest, Exception, Origin, Said, Unknown, Verdict, known};

const WRITES_PROCESSES: &str = "bpf-write-user";

/// More names than this nobody reads.
const PREY_SHOWN: usize = 3;

pub(super) fn argue(case: &Case<'_>, report: &mut Report) {
    let policy = case.policy;
    for (id, said) in &policy.reasons {
        let place = At { about: About::Key(format!("reasons.{id}")), within: None };
        report.findings.extend(let_through(case, id, said, &place));
        report.findings.extend(refused_alone(case, id, said, &place));
    }
    for exception in case.active_exceptions() {
        report.findings.extend(excepted(case, exception));
    }
    report.findings.extend(taken(case));
    report.findings.extend(unknown(case));
    report.findings.extend(nothing(case));
}

/// Where a reason is said: the host, or a scope by its number.
pub(super) struct At {
    pub about: About,
    pub within: Option<usize>,
}

/// A single reason that is let through where others are refused.
pub(super) fn let_through(case: &Case<'_>, id: &str, said: &Said<Verdict>, at: &At) -> Option<Finding> {
    let verdicts = case.meant_at(at.within);
    if said.value == Verdict::Deny || verdicts.denies(id) || !case.can_happen(id) {
        return None;
    }
    let reason = known(id);
    let falls = names(closure(reason).into_iter().filter(|r| verdicts.denies(r.id) && case.has(r.id)));
    if falls.is_empty() {
        return None;
    }
    let how = if said.value == Verdict::Allow { "allowed" } else { "only audited" };
    let who = match &at.about {
        About::Scope(name) => format!("in scope {name:?}"),
        _ => "for everybody".into(),
    };
    let (code, message) = if way_to_everything(reason).is_some() {
        (&code::LEVEL_VOID, format!("{id} is {how} {who}: the level is void, since {id} gives everything"))
    } else {
        let count = falls.len();
        (&code::GIVES_OTHERS, format!("{id} is {how} {who}: that gives {count} others which are refused"))
    };
    let severity = if said.value == Verdict::Audit { Severity::Warning } else { code.severity };
    Some(
        Finding::new(code, at.about.clone(), &said.origin, message)
            .severity(severity)
            .label("this lets it through")
            .related(level_origin(case, at), "these refusals fall with it")
            .why(format!("{} Falls with it: {}.", because(reason), list(falls))),
    )
}

/// A reason that is refused beyond the level, and can be had through others.
pub(super) fn refused_alone(case: &Case<'_>, id: &str, said: &Said<Verdict>, at: &At) -> Option<Finding> {
    let verdicts = case.meant_at(at.within);
    if said.value != Verdict::Deny || case.level_at(at.within) >= known(id).level || !case.can_happen(id) {
        return None;
    }
    let doors = names(all().iter().filter(|r| {
        r.id != id
            && !verdicts.denies(r.id)
            && case.can_happen(r.id)
            && closure(r).iter().any(|falls| falls.id == id)
    }));
    (!doors.is_empty()).then(|| {
        Finding::new(
            &code::REFUSED_ALONE,
            at.about.clone(),
            &said.origin,
            format!("{id} is refused, but can be had through {} others that are let through", doors.len()),
        )
        .label("does not hold root up")
        .related(level_origin(case, at), "this level lets the others through")
        .why(format!("Each of these gives {id}: {}.", list(doors)))
    })
}

fn excepted(case: &Case<'_>, exception: &Exception) -> Vec<Finding> {
    let subject = subject(exception);
    let named = |id: &str| exception.reasons.iter().any(|r| r.value == id);
    let mut voids = Vec::new();
    let mut findings = Vec::new();
    for said in &exception.reasons {
        let reason = known(&said.value);
        if !case.can_happen(reason.id) || !case.denied.contains(reason.id) {
            continue;
        }
        if way_to_everything(reason).is_some() {
            voids.push((said, reason));
            continue;
        }
        let falls = names(
            closure(reason)
                .into_iter()
                .filter(|r| !named(r.id) && case.denied.contains(r.id) && case.has(r.id)),
        );
        if !falls.is_empty() {
            findings.push(
                Finding::new(
                    &code::EXCEPTION_GIVES_OTHERS,
                    about(exception),
                    &said.origin,
                    format!(
                        "{} gives {subject} {} more reasons than the exception names",
                        reason.id,
                        falls.len()
                    ),
                )
                .severity(if exception.exe.is_some() { Severity::Note } else { Severity::Warning })
                .why(format!("{} As good as excepted: {}.", because(reason), list(falls))),
            );
        }
    }
    if let Some((first, reason)) = voids.first() {
        let ids = voids.iter().map(|(_, reason)| reason.id);
        let severity = match (&exception.exe, &exception.digest) {
            (None, _) => Severity::Error,
            (Some(_), None) => Severity::Warning,
            (Some(_), Some(_)) => Severity::Note,
        };
        let strength = match (&exception.exe, exception.digest.as_ref().map(|digest| &digest.value)) {
            (None, _) => "Any process of root can move itself there.",
            (_, None) => "The program is known by its path alone.",
            (_, Some(Digest::Sha256(_))) => "The digest is compared when the policy is applied.",
            (_, Some(Digest::Verity(_))) => "Its content is bound by fs-verity.",
        };
        let mut finding = Finding::new(
            &code::EXCEPTION_VOIDS_LEVEL,
            about(exception),
            &first.origin,
            format!(
                "{subject} may do everything: {} {} as good as all reasons",
                list(ids),
                is_are(voids.len())
            ),
        )
        .severity(severity)
        .label("this gives everything")
        .why(format!("{} {strength}", because(reason)));
        for (said, _) in &voids[1..] {
            finding = finding.related(&said.origin, "and this");
        }
        findings.push(finding);
    }
    findings
}

/// Exceptions by program that whoever writes the memory of processes has too.
fn taken(case: &Case<'_>) -> Vec<Finding> {
    if !case.can_happen(WRITES_PROCESSES) {
        return Vec::new();
    }
    let holds = |e: &Exception| e.reasons.iter().any(|r| r.value == WRITES_PROCESSES);
    let prey: Vec<&Exception> = case
        .active_exceptions()
        .filter(|e| {
            e.exe.is_some()
                && e.reasons
                    .iter()
                    .any(|r| r.value != WRITES_PROCESSES && case.denied.contains(r.value.as_str()))
        })
        .collect();
    let finding = |about: About, origin: &Origin, who: &str, but: Option<&Exception>| {
        let mut others = prey.iter().filter(|e| but.is_none_or(|but| but.name.value != e.name.value));
        let shown: Vec<_> = others.by_ref().take(PREY_SHOWN).collect();
        let mut names: Vec<String> = shown.iter().map(|e| format!("{:?}", e.name.value)).collect();
        match others.count() {
            0 if shown.is_empty() => return None,
            0 => {}
            more => names.push(format!("{more} more")),
        }
        let mut finding = Finding::new(
            &code::EXCEPTIONS_CAN_BE_TAKEN,
            about,
            origin,
            format!("{who} may write the memory of processes, and so has the exceptions of others"),
        )
        .label("lets bpf-write-user through")
        .why(format!(
            "A BPF program can write into a process that has an exception: {}.",
            list(names.iter().map(String::as_str))
        ));
        for exception in shown {
            finding = finding.related(&exception.name.origin, "can be taken over");
        }
        Some(finding)
    };
    let mut findings = Vec::new();
    if !case.meant.denies(WRITES_PROCESSES) {
        let (key, origin) = match case.policy.reasons.get(WRITES_PROCESSES) {
            Some(said) => (format!("reasons.{WRITES_PROCESSES}"), &said.origin),
            None => ("level".into(), &case.policy.level.origin),
        };
        findings.extend(finding(About::Key(key), origin, "everybody", None));
    }
    for holder in case.active_exceptions().filter(|e| holds(e) && case.meant.denies(WRITES_PROCESSES)) {
        let severity = if holder.digest.is_some() { Severity::Note } else { Severity::Warning };
        let found = finding(about(holder), &holder.name.origin, &subject(holder), Some(holder));
        findings.extend(found.map(|finding| finding.severity(severity)));
    }
    findings
}

fn unknown(case: &Case<'_>) -> Option<Finding> {
    let said = &case.policy.unknown_reasons;
    let word = match said.value {
        Unknown::Allow => "allowed",
        Unknown::Audit => "audited only",
        Unknown::Level | Unknown::Deny => return None,
    };
    let scopes = (0..case.scopes.len()).map(Some);
    let strict = std::iter::once(None).chain(scopes).any(|at| case.level_at(at) > Level::None);
    strict.then(|| {
        Finding::new(
            &code::UNKNOWN_REASONS_LAXER,
            About::Key("unknown-reasons".into()),
            &said.origin,
            format!("reasons that this version does not know are {word}, whatever the level"),
        )
        .related(&case.policy.level.origin, "this level would refuse what it covers")
    })
}

fn nothing(case: &Case<'_>) -> Option<Finding> {
    let policy = case.policy;
    let silent = case.host.all_allow() && case.scopes.iter().all(|scope| scope.effective.all_allow());
    let held = crate::settings::compile(policy, case.machine.auto.unwrap_or(Level::Integrity));
    if !silent || !held.is_empty() || matches!(policy.unknown_reasons.value, Unknown::Deny | Unknown::Audit) {
        return None;
    }
    let auto = policy.level.value == crate::model::LevelChoice::Auto;
    let (severity, message) = if auto {
        (Severity::Note, "the policy refuses nothing here: auto is none, since Secure Boot is off")
    } else {
        (Severity::Warning, "the policy refuses and reports nothing")
    };
    Some(
        Finding::new(&code::NOTHING_REFUSED, About::Key("level".into()), &policy.level.origin, message)
            .severity(severity),
    )
}

/// The way from a reason to one that gives everything, both included.
pub(super) fn way_to_everything(reason: &'static Reason) -> Option<Vec<&'static Reason>> {
    fn walk(reason: &'static Reason, seen: &mut Vec<&'static str>) -> Option<Vec<&'static Reason>> {
        if seen.contains(&reason.id) {
            return None;
        }
        seen.push(reason.id);
        match reason.implies {
            Implies::Everything => Some(vec![reason]),
            Implies::Reasons(ids) => ids.iter().filter_map(|id| by_id(id)).find_map(|next| {
                let mut way = walk(next, seen)?;
                way.insert(0, reason);
                Some(way)
            }),
        }
    }
    walk(reason, &mut Vec::new())
}

/// Why a reason gives others, step by step.
fn because(reason: &'static Reason) -> String {
    let way = way_to_everything(reason).unwrap_or_else(|| vec![reason]);
    let steps: Vec<String> = way.iter().map(|r| format!("{}: {}", r.id, r.implies_why)).collect();
    steps.join(" ")
}

/// Describes the subject of an exception.
pub(super) fn subject(exception: &Exception) -> String {
    let place = exception.place.as_ref().map(|place| place.value.to_string());
    let exe = exception.exe.as_ref().map(|exe| exe.value.display().to_string());
    match (exe, place) {
        (Some(exe), Some(place)) => format!("{exe} in {place}"),
        (Some(exe), None) => exe,
        (None, Some(place)) => format!("every process in {place}"),
        (None, None) => "everybody".into(),
    }
}

pub(super) fn about(exception: &Exception) -> About {
    About::Exception(exception.name.value.clone())
}

fn level_origin<'a>(case: &Case<'a>, at: &At) -> &'a Origin {
    let scope = at.within.and_then(|scope| case.policy.scopes[scope].level.as_ref());
    &scope.unwrap_or(&case.policy.level).origin
}

fn names<'a>(reasons: impl Iterator<Item = &'a Reason>) -> Vec<&'static str> {
    reasons.map(|reason| reason.id).collect()
}

fn is_are(count: usize) -> &'static str {
    if count == 1 { "is" } else { "are" }
}
