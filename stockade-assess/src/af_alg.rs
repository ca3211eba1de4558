/*!
The crypto API's sockets, AF_ALG: who can open them, and without loading anything that is not loaded yet.

Opening a socket loads `af_alg`, binding one loads `algif_…` and the algorithm's module, and modules stay. So nothing is opened that is
not registered already.
*/
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::{
    algorithms::Implementation,
    child,
    modprobe::{self, Blocked, DISABLED},
    nobody,
    system::System,
};

/// Where the kernel lists the socket families' protocols.
pub(crate) const PROTOCOLS: &str = "/proc/net/protocols";

/// Since 7.3: 0 for everything, 1 for the algorithms of a short list, 2 for nothing at all. There only while the sockets are.
pub(crate) const RESTRICT: &str = "/proc/sys/crypto/af_alg_restrict";

const OPTION: &str = "CONFIG_CRYPTO_USER_API";

/// `AF_ALG`.
const FAMILY: u16 = 38;

/// The sockets' module, and the name by which opening one asks for it.
const MODULE: [&str; 2] = ["af_alg", "net_pf_38"];

/// The child's word when it got a socket.
const OPENED: &str = "opened";

mod socket;

pub(crate) use socket::{Algorithm, Direction, Operation, TAG};

/// Sorts of algorithms that sockets give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Hash,
    Cipher,
    Authenticated,
}

impl Kind {
    /// The kernel's word for it.
    fn word(self) -> &'static str {
        match self {
            Kind::Hash => "hash",
            Kind::Cipher => "skcipher",
            Kind::Authenticated => "aead",
        }
    }

    /// Returns the type of an implementation in /proc/crypto; `None` if AF_ALG sockets do not offer it.
    pub fn of(implementation: &Implementation) -> Option<Self> {
        match implementation.kind.as_str() {
            "shash" | "ahash" => Some(Kind::Hash),
            "skcipher" | "lskcipher" => Some(Kind::Cipher),
            "aead" => Some(Kind::Authenticated),
            _ => None,
        }
    }

    /// Whether sockets give it now, without loading anything.
    ///
    /// # Errors
    /// Why not, and what would have to be done.
    pub fn ready(self, system: &System) -> Result<(), String> {
        if !system.is_live() {
            return Err("not tried".into());
        }
        let module = format!("algif_{}", self.word());
        if let Ok(value @ ("1" | "2")) = system.text(RESTRICT).as_deref() {
            return Err(format!(
                "sockets do not take an implementation's own name while crypto.af_alg_restrict is {value}: set it to 0, \
                 assess again, and set it back"
            ));
        }
        if system.exists(&format!("/sys/module/{module}")) {
            return Ok(());
        }
        let option = format!("CONFIG_CRYPTO_USER_API_{}", self.word().to_ascii_uppercase());
        match system.config().map(|config| config.get(&option)) {
            Ok(Some("y")) => Ok(()),
            Ok(None) => Err(format!("this kernel was built without {option}, so nobody can ask it")),
            Ok(_) | Err(_) => Err(format!(
                "the module {module} is not loaded, and nothing is loaded to try: modprobe {module}, then assess again"
            )),
        }
    }
}

/// Whether programs reach the crypto API by sockets.
#[derive(Debug)]
pub(crate) enum Reach {
    /// The sockets are there.
    Registered {
        /// The value of [`RESTRICT`]; `None` before 7.3.
        restrict: Option<String>,
        /// The result of opening one as an unprivileged user, if that was tried.
        tried: Option<Result<(), String>>,
    },
    /// Opening one would load them: the option that says so, and its value.
    Loadable { option: (String, String) },
    /// Nothing can bring them, for this reason.
    Closed { source: String, observed: String },
    /// It could not be found out.
    Unknown(String),
}

/// Whether programs reach the crypto API by sockets.
pub(crate) fn reach(system: &System) -> Reach {
    match registered(system) {
        Ok(true) => {
            let restrict = system.text(RESTRICT).ok();
            return Reach::Registered { restrict, tried: system.is_live().then(open) };
        }
        Ok(false) => {}
        Err(why) => return Reach::Unknown(why),
    }
    let config = match system.config() {
        Ok(config) => config,
        Err(unread) => return Reach::Unknown(unread.to_string()),
    };
    let source = format!("{OPTION} in {}", config.path);
    let closed = |source: String, observed: &str| Reach::Closed { source, observed: observed.into() };
    match config.get(OPTION) {
        None => return closed(source, "not set"),
        Some("m") => {}
        Some(value) => return Reach::Unknown(format!("{source} is {value}, but ALG is not in {PROTOCOLS}")),
    }
    if modprobe::are_off(system) {
        return closed(DISABLED.into(), "1");
    }
    let blocked = Blocked::read(system);
    if let Some((place, words)) = MODULE.iter().find_map(|name| blocked.by(name)) {
        return closed(place.into(), words);
    }
    if let Some(unread) = blocked.hidden {
        return Reach::Unknown(unread.to_string());
    }
    if let Ok((path, names)) = modprobe::installed(system)
        && !names.is_empty()
        && !names.contains(MODULE[0])
    {
        return closed(path, "no af_alg.ko");
    }
    Reach::Loadable { option: (source, "m".into()) }
}

/// Whether the socket family is there now.
fn registered(system: &System) -> Result<bool, String> {
    let text = system.text(PROTOCOLS).map_err(|unread| unread.to_string())?;
    if !text.starts_with("protocol") {
        return Err(format!("{PROTOCOLS} is not understood"));
    }
    Ok(text.lines().any(|line| line.split_whitespace().next() == Some("ALG")))
}

/// Opens one in an unprivileged child.
fn open() -> Result<(), String> {
    let ended = child::run(child::TRIAL, |out| {
        let opened = nobody::become_nobody().and_then(|()| {
            let family = AddressFamily::from_raw(FAMILY);
            Ok(socket_with(family, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
        });
        let _ = match opened {
            Ok(_) => write!(out, "{OPENED}"),
            Err(error) => write!(out, "{error}"),
        };
    });
    match ended {
        Ok((_, said)) if said == OPENED.as_bytes() => Ok(()),
        Ok((_, said)) if said.is_empty() => Err("no answer".into()),
        Ok((_, said)) => Err(String::from_utf8_lossy(&said).into_owned()),
        Err(error) => Err(error.to_string()),
    }
}
