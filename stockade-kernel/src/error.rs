/*!
The errors of this crate. Every message says what was tried, what the kernel answered and what to do about it.
*/
use std::{io, path::PathBuf};

use crate::sys;

/// The oldest kernel on which Stockade can enforce.
pub const OLDEST: (u32, u32) = (5, 15);

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel has no BTF.
    #[error(
        "this kernel has no type information at {}: {source}\n  \
         Stockade needs a kernel built with CONFIG_DEBUG_INFO_BTF=y, as Debian, Fedora, openSUSE, Arch and Ubuntu ship",
        path.display()
    )]
    NoBtf {
        /// The file that was read.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel's BTF is malformed.
    #[error("the kernel's type information is damaged: {0}")]
    BadBtf(&'static str),
    /// The kernel is older than the oldest supported release.
    #[error(
        "kernel {release} is older than {}.{}, the oldest kernel on which Stockade can enforce\n  boot a newer one",
        OLDEST.0, OLDEST.1
    )]
    OldKernel {
        /// `uname -r`.
        release: String,
    },
    /// The kernel has no function tracer, so that programs cannot be attached to its functions.
    #[error(
        "attaching the BPF program: {source}; this kernel has no function tracer, which attaches BPF programs to the kernel's functions: \
         /proc/sys/kernel/ftrace_enabled is missing\n  boot a kernel built with CONFIG_FUNCTION_TRACER=y and CONFIG_DYNAMIC_FTRACE=y"
    )]
    NoTracer {
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel lacks a type, field or function that every supported kernel has.
    #[error(
        "this kernel's type information lacks {0}: kernel 5.15 or newer with CONFIG_SECURITY=y and CONFIG_BPF_LSM=y is needed"
    )]
    TooOld(&'static str),
    /// The bpf LSM is not active, and modify-return does not work either.
    #[error(
        "the BPF security module is not active on this kernel (active: {active}), and the way around it, a program in front of security_locked_down(), does not work here: {source}\n  \
         add bpf to the list on the kernel command line, `lsm={active},bpf`, and reboot"
    )]
    NoBpfLsm {
        /// `/sys/kernel/security/lsm`.
        active: String,
        /// The error of modify-return.
        source: Box<Error>,
    },
    /// Not root, or root without a needed capability.
    #[error(
        "{what} was refused by the kernel: run this as root (needs user id 0 in the machine's own user namespace with CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN)"
    )]
    NoPrivilege {
        /// The operation that was tried.
        what: &'static str,
    },
    /// In a user namespace other than the initial one, where root has no rights over the machine.
    #[error(
        "{what} is possible on the machine itself only: this process is in a user namespace of its own, as in a container, \
         where even root has no right over the kernel\n  run stockade on the host, outside the container"
    )]
    Container {
        /// The operation that was tried.
        what: &'static str,
    },
    /// No BPF file system is mounted where pins go.
    #[error(
        "no BPF file system is mounted at {}\n  mount it with: mount -t bpf bpf {}",
        path.display(), path.display()
    )]
    NoBpffs {
        /// The expected mount point.
        path: PathBuf,
    },
    /// securityfs is not mounted, so the active security modules are not known.
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
    /// The state of Secure Boot cannot be read.
    #[error(
        "this machine booted by EFI, but whether Secure Boot is on cannot be read: {reason}\n  \
         mount the variables with: mount -t efivarfs efivarfs /sys/firmware/efi/efivars, or name a level instead of auto"
    )]
    SecureBootUnknown {
        /// The part that is missing.
        reason: String,
    },
    /// The verifier rejected the program.
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
        /// The operation and its object.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The pins have another layout.
    #[error(
        "what is pinned at {} was written by another version of Stockade ({found}; this one reads layout {})\n  \
         use that version, or remove it with: stockade lift --force",
        path.display(), stockade_common::LAYOUT
    )]
    OtherVersion {
        /// The pin directory.
        path: PathBuf,
        /// The layout or map that was found.
        found: String,
    },
    /// The link is pinned, and another pin is missing.
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
    /// A deciding program is loaded, but not pinned at the known path.
    #[error(
        "nothing is pinned at {}, but a program of Stockade's is loaded (id {program}): it was started where another \
         BPF file system is mounted\n  \
         run stockade there; from a container that is on the host, for instance: nsenter -t 1 -m stockade status",
        crate::pinned::pins::FOLDER
    )]
    Elsewhere {
        /// The program's id, as `bpftool prog` shows it.
        program: u32,
    },
    /// Loaded programs of others could override those of a seal.
    #[error(
        "not sealed: programs are loaded that are asked before Stockade's and could answer in their place; \
         end them, or keep those that you trust as much as the kernel{words}"
    )]
    Foreign {
        /// The ids of the programs.
        programs: Vec<u32>,
        /// A line for each program.
        words: String,
    },
    /// The seal was made by another version.
    #[error(
        "this machine is sealed, by another version of Stockade: what is sealed stays in force until reboot\n  \
         look at it and add to it with the version that sealed it"
    )]
    SealedByOther,
    /// The machine is sealed, which forbids the operation.
    #[error("{what} is not possible: this machine is sealed until it is rebooted\n  {instead}")]
    Sealed {
        /// The operation.
        what: &'static str,
        /// The remedy.
        instead: String,
    },
    /// Another command holds the lock.
    #[error(
        "another stockade is changing the policy right now and did not finish within {seconds} s; try again"
    )]
    Busy {
        /// How long this command waited.
        seconds: u64,
    },
    /// The deciding program is attached and does not decide.
    #[error("self-test failed: {0}\n  nothing was changed")]
    SelfTest(String),
    /// The request contradicts itself or does not fit this kernel.
    #[error("{0}")]
    Request(String),
}

impl Error {
    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }

    /// Returns the error for a missing capability; in a container, the error that says so.
    pub(crate) fn no_privilege(what: &'static str) -> Self {
        if sys::in_container() { Self::Container { what } } else { Self::NoPrivilege { what } }
    }

    /// Returns the error of a bpf(2) call. EPERM has an error of its own, since its remedy differs.
    pub(crate) fn bpf(what: &'static str, source: io::Error) -> Self {
        if source.raw_os_error() == Some(libc::EPERM) {
            Self::no_privilege(what)
        } else {
            Self::io(what, source)
        }
    }
}
