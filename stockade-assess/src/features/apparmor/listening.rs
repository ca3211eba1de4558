/*!
Processes that listen on the network without being confined by a profile: the first that a remote attacker reaches.
*/
use std::{collections::BTreeMap, net::SocketAddr};

use procfs_core::{
    ExplicitSystemInfo, FromBufReadSI,
    net::{TcpNetEntries, UdpNetEntries},
};

use super::{LISTENING, processes::Unconfined};
use crate::{Finding, How, System, Unread, Verdict, few, processes::name, system::Why};

/// The state TCP_LISTEN in /proc/net/tcp.
const LISTENS: &str = "0A";

/// The state of a bound, unconnected socket in /proc/net/udp.
const BOUND: &str = "07";

pub(super) fn listening(system: &System, without: &Unconfined) -> Finding {
    let sockets = match sockets(system) {
        Ok(sockets) => sockets,
        Err(unread) => return Finding::unknown(LISTENING, How::Read, unread),
    };
    let all = sockets.len();
    if all == 0 {
        let found = "no process listens on the network";
        return Finding::not_applicable(LISTENING, How::Read, found)
            .seen("/proc/net/tcp, tcp6, udp, udp6", found);
    }
    let mut found = Vec::new();
    let mut hidden = 0;
    for &pid in without.without_profile.iter().chain(&without.by_name_only) {
        // A process that listens on several ports is named once, and so is each process that shares a socket.
        match listens(system, pid, &sockets) {
            Ok(Some(socket)) => found.push(format!("{} on {socket}", name(system, pid))),
            Err(unread) if unread.why == Why::NotAllowed => hidden += 1,
            _ => {}
        }
    }
    if found.is_empty()
        && let Some(why) = &without.unseen
    {
        return Finding::unknown(LISTENING, How::Read, why);
    }
    if found.is_empty() && hidden > 0 {
        let missing =
            format!("the file descriptors of {hidden} unconfined processes cannot be read; run this as root");
        return Finding::unknown(LISTENING, How::Read, missing);
    }
    let finding = match found.len() {
        0 => Finding::new(
            LISTENING,
            Verdict::Pass,
            How::Derived,
            "every process that listens on the network is confined",
        ),
        1 => Finding::new(
            LISTENING,
            Verdict::Warn,
            How::Derived,
            "1 process listens on the network unconfined",
        ),
        n => {
            let found = format!("{n} processes listen on the network unconfined");
            Finding::new(LISTENING, Verdict::Warn, How::Derived, found)
        }
    };
    let finding = finding.seen("/proc/net/tcp, tcp6, udp, udp6", format!("{all} sockets listen"));
    if found.is_empty() { finding } else { finding.seen("/proc/PID/fd of unconfined processes", few(&found)) }
}

/// Returns the first of these sockets that a process has open.
fn listens(system: &System, pid: u32, sockets: &BTreeMap<u64, String>) -> Result<Option<String>, Unread> {
    let folder = format!("/proc/{pid}/fd");
    Ok(system.names(&folder)?.iter().find_map(|number| {
        let target = system.link(&format!("{folder}/{number}")).ok()?;
        let inode = target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()?;
        sockets.get(&inode).cloned()
    }))
}

/// Returns the sockets that listen on other addresses than loopback, by inode.
fn sockets(system: &System) -> Result<BTreeMap<u64, String>, Unread> {
    let machine = ExplicitSystemInfo {
        boot_time_secs: 0,
        ticks_per_second: 100,
        page_size: 4096,
        is_little_endian: cfg!(target_endian = "little"),
    };
    let mut sockets = BTreeMap::new();
    let mut add = |kind: &str, address: SocketAddr, inode: u64| {
        if !address.ip().is_loopback() && inode != 0 {
            sockets.insert(inode, format!("{kind} {address}"));
        }
    };
    for path in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let Some(lines) = lines(system, path, LISTENS)? else { continue };
        let table = TcpNetEntries::from_buf_read(lines.as_bytes(), &machine);
        let table = table.map_err(|error| Unread::not_understood(path, &error.to_string()))?;
        table.0.iter().for_each(|entry| add("tcp", entry.local_address, entry.inode));
    }
    for path in ["/proc/net/udp", "/proc/net/udp6"] {
        let Some(lines) = lines(system, path, BOUND)? else { continue };
        let table = UdpNetEntries::from_buf_read(lines.as_bytes(), &machine);
        let table = table.map_err(|error| Unread::not_understood(path, &error.to_string()))?;
        table.0.iter().for_each(|entry| add("udp", entry.local_address, entry.inode));
    }
    Ok(sockets)
}

/// Returns the lines of sockets in this state, with the header of the table; none if the table does not exist, as without IPv6.
fn lines(system: &System, path: &str, state: &str) -> Result<Option<String>, Unread> {
    let text = match system.text(path) {
        Ok(text) => text,
        Err(unread) if unread.is_missing() && path.ends_with('6') => return Ok(None),
        Err(unread) => return Err(unread),
    };
    let head = text.lines().take(1);
    let wanted = text.lines().skip(1).filter(|line| line.split_whitespace().nth(3) == Some(state));
    Ok(Some(head.chain(wanted).flat_map(|line| [line, "\n"]).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
    const EVERYWHERE: &str = "   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 71 1 x 100 0 0 10 0\n";
    const INSIDE: &str = "   1: 0100007F:0019 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 72 1 x 100 0 0 10 0\n";

    fn verdict(sockets: &str, label: &str) -> Finding {
        let system = machine(sockets, label);
        listening(&system, &super::super::processes::find_unconfined(&system).unwrap())
    }

    fn machine(sockets: &str, label: &str) -> System {
        let tcp = format!("{HEAD}{sockets}   2: of another state\n");
        System::fake(&[
            ("/proc/net/tcp", &tcp),
            ("/proc/net/udp", HEAD),
            ("/proc/7/attr/current", label),
            ("/proc/7/comm", "sshd"),
            ("/proc/7/fd/0", "-> /dev/null"),
            ("/proc/7/fd/3", "-> socket:[71]"),
            ("/proc/7/fd/4", "-> socket:[72]"),
        ])
    }

    #[test]
    fn where_processes_are_hidden_no_listener_is_called_confined() {
        let verdict = |label| {
            let system = machine(EVERYWHERE, label).not_root();
            listening(&system, &super::super::processes::find_unconfined(&system).unwrap()).verdict
        };
        assert_eq!((verdict("x (enforce)"), verdict("unconfined")), (Verdict::Unknown, Verdict::Warn));
    }

    #[test]
    fn an_unconfined_listener_is_named_with_its_port() {
        let bad = verdict(EVERYWHERE, "unconfined");
        assert_eq!(bad.verdict, Verdict::Warn);
        assert_eq!(bad.evidence[1].observed, "sshd (7) on tcp 0.0.0.0:22");
        assert_eq!(verdict(EVERYWHERE, "sshd (unconfined)").verdict, Verdict::Warn);
        assert_eq!(verdict(EVERYWHERE, "sshd (complain)").verdict, Verdict::Warn);
        assert_eq!(verdict(EVERYWHERE, "sshd (enforce)").verdict, Verdict::Pass);
    }

    #[test]
    fn the_machine_talking_to_itself_does_not_count() {
        assert_eq!(verdict(INSIDE, "unconfined").verdict, Verdict::NotApplicable);
        let system = System::fake(&[("/proc/7/attr/current", "unconfined")]);
        let without = super::super::processes::find_unconfined(&system).unwrap();
        assert_eq!(listening(&system, &without).verdict, Verdict::Unknown);
        assert_eq!(verdict("   0: x y 0A\n", "unconfined").verdict, Verdict::Unknown);
    }
}
