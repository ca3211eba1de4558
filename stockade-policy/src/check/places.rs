/*!
Which scopes are around a scope, and which would apply in its place, by how their places lie to each other: see [`crate::place`].

Of the scopes that name one cgroup the most specific applies and the others do not; those around it are those that
name a cgroup above it.
*/
use crate::model::Place;

/// The scope that is nearest around another. `places` are those of all scopes.
pub(super) fn surrounding(places: &[Place], scope: usize) -> Option<usize> {
    let above = |outer: &usize, inner: usize| places[*outer].is_above(&places[inner]);
    let all: Vec<usize> = (0..places.len()).filter(|outer| above(outer, scope)).collect();
    // Of two that name the same cgroup above it the most specific applies.
    let nearer = |near: usize, far: usize| {
        above(&far, near)
            || (!above(&near, far) && places[far].covers_all(&places[near]) && places[far] != places[near])
    };
    all.iter().copied().find(|near| !all.iter().any(|other| *other != *near && nearer(*other, *near)))
}

/// The scope that would apply to the same cgroups if this more specific one were not there.
pub(super) fn instead(places: &[Place], scope: usize) -> Option<usize> {
    let general = |outer: &usize, inner: usize| {
        places[*outer] != places[inner]
            && places[*outer].covers_all(&places[inner])
            && !places[*outer].is_above(&places[inner])
    };
    let all: Vec<usize> = (0..places.len()).filter(|outer| general(outer, scope)).collect();
    all.iter().copied().find(|near| !all.iter().any(|other| general(near, *other)))
}

/// A scope and those around it, the nearest first.
pub(super) fn chain(places: &[Place], scope: usize) -> Vec<usize> {
    std::iter::successors(Some(scope), |inner| surrounding(places, *inner)).take(places.len()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{LevelChoice, Policy, Said, Scope};

    fn place(text: &str) -> Place {
        match text.split_once('*') {
            Some((prefix, suffix)) => Place::Glob { prefix: prefix.into(), suffix: suffix.into() },
            None if text.starts_with('/') => Place::Path(text.into()),
            None => Place::Unit(text.into()),
        }
    }

    #[test]
    fn the_nearest_above_surrounds_and_a_twin_does_not() {
        let names = [
            "/",
            "/a",
            "/a/b",
            "/a/b/c",
            "/a/x-*",
            "/a/x-1*",
            "/a/x-1",
            "/a/x-1/y",
            "u.service",
            "a-b.slice",
            "a.slice",
        ];
        let places: Vec<Place> = names.iter().map(|name| place(name)).collect();
        let around = |name: &str| {
            let scope = names.iter().position(|known| *known == name).unwrap();
            surrounding(&places, scope).map(|outer| names[outer])
        };
        for (inner, outer) in [
            ("/", None),
            ("/a", Some("/")),
            ("/a/b", Some("/a")),
            ("/a/b/c", Some("/a/b")),
            ("/a/x-*", Some("/a")),
            ("/a/x-1*", Some("/a")),
            ("/a/x-1", Some("/a")),
            ("/a/x-1/y", Some("/a/x-1")),
            ("u.service", Some("/")),
            ("a-b.slice", Some("a.slice")),
        ] {
            assert_eq!(around(inner), outer, "{inner}");
        }
        assert_eq!(chain(&places, 3), [3, 2, 1, 0]);
    }

    #[test]
    fn the_scopes_around_are_those_that_the_interpreter_enters() {
        const PLACES: [&str; 14] = [
            "/", "/a", "/b", "/a/x", "/a/xy", "/a/xy/q", "/b/x/y", "/a/*", "/a/x*", "/a/xy*", "/*",
            "/*.slice", "/a/x/*", "/a/xy/*q",
        ];
        let mut compared = 0;
        // Every set of these places: as many as there are numbers with 14 bits.
        for set in 1u32..1 << PLACES.len() {
            let names: Vec<&str> =
                (0..PLACES.len()).filter(|at| set >> at & 1 == 1).map(|at| PLACES[at]).collect();
            let places: Vec<Place> = names.iter().map(|name| place(name)).collect();
            let mut policy = Policy::level(LevelChoice::None, "test");
            policy.scopes = places.iter().map(|place| scope(place.clone())).collect();
            for (at, name) in names.iter().enumerate() {
                // A name that only patterns have that contain this one.
                let path = name.replace('*', "?");
                let entered: Vec<_> = crate::interpret::scopes_around(&policy, &path)
                    .into_iter()
                    .map(|scope| &scope.place.value)
                    .collect();
                let around: Vec<_> = chain(&places, at).into_iter().rev().map(|at| &places[at]).collect();
                assert_eq!(around, entered, "{name} among {names:?}");
                compared += 1;
            }
        }
        assert!(compared > 100_000, "{compared}");
    }

    fn scope(place: Place) -> Scope {
        Scope {
            name: Said::at(String::new(), "test"),
            place: Said::at(place, "test"),
            level: None,
            mode: None,
            reasons: [].into(),
            loosen: Said::at(false, "test"),
        }
    }
}
