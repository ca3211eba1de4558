//! The door to the keys of IPsec associations.
//!
//! This door refuses without an errno: the kernel answers the request and blanks the keys in it
//! (`xfrm_redact()` in `net/xfrm/xfrm_user.c`).

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::mem::offset_of;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;

use crate::answer::{Outcome, check};
use crate::file;

const NEW_SA: u16 = 0x10;
const GET_SA: u16 = 0x12;
const ALG_AUTH: u16 = 1;
const ALG_CRYPT: u16 = 2;

/// The index of the one association; any number above the reserved 255 will do.
const SPI: u32 = 0x5350;
const ADDRESS: [u8; 4] = [192, 0, 2, 1];
const AUTH: &str = "hmac(sha256)";
const AUTH_KEY: [u8; 32] = *b"stockade-probe-not-a-real-secret";
const CRYPT: &str = "cbc(aes)";
const CRYPT_KEY: [u8; 16] = *b"not-a-real-secre";

/// Sets up an IPsec association with a made-up key in a network namespace of the child's own, reads it
/// back, and looks whether the key is in the answer. The namespace holds no interface and ends with the
/// child. The request for one association passes the same code as a dump of all.
///
/// The modules `xfrm_user` and `esp4` must be there already: asking for them would load them for good, and
/// a machine without IPsec has no keys to show.
pub(crate) fn read_sa() -> Outcome {
    if let Some(module) = ["xfrm_user", "esp4"].into_iter().find(|module| !is_there(module)) {
        return Outcome::absent(format!(
            "IPsec is not in use: {module} is not loaded, and the probe loads no module"
        ));
    }
    match exchange() {
        Ok(answer) => judge(&answer),
        Err((tried, error)) => match error.raw_os_error() {
            // EPERM here is about the namespace or the request, never about lockdown.
            Some(libc::ENOENT | libc::ENOSYS | libc::EPROTONOSUPPORT) => {
                Outcome::absent(format!("{tried}: {error}")).with(&error)
            }
            _ => Outcome::failed(format!("{tried}: {error}")).with(&error),
        },
    }
}

/// Whether a module is loaded or built in.
fn is_there(module: &str) -> bool {
    let release = file::text("/proc/sys/kernel/osrelease").unwrap_or_default();
    let built_in = fs::read_to_string(format!("/lib/modules/{release}/modules.builtin")).unwrap_or_default();
    Path::new("/sys/module").join(module).exists() || lists(&built_in, module)
}

/// Whether modules.builtin lists a module.
fn lists(built_in: &str, module: &str) -> bool {
    built_in.lines().any(|path| {
        let file = path.rsplit('/').next().unwrap_or(path);
        file.strip_suffix(".ko") == Some(module)
    })
}

fn exchange() -> Result<Vec<u8>, (&'static str, io::Error)> {
    // SAFETY: unshare takes flags only; this child has one thread.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) }.into())
        .map_err(|error| ("make a network namespace", error))?;
    let mut socket = socket().map_err(|error| ("open a NETLINK_XFRM socket", error))?;
    ask(&mut socket, &new_sa()).map_err(|error| ("add an IPsec association", error))?;
    ask(&mut socket, &get_sa()).map_err(|error| ("read the IPsec association", error))
}

/// Whether the answer shows the association with its key or without.
fn judge(answer: &[u8]) -> Outcome {
    let shows = |bytes: &[u8]| answer.windows(bytes.len()).any(|window| window == bytes);
    if shows(&AUTH_KEY) || shows(&CRYPT_KEY) {
        Outcome::free()
    } else if shows(AUTH.as_bytes()) && shows(CRYPT.as_bytes()) {
        Outcome { answer: crate::Answer::Refused, errno: None }
    } else {
        Outcome::failed("the kernel's answer does not show the IPsec association")
    }
}

fn socket() -> io::Result<File> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: socket takes three integers.
    let fd = check(unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_XFRM) }.into())?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the call succeeded, so the descriptor is open and nobody else owns it.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Sends a request and gives its answer; an error message of the kernel becomes an error.
fn ask(socket: &mut File, request: &[u8]) -> io::Result<Vec<u8>> {
    socket.write_all(request)?;
    let mut answer = vec![0; 8192];
    let length = socket.read(&mut answer)?;
    answer.truncate(length);
    match error_in(&answer) {
        Some(0) | None => Ok(answer),
        Some(errno) => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// The errno of an error message, 0 for an acknowledgement; none if it is another message.
fn error_in(answer: &[u8]) -> Option<i32> {
    const NLMSG_ERROR: u16 = 2;
    let kind = u16::from_ne_bytes(*answer.get(4..)?.first_chunk()?);
    let code = i32::from_ne_bytes(*answer.get(16..)?.first_chunk()?);
    (kind == NLMSG_ERROR).then_some(-code)
}

/// `xfrm_address_t`
type Address = [u32; 4];

/// `struct xfrm_selector`
#[repr(C)]
#[derive(Clone, Copy)]
struct Selector {
    destination: Address,
    source: Address,
    ports: [u16; 4],
    family: u16,
    prefixes: [u8; 2],
    protocol: u8,
    ifindex: i32,
    user: u32,
}

/// `struct xfrm_usersa_info`
#[repr(C)]
struct SaInfo {
    selector: Selector,
    destination: Address,
    spi: u32,
    protocol: u8,
    source: Address,
    /// Four limits in bytes and packets, then four times.
    limits: [u64; 8],
    current: [u64; 4],
    statistics: [u32; 3],
    sequence: u32,
    request: u32,
    family: u16,
    mode: u8,
    replay_window: u8,
    flags: u8,
}

/// `struct xfrm_usersa_id`
#[repr(C)]
struct SaId {
    destination: Address,
    spi: u32,
    family: u16,
    protocol: u8,
}

const SA_INFO: usize = size_of::<SaInfo>();
const SA_ID: usize = size_of::<SaId>();
const _: () = assert!(SA_INFO == 224 && SA_ID == 24);

/// A fixed part of a message, zero but for the fields put into it by offset.
struct Fixed<const SIZE: usize>([u8; SIZE]);

impl<const SIZE: usize> Fixed<SIZE> {
    fn put(mut self, offset: usize, bytes: &[u8]) -> Self {
        self.0[offset..offset + bytes.len()].copy_from_slice(bytes);
        self
    }
}

/// AF_INET and IPPROTO_ESP as the messages carry them.
const FAMILY: [u8; 2] = 2_u16.to_ne_bytes();
const ESP: [u8; 1] = [50];

fn new_sa() -> Vec<u8> {
    let unlimited = [0xff; 32];
    let mut body = Fixed([0; SA_INFO])
        .put(offset_of!(SaInfo, selector) + offset_of!(Selector, family), &FAMILY)
        .put(offset_of!(SaInfo, destination), &ADDRESS)
        .put(offset_of!(SaInfo, source), &ADDRESS)
        .put(offset_of!(SaInfo, spi), &SPI.to_be_bytes())
        .put(offset_of!(SaInfo, protocol), &ESP)
        .put(offset_of!(SaInfo, limits), &unlimited)
        .put(offset_of!(SaInfo, family), &FAMILY)
        .0
        .to_vec();
    body.extend(algorithm(ALG_AUTH, AUTH, &AUTH_KEY));
    body.extend(algorithm(ALG_CRYPT, CRYPT, &CRYPT_KEY));
    message(NEW_SA, libc::NLM_F_ACK, &body)
}

fn get_sa() -> Vec<u8> {
    let body = Fixed([0; SA_ID])
        .put(offset_of!(SaId, destination), &ADDRESS)
        .put(offset_of!(SaId, spi), &SPI.to_be_bytes())
        .put(offset_of!(SaId, family), &FAMILY)
        .put(offset_of!(SaId, protocol), &ESP)
        .0;
    message(GET_SA, 0, &body)
}

/// An attribute that holds a `struct xfrm_algo`: name (64), key length in bits (4), key.
fn algorithm(attribute: u16, name: &str, key: &[u8]) -> Vec<u8> {
    let mut padded = name.as_bytes().to_vec();
    padded.resize(64, 0);
    let length = 4 + padded.len() + 4 + key.len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(narrow::<u16>(length).to_ne_bytes());
    bytes.extend(attribute.to_ne_bytes());
    bytes.extend(padded);
    bytes.extend(narrow::<u32>(key.len() * 8).to_ne_bytes());
    bytes.extend(key);
    bytes
}

/// A netlink message with its header; the kernel fills in who sends it.
fn message(kind: u16, flags: i32, body: &[u8]) -> Vec<u8> {
    let length = 16 + body.len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(narrow::<u32>(length).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(narrow::<u16>(flags | libc::NLM_F_REQUEST).to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(body);
    bytes
}

/// A length or a flag word as a field holds it. Every one here is known and small.
fn narrow<T>(value: impl TryInto<T>) -> T {
    value.try_into().ok().expect("lengths and flags of these messages are small")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_kernels_layout() {
        assert_eq!(size_of::<Selector>(), 56);
        assert_eq!(offset_of!(SaInfo, spi), 72);
        assert_eq!(offset_of!(SaInfo, source), 80);
        assert_eq!(offset_of!(SaInfo, limits), 96);
        assert_eq!(offset_of!(SaInfo, family), 212);
        let message = new_sa();
        assert_eq!(message.len(), 16 + 224 + (4 + 68 + 32) + (4 + 68 + 16));
        assert_eq!(message[..4], narrow::<u32>(message.len()).to_ne_bytes());
        assert_eq!(get_sa().len(), 16 + 24);
    }

    #[test]
    fn a_blanked_key_is_a_refusal() {
        assert_eq!(judge(&new_sa()), Outcome::free());
        let mut blanked = b"hmac(sha256)".to_vec();
        blanked.extend([0; 84]);
        blanked.extend(b"cbc(aes)");
        assert_eq!(judge(&blanked).answer, crate::Answer::Refused);
        assert!(matches!(judge(b"").answer, crate::Answer::Failed(_)));
    }

    #[test]
    fn an_error_message_is_told_from_an_answer() {
        let mut error = message(2, 0, &[]);
        error.extend((-libc::ENOENT).to_ne_bytes());
        assert_eq!(error_in(&error), Some(libc::ENOENT));
        assert_eq!(error_in(&new_sa()), None);
        assert_eq!(error_in(&[]), None);
    }

    #[test]
    fn built_in_modules_are_found_by_name() {
        let built_in = "kernel/net/xfrm/xfrm_user.ko\nkernel/net/ipv4/esp4_offload.ko\n";
        assert!(lists(built_in, "xfrm_user"));
        assert!(!lists(built_in, "esp4"));
    }
}
