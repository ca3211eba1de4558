/*!
What compiled places decide for a path, found as the kernel side finds it: the nearest cgroup that one of them names, and
of those that name it the most specific.
*/
use std::{cmp::Reverse, collections::HashMap};

use stockade_common::Sets;

use crate::{compile::CompiledPlace, model::Place, place};

/// Places by what they name.
pub struct Finder<'a> {
    paths: HashMap<&'a str, Sets>,
    patterns: HashMap<&'a str, Vec<&'a CompiledPlace>>,
}

impl<'a> Finder<'a> {
    /// Sorts places.
    #[must_use]
    pub fn new(places: &'a [CompiledPlace]) -> Self {
        let mut finder = Self { paths: HashMap::new(), patterns: HashMap::new() };
        for place in places {
            match &place.place {
                Place::Path(path) => {
                    finder.paths.insert(path, place.sets);
                }
                other => finder.patterns.entry(other.above()).or_default().push(place),
            }
        }
        for siblings in finder.patterns.values_mut() {
            siblings.sort_by_key(|place| Reverse(place.place.to_string().len()));
        }
        finder
    }

    /// Returns the verdicts of the place that names the cgroup with this path.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<Sets> {
        if let Some(sets) = self.paths.get(path) {
            return Some(*sets);
        }
        let above = &path[..path.rfind('/')?];
        self.patterns.get(above)?.iter().find(|place| place.place.names(path)).map(|place| place.sets)
    }

    /// Returns the verdicts for a cgroup: those of the nearest place upwards.
    #[must_use]
    pub fn nearest(&self, path: &str) -> Option<Sets> {
        place::chain(path).into_iter().rev().find_map(|path| self.find(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_place_is_found() {
        let sets = |place| Sets { watched: 0, deny: 0, place, pad: 0 };
        let glob = |prefix: &str, suffix: &str| Place::Glob { prefix: prefix.into(), suffix: suffix.into() };
        let places = [
            CompiledPlace { place: glob("/", ".slice"), sets: sets(1) },
            CompiledPlace { place: glob("/a.slice/x", ""), sets: sets(2) },
            CompiledPlace { place: glob("/a.slice/xy", ""), sets: sets(3) },
            CompiledPlace { place: Place::Path("/a.slice/xyz".into()), sets: sets(4) },
        ];
        let finder = Finder::new(&places);
        let nearest = |path| finder.nearest(path).map_or(0, |sets| sets.place);
        assert_eq!(nearest("/"), 0);
        assert_eq!(nearest("/a.slice/q"), 1);
        assert_eq!(nearest("/a.slice/xq/r"), 2);
        assert_eq!(nearest("/a.slice/xyq"), 3);
        assert_eq!(nearest("/a.slice/xyz/deep/er"), 4);
        assert_eq!(nearest("/b"), 0);
    }
}
