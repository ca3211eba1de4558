/*!
Which cgroups a place names, and how places lie to each other.

A place *names* cgroups and *covers* them with all below. Where several places name one cgroup, the most
specific decides: a path before a pattern, a pattern that is part of another before that one. Patterns that
share names without one being part of the other are refused when a policy is compiled, since nothing
would say which of the two decides.
*/
use crate::model::Place;

/// The path of the cgroup above; none for the root.
#[must_use]
pub fn parent(path: &str) -> Option<&str> {
    if path == "/" {
        return None;
    }
    match path.rfind('/') {
        Some(0) => Some("/"),
        Some(at) => Some(&path[..at]),
        None => None,
    }
}

/// The path and those of all cgroups above it, the root first.
#[must_use]
pub fn chain(path: &str) -> Vec<&str> {
    let mut chain: Vec<&str> = std::iter::successors(Some(path), |path| parent(path)).collect();
    chain.reverse();
    chain
}

impl Place {
    /// Whether it names the cgroup with this path. A unit names none before it was found, see
    /// [`crate::model::Policy::with_units`].
    #[must_use]
    pub fn names(&self, path: &str) -> bool {
        match self {
            Self::Path(own) => own == path,
            Self::Glob { prefix, suffix } => path
                .strip_prefix(prefix.as_str())
                .and_then(|rest| rest.strip_suffix(suffix.as_str()))
                .is_some_and(|star| !star.contains('/') && path.len() > self.above().len() + 1),
            Self::Unit(_) => false,
        }
    }

    /// Whether it names this cgroup or one above it.
    #[must_use]
    pub fn covers(&self, path: &str) -> bool {
        chain(path).into_iter().any(|path| self.names(path))
    }

    /// The path above what it names: for a pattern its parent, for a path the path's.
    #[must_use]
    pub fn above(&self) -> &str {
        match self {
            Self::Path(path) => parent(path).unwrap_or(""),
            Self::Glob { prefix, .. } => match prefix.rfind('/') {
                Some(0) | None => "",
                Some(at) => &prefix[..at],
            },
            Self::Unit(_) => "",
        }
    }

    /// Whether it names whatever the other one names.
    #[must_use]
    pub fn contains(&self, other: &Place) -> bool {
        match (self, other) {
            (Self::Path(own), Self::Path(other)) => own == other,
            (Self::Glob { .. }, Self::Path(path)) => self.names(path),
            (Self::Glob { prefix, suffix }, Self::Glob { prefix: other_prefix, suffix: other_suffix }) => {
                self.above() == other.above()
                    && other_prefix.starts_with(prefix.as_str())
                    && other_suffix.ends_with(suffix.as_str())
            }
            (Self::Path(_), Self::Glob { .. }) | (Self::Unit(_), _) | (_, Self::Unit(_)) => false,
        }
    }

    /// Reports whether it covers whatever the other one names, as far as the names tell. A unit is wherever systemd puts it: a slice has a path, of
    /// another unit the name alone is compared.
    #[must_use]
    pub fn covers_all(&self, other: &Place) -> bool {
        let covers_path = |path: &str| match self {
            Self::Unit(unit) => path.split('/').any(|name| name == unit),
            _ => self.covers(path),
        };
        match (self, other) {
            _ if self == other => true,
            (Self::Unit(own), Self::Unit(other)) => match (slice_path(own), slice_path(other)) {
                (Some(own), Some(other)) => Self::Path(own).covers(&other),
                _ => false,
            },
            (Self::Glob { prefix, suffix }, Self::Unit(unit)) => {
                let start = &prefix[prefix.rfind('/').map_or(0, |slash| slash + 1)..];
                unit.len() >= start.len() + suffix.len()
                    && unit.starts_with(start)
                    && unit.ends_with(suffix.as_str())
            }
            (Self::Path(_), Self::Unit(unit)) => self.covers(&slice_path(unit).unwrap_or_else(|| "/".into())),
            (_, Self::Path(path)) => covers_path(path),
            (_, Self::Glob { .. }) => self.contains(other) || covers_path(other.folder()),
        }
    }

    /// Reports whether it names a cgroup above everything that the other one names.
    #[must_use]
    pub fn is_above(&self, other: &Place) -> bool {
        match other {
            Self::Path(path) => {
                parent(path).is_some_and(|above| self.covers_all(&Self::Path(above.to_owned())))
            }
            Self::Glob { .. } => self.covers_all(&Self::Path(other.folder().to_owned())),
            Self::Unit(unit) => {
                let path = slice_path(unit);
                let above = path.as_deref().and_then(parent).unwrap_or("/");
                self.covers_all(&Self::Path(above.to_owned()))
            }
        }
    }

    /// The path of the cgroup whose children a pattern names.
    fn folder(&self) -> &str {
        if self.above().is_empty() { "/" } else { self.above() }
    }

    /// Whether there can be a cgroup that both name although neither contains the other.
    #[must_use]
    pub fn is_ambiguous_with(&self, other: &Place) -> bool {
        let (Self::Glob { prefix: p, suffix: s }, Self::Glob { prefix: q, suffix: t }) = (self, other) else {
            return false;
        };
        let either = |a: bool, b: bool| a || b;
        self.above() == other.above()
            && either(p.starts_with(q.as_str()), q.starts_with(p.as_str()))
            && either(s.ends_with(t.as_str()), t.ends_with(s.as_str()))
            && !self.contains(other)
            && !other.contains(self)
    }
}

/// Where systemd puts a slice: `a-b.slice` is in `a.slice`.
fn slice_path(unit: &str) -> Option<String> {
    let name = unit.strip_suffix(".slice")?;
    let ends = name.match_indices('-').map(|(at, _)| at).chain([name.len()]);
    Some(ends.flat_map(|end| ["/", &name[..end], ".slice"]).collect())
}

/// The most specific of those that name this cgroup.
#[must_use]
pub fn most_specific<'a, T>(
    places: impl IntoIterator<Item = (&'a Place, T)>,
    path: &str,
) -> Option<(&'a Place, T)> {
    places
        .into_iter()
        .filter(|(place, _)| place.names(path))
        .reduce(|best, other| if best.0.contains(other.0) { other } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glob(text: &str) -> Place {
        let (prefix, suffix) = text.split_once('*').unwrap();
        Place::Glob { prefix: prefix.into(), suffix: suffix.into() }
    }

    #[test]
    fn chains_begin_at_the_root() {
        assert_eq!(chain("/a/b"), ["/", "/a", "/a/b"]);
        assert_eq!(chain("/"), ["/"]);
    }

    #[test]
    fn a_pattern_names_children_of_one_cgroup() {
        let docker = glob("/system.slice/docker-*.scope");
        assert!(docker.names("/system.slice/docker-1.scope"));
        assert!(docker.names("/system.slice/docker-.scope"));
        assert!(!docker.names("/system.slice/docker-1.scope/x"));
        assert!(!docker.names("/system.slice/docker-1/2.scope"));
        assert!(docker.covers("/system.slice/docker-1.scope/x"));
        assert!(glob("/a*a").names("/aa") && !glob("/a*a").names("/a"));
        assert!(glob("/pods/*").names("/pods/x") && !glob("/pods/*").names("/pods"));
        assert!(!glob("/pods/*").names("/pods/"));
        assert!(glob("/*").names("/x") && !glob("/*").names("/"));
    }

    #[test]
    fn the_most_specific_decides() {
        let places = [glob("/a/*"), glob("/a/x*"), Place::Path("/a/xy".into())];
        let best = |path| most_specific(places.iter().map(|p| (p, ())), path).map(|(p, ())| p.to_string());
        assert_eq!(best("/a/xy").as_deref(), Some("/a/xy"));
        assert_eq!(best("/a/xz").as_deref(), Some("/a/x*"));
        assert_eq!(best("/a/z").as_deref(), Some("/a/*"));
        assert_eq!(best("/b"), None);
    }

    #[test]
    fn ambiguity_is_seen() {
        assert!(glob("/a/x*").is_ambiguous_with(&glob("/a/*y")));
        assert!(!glob("/a/x*").is_ambiguous_with(&glob("/a/*")));
        assert!(!glob("/a/x*").is_ambiguous_with(&glob("/a/y*")));
        assert!(!glob("/a/x*").is_ambiguous_with(&glob("/b/*y")));
    }

    fn place(text: &str) -> Place {
        match text.split_once('*') {
            Some((prefix, suffix)) => Place::Glob { prefix: prefix.into(), suffix: suffix.into() },
            None if text.starts_with('/') => Place::Path(text.into()),
            None => Place::Unit(text.into()),
        }
    }

    #[test]
    fn places_cover_each_other_by_name() {
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
            assert!(place(outer).covers_all(&place(inner)), "{outer} contains {inner}");
            assert!(!place(inner).covers_all(&place(outer)), "{inner} does not contain {outer}");
        }
        for (a, b) in [
            ("/a", "/ab"),
            ("/a/b-*", "/a/c"),
            ("/a/aa*aa", "/a/aaa"),
            ("/a", "b.service"),
            ("ab.slice", "a-b.slice"),
        ] {
            assert!(!place(a).covers_all(&place(b)) && !place(b).covers_all(&place(a)), "{a}, {b}");
        }
    }

    #[test]
    fn patterns_are_ambiguous_when_a_name_can_match_both_and_neither_is_a_part() {
        for (a, b) in [("/s/web-*", "/s/*-test"), ("/s/a*c", "/s/ab*")] {
            assert!(
                place(a).is_ambiguous_with(&place(b)) && place(b).is_ambiguous_with(&place(a)),
                "{a}, {b}"
            );
        }
        for (a, b) in [
            ("/s/web-*", "/s/db-*"),
            ("/s/*", "/s/web-*"),
            ("/s/a*", "/t/*b"),
            ("/s/*a", "/s/*b"),
            ("/s", "/s/*"),
        ] {
            assert!(!place(a).is_ambiguous_with(&place(b)), "{a}, {b}");
        }
    }
}
