/*!
Ciphers and hashes of the kernel's, by AF_ALG sockets.
*/
use std::{
    io::{self, IoSlice},
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::socket::{
    AddressFamily, AlgAddr, ControlMessage, MsgFlags, SockFlag, SockType, bind, sendmsg, setsockopt, socket,
    sockopt::{AlgSetAeadAuthSize, AlgSetKey},
};
use rustix::{
    io::read,
    net::{SocketFlags, accept_with},
};

use super::Kind;

/// A name may be this long, in bytes.
const NAME: usize = 63;

/// The tag of an authenticated cipher, in bytes.
pub(crate) const TAG: usize = 16;

/// An algorithm that the kernel gave.
#[derive(Debug)]
pub(crate) struct Algorithm(OwnedFd);

/// The direction of a cipher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Encrypt,
    Decrypt,
}

impl Algorithm {
    /// Asks for an algorithm or one implementation by its own name. It must be registered, or its module is loaded.
    ///
    /// # Errors
    /// The kernel's.
    pub fn bind(kind: Kind, name: &str) -> io::Result<Self> {
        if name.len() > NAME || name.contains('\0') {
            return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
        }
        let socket = socket(AddressFamily::Alg, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
        bind(socket.as_raw_fd(), &AlgAddr::new(kind.word(), name))?;
        Ok(Self(socket))
    }

    /// Makes this its key, and what is begun from now on uses it.
    ///
    /// # Errors
    /// The kernel's; in FIPS mode it refuses some keys.
    pub fn set_key(&self, key: &[u8]) -> io::Result<()> {
        setsockopt(&self.0, AlgSetKey::default(), &key)?;
        Ok(())
    }

    /// Makes tags [`TAG`] bytes long.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_tag(&self) -> io::Result<()> {
        setsockopt(&self.0, AlgSetAeadAuthSize, &TAG)?;
        Ok(())
    }

    /// Begins.
    ///
    /// # Errors
    /// The kernel's.
    pub fn begin(&self) -> io::Result<Operation> {
        Ok(Operation(accept_with(&self.0, SocketFlags::CLOEXEC)?))
    }
}

/// A socket that takes one message after the other.
#[derive(Debug)]
pub(crate) struct Operation(OwnedFd);

impl Operation {
    fn send(&self, message: &[u8], control: &[ControlMessage<'_>]) -> io::Result<()> {
        let sent =
            sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(message)], control, MsgFlags::empty(), None)?;
        if sent == message.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    fn receive(&self, length: usize) -> io::Result<Vec<u8>> {
        let mut answer = vec![0; length];
        let mut filled = 0;
        while filled < length {
            match read(&self.0, &mut answer[filled..])? {
                0 => break,
                n => filled += n,
            }
        }
        answer.truncate(filled);
        Ok(answer)
    }

    /// A message's hash, of at most 64 bytes.
    ///
    /// # Errors
    /// The kernel's.
    pub fn hash(&self, message: &[u8]) -> io::Result<Vec<u8>> {
        self.send(message, &[])?;
        // The first answer is the whole hash; reading on would begin an empty message.
        let mut answer = vec![0; 64];
        let length = read(&self.0, &mut answer)?;
        answer.truncate(length);
        Ok(answer)
    }

    /// A message, en- or decrypted.
    ///
    /// # Errors
    /// The kernel's.
    pub fn cipher(&self, direction: Direction, iv: &[u8], message: &[u8]) -> io::Result<Vec<u8>> {
        let operation = direction.code();
        let control = [ControlMessage::AlgSetOp(&operation), ControlMessage::AlgSetIv(iv)];
        // Where none is wanted, none may be given.
        self.send(message, if iv.is_empty() { &control[..1] } else { &control })?;
        self.receive(message.len())
    }

    /// A message and what is authenticated besides: encrypted and with its tag, or the other way round.
    ///
    /// # Errors
    /// The kernel's; EBADMSG where the tag is wrong.
    pub fn authenticated(
        &self,
        direction: Direction,
        iv: &[u8],
        associated: &[u8],
        message: &[u8],
    ) -> io::Result<Vec<u8>> {
        let operation = direction.code();
        let length = u32::try_from(associated.len()).map_err(io::Error::other)?;
        let control = [
            ControlMessage::AlgSetOp(&operation),
            ControlMessage::AlgSetIv(iv),
            ControlMessage::AlgSetAeadAssoclen(&length),
        ];
        self.send(&[associated, message].concat(), &control)?;
        let length = match direction {
            Direction::Encrypt => associated.len() + message.len() + TAG,
            Direction::Decrypt => (associated.len() + message.len()).saturating_sub(TAG),
        };
        // One answer, which begins with what was authenticated.
        let mut answer = vec![0; length];
        let filled = read(&self.0, &mut answer)?;
        answer.truncate(filled);
        Ok(answer.split_off(associated.len().min(filled)))
    }
}

impl Direction {
    fn code(self) -> libc::c_int {
        match self {
            Direction::Encrypt => libc::ALG_OP_ENCRYPT,
            Direction::Decrypt => libc::ALG_OP_DECRYPT,
        }
    }
}
