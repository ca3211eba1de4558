/*!
The crypto API's sockets, AF_ALG: who can open them, and without loading anything that is not loaded yet.

Opening a socket loads `af_alg`, binding one loads `algif_…` and the algorithm's module, and modules stay. So nothing is opened that is
not registered already.
*/
use std::io;

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, socket_with},
};

use crate::system::System;

/// Where the kernel lists the socket families' protocols.
pub(crate) const PROTOCOLS: &str = "/proc/net/protocols";

const DISABLED: &str = "/proc/sys/kernel/modules_disabled";
const OPTION: &str = "CONFIG_CRYPTO_USER_API";

/// Whether programs reach the crypto API by sockets.
#[derive(Debug)]
pub(crate) enum Reach {
    /// The sockets are there.
    Registered {
        /// What came of opening one, if that was tried.
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
        Ok(true) => return Reach::Registered { tried: system.is_live().then(open) },
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
    if system.text(DISABLED).is_ok_and(|text| text == "1") {
        return closed(DISABLED.into(), "1");
    }
    if let Some((path, line)) = blocked(system) {
        return closed(path, &line);
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

/// A line of modprobe's configuration that keeps the sockets from being loaded when somebody opens one.
fn blocked(system: &System) -> Option<(String, String)> {
    for folder in ["/etc/modprobe.d", "/run/modprobe.d", "/usr/lib/modprobe.d", "/lib/modprobe.d"] {
        for name in system.names(folder).unwrap_or_default() {
            if name.strip_suffix(".conf").is_none() {
                continue;
            }
            let path = format!("{folder}/{name}");
            let text = system.text(&path).unwrap_or_default();
            for line in text.lines() {
                let words: Vec<&str> = line.split_whitespace().collect();
                let blocks = match words[..] {
                    // It stops loading by alias, which is how opening a socket loads.
                    ["blacklist", module] => module == "af_alg",
                    ["install", module, command, ..] => {
                        module == "af_alg" && (command.ends_with("/false") || command.ends_with("/true"))
                    }
                    _ => false,
                };
                if blocks {
                    return Some((path, line.trim().to_owned()));
                }
            }
        }
    }
    None
}

fn open() -> Result<(), String> {
    let family = AddressFamily::from_raw(38);
    socket_with(family, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map(drop)
        .map_err(|error: Errno| io::Error::from(error).to_string())
}
