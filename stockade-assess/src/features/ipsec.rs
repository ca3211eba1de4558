/*!
IPsec: the kernel's states and policies in the network namespace of the caller, their algorithms, and whether root can read their keys.

The kernel is asked only if xfrm_user is loaded or built in, since asking would load it; without it, IPsec can be set up only by the old interface
PF_KEY.
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
const NOT_UNDERSTOOD: &str = "a part of the kernel's answer could not be read";

fn check(system: &System, report: &mut Report) {
    match not_in_use(system) {
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
                    "this kernel was built without the netlink interface for IPsec (CONFIG_XFRM_USER)",
                ));
            }
        }
        Err(error) => {
            let lacks = system.lacks_root().map_or_else(String::new, |lacks| format!("; {lacks}"));
            for id in ALL {
                report.add(Finding::unknown(
                    id,
                    How::Read,
                    format!("the IPsec states cannot be read: {error}{lacks}"),
                ));
            }
        }
    }
}

/// Returns the reason why IPsec is not in use; none if the kernel can be asked. /proc/net/netlink lists the kernel's own socket of xfrm_user
/// if that is loaded or built in.
fn not_in_use(system: &System) -> Result<Option<&'static str>, String> {
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
        Err("IPsec may have been set up by the old interface PF_KEY (af_key is loaded): load the module xfrm_user, so that \
             its states can be read"
            .into())
    } else {
        Ok(Some("IPsec is not in use: xfrm_user is neither loaded nor built in"))
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
                Finding::not_applicable(id, How::Read, "IPsec is not in use: no states and no policies")
            } else {
                Finding::unknown(id, How::Read, NOT_UNDERSTOOD)
            };
            report.add(finding.seen(NETLINK, summary(database)));
        }
        return;
    }
    let findings = if states.is_empty() {
        let none = |id| Finding::not_applicable(id, How::Read, "IPsec policies exist, but no states yet");
        [consistent(database), none(ALGORITHMS), none(SECRETS), none(REPLAY)]
    } else {
        [consistent(database), strength(states), secrets(states), replay(states, policies)]
    };
    for mut finding in findings {
        // A message that could not be read may describe a weaker state.
        if database.garbled > 0 && !matches!(finding.verdict, Verdict::Fail | Verdict::Warn) {
            (finding.verdict, finding.found) = (Verdict::Unknown, NOT_UNDERSTOOD.to_owned());
        }
        report.add(finding);
    }
}

fn summary(database: &Database) -> String {
    let garbled = match database.garbled {
        0 => String::new(),
        n => format!(", {n} messages not read"),
    };
    format!("{} states, {} policies{garbled}", database.states.len(), database.policies.len())
}

/// Judges whether packets that policies protect can pass in plain text.
fn consistent(database: &Database) -> Finding {
    let policies = &database.policies;
    let optional =
        policies.iter().filter(|policy| policy.allows && policy.templates.iter().any(|t| t.optional));
    let optional = optional.count();
    let wants = policies.iter().any(|policy| !policy.templates.is_empty());
    let (verdict, found) = if optional > 0 {
        let found = format!(
            "{optional} of {} IPsec policies let packets pass in plain text while there is no state (level use, should be required)",
            policies.len()
        );
        (Verdict::Warn, found)
    } else if database.states.is_empty() && !wants {
        (Verdict::NotApplicable, "no IPsec states exist, and no policy requires any".to_owned())
    } else if database.states.is_empty() {
        // Such as between two peers that have not exchanged packets yet.
        (Verdict::Pass, "IPsec policies block their packets while there are no states".to_owned())
    } else if !wants {
        (
            Verdict::Warn,
            "IPsec states exist, but no policy sends packets through them: nothing is protected".to_owned(),
        )
    } else {
        (Verdict::Pass, "packets that IPsec policies select pass encrypted or not at all".to_owned())
    };
    let plain = policies.iter().filter(|policy| policy.allows && policy.templates.is_empty()).count();
    let default = match database.refused.as_slice() {
        [] => "passes in plain text".to_owned(),
        refused => format!("blocked: {}", refused.join(", ")),
    };
    Finding::new(STATES, verdict, How::Read, found)
        .seen(NETLINK, summary(database))
        .seen("policies that exempt packets from IPsec", plain.to_string())
        .seen("traffic that no policy selects", default)
}

fn strength(states: &[State]) -> Finding {
    let mut graded: Vec<(Verdict, String, String)> = states
        .iter()
        .map(|state| {
            let (verdict, why) = algorithms::grade(state);
            (verdict, format!("{why} ({})", names(state)), state.to_string())
        })
        .collect();
    // Verdicts are ordered, the worst first.
    graded.sort();
    let (verdict, found) = match graded.first() {
        Some((verdict, why, state)) if *verdict != Verdict::Pass => {
            let weak = graded.iter().filter(|(verdict, ..)| *verdict != Verdict::Pass).count();
            (*verdict, format!("{weak} of {} IPsec states use weak algorithms; {state}: {why}", states.len()))
        }
        _ => (Verdict::Pass, "every IPsec state uses strong algorithms".to_owned()),
    };
    let finding = Finding::new(ALGORITHMS, verdict, How::Read, found);
    graded.into_iter().take(6).fold(finding, |finding, (_, why, state)| finding.seen(state, why))
}

/// Names the algorithms of a state, with the lengths of their keys.
fn names(state: &State) -> String {
    let all = [&state.aead, &state.cipher, &state.authentication];
    let name = |algorithm: &netlink::Algorithm| match algorithm.tag_bits {
        0 => format!("{} {}", algorithm.name, algorithm.bits),
        tag_bits => format!("{} {}/{tag_bits}", algorithm.name, algorithm.bits),
    };
    all.into_iter().flatten().map(name).collect::<Vec<_>>().join(" + ")
}

fn secrets(states: &[State]) -> Finding {
    let shown = states.iter().filter(|state| state.shows_key == Some(true)).count();
    let (verdict, found) = if shown > 0 {
        (Verdict::Warn, format!("the kernel shows root the keys of {shown} of {} IPsec states", states.len()))
    } else if states.iter().any(|state| state.shows_key.is_some()) {
        (Verdict::Pass, "the kernel hides the keys of IPsec states from root".to_owned())
    } else {
        return Finding::not_applicable(SECRETS, How::Tried, "no IPsec state has a key");
    };
    Finding::new(SECRETS, verdict, How::Tried, found)
        .seen(NETLINK, format!("{shown} of {} states with a visible key", states.len()))
}

fn replay(states: &[State], policies: &[Policy]) -> Finding {
    let (mut inbound, mut unclear) = (Vec::new(), 0);
    for state in states {
        match state.inbound.or_else(|| direction(state, policies)) {
            Some(false) => {}
            None if state.replay_window == 0 => unclear += 1,
            // A state with a window refuses replayed packets, whatever its direction.
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
            format!(
                "{} of {} inbound IPsec states accept replayed packets (replay window 0)",
                open.len(),
                inbound.len()
            ),
        )
        .seen("replay window 0", few(&open))
    } else if unclear > 0 {
        let missing = format!(
            "the direction of {unclear} of {} IPsec states without a replay window is not known",
            states.len()
        );
        Finding::unknown(REPLAY, How::Derived, missing)
    } else if inbound.is_empty() {
        Finding::not_applicable(REPLAY, How::Derived, "no IPsec state is known to be inbound")
    } else {
        let found = "every inbound IPsec state has a replay window";
        Finding::new(REPLAY, Verdict::Pass, How::Read, found)
    };
    finding.seen("extended sequence numbers", format!("{extended} of {} inbound states", inbound.len()))
}

/// Reports whether a state is inbound, for kernels before 6.10, which do not show it: policies of one direction require it, and none of the other.
/// None if that does not decide it.
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
        // A template without destination and reqid accepts any state.
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
        // A policy that only exempts packets, as strongSwan adds for the local network.
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
        // xfrm_user is there, but this is not the running machine.
        let findings = FEATURE.findings(&System::fake(&[("/proc/net/netlink", &with_xfrm)]));
        assert!(findings[STATES].found.starts_with("not tried"), "{}", findings[STATES].found);
    }
}
