/*!
Whether one policy is stricter than another in everything: what may be added to a sealed one.

The kernel asks both and refuses when one does, so nothing can become laxer by adding. What is told here keeps an
administrator from believing that it did.
*/
use std::collections::BTreeMap;

use stockade_reasons::Level;

use crate::{
    diff::{About, Change, Effect, When, diff},
    interpret::{KernelReason, host},
    model::{Exception, LevelChoice, Mode, Place, Policy, Scope, Unknown, Verdict},
    settings,
    trusted::TrustedProgram,
    words::Word,
};

/// Everything that `new` lets through and `old` does not, in words; nothing when it is stricter or the same. `auto` is what
/// the level `auto` is on this machine.
#[must_use]
pub fn laxer(old: &Policy, new: &Policy, auto: Level) -> Vec<String> {
    let found = diff(old, new);
    let mut reasons: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for change in &found.verdicts {
        let here = match change.when {
            When::Always => true,
            When::SecureBootOn => auto == Level::Integrity,
            When::SecureBootOff => auto == Level::None,
        };
        if here && change.effect() == Effect::Laxer {
            reasons.entry((change.to.word(), change.from.word())).or_default().push(&change.reason);
        }
    }
    let mut laxer: Vec<String> = reasons
        .iter()
        .map(|((to, from), ids)| format!("{to} instead of {from}: {}", ids.join(", ")))
        .collect();
    let (before, after) = (old.unknown_reasons.value, new.unknown_reasons.value);
    if before != after && after != Unknown::Deny {
        laxer.push(format!("unknown-reasons: {} instead of {}", after.word(), before.word()));
    }
    // Single reasons can spell a level out, but not for scopes within it, nor for reasons that nobody knows yet.
    let level = |policy: &Policy| policy.level.value.settled(auto);
    if laxer.is_empty() && level(new) < level(old) {
        laxer.push(format!("level: {} instead of {}", level(new), level(old)));
    }
    if laxer.is_empty() && old.mode.value == Mode::Enforce && new.mode.value != Mode::Enforce {
        laxer.push("mode: audit instead of enforce".to_owned());
    }
    let (held, holds) = (settings::compile(old, auto), settings::compile(new, auto));
    let released = settings::laxer(&held, &holds);
    if !released.is_empty() {
        let names: Vec<_> = released.into_iter().map(settings::dotted).collect();
        laxer.push(format!("settings that it does not hold as well: {}", names.join(", ")));
    }
    laxer.extend(found.changes.iter().filter(|change| is_laxer(change, old, new)).map(words));
    laxer
}

fn is_laxer(change: &Change, old: &Policy, new: &Policy) -> bool {
    match &change.about {
        // What becomes of each reason and setting is told; what is accepted is in force all the same.
        About::Host | About::Accepted(_) => false,
        About::Scope(name) if change.key.is_none() && change.to.is_some() => {
            let added = new.scopes.iter().find(|scope| scope.name.value == *name);
            change.effect != Effect::Stricter || added.is_some_and(|added| takes_a_part(added, old, new))
        }
        _ if change.effect == Effect::Stricter => false,
        About::Exception(name) if change.key.is_none() => {
            let added = new.exceptions.iter().find(|exception| exception.name.value == *name);
            // An exception from what was not even audited lets nobody through who was held up.
            let free = |exception: &Exception, reason: &str| {
                !watches(old, reason)
                    && old
                        .scopes
                        .iter()
                        .all(|scope| !scope_watches(scope, reason) || is_apart(exception, scope))
            };
            !added.is_some_and(|exception| {
                exception.reasons.iter().all(|reason| free(exception, &reason.value))
            })
        }
        // What it does not trust any more stays trusted until reboot.
        About::Trusted(name) => {
            let before: Vec<_> = old.seal.trusted.iter().flat_map(TrustedProgram::identities).collect();
            let mut after = new.seal.trusted.iter().filter(|program| program.name.value == *name);
            after.any(|program| program.identities().any(|identity| !before.contains(&identity)))
        }
        // When it ends and why it is there changes nothing for the better or is looked at by people only.
        About::Exception(_) => change.key.as_deref() != Some("why"),
        About::Scope(_) => true,
    }
}

/// Whether a request for it is refused or reported, at the most that `auto` can be.
fn watches(policy: &Policy, reason: &str) -> bool {
    stockade_reasons::by_id(reason).is_none_or(|reason| {
        host(policy, Level::Integrity, &KernelReason::from(reason)).verdict != Verdict::Allow
    })
}

/// Reports whether a scope itself watches a reason. A reason that it leaves out is watched by its surroundings, at least by the host.
fn scope_watches(scope: &Scope, reason: &str) -> bool {
    match scope.reasons.get(reason) {
        Some(said) => said.value != Verdict::Allow,
        // A mode alone decides by the surrounding level anew, whatever single reasons are there.
        None => scope.level.as_ref().map_or(scope.mode.is_some(), |level| reaches(level.value, reason)),
    }
}

/// Whether a scope that is new takes a part of another scope out of it, or surrounds one, and is not as strict as can be: the most specific one decides alone, by
/// what it says and what surrounds it.
fn takes_a_part(added: &Scope, old: &Policy, new: &Policy) -> bool {
    let audits = new.mode.value != Mode::Enforce
        || new.scopes.iter().any(|scope| scope.mode.as_ref().is_some_and(|mode| mode.value != Mode::Enforce));
    let enforces = added.mode.as_ref().map_or(!audits, |mode| mode.value == Mode::Enforce);
    let strictest = added.level.as_ref().is_some_and(|level| level.value == LevelChoice::Confidentiality)
        && enforces
        && added.reasons.values().all(|said| said.value == Verdict::Deny);
    let own = &added.place.value;
    let meets = |other: &Place| other.covers_all(own) || own.covers_all(other);
    !strictest && old.scopes.iter().any(|scope| meets(&scope.place.value))
}

fn reaches(level: LevelChoice, reason: &str) -> bool {
    stockade_reasons::by_id(reason).is_none_or(|reason| reason.level <= level.settled(Level::Integrity))
}

/// Whether an exception is for a part of the cgroup tree that has no cgroup in common with a scope.
fn is_apart(exception: &Exception, scope: &Scope) -> bool {
    exception.place.as_ref().is_some_and(|place| {
        let (one, other) = (&place.value, &scope.place.value);
        !(one.covers_all(other) || other.covers_all(one) || one.is_ambiguous_with(other))
    })
}

fn words(change: &Change) -> String {
    let what = match &change.about {
        About::Host => "the host".to_owned(),
        About::Scope(name) => format!("the scope {name}"),
        About::Exception(name) => format!("the exception {name}"),
        About::Trusted(name) => format!("the trusted program {name}"),
        About::Accepted(name) => format!("the accepted finding {name}"),
    };
    match (&change.key, &change.from, &change.to) {
        (None, None, Some(_)) => format!("{what} is new"),
        (None, _, None) => format!("{what} is gone"),
        (Some(key), from, to) => {
            let word = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".into());
            format!("{what}: {key} is {} instead of {}", word(to), word(from))
        }
        (None, Some(_), Some(_)) => format!("{what} is another"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{merge, read, source::Source};

    fn policy(text: &str) -> Policy {
        merge::merge([read(&Source::new("f", text)).unwrap()]).unwrap()
    }

    fn between(old: &str, new: &str) -> Vec<String> {
        laxer(&policy(old), &policy(new), Level::None)
    }

    const EXCEPTION: &str = "[[exception]]\nname = \"e\"\nreasons = [\"kcore\"]\nexe = \"/a\"\nwhy = \"w\"\n";

    #[test]
    fn what_is_stricter_in_everything_is_not_laxer() {
        let integrity = "level = \"integrity\"\n";
        assert!(between(integrity, integrity).is_empty());
        assert!(between(integrity, "level = \"confidentiality\"\n").is_empty());
        assert!(between("level = \"integrity\"\nmode = \"audit\"\n", integrity).is_empty());
        let with = format!("level = \"confidentiality\"\n{EXCEPTION}");
        assert!(between(&with, "level = \"confidentiality\"\n").is_empty(), "an exception fewer");
        assert!(between(integrity, &with).is_empty(), "excepted from what nobody was held up by");
    }

    #[test]
    fn a_program_that_was_not_trusted_when_sealing_is_laxer() {
        let trust = |name: &str, tags: &str| {
            format!("[[seal.trust]]\nname = \"{name}\"\nkind = \"lsm\"\nhook = \"bpf\"\ntags = [{tags}]\n")
        };
        let (one, both) = ("\"1111111111111111\"", "\"1111111111111111\", \"2222222222222222\"");
        assert_eq!(between("", &trust("p", one)), ["the trusted program p is new"]);
        assert!(between(&trust("p", both), &trust("p", one)).is_empty(), "a tag fewer");
        assert!(between(&trust("p", both), &trust("q", one)).is_empty(), "another name");
        assert!(between(&trust("p", one), "").is_empty());
        let words = between(&trust("p", one), &trust("p", both));
        assert!(words[0].starts_with("the trusted program p: tags is 1111111111111111, 2222"), "{words:?}");
    }

    #[test]
    fn an_exception_from_what_a_scope_refuses_is_laxer_where_they_meet() {
        let scope = |place: &str| {
            format!(
                "level = \"integrity\"\n[[scope]]\nname = \"s\"\ncgroup = \"{place}\"\nlevel = \"confidentiality\"\n"
            )
        };
        let excepting = |scope: &str, place: &str| {
            format!("{scope}[[exception]]\nname = \"e\"\nreasons = [\"kcore\"]\n{place}why = \"w\"\n")
        };
        let by = |place: &str| format!("cgroup = \"{place}\"\n");
        for (of, place, laxer) in [
            ("/pods", by("/backup"), false),
            ("/pods", by("/pods"), true),
            ("/pods", by("/pods/below"), true),
            ("/pods/below", by("/pods"), true),
            ("/pods-*", by("/pods-1/below"), true),
            ("/pods-*", by("/other"), false),
            ("/pods", "exe = \"/tool\"\n".to_owned(), true),
        ] {
            let old = scope(of);
            let words = between(&old, &excepting(&old, &place));
            assert_eq!(!words.is_empty(), laxer, "{of} {place}: {words:?}");
        }
        let parts = |added: &str| format!("{}{added}", scope("/pods-*"));
        let part = "[[scope]]\nname = \"p\"\ncgroup = \"/pods-1\"\nlevel = ";
        let laxer = between(&scope("/pods-*"), &parts(&format!("{part}\"integrity\"\n")));
        assert_eq!(laxer, ["the scope p is new"]);
        assert!(between(&scope("/pods-*"), &parts(&format!("{part}\"confidentiality\"\n"))).is_empty());
        // A scope that does not refuse it is no matter.
        let old = scope("/pods").replace("\"confidentiality\"", "\"integrity\"");
        assert!(between(&old, &excepting(&old, &by("/pods"))).is_empty());
    }

    #[test]
    fn whatever_lets_through_more_is_named() {
        let confidentiality = "level = \"confidentiality\"\n";
        let words = between(confidentiality, "level = \"integrity\"\n");
        assert!(words[0].starts_with("allow instead of deny: kcore, kprobes, "), "{words:?}");
        let words = between(confidentiality, "level = \"confidentiality\"\nmode = \"audit\"\n");
        assert!(words[0].starts_with("audit instead of deny: module-signature, "), "{words:?}");
        let with = format!("{confidentiality}{EXCEPTION}");
        assert_eq!(between(confidentiality, &with), ["the exception e is new"]);
        let other = with.replace("/a", "/b");
        assert_eq!(between(&with, &other), ["the exception e: exe is /b instead of /a"]);
        let scope = format!(
            "{confidentiality}[[scope]]\nname = \"s\"\ncgroup = \"/s\"\nlevel = \"confidentiality\"\n"
        );
        assert_eq!(between(&scope, confidentiality), ["the scope s is gone"]);
        let settings = |list: &str| format!("{confidentiality}[settings]\nfreeze = [{list}]\n");
        let (one, two) = (settings("\"kernel.modprobe\""), settings("\"kernel.modprobe\", \"kernel.sysrq\""));
        assert!(between(&one, &two).is_empty());
        assert_eq!(between(&two, &one), ["settings that it does not hold as well: kernel.sysrq"]);
        let unknown = "level = \"confidentiality\"\nunknown-reasons = \"allow\"\n";
        assert_eq!(between(confidentiality, unknown), ["unknown-reasons: allow instead of level"]);
    }
}
