/*!
Scopes: what they loosen, what they say without effect, and which of two applies.
*/
use super::{
    About, Case, Finding, Report, Severity, code,
    falls::{At, let_through, refused_alone, way_to_everything},
    list, places,
    verdicts::Verdicts,
};
use crate::model::{Origin, Scope, Verdict, known};

pub(super) fn argue(case: &Case<'_>, report: &mut Report) {
    for (at, scope) in case.policy.scopes.iter().enumerate() {
        report.findings.extend(loosens(case, at, scope));
        report.findings.extend(takes_out(case, at, scope));
        report.findings.extend(cannot_loosen(case, at, scope));
        report.findings.extend(needless(case, at, scope));
        let around = case.chains[at].get(1).copied();
        for (id, said) in &scope.reasons {
            let place = At { about: about(scope), within: Some(at) };
            // What is laxer than around it is another argument.
            if !case.meant_at(around).denies(id) {
                report.findings.extend(let_through(case, id, said, &place));
            }
            report.findings.extend(refused_alone(case, id, said, &place));
        }
    }
    overlaps(case, report);
}

fn about(scope: &Scope) -> About {
    About::Scope(scope.name.value.clone())
}

/// The sentence of a scope that decides about a reason.
fn sentence<'a>(scope: &'a Scope, id: &str) -> &'a Origin {
    match (scope.reasons.get(id), &scope.mode, &scope.level) {
        (Some(said), ..) => &said.origin,
        (None, _, Some(level)) => &level.origin,
        (None, Some(mode), None) => &mode.origin,
        (None, None, None) => &scope.name.origin,
    }
}

fn loosens(case: &Case<'_>, at: usize, scope: &Scope) -> Option<Finding> {
    let around = &case.scopes[at].around;
    let what = format!("scope {:?} is laxer than what surrounds it", scope.name.value);
    laxer(case, at, scope, around, &what).map(|f| f.related(&scope.loosen.origin, "says that it may"))
}

/// A scope that takes a cgroup out of a more general one, which would refuse more there.
fn takes_out(case: &Case<'_>, at: usize, scope: &Scope) -> Option<Finding> {
    let general = places::instead(&case.places, at)?;
    let other = &case.policy.scopes[general];
    let what = format!(
        "scope {:?} is laxer than {:?}, in whose place it stands",
        scope.name.value, other.name.value
    );
    let finding = laxer(case, at, scope, &case.scopes[general].effective, &what)?;
    Some(finding.related(&other.place.origin, "would apply otherwise"))
}

fn laxer(case: &Case<'_>, at: usize, scope: &Scope, than: &Verdicts, what: &str) -> Option<Finding> {
    let here = &case.scopes[at].effective;
    let laxer: Vec<_> = here.laxer_than(than).into_iter().filter(|id| case.can_happen(id)).collect();
    let first = laxer.first()?;
    let voids = laxer.iter().copied().filter(|id| than.denies(id) && way_to_everything(known(id)).is_some());
    let voids: Vec<_> = voids.collect();
    let (severity, why) = if voids.is_empty() {
        (Severity::Warning, String::new())
    } else {
        (Severity::Error, format!("Everything can be had through {}. ", list(voids)))
    };
    Some(
        Finding::new(
            &code::SCOPE_LOOSENS,
            about(scope),
            sentence(scope, first),
            format!("{what} for {}", list(laxer.iter().copied())),
        )
        .severity(severity)
        .label("laxer from here on")
        .why(format!("{why}Any process of root can move itself into {}.", scope.place.value)),
    )
}

fn cannot_loosen(case: &Case<'_>, at: usize, scope: &Scope) -> Option<Finding> {
    if scope.loosen.value {
        return None;
    }
    let here = &case.scopes[at];
    // A level that is lower than the one around says so once, not for each of its reasons.
    let laxer = here.asked.laxer_than(&here.around);
    let first = laxer.first()?;
    Some(
        Finding::new(
            &code::SCOPE_CANNOT_LOOSEN,
            about(scope),
            sentence(scope, first),
            format!(
                "scope {:?} says something laxer than what surrounds it, which has no effect",
                scope.name.value
            ),
        )
        .label("passed over")
        .why(format!(
            "Without loosen = true a scope only tightens. What stays as it is around it: {}.",
            list(laxer)
        )),
    )
}

fn needless(case: &Case<'_>, at: usize, scope: &Scope) -> Option<Finding> {
    let here = &case.scopes[at];
    let same = here.effective == here.around
        && here.asked == here.around
        && places::instead(&case.places, at).is_none();
    same.then(|| {
        Finding::new(
            &code::SCOPE_NEEDLESS,
            about(scope),
            &scope.name.origin,
            format!("scope {:?} says nothing that differs from what surrounds it", scope.name.value),
        )
    })
}

fn overlaps(case: &Case<'_>, report: &mut Report) {
    let scopes = &case.policy.scopes;
    for (at, scope) in scopes.iter().enumerate() {
        for other in &scopes[..at] {
            if scope.place.value == other.place.value
                || scope.place.value.is_ambiguous_with(&other.place.value)
            {
                let same = scope.place.value == other.place.value;
                report.findings.push(
                    Finding::new(
                        &code::SCOPES_OVERLAP,
                        about(scope),
                        &scope.place.origin,
                        format!(
                            "scopes {:?} and {:?} {}: which of them applies is not defined",
                            other.name.value,
                            scope.name.value,
                            if same { "name the same cgroups" } else { "can both name one cgroup" },
                        ),
                    )
                    .related(&other.place.origin, "the other one"),
                );
            }
        }
    }
}

/// Whether any scope refuses anything.
pub(super) fn deny_anything(case: &Case<'_>) -> bool {
    let all = stockade_reasons::all();
    case.scopes.iter().any(|scope| all.iter().any(|reason| scope.effective.of(reason.id) == Verdict::Deny))
}
