/*!
IPsec: the states and policies that the kernel has, which algorithms protect what they carry, and whether root can read their keys.

Of the network namespace of the caller. Nothing is asked unless the kernel's side of it is there already, since asking would load it; without it
nobody can have set up IPsec, but by the old interface PF_KEY.
*/
mod algorithms;
mod netlink;

use std::io;

use self::netlink::{Database, Policy, State};
use crate::{Feature, Finding, How, Report, System, Unread, Verdict, few};

pub(super) const FEATURE: Feature = Feature { id: "ipsec", title: "IPsec", ..Feature::new(check) };

const STATES: &str = "ipsec.states";
const ALGORITHMS: &str = "ipsec.algorithms";
const SECRETS: &str = "ipsec.secrets";
const REPLAY: &str = "ipsec.replay";
const ALL: [&str; 4] = [STATES, ALGORITHMS, SECRETS, REPLAY];

const NETLINK: &str = "netlink (XFRM)";
const NOT_UNDERSTOOD: &str = "a part of the kernel's answer is not understood";

fn check(system: &System, report: &mut Report) {
    match there(system) {
        Ok(None) => {}
        Ok(Some(why)) => {
            for id in ALL {
                report.add(Finding::not_applicable(id, How::Read, why));
            }
            return;
        }
        Err(missing) => {
            for id in ALL {
                report.add(Finding::unknown(id, How::Read, &missing));
            }
            return;
        }
    }
    if !system.is_live() {
        for id in ALL {
            report.add(Finding::unknown(id, How::Read, "not tried: this is not the running machine"));
        }
        return;
    }
    match Database::ask() {
        Ok(database) => judge(&database, report),
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => {
            for id in ALL {
                report.add(Finding::not_applicable(
                    id,
                    How::Tried,
                    "this kernel was built without IPsec's interface",
                ));
            }
        }
        Err(error) => {
            let lacks = system.lacks_root().unwrap_or("the kernel does not tell its IPsec states");
            for id in ALL {
                report.add(Finding::unknown(id, How::Read, format!("{lacks}: {error}")));
            }
        }
    }
}

/// Why there is nothing to ask; none if there is something. The kernel's own socket for an interface by netlink is listed as soon as the
/// interface is there, loaded or built in.
fn there(system: &System) -> Result<Option<&'static str>, String> {
    const SOCKETS: &str = "/proc/net/netlink";
    const XFRM: &str = "6";
    let sockets = match system.text(SOCKETS) {
        Ok(text) if text.starts_with("sk ") => text,
        Ok(text) => return Err(Unread::not_understood(SOCKETS, &text).to_string()),
        Err(unread) => return Err(unread.to_string()),
    };
    if sockets.lines().skip(1).any(|line| line.split_ascii_whitespace().nth(1) == Some(XFRM)) {
        Ok(None)
    } else if system.exists("/proc/net/pfkey") {
        Err("IPsec may have been set up by its old interface PF_KEY (the module af_key is there): load xfrm_user to \
             have its states looked at"
            .into())
    } else {
        Ok(Some("IPsec is not in use: the kernel's interface for it (xfrm_user) is not there"))
    }
}

/// Returns the findings about a netlink answer: the messages that one recv(2) returned.
///
/// # Errors
/// The error that the kernel answered with.
pub fn judge_answer(answer: &[u8]) -> io::Result<Vec<Finding>> {
    let (mut database, mut report) = (Database::default(), Report::default());
    database.take(answer)?;
    judge(&database, &mut report);
    Ok(report.findings().to_vec())
}

fn judge(database: &Database, report: &mut Report) {
    let (states, policies) = (&database.states, &database.policies);
    if states.is_empty() && policies.is_empty() {
        for id in ALL {
            let finding = if database.garbled == 0 {
                Finding::not_applicable(
                    id,
                    How::Read,
                    "IPsec is not in use: there are no states and no policies",
                )
            } else {
                Finding::unknown(id, How::Read, NOT_UNDERSTOOD)
            };
            report.add(finding.seen(NETLINK, summary(database)));
        }
        return;
    }
    let findings = if states.is_empty() {
        let none = |id| Finding::not_applicable(id, How::Read, "there are policies, and no states yet");
        [consistent(database), none(ALGORITHMS), none(SECRETS), none(REPLAY)]
    } else {
        [consistent(database), strength(states), secrets(states), replay(states, policies)]
    };
    for mut finding in findings {
        // What was not understood may be worse.
        if database.garbled > 0 && !matches!(finding.verdict, Verdict::Fail | Verdict::Warn) {
            (finding.verdict, finding.found) = (Verdict::Unknown, NOT_UNDERSTOOD.to_owned());
        }
        report.add(finding);
    }
}

fn summary(database: &Database) -> String {
    let garbled = match database.garbled {
        0 => String::new(),
        n => format!(", {n} messages not understood"),
    };
    format!("{} states, {} policies{garbled}", database.states.len(), database.policies.len())
}

/// Whether what should be protected can pass in plain text.
fn consistent(database: &Database) -> Finding {
    let policies = &database.policies;
    let optional =
        policies.iter().filter(|policy| policy.allows && policy.templates.iter().any(|t| t.optional));
    let optional = optional.count();
    let wants = policies.iter().any(|policy| !policy.templates.is_empty());
    let (verdict, found) = if optional > 0 {
        let found = format!(
            "packets pass in plain text while there is no state for them, by {optional} of {} policies",
            policies.len()
        );
        (Verdict::Warn, found)
    } else if database.states.is_empty() && !wants {
        (Verdict::NotApplicable, "there are no states, and no policy wants any".to_owned())
    } else if database.states.is_empty() {
        // As between two machines that have nothing to say to each other yet.
        (Verdict::Pass, "what policies are for does not pass while there are no states".to_owned())
    } else if !wants {
        (Verdict::Warn, "there are states, and no policy sends anything through them".to_owned())
    } else {
        (Verdict::Pass, "what policies are for passes by states or not at all".to_owned())
    };
    let plain = policies.iter().filter(|policy| policy.allows && policy.templates.is_empty()).count();
    let default = match database.refused.as_slice() {
        [] => "let through in plain text".to_owned(),
        refused => format!("refused: {}", refused.join(", ")),
    };
    Finding::new(STATES, verdict, How::Read, found)
        .seen(NETLINK, summary(database))
        .seen("policies that except from IPsec", plain.to_string())
        .seen("what no policy is for", default)
}

fn strength(states: &[State]) -> Finding {
    let mut graded: Vec<(Verdict, String, String)> = states
        .iter()
        .map(|state| {
            let (verdict, why) = algorithms::grade(state);
            (verdict, format!("{why} ({})", names(state)), state.to_string())
        })
        .collect();
    // In order, the worst first.
    graded.sort();
    let (verdict, found) = match graded.first() {
        Some((verdict, why, state)) if *verdict != Verdict::Pass => {
            let weak = graded.iter().filter(|(verdict, ..)| *verdict != Verdict::Pass).count();
            (*verdict, format!("{weak} of {} states are weak; {state}: {why}", states.len()))
        }
        _ => (Verdict::Pass, "each state uses good algorithms".to_owned()),
    };
    let finding = Finding::new(ALGORITHMS, verdict, How::Read, found);
    graded.into_iter().take(6).fold(finding, |finding, (_, why, state)| finding.seen(state, why))
}

/// The algorithms of a state, with the lengths of their keys.
fn names(state: &State) -> String {
    let all = [&state.aead, &state.cipher, &state.authentication];
    let name = |algorithm: &netlink::Algorithm| match algorithm.cut {
        0 => format!("{} {}", algorithm.name, algorithm.bits),
        cut => format!("{} {}/{cut}", algorithm.name, algorithm.bits),
    };
    all.into_iter().flatten().map(name).collect::<Vec<_>>().join(" + ")
}

fn secrets(states: &[State]) -> Finding {
    let shown = states.iter().filter(|state| state.shows_key == Some(true)).count();
    let (verdict, found) = if shown > 0 {
        (Verdict::Warn, format!("the kernel shows root the keys of {shown} of {} states", states.len()))
    } else if states.iter().any(|state| state.shows_key.is_some()) {
        (Verdict::Pass, "the kernel hides the keys of its states from root".to_owned())
    } else {
        return Finding::not_applicable(SECRETS, How::Tried, "no state has a key");
    };
    Finding::new(SECRETS, verdict, How::Tried, found)
        .seen(NETLINK, format!("{shown} of {} with a key", states.len()))
}

fn replay(states: &[State], policies: &[Policy]) -> Finding {
    let (mut inbound, mut unclear) = (Vec::new(), 0);
    for state in states {
        match state.inbound.or_else(|| direction(state, policies)) {
            Some(false) => {}
            None if state.replay_window == 0 => unclear += 1,
            // One with a window refuses what it has seen, whichever it is for.
            Some(true) | None => inbound.push(state),
        }
    }
    let open: Vec<String> =
        inbound.iter().filter(|state| state.replay_window == 0).map(ToString::to_string).collect();
    let extended = inbound.iter().filter(|state| state.extended_numbers).count();
    let finding = if !open.is_empty() {
        Finding::new(
            REPLAY,
            Verdict::Fail,
            How::Read,
            format!("{} of {} states accept packets again and again", open.len(), inbound.len()),
        )
        .seen("replay window 0", few(&open))
    } else if unclear > 0 {
        let missing = format!(
            "neither the kernel nor a policy tells whether {unclear} of {} states are for what comes in",
            states.len()
        );
        Finding::unknown(REPLAY, How::Derived, missing)
    } else if inbound.is_empty() {
        Finding::not_applicable(REPLAY, How::Derived, "no state is known to be for what comes in")
    } else {
        let found = "each state for what comes in refuses packets that it has seen";
        Finding::new(REPLAY, Verdict::Pass, How::Read, found)
    };
    finding.seen("extended sequence numbers", format!("{extended} of {}", inbound.len()))
}

/// Whether a state is for what comes in, where the kernel does not say so: older ones do not. Policies for the one direction want it then, and
/// none for the other.
fn direction(state: &State, policies: &[Policy]) -> Option<bool> {
    let is_wanted = |out: bool| {
        let policies = policies.iter().filter(|policy| (policy.direction == "out") == out);
        policies.flat_map(|policy| &policy.templates).any(|template| {
            template.destination.as_ref().is_none_or(|destination| *destination == state.destination)
                && (template.request == 0 || template.request == state.request)
        })
    };
    match (is_wanted(false), is_wanted(true)) {
        (true, false) => Some(true),
        (false, true) => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(database: &Database) -> [Verdict; 4] {
        let mut report = Report::default();
        judge(database, &mut report);
        let findings = report.findings();
        ALL.map(|id| findings.iter().find(|finding| finding.id == id).unwrap().verdict)
    }

    #[test]
    fn each_weakness_flips_its_finding() {
        let with = |key, window, optional| verdicts(&netlink::tests::database(key, window, optional));
        assert_eq!(with(0, 32, 0), [Verdict::Pass; 4]);
        assert_eq!(with(0, 32, 1)[0], Verdict::Warn);
        assert_eq!(with(1, 32, 0)[2], Verdict::Warn);
        assert_eq!(with(0, 0, 0)[3], Verdict::Fail);
        let mut weak = netlink::tests::database(0, 32, 0);
        weak.states[0].authentication = None;
        assert_eq!(verdicts(&weak)[1], Verdict::Fail);
    }

    #[test]
    fn the_direction_of_a_state_follows_from_policies_where_the_kernel_does_not_tell() {
        let verdict = |change: fn(&mut Database)| {
            let mut database = netlink::tests::database(0, 0, 0);
            database.states[0].inbound = None;
            change(&mut database);
            verdicts(&database)[3]
        };
        assert_eq!(verdict(|_| {}), Verdict::Fail);
        assert_eq!(
            verdict(|database| database.states[0].destination = "192.0.2.1".into()),
            Verdict::NotApplicable
        );
        assert_eq!(verdict(|database| database.states[0].request = 8), Verdict::Unknown);
        let guarded = |database: &mut Database| {
            (database.states[0].request, database.states[0].replay_window) = (8, 32);
        };
        assert_eq!(verdict(guarded), Verdict::Pass);
        // A policy that names neither wants any state.
        let any = |database: &mut Database| {
            database.states[0].request = 8;
            let template = &mut database.policies[0].templates[0];
            (template.destination, template.request) = (None, 0);
        };
        assert_eq!(verdict(any), Verdict::Fail);
    }

    #[test]
    fn policies_and_states_belong_together() {
        let mut database = netlink::tests::database(0, 32, 0);
        database.policies.clear();
        assert_eq!(verdicts(&database)[0], Verdict::Warn);
        let mut database = netlink::tests::database(0, 32, 0);
        database.states.clear();
        assert_eq!(
            verdicts(&database),
            [Verdict::Pass, Verdict::NotApplicable, Verdict::NotApplicable, Verdict::NotApplicable]
        );
        database.garbled = 1;
        assert_eq!(verdicts(&database), [Verdict::Unknown; 4]);
        // One that only excepts, as of strongSwan for the network around.
        database.garbled = 0;
        database.policies.iter_mut().for_each(|policy| policy.templates.clear());
        assert_eq!(verdicts(&database), [Verdict::NotApplicable; 4]);
        let mut database = netlink::tests::database(1, 32, 0);
        database.garbled = 1;
        assert_eq!(
            verdicts(&database),
            [Verdict::Unknown, Verdict::Unknown, Verdict::Warn, Verdict::Unknown]
        );
        assert_eq!(verdicts(&Database::default()), [Verdict::NotApplicable; 4]);
        assert_eq!(verdicts(&Database { garbled: 1, ..Database::default() }), [Verdict::Unknown; 4]);
    }

    #[test]
    fn nothing_is_asked_that_could_load_a_module() {
        let verdict = |files: &[(&str, &str)]| FEATURE.findings(&System::fake(files))[STATES].verdict;
        let head = "sk               Eth Pid        Groups   Rmem\n";
        let routes = format!("{head}0000000000000000 0   0          00000000 0\n");
        let with_xfrm = format!("{routes}0000000000000000 6   0          00000000 0\n");
        assert_eq!(verdict(&[("/proc/net/netlink", &routes)]), Verdict::NotApplicable);
        assert_eq!(verdict(&[("/proc/net/netlink", &routes), ("/proc/net/pfkey", "")]), Verdict::Unknown);
        assert_eq!(verdict(&[("/proc/net/netlink", "6 6 6")]), Verdict::Unknown);
        assert_eq!(verdict(&[]), Verdict::Unknown);
        // There is something to ask, and this is not the running machine.
        let findings = FEATURE.findings(&System::fake(&[("/proc/net/netlink", &with_xfrm)]));
        assert!(findings[STATES].found.starts_with("not tried"), "{}", findings[STATES].found);
    }
}
