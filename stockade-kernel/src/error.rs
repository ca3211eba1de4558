/*!
What can go wrong between an administrator's wish and the kernel. Every message says what was tried,
what the kernel answered and what to do about it.
*/
use std::{io, path::PathBuf};

use crate::host;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel describes no types.
    #[error(
        "this kernel has no type information at {}: {source}\n  \
         Stockade needs a kernel built with CONFIG_DEBUG_INFO_BTF=y, as Debian, Fedora, openSUSE, Arch and Ubuntu ship",
        path.display()
    )]
    NoBtf {
        /// Where it was looked for.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The type information is not readable as such.
    #[error("the kernel's type information is damaged: {0}")]
    BadBtf(&'static str),
    /// Of a release on which nothing is promised.
    #[error(
        "kernel {release} is older than {}.{}, the oldest kernel on which Stockade can enforce\n  boot a newer one",
        host::OLDEST.0, host::OLDEST.1
    )]
    OldKernel {
        /// `uname -r`.
        release: String,
    },
    /// The kernel cannot attach programs to its functions.
    #[error(
        "attaching the BPF program: {source}; this kernel has no function tracer, which attaches BPF programs to the kernel's functions: \
         /proc/sys/kernel/ftrace_enabled is missing\n  boot a kernel built with CONFIG_FUNCTION_TRACER=y and CONFIG_DYNAMIC_FTRACE=y"
    )]
    NoTracer {
        /// The kernel's answer.
        source: io::Error,
    },
    /// BTF lacks something that every supported kernel has.
    #[error(
        "this kernel's type information lacks {0}: kernel 5.15 or newer with CONFIG_SECURITY=y and CONFIG_BPF_LSM=y is needed"
    )]
    TooOld(&'static str),
    /// The bpf LSM is not active, and nothing can take its place.
    #[error(
        "the BPF security module is not active on this kernel (active: {active}), and the way around it, a program in front of security_locked_down(), does not work here: {source}\n  \
         add bpf to the list on the kernel command line, `lsm={active},bpf`, and reboot"
    )]
    NoBpfLsm {
        /// `/sys/kernel/security/lsm`.
        active: String,
        /// Why modify-return does not work.
        source: Box<Error>,
    },
    /// Not root, or root without the needed capability.
    #[error(
        "{what} was refused by the kernel: run this as root (needs user id 0 in the machine's own user namespace with CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN)"
    )]
    NoPrivilege {
        /// What was tried.
        what: &'static str,
    },
    /// In a user namespace of its own, where nothing true can be said of the machine.
    #[error(
        "{what} is possible on the machine itself only: this process is in a user namespace of its own, as in a container, \
         where even root has no right over the kernel\n  run stockade on the host, outside the container"
    )]
    Container {
        /// What was tried.
        what: &'static str,
    },
    /// No BPF file system where pins go.
    #[error(
        "no BPF file system is mounted at {}\n  mount it with: mount -t bpf bpf {}",
        path.display(), path.display()
    )]
    NoBpffs {
        /// Where it is expected.
        path: PathBuf,
    },
    /// securityfs is needed to know what is active.
    #[error(
        "cannot read {}: {source}\n  mount it with: mount -t securityfs securityfs /sys/kernel/security",
        path.display()
    )]
    NoSecurityfs {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Secure Boot's state cannot be told.
    #[error(
        "this machine booted by EFI, but whether Secure Boot is on cannot be read: {reason}\n  \
         mount the variables with: mount -t efivarfs efivarfs /sys/firmware/efi/efivars, or name a level instead of auto"
    )]
    SecureBootUnknown {
        /// What is missing.
        reason: String,
    },
    /// The verifier refused the program.
    #[error("the kernel refused to load the program: {source}\n{log}")]
    Rejected {
        /// The kernel's answer.
        source: io::Error,
        /// Last lines of the verifier's log.
        log: String,
    },
    /// The compiled object cannot be used.
    #[error("the built-in kernel program is unusable: {0}")]
    Object(String),
    /// A bpf(2) call or a file operation failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, on what.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Pinned by a program with other layouts.
    #[error(
        "what is pinned at {} was written by another version of Stockade ({found}; this one reads layout {})\n  \
         use that version, or remove it with: stockade lift --force",
        path.display(), stockade_common::LAYOUT
    )]
    OtherVersion {
        /// The pin directory.
        path: PathBuf,
        /// What was found.
        found: String,
    },
    /// Enforcement is there, and parts of its pins are not.
    #[error(
        "{} is incomplete: {missing} is gone, so the policy cannot be read or changed\n  \
         the kernel goes on deciding as before; start afresh with: stockade lift --force",
        path.display()
    )]
    Damaged {
        /// The pin directory.
        path: PathBuf,
        /// The missing pin.
        missing: &'static str,
    },
    /// A program is loaded, but not pinned where we look.
    #[error(
        "nothing is pinned at {}, but a program of Stockade's is loaded (id {program}): it was started where another \
         BPF file system is mounted\n  \
         run stockade there; from a container that is on the host, for instance: nsenter -t 1 -m stockade status",
        crate::pins::FOLDER
    )]
    Elsewhere {
        /// Its id, as `bpftool prog` shows it.
        program: u32,
    },
    /// Programs of others stand in the way of a seal.
    #[error(
        "not sealed: programs are loaded that are asked before Stockade's and could answer in their place; \
         end them, or keep those that you trust as much as the kernel{words}"
    )]
    Foreign {
        /// Their ids.
        programs: Vec<u32>,
        /// A line for each.
        words: String,
    },
    /// The seal is of another version.
    #[error(
        "this machine is sealed, by another version of Stockade: what is sealed stays in force until reboot\n  \
         look at it and add to it with the version that sealed it"
    )]
    SealedByOther,
    /// The seal forbids it.
    #[error("{what} is not possible: this machine is sealed until it is rebooted\n  {instead}")]
    Sealed {
        /// What was asked for.
        what: &'static str,
        /// What can be done.
        instead: String,
    },
    /// Another process is changing the state.
    #[error(
        "another stockade is changing the policy right now and did not finish within {seconds} s; try again"
    )]
    Busy {
        /// How long was waited.
        seconds: u64,
    },
    /// The program is attached and does not decide.
    #[error("self-test failed: {0}\n  nothing was changed")]
    SelfTest(String),
    /// The request contradicts itself or this kernel.
    #[error("{0}")]
    Request(String),
}

impl Error {
    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }

    /// Root is needed, or root outside.
    pub(crate) fn no_privilege(what: &'static str) -> Self {
        if host::in_container() { Self::Container { what } } else { Self::NoPrivilege { what } }
    }

    /// An error of a bpf(2) call: EPERM is told apart, since its remedy is another.
    pub(crate) fn bpf(what: &'static str, source: io::Error) -> Self {
        if source.raw_os_error() == Some(libc::EPERM) {
            Self::no_privilege(what)
        } else {
            Self::io(what, source)
        }
    }
}
