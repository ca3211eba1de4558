/*!
Who an exception is for.
*/
use std::path::Path;

use stockade_reasons::Reason;

use stockade_text::harmless;

use crate::{
    Source,
    check::tools::{Bidding, bidding},
    model::Place,
    quote::quoted,
    read,
    requester::{Asked, Program, Tally},
    unit::{Home, home},
};

/// The subject of an exception: every part that is given has to fit, and the program or the cgroup is given.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject {
    /// The program.
    pub exe: Option<String>,
    /// The unit, session, container or cgroup.
    pub home: Option<Home>,
    /// The user.
    pub uid: Option<u32>,
}

/// Why there is no subject.
pub(super) enum Nobody {
    /// The requester of this reason is not known to the kernel.
    Everybody(&'static Reason),
    /// The cause in words.
    Because(String),
}

impl Subject {
    /// Returns the subject that has to be excepted for this request to pass.
    pub(super) fn of(asked: &Asked, with_uid: bool) -> Result<Self, Nobody> {
        let Some(reason) = asked.reason.known() else {
            let why =
                "this version does not know the reason; `unknown-reasons` decides about it for everybody";
            return Err(Nobody::Because(why.into()));
        };
        if reason.subject == stockade_reasons::Subject::Unreliable {
            return Err(Nobody::Everybody(reason));
        }
        let uid = with_uid.then_some(asked.uid);
        let exe = asked.exe.path().filter(|path| readable("exe", path));
        let home = asked.home().filter(|home| readable("cgroup", &home.path));
        match (exe, home) {
            (Some(exe), home) => {
                // What an interpreter runs is not known to the kernel; where it runs is at least something.
                let home = home.filter(|home| interprets(exe) && home.comes_again());
                Ok(Self { exe: Some(exe.to_owned()), home, uid })
            }
            (None, Some(home)) => Ok(Self { exe: None, home: Some(home), uid }),
            (None, None) => Err(Nobody::Because(why_nobody(asked))),
        }
    }

    /// Every subject that this request could fit, of all that [`Subject::of`] makes.
    pub(super) fn fitting(asked: &Asked, with_uid: bool) -> Vec<Self> {
        let uid = with_uid.then_some(asked.uid);
        let paths = asked.cgroup.as_deref().map(crate::place::chain).unwrap_or_default();
        let homes: Vec<Home> =
            paths.into_iter().filter_map(|path| home(path).filter(|home| home.path == path)).collect();
        let mut fitting = Vec::new();
        for home in &homes {
            fitting.push(Self { exe: None, home: Some(home.clone()), uid });
        }
        if let Some(exe) = asked.exe.path() {
            let exe = Some(exe.to_owned());
            fitting.push(Self { exe: exe.clone(), home: None, uid });
            fitting.extend(homes.into_iter().map(|home| Self { exe: exe.clone(), home: Some(home), uid }));
        }
        fitting
    }

    /// Its place as a policy has it: by unit, where that leads there.
    pub(super) fn place(&self, find: impl Fn(&str) -> String) -> Option<Place> {
        self.home.as_ref().map(|home| place(home, find))
    }

    /// The one unit that all events of this program came from, where it will be there again.
    pub(super) fn narrower(&self, tally: &Tally, find: impl Fn(&str) -> String) -> Option<Place> {
        if self.home.is_some() {
            return None;
        }
        let mut homes = tally.cgroups.iter().map(|cgroup| home(cgroup));
        let first = homes.next()??;
        let one = first.comes_again() && readable("cgroup", &first.path);
        (one && homes.all(|other| other.as_ref() == Some(&first))).then(|| place(&first, find))
    }
}

fn place(home: &Home, find: impl Fn(&str) -> String) -> Place {
    match home.unit().filter(|unit| find(unit) == home.path && readable("unit", unit)) {
        Some(unit) => Place::Unit(unit.to_owned()),
        None => Place::Path(home.path.clone()),
    }
}

/// Whether a policy can name it. The reader itself is asked, so that both never disagree.
fn readable(key: &str, value: &str) -> bool {
    // A pattern would be for others too.
    if value.contains('*') {
        return false;
    }
    let value = quoted(value);
    let text = format!("[[exception]]\nname = \"x\"\nreasons = [\"perf\"]\n{key} = {value}\n");
    read(&Source::new("learned", text)).is_ok()
}

fn why_nobody(asked: &Asked) -> String {
    let place = match asked.cgroup.as_deref() {
        None => "its cgroup is not in the record".to_owned(),
        Some("/") => "it ran in the root cgroup, which everything is in".to_owned(),
        Some(cgroup) => format!("no policy can name its cgroup, {}", harmless(cgroup)),
    };
    let program = match &asked.exe {
        Program::Gone(_) => "no program could be looked up any more".to_owned(),
        Program::NotOfHost(_) => "its program is no file of the host".to_owned(),
        Program::Path(path) => format!("no policy can name its program, {}", harmless(path)),
    };
    format!("{program}, and {place}")
}

/// Whether the program runs whatever it is handed.
fn interprets(exe: &str) -> bool {
    bidding(Path::new(exe)) == Some(Bidding::Interpreter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_policy_can_name_is_for_its_reader_to_say() {
        assert!(readable("exe", "/opt/Ärger's \"tool\""));
        assert!(readable("unit", "system-serial\\x2dgetty.slice"));
        assert!(readable("cgroup", "/a b/c"));
        for (key, value) in
            [("exe", "/a?"), ("exe", "a"), ("exe", "/a\nb"), ("cgroup", "/x*"), ("unit", "a/b.service")]
        {
            assert!(!readable(key, value), "{value}");
        }
    }
}
