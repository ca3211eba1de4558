/*!
Findings that somebody looked at and accepted in the policy, and what is wrong with accepting itself.

What is found here cannot be accepted away: an entry would then accept its own uselessness.
*/
use super::{About, Finding, code};
use crate::model::Policy;

pub(super) fn settle(policy: &Policy, findings: &mut Vec<Finding>) {
    let mut against = Vec::new();
    for entry in &policy.accepted {
        let about = About::Key("accept".into());
        let Some(code) = super::code(&entry.code.value) else {
            let message = format!("there is no code {:?}", entry.code.value);
            against.push(Finding::new(&code::ACCEPTS_UNKNOWN_CODE, about, &entry.code.origin, message));
            continue;
        };
        let mut found = false;
        for finding in findings.iter_mut().filter(|finding| finding.code == code) {
            if entry.about.as_ref().is_none_or(|about| about.value == finding.about.name()) {
                finding.accepted.get_or_insert_with(|| entry.why.value.clone());
                found = true;
            }
        }
        if !found {
            let (origin, message) = match &entry.about {
                Some(name) => {
                    (&name.origin, format!("there is no {} about {:?} to accept", code.id, name.value))
                }
                None => (&entry.code.origin, format!("there is no {} to accept", code.id)),
            };
            let here: Vec<_> = findings.iter().filter(|f| f.code == code).map(|f| f.about.name()).collect();
            let finding = Finding::new(&code::ACCEPTS_NOTHING, about, origin, message);
            against.push(if here.is_empty() {
                finding
            } else {
                finding.label(format!("{} is about {}", code.id, super::list(here)))
            });
        }
    }
    findings.append(&mut against);
}
