/*!
How places in the cgroup tree lie to each other, as far as their names tell.

A unit is wherever systemd puts it: its name alone is compared where it is not there. What only the running machine
could tell is not guessed: then neither contains the other.

Of the scopes that name one cgroup the most specific applies and the others do not; those around it are those that
name a cgroup above it.
*/
use crate::model::Place;

/// Whether everything that `inner` names is in what `outer` names.
pub(super) fn contains(outer: &Place, inner: &Place) -> bool {
    if outer == inner {
        return true;
    }
    match (outer, inner) {
        (Place::Path(outer), _) if outer == "/" => true,
        (Place::Path(outer), Place::Path(inner) | Place::Glob { prefix: inner, .. }) => {
            inner.strip_prefix(outer.as_str()).is_some_and(|rest| rest.starts_with('/'))
        }
        (Place::Glob { prefix, suffix }, Place::Path(path)) => {
            let (folder, start) = cut(prefix);
            path.strip_prefix(folder)
                .is_some_and(|rest| matches(start, suffix, rest.split('/').next().unwrap_or_default()))
        }
        (Place::Glob { prefix, suffix }, Place::Glob { prefix: inner, suffix: ending }) => {
            let (folder, start) = cut(inner);
            (cut(prefix).0 == folder && start.starts_with(cut(prefix).1) && ending.ends_with(suffix.as_str()))
                || contains(outer, &Place::Path(folder.trim_end_matches('/').to_owned()))
        }
        (Place::Glob { prefix, suffix }, Place::Unit(unit)) => matches(cut(prefix).1, suffix, unit),
        (Place::Path(outer), Place::Unit(unit)) => {
            slices(unit).is_some_and(|path| contains(&Place::Path(outer.clone()), &Place::Path(path)))
        }
        (Place::Unit(unit), Place::Path(path)) => path.split('/').any(|name| name == unit),
        (Place::Unit(unit), Place::Glob { prefix, .. }) => cut(prefix).0.split('/').any(|name| name == unit),
        (Place::Unit(outer), Place::Unit(inner)) => match (slices(outer), slices(inner)) {
            (Some(outer), Some(inner)) => contains(&Place::Path(outer), &Place::Path(inner)),
            _ => false,
        },
    }
}

/// Whether one cgroup can be named by both although neither contains the other, or both are the same.
pub(super) fn clash(a: &Place, b: &Place) -> bool {
    if a == b {
        return true;
    }
    let (Place::Glob { prefix: pa, suffix: sa }, Place::Glob { prefix: pb, suffix: sb }) = (a, b) else {
        return false;
    };
    let either = |x: &str, y: &str, test: fn(&str, &str) -> bool| test(x, y) || test(y, x);
    !contains(a, b)
        && !contains(b, a)
        && cut(pa).0 == cut(pb).0
        && either(pa, pb, |x, y| x.starts_with(y))
        && either(sa, sb, |x, y| x.ends_with(y))
}

/// Whether `outer` names a cgroup above all that `inner` names.
fn is_above(outer: &Place, inner: &Place) -> bool {
    let above = match inner {
        Place::Path(path) if path == "/" => None,
        Place::Path(path) => Some(folder(path)),
        Place::Glob { prefix, .. } => Some(folder(prefix)),
        Place::Unit(unit) => Some(slices(unit).map_or_else(|| "/".into(), |path| folder(&path))),
    };
    above.is_some_and(|path| contains(outer, &Place::Path(path)))
}

/// The scope that is nearest around another. `places` are those of all scopes.
pub(super) fn surrounding(places: &[Place], scope: usize) -> Option<usize> {
    let above = |outer: &usize, inner: usize| is_above(&places[*outer], &places[inner]);
    let all: Vec<usize> = (0..places.len()).filter(|outer| above(outer, scope)).collect();
    // Of two that name the same cgroup above it the most specific applies.
    let nearer = |near: usize, far: usize| {
        above(&far, near)
            || (!above(&near, far) && contains(&places[far], &places[near]) && places[far] != places[near])
    };
    all.iter().copied().find(|near| !all.iter().any(|other| *other != *near && nearer(*other, *near)))
}

/// The scope that would apply to the same cgroups if this more specific one were not there.
pub(super) fn instead(places: &[Place], scope: usize) -> Option<usize> {
    let general = |outer: &usize, inner: usize| {
        places[*outer] != places[inner]
            && contains(&places[*outer], &places[inner])
            && !is_above(&places[*outer], &places[inner])
    };
    let all: Vec<usize> = (0..places.len()).filter(|outer| general(outer, scope)).collect();
    all.iter().copied().find(|near| !all.iter().any(|other| general(near, *other)))
}

/// A scope and those around it, the nearest first.
pub(super) fn chain(places: &[Place], scope: usize) -> Vec<usize> {
    std::iter::successors(Some(scope), |inner| surrounding(places, *inner)).take(places.len()).collect()
}

/// The path of what a path is in.
fn folder(path: &str) -> String {
    match path.rfind('/') {
        Some(0) | None => "/".into(),
        Some(at) => path[..at].into(),
    }
}

/// Whether a pattern names this very cgroup.
pub(super) fn names(pattern: &Place, path: &str) -> bool {
    let Place::Glob { prefix, suffix } = pattern else { return false };
    let (folder, start) = cut(prefix);
    path.strip_prefix(folder).is_some_and(|name| !name.contains('/') && matches(start, suffix, name))
}

/// Folder, with its slash, and the beginning of the name.
fn cut(prefix: &str) -> (&str, &str) {
    prefix.split_at(prefix.rfind('/').map_or(0, |slash| slash + 1))
}

fn matches(start: &str, end: &str, name: &str) -> bool {
    name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
}

/// Where systemd puts a slice: `a-b.slice` is in `a.slice`.
fn slices(unit: &str) -> Option<String> {
    let name = unit.strip_suffix(".slice")?;
    let ends = name.match_indices('-').map(|(at, _)| at).chain([name.len()]);
    Some(ends.flat_map(|end| ["/", &name[..end], ".slice"]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        match text.split_once('*') {
            Some((prefix, suffix)) => Place::Glob { prefix: prefix.into(), suffix: suffix.into() },
            None if text.starts_with('/') => Place::Path(text.into()),
            None => Place::Unit(text.into()),
        }
    }

    #[test]
    fn places_contain_each_other_by_name() {
        for (outer, inner) in [
            ("/", "/a"),
            ("/", "a.service"),
            ("/a", "/a/b"),
            ("/a", "/a/b-*.scope"),
            ("/a/b-*.scope", "/a/b-1.scope"),
            ("/a/b-*.scope", "/a/b-1.scope/c"),
            ("/a/b-*.scope", "/a/b-1.scope/c/d-*"),
            ("/a/*", "/a/b-*.scope"),
            ("/a/*", "/a/b/c-*"),
            ("a.slice", "a-b.slice"),
            ("/a.slice", "a-b.slice"),
            ("a.service", "/system.slice/a.service/b"),
            ("a.slice", "/a.slice/b-*"),
            ("/system.slice/web-*", "web-1.service"),
        ] {
            assert!(contains(&place(outer), &place(inner)), "{outer} contains {inner}");
            assert!(!contains(&place(inner), &place(outer)), "{inner} does not contain {outer}");
        }
        for (a, b) in [
            ("/a", "/ab"),
            ("/a/b-*", "/a/c"),
            ("/a/aa*aa", "/a/aaa"),
            ("/a", "b.service"),
            ("ab.slice", "a-b.slice"),
        ] {
            assert!(!contains(&place(a), &place(b)) && !contains(&place(b), &place(a)), "{a}, {b}");
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
    fn patterns_clash_when_a_name_can_match_both_and_neither_is_a_part() {
        for (a, b) in [("/s/web-*", "/s/*-test"), ("/s/a*c", "/s/ab*"), ("/s", "/s"), ("/s/*x", "/s/*x")] {
            assert!(clash(&place(a), &place(b)) && clash(&place(b), &place(a)), "{a}, {b}");
        }
        for (a, b) in [
            ("/s/web-*", "/s/db-*"),
            ("/s/*", "/s/web-*"),
            ("/s/a*", "/t/*b"),
            ("/s/*a", "/s/*b"),
            ("/s", "/s/*"),
        ] {
            assert!(!clash(&place(a), &place(b)), "{a}, {b}");
        }
    }
}
