/*!
What a child tries: a filter that refuses one system call and traps another, and switching off speculation for good.
*/
use std::{io, mem};

use super::{AVAILABLE, FILTER, SPECULATION, no_filters};
use crate::{Finding, How, System, Verdict, child, child::End};

/// The errno of the filter: getppid(2) itself never fails.
const REFUSAL: i32 = libc::EXDEV;

/// How a child ends that got the trap it waits for, and one that went past it.
const TRAPPED: i32 = 42;
const NOT_TRAPPED: i32 = 0;

/// The beginning of the child's output if it could not install the filter.
const NOT_INSTALLED: &str = "filter not installed: ";

/// A filter, tried on three system calls that change nothing: what it refuses is refused, to children as well, what it traps is
/// trapped, and the rest goes on. A trap and not an end, since ends are logged.
pub(super) fn filter(system: &System) -> Finding {
    if let Err(unread) = system.text(AVAILABLE)
        && unread.is_missing()
    {
        return no_filters(system, FILTER, &unread);
    }
    if !system.is_live() {
        return Finding::unknown(FILTER, How::Tried, child::NOT_TRIED);
    }
    let (end, said) = match child::run(child::TRIAL, |out| {
        let _ = match install() {
            Ok(()) => write!(out, "{}", refused()),
            Err(error) => write!(out, "{NOT_INSTALLED}{error}"),
        };
        trap();
    }) {
        Ok(ended) => ended,
        Err(error) => {
            return Finding::unknown(FILTER, How::Tried, format!("no child could be started: {error}"));
        }
    };
    judge(end, &String::from_utf8_lossy(&said))
}

fn judge(end: End, said: &str) -> Finding {
    const SOURCE: &str = "a child whose filter refuses getppid(2) and traps sched_yield(2)";
    let (trapped, ended) = match end {
        // What is blocked or has no handler ends who was trapped.
        End::Exited(TRAPPED) | End::Signal(libc::SIGSYS) => (Some(true), "it was trapped".to_owned()),
        End::Exited(NOT_TRAPPED) => (Some(false), "it was not trapped".to_owned()),
        _ => (None, format!("it {end}")),
    };
    let refused = Refused::of(said);
    let finding = if let Some(error) = said.strip_prefix(NOT_INSTALLED) {
        Finding::unknown(FILTER, How::Tried, format!("a child could not install a filter: {error}"))
    } else if refused == Some(Refused::BOTH) && trapped == Some(true) {
        Finding::new(
            FILTER,
            Verdict::Pass,
            How::Tried,
            "a filter refuses and traps what it should, children included",
        )
    } else if refused.is_some_and(Refused::is_not_kept_to) || refused.is_some() && trapped == Some(false) {
        Finding::new(FILTER, Verdict::Fail, How::Tried, "a filter was installed and is not kept to")
    } else if refused.is_some_and(|refused| refused.child.is_none()) {
        Finding::unknown(FILTER, How::Tried, "the child that tried a filter could not start one of its own")
    } else {
        let missing = "the child that tried a filter ended before it could say what came of it";
        Finding::unknown(FILTER, How::Tried, missing)
    };
    finding.seen(SOURCE, format!("{said}; {ended}"))
}

/// Whether the filter refused.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Refused {
    itself: bool,
    /// None where there was no child that told.
    child: Option<bool>,
}

impl Refused {
    const BOTH: Self = Self { itself: true, child: Some(true) };

    /// From the words of a child.
    fn of(said: &str) -> Option<Self> {
        let answers = [Some(true), Some(false), None];
        let mut all =
            answers.into_iter().flat_map(|child| [true, false].map(|itself| Self { itself, child }));
        all.find(|refused| refused.to_string() == said)
    }

    fn is_not_kept_to(self) -> bool {
        !self.itself || self.child == Some(false)
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = |refused| if refused { "refused" } else { "not refused" };
        write!(f, "it was {}, its child was {}", word(self.itself), self.child.map_or("not heard of", word))
    }
}

fn refused() -> Refused {
    let itself = is_refused();
    // SAFETY: the child makes two system calls and is gone.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        child::leave(i32::from(is_refused()));
    }
    let mut status = 0;
    // SAFETY: waits for our own child; the status is a live integer.
    let waited = pid > 0 && unsafe { libc::waitpid(pid, &raw mut status, 0) } == pid;
    let child = (waited && libc::WIFEXITED(status)).then(|| libc::WEXITSTATUS(status) == 1);
    Refused { itself, child }
}

fn is_refused() -> bool {
    // SAFETY: getppid takes nothing. It cannot fail, so that only a filter makes it.
    let answer = unsafe { libc::syscall(libc::SYS_getppid) };
    answer == -1 && io::Error::last_os_error().raw_os_error() == Some(REFUSAL)
}

/// Ends the process with [`TRAPPED`] if the filter traps.
fn trap() {
    extern "C" fn trapped(_: i32) {
        child::leave(TRAPPED);
    }
    // SAFETY: the handler does nothing that a signal's handler may not. sched_yield takes nothing.
    unsafe {
        libc::signal(libc::SIGSYS, trapped as extern "C" fn(i32) as libc::sighandler_t);
        libc::syscall(libc::SYS_sched_yield);
    }
}

/// Installs the filter for the rest of this process's life.
fn install() -> io::Result<()> {
    let load = code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS);
    let equal = code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K);
    let answer = code(libc::BPF_RET | libc::BPF_K);
    let number = |call: libc::c_long| u32::try_from(call).map_err(io::Error::other);
    // SAFETY: BPF_STMT and BPF_JUMP only fill in a structure.
    let mut filter = unsafe {
        [
            // The number is what a system call's description begins with.
            libc::BPF_STMT(load, 0),
            libc::BPF_JUMP(equal, number(libc::SYS_getppid)?, 0, 1),
            libc::BPF_STMT(answer, libc::SECCOMP_RET_ERRNO | REFUSAL.unsigned_abs()),
            libc::BPF_JUMP(equal, number(libc::SYS_sched_yield)?, 0, 1),
            libc::BPF_STMT(answer, libc::SECCOMP_RET_TRAP),
            libc::BPF_STMT(answer, libc::SECCOMP_RET_ALLOW),
        ]
    };
    let length = u16::try_from(filter.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len: length, filter: filter.as_mut_ptr() };
    // SAFETY: both take numbers and a pointer to a live program of the length it says.
    unsafe {
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) != 0
        {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn code(bits: u32) -> u16 {
    u16::try_from(bits).unwrap_or_default()
}

/// Speculation that the kernel can switch off process by process (`PR_SPEC_…` of linux/prctl.h).
const SPECULATIONS: [(libc::c_ulong, &str); 2] =
    [(0, "past stores (Speculative Store Bypass)"), (1, "at indirect branches (Spectre v2)")];

const BY_PROCESS: i32 = 1;
const ENABLED: i32 = 2;
const DISABLED: i32 = 4;
const FORCE_DISABLED: i32 = 8;

/// The result of disabling speculative store bypass for a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speculation {
    NotAffected,
    /// For everybody, in any case.
    Off,
    SwitchedOff,
    Stays,
    /// The kernel gives this error.
    Untold(i32),
}

impl Speculation {
    /// By what PR_GET_SPECULATION_CTRL says before and after the attempt.
    fn of(before: Result<i32, i32>, after: Result<i32, i32>) -> Self {
        match (before, after) {
            (Err(error), _) | (_, Err(error)) => Self::Untold(error),
            (Ok(0), _) => Self::NotAffected,
            (Ok(state), _) if state & BY_PROCESS == 0 && state & (DISABLED | FORCE_DISABLED) != 0 => {
                Self::Off
            }
            (_, Ok(state)) if state & FORCE_DISABLED != 0 => Self::SwitchedOff,
            (_, Ok(state)) if state & (DISABLED | ENABLED) == DISABLED => Self::Off,
            _ => Self::Stays,
        }
    }

    fn words(self) -> String {
        match self {
            Self::NotAffected => "the processor is not affected".into(),
            Self::Off => "off for all".into(),
            Self::SwitchedOff => "switched off for good".into(),
            Self::Stays => "could not be switched off".into(),
            Self::Untold(error) => format!("not told ({})", io::Error::from_raw_os_error(error)),
        }
    }
}

/// Whether a child can switch off speculation for good, as what runs foreign code under a filter does.
pub(super) fn speculation(system: &System) -> Finding {
    if !system.is_live() {
        return Finding::unknown(SPECULATION, How::Tried, child::NOT_TRIED);
    }
    let tried = child::run(child::TRIAL, |out| {
        for (which, _) in SPECULATIONS {
            let before = control(libc::PR_GET_SPECULATION_CTRL, which, 0);
            let _ = control(libc::PR_SET_SPECULATION_CTRL, which, FORCE_DISABLED);
            let after = control(libc::PR_GET_SPECULATION_CTRL, which, 0);
            for answer in [before, after] {
                let _ = writeln!(out, "{}", answer.unwrap_or_else(|error| -error));
            }
        }
    });
    let said = match tried {
        Ok((End::Exited(0), said)) => String::from_utf8_lossy(&said).into_owned(),
        Ok(_) => String::new(),
        Err(error) => {
            return Finding::unknown(SPECULATION, How::Tried, format!("no child could be started: {error}"));
        }
    };
    let answers: Vec<Result<i32, i32>> = said
        .lines()
        .filter_map(|line| line.parse().ok())
        .map(|n: i32| if n < 0 { Err(-n) } else { Ok(n) })
        .collect();
    let [a, b, c, d] = answers[..] else {
        return Finding::unknown(
            SPECULATION,
            How::Tried,
            "the child that tried it ended before it could say",
        );
    };
    conclude([Speculation::of(a, b), Speculation::of(c, d)])
}

fn conclude(found: [Speculation; 2]) -> Finding {
    let finding = if found.contains(&Speculation::Stays) {
        let found = "a process cannot keep its secrets from speculation of the processor";
        Finding::new(SPECULATION, Verdict::Warn, How::Tried, found)
    } else if found.iter().any(|found| matches!(found, Speculation::Untold(_))) {
        Finding::unknown(SPECULATION, How::Tried, "this kernel does not tell all of a process's speculation")
    } else if found == [Speculation::NotAffected; 2] {
        let found = "the processor does not leak by speculation that a process could switch off";
        Finding::not_applicable(SPECULATION, How::Tried, found)
    } else {
        Finding::new(
            SPECULATION,
            Verdict::Pass,
            How::Tried,
            "a process can switch off what leaks by speculation",
        )
    };
    SPECULATIONS.iter().zip(found).fold(finding, |finding, ((_, name), found)| {
        finding.seen(format!("a child that gave up speculation {name}"), found.words())
    })
}

/// PR_GET_SPECULATION_CTRL and PR_SET_SPECULATION_CTRL: the answer, or the error.
fn control(option: i32, which: libc::c_ulong, state: i32) -> Result<i32, i32> {
    let state = libc::c_ulong::from(state.unsigned_abs());
    // SAFETY: all arguments are numbers.
    let answer = unsafe { libc::prctl(option, which, state, 0 as libc::c_ulong, 0 as libc::c_ulong) };
    if answer < 0 {
        Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL))
    } else {
        Ok(answer)
    }
}

const _: () = assert!(mem::size_of::<libc::sock_filter>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_keeps_to_a_filter() {
        let finding = filter(&System::live(false));
        assert_eq!(finding.verdict, Verdict::Pass, "{finding:?}");
    }

    #[test]
    fn a_filter_that_is_not_kept_to_is_a_failure_and_one_that_was_not_installed_is_unknown() {
        let both = Refused::BOTH.to_string();
        let one = Refused { itself: true, child: Some(false) }.to_string();
        let unheard = Refused { itself: true, child: None }.to_string();
        assert_eq!(judge(End::Exited(TRAPPED), &both).verdict, Verdict::Pass);
        assert_eq!(judge(End::Signal(libc::SIGSYS), &both).verdict, Verdict::Pass);
        assert_eq!(judge(End::Exited(TRAPPED), &one).verdict, Verdict::Fail);
        assert_eq!(judge(End::Exited(NOT_TRAPPED), &both).verdict, Verdict::Fail);
        // Nobody knows what it would have said.
        assert_eq!(judge(End::Exited(TRAPPED), &unheard).verdict, Verdict::Unknown);
        assert_eq!(judge(End::TooMuch, &both).verdict, Verdict::Unknown);
        assert_eq!(judge(End::Signal(libc::SIGKILL), &both).verdict, Verdict::Unknown);
        assert_eq!(judge(End::Exited(child::PANICKED), "a panic").verdict, Verdict::Unknown);
        assert_eq!(judge(End::Exited(0), "filter not installed: no").verdict, Verdict::Unknown);
        assert_eq!(judge(End::TooMuch, "").verdict, Verdict::Unknown);
        assert_eq!(filter(&System::fake(&[("/proc/sys/kernel/x", "")])).verdict, Verdict::Fail);
        assert_eq!(filter(&System::fake(&[])).verdict, Verdict::Unknown);
    }

    #[test]
    fn speculation_is_judged_by_what_is_left_of_it() {
        let of = |before, after| Speculation::of(Ok(before), Ok(after));
        assert_eq!(of(0, 0), Speculation::NotAffected);
        assert_eq!(of(DISABLED, DISABLED), Speculation::Off);
        assert_eq!(of(BY_PROCESS | ENABLED, BY_PROCESS | FORCE_DISABLED), Speculation::SwitchedOff);
        assert_eq!(of(BY_PROCESS | FORCE_DISABLED, BY_PROCESS | FORCE_DISABLED), Speculation::SwitchedOff);
        assert_eq!(of(ENABLED, ENABLED), Speculation::Stays);
        assert_eq!(of(BY_PROCESS | ENABLED, BY_PROCESS | ENABLED), Speculation::Stays);
        let untold = Speculation::of(Err(libc::ENODEV), Ok(0));
        let verdict = |a, b| conclude([a, b]).verdict;
        assert_eq!(verdict(Speculation::SwitchedOff, Speculation::Off), Verdict::Pass);
        assert_eq!(verdict(Speculation::SwitchedOff, Speculation::Stays), Verdict::Warn);
        assert_eq!(verdict(Speculation::NotAffected, untold), Verdict::Unknown);
        assert_eq!(verdict(Speculation::NotAffected, Speculation::NotAffected), Verdict::NotApplicable);
    }
}
