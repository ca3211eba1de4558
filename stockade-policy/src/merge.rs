/*!
From files to one policy: later ones override by name, lists add up.

| said | a later file |
|---|---|
| `level`, `mode`, `unknown-reasons` | replaces it |
| a reason under `[reasons]` | replaces that reason's verdict |
| a setting under `[settings]` | replaces how it is held |
| a scope or an exception | replaces the whole one of the same name |
| an accepted finding | adds to the list |
| `pcr`, `require-tpm`, `room-for-scopes` under `[seal]` | replaces it |
| a program under `[[seal.trust]]` | replaces the whole one of the same name |
*/
use std::collections::HashMap;

use crate::{
    document::Document,
    model::{Exception, LevelChoice, Place, Policy, Said, Scope},
    problem::Problem,
    trusted::{TrustedProgram, too_many},
};

/// Where what no file says comes from.
pub const DEFAULT: &str = "default";

/// One policy of files in their order.
///
/// # Errors
/// With what is right in each file and wrong together: two scopes at the same place, more trusted programs than a seal has room
/// for.
pub fn merge(documents: impl IntoIterator<Item = Document>) -> Result<Policy, Vec<Problem>> {
    let mut policy = Policy::level(LevelChoice::Auto, DEFAULT);
    let (mut scopes, mut exceptions, mut trusted) = (Named::new(), Named::new(), Named::new());
    for document in documents {
        replace(&mut policy.level, document.level);
        replace(&mut policy.mode, document.mode);
        replace(&mut policy.unknown_reasons, document.unknown_reasons);
        policy.reasons.extend(document.reasons);
        policy.settings.extend(document.settings);
        document.scopes.into_iter().for_each(|scope| scopes.put(&mut policy.scopes, scope, name_of_scope));
        document
            .exceptions
            .into_iter()
            .for_each(|exception| exceptions.put(&mut policy.exceptions, exception, name_of_exception));
        policy.accepted.extend(document.accepted);
        let seal = document.seal;
        policy.seal.pcr = seal.pcr.or(policy.seal.pcr);
        replace(&mut policy.seal.require_tpm, seal.require_tpm);
        replace(&mut policy.seal.room_for_scopes, seal.room_for_scopes);
        seal.trusted
            .into_iter()
            .for_each(|program| trusted.put(&mut policy.seal.trusted, program, name_of_program));
    }
    let mut problems = same_places(&policy.scopes);
    problems.extend(too_many(&policy.seal.trusted));
    if problems.is_empty() { Ok(policy) } else { Err(problems) }
}

fn replace<T>(value: &mut Said<T>, later: Option<Said<T>>) {
    if let Some(later) = later {
        *value = later;
    }
}

fn name_of_scope(scope: &Scope) -> &str {
    &scope.name.value
}

fn name_of_exception(exception: &Exception) -> &str {
    &exception.name.value
}

fn name_of_program(program: &TrustedProgram) -> &str {
    &program.name.value
}

/// Where in a list each name is.
struct Named(HashMap<String, usize>);

impl Named {
    fn new() -> Self {
        Self(HashMap::new())
    }

    fn put<T>(&mut self, list: &mut Vec<T>, item: T, name: fn(&T) -> &str) {
        if let Some(at) = self.0.get(name(&item)) {
            list[*at] = item;
        } else {
            self.0.insert(name(&item).to_owned(), list.len());
            list.push(item);
        }
    }
}

fn same_places(scopes: &[Scope]) -> Vec<Problem> {
    let mut seen: HashMap<&Place, &Scope> = HashMap::new();
    let mut problems = Vec::new();
    for scope in scopes {
        let place = &scope.place;
        if let Some(first) = seen.get(&place.value) {
            let what = format!(
                "the scopes \"{}\" and \"{}\" are at the same place, {}",
                first.name.value, scope.name.value, place.value
            );
            problems.push(
                Problem::new(what, place.origin.clone())
                    .label("again here")
                    .also(first.place.origin.clone(), "first here")
                    .help(format!("to replace the first one, name the second \"{}\" too", first.name.value)),
            );
        } else {
            seen.insert(&place.value, scope);
        }
    }
    problems
}
