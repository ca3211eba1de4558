/*!
Environment variables with which a program keeps its label.

The list has the variables that systemd, login, ssh and sudo set for all processes, and none that names code or a configuration to the
libraries of most programs. A variable that is not on the list may name such a file, like those of kmod, OpenSSL and Python. SECURITY.md
says what the few that name a file can do.
*/

/// Number of bytes of a name that are compared.
const LENGTH: usize = 24;

/// The beginning of a variable.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Name {
    bytes: [u64; LENGTH / 8],
    /// Ones for the bytes to compare.
    mask: [u64; LENGTH / 8],
}

const fn name(text: &[u8]) -> Name {
    let mut name = Name { bytes: [0; LENGTH / 8], mask: [0; LENGTH / 8] };
    let mut at = 0;
    while at < text.len() {
        name.bytes[at / 8] |= (text[at] as u64) << (at % 8 * 8);
        name.mask[at / 8] |= 0xff << (at % 8 * 8);
        at += 1;
    }
    name
}

macro_rules! names {
    ($($text:literal)*) => { [$(name($text)),*] };
}

const COUNT: usize = 44;

/// Whole names end with `=`, the others are prefixes. docs/policy.md has the same list.
#[unsafe(no_mangle)]
static HARMLESS_VARIABLES: [Name; COUNT] = names![
    b"PATH=" b"HOME=" b"USER=" b"LOGNAME=" b"SHELL=" b"TERM=" b"LANG=" b"LC_" b"PWD=" b"OLDPWD=" b"SHLVL=" b"_=" b"MAIL="
    b"HOSTNAME=" b"COLORTERM=" b"NO_COLOR=" b"LS_COLORS=" b"MOTD_SHOWN="
    b"SUDO_COMMAND=" b"SUDO_USER=" b"SUDO_UID=" b"SUDO_GID=" b"SUDO_HOME="
    b"SSH_CLIENT=" b"SSH_CONNECTION=" b"SSH_TTY="
    b"XDG_SESSION_" b"XDG_SEAT=" b"XDG_VTNR=" b"XDG_RUNTIME_DIR=" b"DBUS_SESSION_BUS_ADDRESS"
    b"INVOCATION_ID=" b"JOURNAL_STREAM=" b"NOTIFY_SOCKET=" b"LISTEN_" b"SYSTEMD_EXEC_PID=" b"MEMORY_PRESSURE_"
    b"WATCHDOG_PID=" b"WATCHDOG_USEC=" b"RUNTIME_DIRECTORY=" b"STATE_DIRECTORY=" b"CACHE_DIRECTORY=" b"LOGS_DIRECTORY="
    b"MANAGERPID="
];

const REFUSED: usize = 14;

/// Variables of the list with a path as value: the C library reads locales from there, which name more files.
#[unsafe(no_mangle)]
static REFUSED_VARIABLES: [Name; REFUSED] = names![
    b"LANG=/" b"LC_ALL=/" b"LC_CTYPE=/" b"LC_NUMERIC=/" b"LC_TIME=/" b"LC_COLLATE=/" b"LC_MONETARY=/" b"LC_MESSAGES=/"
    b"LC_PAPER=/" b"LC_NAME=/" b"LC_ADDRESS=/" b"LC_TELEPHONE=/" b"LC_MEASUREMENT=/" b"LC_IDENTIFICATION=/"
];

/// Reports whether a variable that begins so is on the list.
#[inline(always)]
pub fn is_harmless(begin: [u64; LENGTH / 8]) -> bool {
    is_among(&HARMLESS_VARIABLES, begin) && !is_among(&REFUSED_VARIABLES, begin)
}

#[inline(always)]
fn is_among<const N: usize>(names: &[Name; N], begin: [u64; LENGTH / 8]) -> bool {
    let mut at = 0;
    while at < N {
        let name = &names[at];
        let differs = (begin[0] ^ name.bytes[0]) & name.mask[0]
            | (begin[1] ^ name.bytes[1]) & name.mask[1]
            | (begin[2] ^ name.bytes[2]) & name.mask[2];
        if differs == 0 {
            return true;
        }
        at += 1;
    }
    false
}
