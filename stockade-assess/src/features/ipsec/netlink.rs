/*!
The kernel's IPsec states and policies, by netlink.

The kernel shows states with their keys. Only the length of a key and whether it was shown are kept: the receive buffer is wiped, and so are the keys
in the parsed messages.
*/
use std::{
    fmt, io,
    net::{Ipv4Addr, Ipv6Addr},
};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload, Nla,
};
use netlink_packet_xfrm::{
    Address, UserTemplate, XFRM_MSG_GETDEFAULT, XFRM_MSG_NEWPOLICY, XFRM_MSG_NEWSA, XFRM_STATE_ESN,
    XFRM_USERPOLICY_BLOCK, XfrmAttrs, XfrmMessage, policy, state,
};
use netlink_sys::{Socket, protocols::NETLINK_XFRM};
use zeroize::{Zeroize, Zeroizing};

/// Encapsulating security payload, and the authentication header.
pub(super) const ESP: u8 = 50;
pub(super) const AH: u8 = 51;

/// The size of the receive buffer, more than the kernel puts into one answer.
const SIZE: usize = 64 << 10;

/// The number of states, and of policies, that are read.
const MOST: usize = 100_000;

/// Message types below are of netlink itself: errors and the end of a dump.
const NLMSG_MIN_TYPE: u16 = 16;

/// IPPROTO_COMP: compression, which protects nothing and is skipped for packets that do not get smaller.
const COMPRESSION: u8 = 108;

/// The attribute with the direction of a state, in or out. Linux 6.10 and later.
const XFRMA_SA_DIR: u16 = 33;

/// The states and policies of the kernel.
#[derive(Debug, Default)]
pub(super) struct Database {
    pub(super) states: Vec<State>,
    pub(super) policies: Vec<Policy>,
    /// The directions in which packets that no policy selects are blocked.
    pub(super) refused: Vec<&'static str>,
    /// The number of messages that could not be parsed, or were not read since there are too many.
    pub(super) garbled: usize,
}

/// A state, without its keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) protocol: u8,
    pub(super) index: u32,
    pub(super) source: String,
    pub(super) destination: String,
    pub(super) request: u32,
    pub(super) cipher: Option<Algorithm>,
    pub(super) authentication: Option<Algorithm>,
    pub(super) aead: Option<Algorithm>,
    pub(super) replay_window: u32,
    pub(super) extended_numbers: bool,
    /// Whether it is inbound; none if the kernel does not show it.
    pub(super) inbound: Option<bool>,
    /// Whether the kernel showed a key, and not zeros in its place; none if the state has no key.
    pub(super) shows_key: Option<bool>,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = if self.protocol == AH { "AH" } else { "ESP" };
        write!(f, "{protocol} {} to {} (SPI {:#010x})", self.source, self.destination, self.index)
    }
}

/// An algorithm of a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Algorithm {
    pub(super) name: String,
    pub(super) bits: u32,
    /// The length to which tags are truncated, in bits; 0 for ciphers.
    pub(super) tag_bits: u32,
}

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    /// in, out or fwd.
    pub(super) direction: &'static str,
    pub(super) allows: bool,
    pub(super) templates: Vec<Template>,
}

/// A template of a policy: the state that it requires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template {
    /// The destination of the state; none for any.
    pub(super) destination: Option<String>,
    /// The reqid of the state; 0 for any.
    pub(super) request: u32,
    /// Whether packets pass in plain text while there is no state (level use).
    pub(super) optional: bool,
}

impl Database {
    /// Asks the kernel. The module `xfrm_user` must be loaded or built in: asking would load it.
    pub(super) fn ask() -> io::Result<Self> {
        let mut database = Self::default();
        database.dump(XfrmMessage::GetDumpSa(state::GetDumpMessage::default()), true)?;
        database.dump(XfrmMessage::GetPolicy(policy::DelGetMessage::default()), true)?;
        // Linux 5.15 and later; before, packets that no policy selects always pass.
        let default = XfrmMessage::GetPolicyDefault(policy::DefaultMessage::default());
        match database.dump(default, false) {
            Err(error) if !matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {
                Err(error)
            }
            _ => Ok(database),
        }
    }

    /// Sends a request and reads its answers, on a socket of its own, so that closing it discards the rest of a dump that is too long.
    fn dump(&mut self, request: XfrmMessage, all: bool) -> io::Result<()> {
        let socket = Socket::new(NETLINK_XFRM)?;
        let most = self.states.len() + self.policies.len() + MOST;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | if all { NLM_F_DUMP } else { 0 };
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        socket.send(&bytes, 0)?;
        let mut buffer = Zeroizing::new(vec![0_u8; SIZE]);
        loop {
            let length = socket.recv(&mut buffer.as_mut_slice(), 0)?;
            let ends = self.take(buffer.get(..length).unwrap_or_default())?;
            if ends || !all {
                return Ok(());
            }
            if self.states.len() + self.policies.len() >= most {
                self.garbled += 1;
                return Ok(());
            }
        }
    }

    /// Reads the messages in the received bytes; returns true if none follow.
    pub(super) fn take(&mut self, mut bytes: &[u8]) -> io::Result<bool> {
        while let Ok(header) = NetlinkBuffer::new_checked(bytes) {
            let length = usize::try_from(header.length()).unwrap_or(usize::MAX);
            // The crate panics where the fixed part of a message is cut off, so no type is parsed whose fixed part is not known here.
            let fixed = match header.message_type() {
                0..NLMSG_MIN_TYPE => Some(0),
                XFRM_MSG_NEWSA => Some(224),
                XFRM_MSG_NEWPOLICY => Some(168),
                XFRM_MSG_GETDEFAULT => Some(3),
                _ => None,
            };
            let message = fixed.is_some_and(|fixed| header.payload_length() >= fixed).then(|| {
                NetlinkMessage::<XfrmMessage>::deserialize(bytes.get(..length).unwrap_or(bytes)).ok()
            });
            match message.flatten().map(|message| message.payload) {
                Some(NetlinkPayload::Done(done)) if done.code != 0 => {
                    return Err(io::Error::from_raw_os_error(done.code.saturating_abs()));
                }
                Some(NetlinkPayload::Done(_)) => return Ok(true),
                // The crate's to_io() overflows on i32::MIN.
                Some(NetlinkPayload::Error(error)) => {
                    return Err(io::Error::from_raw_os_error(error.raw_code().saturating_abs()));
                }
                Some(NetlinkPayload::InnerMessage(message)) => self.add(message),
                Some(_) => {}
                None => self.garbled += 1,
            }
            match bytes.get(length.next_multiple_of(4)..) {
                Some(rest) if length > 0 => bytes = rest,
                _ => break,
            }
        }
        Ok(false)
    }

    fn add(&mut self, message: XfrmMessage) {
        match message {
            XfrmMessage::AddSa(message) => self.states.extend(State::from_message(message)),
            XfrmMessage::AddPolicy(message) => self.policies.extend(Policy::from_message(&message)),
            XfrmMessage::GetPolicyDefault(message) => {
                let policy = message.user_policy;
                let directions = [("in", policy.input), ("fwd", policy.forward), ("out", policy.output)];
                let refused = directions.into_iter().filter(|(_, action)| *action == XFRM_USERPOLICY_BLOCK);
                self.refused.extend(refused.map(|(direction, _)| direction));
            }
            _ => {}
        }
    }
}

impl State {
    /// Reads a state from a message; none for states that protect nothing: compression, and larval states without keys.
    fn from_message(message: state::ModifyMessage) -> Option<Self> {
        let info = message.user_sa_info;
        let mut state = Self {
            protocol: info.id.proto,
            index: info.id.spi,
            source: address(info.family, &info.saddr),
            destination: address(info.family, &info.id.daddr),
            request: info.reqid,
            replay_window: info.replay_window.into(),
            extended_numbers: info.flags & XFRM_STATE_ESN != 0,
            ..Self::default()
        };
        for attribute in message.nlas {
            match attribute {
                XfrmAttrs::EncryptionAlg(mut alg) => {
                    state.cipher = Some(Algorithm::new(&alg.alg_name, alg.alg_key_len, 0));
                    state.wipe_key(&mut alg.alg_key);
                }
                // The kernel sends both authentication attributes; only this one has the length of the tag.
                XfrmAttrs::AuthenticationAlgTrunc(mut alg) => {
                    state.authentication =
                        Some(Algorithm::new(&alg.alg_name, alg.alg_key_len, alg.alg_trunc_len));
                    state.wipe_key(&mut alg.alg_key);
                }
                XfrmAttrs::AuthenticationAlg(mut alg) => state.wipe_key(&mut alg.alg_key),
                XfrmAttrs::EncryptionAlgAead(mut alg) => {
                    state.aead = Some(Algorithm::new(&alg.alg_name, alg.alg_key_len, alg.alg_icv_len));
                    state.wipe_key(&mut alg.alg_key);
                }
                XfrmAttrs::ReplayStateEsn(replay) => state.replay_window = replay.replay_window,
                XfrmAttrs::Other(other) if other.kind() == XFRMA_SA_DIR && other.value_len() == 1 => {
                    let mut direction = [0];
                    other.emit_value(&mut direction);
                    state.inbound = Some(direction == [1]);
                }
                _ => {}
            }
        }
        let protects = matches!(state.protocol, ESP | AH);
        let has_keys = state.cipher.is_some() || state.authentication.is_some() || state.aead.is_some();
        (protects && has_keys).then_some(state)
    }

    /// Records whether a key was shown, and wipes it.
    fn wipe_key(&mut self, key: &mut Vec<u8>) {
        if !key.is_empty() {
            let shown = key.iter().any(|byte| *byte != 0);
            self.shows_key = Some(self.shows_key.unwrap_or(false) || shown);
        }
        key.zeroize();
    }
}

impl Algorithm {
    fn new(name: &[u8], bits: u32, tag_bits: u32) -> Self {
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        Self { name: String::from_utf8_lossy(name).into_owned(), bits, tag_bits }
    }
}

impl Policy {
    /// Reads a policy from a message; none for per-socket policies.
    fn from_message(message: &policy::ModifyMessage) -> Option<Self> {
        let info = &message.user_policy_info;
        let direction = *["in", "out", "fwd"].get(usize::from(info.direction))?;
        let templates = message.nlas.iter().filter_map(|attribute| match attribute {
            XfrmAttrs::Template(templates) => Some(templates),
            _ => None,
        });
        let template = |template: &UserTemplate| Template {
            destination: Some(address(template.family, &template.id.daddr))
                .filter(|_| template.id.daddr.addr != [0; 16]),
            request: template.reqid,
            optional: template.optional != 0,
        };
        Some(Self {
            direction,
            allows: info.action == 0,
            templates: templates
                .flatten()
                .filter(|template| template.id.proto != COMPRESSION)
                .map(template)
                .collect(),
        })
    }
}

fn address(family: u16, address: &Address) -> String {
    if i32::from(family) == libc::AF_INET6 {
        return Ipv6Addr::from(address.addr).to_string();
    }
    let [a, b, c, d, ..] = address.addr;
    Ipv4Addr::new(a, b, c, d).to_string()
}

#[cfg(test)]
pub(super) mod tests {
    use netlink_packet_core::DefaultNla;
    use netlink_packet_xfrm::{Alg, AlgAead, AlgAuth, UserSaInfo};
    use proptest::prelude::*;

    use super::*;

    fn message(message: XfrmMessage) -> Vec<u8> {
        let mut message = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    fn name(name: &str) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        bytes
    }

    /// Makes the message of a state with AES in CBC mode and SHA-256.
    fn state(key: u8, replay_window: u8) -> Vec<u8> {
        let mut info = UserSaInfo { family: 2, reqid: 7, replay_window, ..UserSaInfo::default() };
        info.id.proto = 50;
        info.id.spi = 0x1234_5678;
        info.id.daddr.addr[..4].copy_from_slice(&[192, 0, 2, 2]);
        info.saddr.addr[..4].copy_from_slice(&[192, 0, 2, 1]);
        let (auth, crypt) = (name("hmac(sha256)"), name("cbc(aes)"));
        let nlas = vec![
            XfrmAttrs::AuthenticationAlg(Alg { alg_name: auth, alg_key_len: 256, alg_key: vec![key; 32] }),
            XfrmAttrs::AuthenticationAlgTrunc(AlgAuth {
                alg_name: auth,
                alg_key_len: 256,
                alg_trunc_len: 128,
                alg_key: vec![key; 32],
            }),
            XfrmAttrs::EncryptionAlg(Alg { alg_name: crypt, alg_key_len: 128, alg_key: vec![key; 16] }),
            XfrmAttrs::Other(DefaultNla::new(XFRMA_SA_DIR, vec![1])),
        ];
        message(XfrmMessage::AddSa(state::ModifyMessage { user_sa_info: info, nlas }))
    }

    /// Makes the message of a policy with a template for compression.
    fn policy(direction: u8, optional: u8) -> Vec<u8> {
        let mut template = UserTemplate { family: 2, reqid: 7, optional, ..UserTemplate::default() };
        template.id.daddr.addr[..4].copy_from_slice(&[192, 0, 2, if direction == 1 { 1 } else { 2 }]);
        template.id.proto = 50;
        let mut compression = UserTemplate { optional: 1, ..template };
        compression.id.proto = COMPRESSION;
        let templates = XfrmAttrs::Template(vec![compression, template]);
        let mut policy = policy::ModifyMessage { nlas: vec![templates], ..Default::default() };
        policy.user_policy_info.direction = direction;
        message(XfrmMessage::AddPolicy(policy))
    }

    /// Reads these messages.
    fn read(messages: &[Vec<u8>]) -> Database {
        let mut database = Database::default();
        assert!(!database.take(&messages.concat()).unwrap());
        database
    }

    /// Makes a database with a state and policies for both directions.
    pub(in super::super) fn database(key: u8, replay_window: u8, optional: u8) -> Database {
        read(&[state(key, replay_window), policy(0, optional), policy(1, 0)])
    }

    #[test]
    fn states_and_policies_are_read() {
        let database = database(0x5a, 32, 1);
        let state = &database.states[0];
        assert_eq!(state.to_string(), "ESP 192.0.2.1 to 192.0.2.2 (SPI 0x12345678)");
        assert_eq!(state.cipher, Some(Algorithm { name: "cbc(aes)".into(), bits: 128, tag_bits: 0 }));
        assert_eq!(
            state.authentication,
            Some(Algorithm { name: "hmac(sha256)".into(), bits: 256, tag_bits: 128 })
        );
        assert_eq!((state.inbound, state.replay_window, state.shows_key), (Some(true), 32, Some(true)));
        let shown: Vec<_> =
            database.policies.iter().map(|p| (p.direction, p.templates[0].optional)).collect();
        assert_eq!(shown, [("in", true), ("out", false)]);
        assert_eq!(database.garbled, 0);
        // The SPI is in network byte order.
        assert_eq!(super::tests::state(0, 0)[16 + 72..][..4], [0x12, 0x34, 0x56, 0x78]);
    }

    #[test]
    fn keys_that_are_hidden_are_told_from_keys_that_are_shown() {
        assert_eq!(read(&[state(0, 0)]).states[0].shows_key, Some(false));
        let mut aead =
            AlgAead { alg_name: name("x"), alg_key_len: 8, alg_icv_len: 8, alg_key: vec![0, 0, 1] };
        let mut state = State::default();
        state.wipe_key(&mut aead.alg_key);
        assert_eq!((state.shows_key, aead.alg_key.is_empty()), (Some(true), true));
    }

    #[test]
    fn errors_and_the_end_are_heard() {
        // struct nlmsgerr with EPERM, and the end of a dump.
        let mut error =
            [vec![36, 0, 0, 0, 2, 0, 0, 0], vec![0; 8], (-1_i32).to_ne_bytes().to_vec(), vec![0; 16]]
                .concat();
        assert_eq!(Database::default().take(&error).unwrap_err().raw_os_error(), Some(libc::EPERM));
        error[4] = 3;
        assert_eq!(Database::default().take(&error).unwrap_err().raw_os_error(), Some(libc::EPERM));
        error[16..20].fill(0);
        assert!(Database::default().take(&error).unwrap());
        error[4] = 2;
        error[16..20].copy_from_slice(&i32::MIN.to_ne_bytes());
        assert_eq!(Database::default().take(&error).unwrap_err().raw_os_error(), Some(i32::MAX));
        let default = policy::DefaultMessage {
            user_policy: netlink_packet_xfrm::UserPolicyDefault { input: 1, forward: 2, output: 1 },
        };
        assert_eq!(read(&[message(XfrmMessage::GetPolicyDefault(default))]).refused, ["in", "out"]);
        // A state that is cut off.
        let mut short = state(1, 1);
        short.truncate(100);
        short[..4].copy_from_slice(&100_u32.to_ne_bytes());
        assert_eq!(read(&[short]).garbled, 1);
    }

    #[test]
    fn a_short_message_of_any_type_is_not_understood_and_no_panic() {
        for kind in NLMSG_MIN_TYPE..=0x30 {
            let mut short = vec![20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
            short[4..6].copy_from_slice(&kind.to_ne_bytes());
            let short = if kind == XFRM_MSG_GETDEFAULT { short[..16].to_vec() } else { short };
            assert_eq!(Database::default().take(&short).ok(), Some(false), "{kind:#x}");
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_harm(
            changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..30),
            end in any::<proptest::sample::Index>(),
        ) {
            let mut bytes = [state(1, 1), policy(0, 1), state(2, 2)].concat();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let _ = Database::default().take(&bytes);
            let _ = Database::default().take(&bytes[..end.index(bytes.len())]);
        }
    }
}
