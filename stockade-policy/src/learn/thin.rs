/*!
Leaving out what others cover.

An exception by unit, which is there since some program in it could not be looked up, lets the programs through
that could. Reasons are taken from exceptions one by one, each when all that asked for it are covered by
others that remain. What others cover only shrinks by that, so that in the end every reason of every exception is needed.
*/
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::subject::Subject;
use crate::requester::Asked;

/// A subject and a reason.
type Grant<'a> = (&'a Subject, &'a str);

/// The exceptions that remain.
pub(super) struct Kept<'a> {
    grants: BTreeSet<Grant<'a>>,
    subjects: HashMap<&'a Subject, &'a Subject>,
    with_uid: bool,
}

/// Thins out what each request's own subject would be excepted from.
pub(super) fn thin<'a>(
    requests: impl Iterator<Item = (&'a Asked, &'a Subject)> + Clone,
    with_uid: bool,
) -> Kept<'a> {
    let mut grants: BTreeSet<Grant<'a>> =
        requests.clone().map(|(asked, subject)| (subject, asked.reason.id())).collect();
    let mut fits: BTreeMap<Grant<'a>, Vec<usize>> = BTreeMap::new();
    let mut covers: Vec<usize> = Vec::new();
    let subjects: HashMap<&'a Subject, &'a Subject> =
        grants.iter().map(|(subject, _)| (*subject, *subject)).collect();
    for (number, (asked, _)) in requests.enumerate() {
        let fitting = Subject::fitting(asked, with_uid);
        let fitting = fitting.iter().filter_map(|subject| subjects.get(subject));
        let fitting: Vec<Grant<'a>> = fitting
            .map(|subject| (*subject, asked.reason.id()))
            .filter(|grant| grants.contains(grant))
            .collect();
        covers.push(fitting.len());
        for grant in fitting {
            fits.entry(grant).or_default().push(number);
        }
    }
    for (grant, numbers) in fits.iter().rev() {
        if numbers.iter().all(|&number| covers[number] > 1) {
            grants.remove(grant);
            for &number in numbers {
                covers[number] -= 1;
            }
        }
    }
    Kept { grants, subjects, with_uid }
}

impl<'a> Kept<'a> {
    /// The subject that lets this request through, its own one if that remained.
    pub(super) fn covering(&self, asked: &'a Asked, own: &'a Subject) -> &'a Subject {
        let id = asked.reason.id();
        if self.grants.contains(&(own, id)) {
            return own;
        }
        let fitting = Subject::fitting(asked, self.with_uid);
        let mut kept = fitting.iter().filter_map(|subject| self.subjects.get(subject).copied());
        let found = kept.find(|subject| self.grants.contains(&(*subject, id)));
        found.expect("a reason is only taken where another exception covers it")
    }
}
