/*!
Children: what a check does that could hang, crash or change the process happens in one.

A child is ended with everything it started, by its process group, when it goes beyond its [limit](stockade_probe::limit), and by the kernel when its
parent dies.
*/
use std::{
    fmt,
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    panic,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    pipe::{PipeFlags, pipe_with},
    process::{
        Pid, PidfdFlags, Signal, WaitOptions, getpid, getppid, kill_process, kill_process_group, pidfd_open,
        set_parent_process_death_signal, setpgid, waitpid,
    },
};
use stockade_probe::limit::{Allowance, Exceeded, Limit};

/// The limit of a trial: a few system calls in a child of a check's own.
pub(crate) const TRIAL: Limit = Limit::of_processor_time(Duration::from_secs(20));

/// How long a killed child may take to go. One that is stuck in the kernel may never go.
const GRACE: Duration = Duration::from_millis(500);

/// The maximum output that is read from one child, in bytes.
const SIZE: usize = 4 << 20;

/// Why nothing was tried, for a finding that rests on it alone.
pub(crate) const NOT_TRIED: &str = "not tried: these are the files of a machine, not the machine";

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With this status.
    Exited(i32),
    /// By this signal.
    Signal(i32),
    /// It was killed, since it went beyond its limit.
    TooLong(Exceeded),
    /// It was killed, since it said more than anybody listens to.
    TooMuch,
    /// It has ended, and somebody else has heard how.
    Unseen,
}

/// The end of the child, such as `ended with status 1`.
impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "ended with status {status}"),
            Self::Signal(signal) => write!(f, "was ended by signal {signal}"),
            Self::TooLong(exceeded) => exceeded.fmt(f),
            Self::TooMuch => write!(f, "said more than {} MiB", SIZE >> 20),
            Self::Unseen => write!(f, "ended, and how is not known"),
        }
    }
}

/// A running child and what it says.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    pidfd: OwnedFd,
    said: File,
    text: Vec<u8>,
    allowance: Allowance,
}

impl Child {
    /// Starts a child that has `limit` to do this. What it writes reaches the parent; a panic ends it with status 101 and the
    /// panic's words as its last.
    ///
    /// # Errors
    /// When there are no processes or descriptors left.
    pub fn start(limit: Limit, duty: impl FnOnce(&mut dyn Write)) -> io::Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&reader, true)?;
        let parent = getpid();
        // SAFETY: fork has no precondition. The child keeps to its own copy of memory, allocates with the C library's
        // allocator, which is made usable after a fork, and leaves through _exit.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            drop(reader);
            live(parent, writer, duty);
        }
        let pid = if pid < 0 { None } else { Pid::from_raw(pid) };
        let pid = pid.ok_or_else(io::Error::last_os_error)?;
        // The child does so too; whoever comes first.
        let _ = setpgid(Some(pid), Some(pid));
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                let _ = kill_process(pid, Signal::KILL);
                let _ = waitpid(Some(pid), WaitOptions::empty());
                return Err(error.into());
            }
        };
        let allowance = Allowance::start(pid.as_raw_nonzero().get(), limit);
        Ok(Self { pid, pidfd, said: File::from(reader), text: Vec::new(), allowance })
    }

    /// How long there is nothing to do about it, unless one of its [descriptors](Self::descriptors) becomes readable.
    #[must_use]
    pub fn look_again_in(&self) -> Duration {
        self.allowance.look_again_in()
    }

    /// Returns the descriptor that becomes readable when the child writes and when it ends.
    #[must_use]
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.said.as_fd(), self.pidfd.as_fd()]
    }

    /// Takes what it has said meanwhile. Returns how it ended once it has.
    pub fn look(&mut self) -> Option<End> {
        let ended = self.has_ended_within(Duration::ZERO);
        self.listen();
        if ended {
            return Some(self.reap(WaitOptions::empty()));
        }
        let end = if self.text.len() >= SIZE {
            End::TooMuch
        } else {
            let exceeded = self.allowance.exceeded()?;
            if self.has_ended_within(Duration::ZERO) {
                // By itself, between the two looks.
                self.listen();
                return Some(self.reap(WaitOptions::empty()));
            }
            End::TooLong(exceeded)
        };
        self.kill();
        let gone = self.has_ended_within(GRACE);
        self.listen();
        self.reap(if gone { WaitOptions::empty() } else { WaitOptions::NOHANG });
        Some(end)
    }

    /// Waits for its end.
    #[must_use]
    pub fn wait(mut self) -> (End, Vec<u8>) {
        loop {
            if let Some(end) = self.look() {
                return (end, self.text);
            }
            wait_for(&self.descriptors(), Instant::now() + self.look_again_in());
        }
    }

    /// Returns its output so far.
    #[must_use]
    pub fn said(&self) -> &[u8] {
        &self.text
    }

    fn listen(&mut self) {
        let mut part = [0; 16384];
        while self.text.len() < SIZE {
            match self.said.read(&mut part) {
                Ok(0) => break,
                Ok(n) => self.text.extend_from_slice(&part[..n]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
    }

    fn has_ended_within(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        wait_for(&[self.pidfd.as_fd()], deadline)
    }

    fn kill(&self) {
        let _ = kill_process_group(self.pid, Signal::KILL);
        let _ = kill_process(self.pid, Signal::KILL);
    }

    /// Kills the processes that the child left in its process group.
    fn reap(&self, options: WaitOptions) -> End {
        // Before it is reaped: afterwards its number may be somebody else's.
        let _ = kill_process_group(self.pid, Signal::KILL);
        match waitpid(Some(self.pid), options) {
            Ok(Some((_, status))) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => End::Exited(code),
                (None, Some(signal)) => End::Signal(signal),
                (None, None) => End::Unseen,
            },
            _ => End::Unseen,
        }
    }
}

/// Does this in a child and waits for it.
///
/// # Errors
/// When there are no processes or descriptors left.
pub fn run(limit: Limit, duty: impl FnOnce(&mut dyn Write)) -> io::Result<(End, Vec<u8>)> {
    Ok(Child::start(limit, duty)?.wait())
}

/// Waits until one of these is readable, at most until then. Whether one is.
pub(crate) fn wait_for(descriptors: &[BorrowedFd<'_>], deadline: Instant) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        let mut polls: Vec<PollFd<'_>> = descriptors
            .iter()
            .map(|descriptor| PollFd::from_borrowed_fd(*descriptor, PollFlags::IN))
            .collect();
        match poll(&mut polls, Some(&left)) {
            Ok(ready) => return ready > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// The child's whole life after the fork.
fn live(parent: Pid, writer: OwnedFd, duty: impl FnOnce(&mut dyn Write)) -> ! {
    let _ = setpgid(None, None);
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        // Rust's own handlers look for overflown stacks, and would swallow one that was sent.
        // SAFETY: the default action is no function that could be wrong.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    if getppid() != Some(parent) {
        // The parent died before it could be said that this ends with it.
        leave(1);
    }
    let writer = Arc::new(File::from(writer));
    let last = Arc::clone(&writer);
    panic::set_hook(Box::new(move |panic| {
        let _ = writeln!(&*last, "\n{panic}");
        leave(PANICKED);
    }));
    duty(&mut &*writer);
    leave(0)
}

/// The status of a child that panicked; its last words say where.
pub const PANICKED: i32 = 101;

/// Ends a child at once, with this status; a handler of a signal may call it as well.
pub(crate) fn leave(status: i32) -> ! {
    // SAFETY: _exit ends the process at once; it runs no exit handler of the parent's program.
    unsafe { libc::_exit(status) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Limit = Limit { processor: Duration::from_mins(1), idle: Duration::from_mins(10) };
    const SHORT: Duration = Duration::from_millis(200);

    #[test]
    fn a_child_is_heard_to_its_end() {
        let long = "x".repeat(300_000);
        let (end, text) = run(LONG, |out| out.write_all(long.as_bytes()).unwrap()).unwrap();
        assert_eq!((end, text.len()), (End::Exited(0), 300_000));
    }

    #[test]
    fn a_child_that_hangs_is_ended_with_all_it_started() {
        let (end, text) = run(Limit { idle: SHORT, ..LONG }, |out| {
            // SAFETY: both processes only sleep.
            let pid = unsafe { libc::fork() };
            if pid != 0 {
                write!(out, "{pid}").unwrap();
            }
            std::thread::sleep(LONG.idle);
        })
        .unwrap();
        assert!(matches!(end, End::TooLong(Exceeded::Idle { .. })), "{end:?}");
        let pid = Pid::from_raw(String::from_utf8(text).unwrap().parse().unwrap()).unwrap();
        // Whoever reaps orphans here has its own time.
        let gone = || {
            let stat =
                std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        };
        while !gone() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_child_that_spins_is_ended_and_one_that_was_stopped_for_longer_than_its_limit_is_heard() {
        let limit = Limit { processor: SHORT, ..LONG };
        let (end, _) = run(limit, |_| {
            loop {
                std::hint::spin_loop();
            }
        })
        .unwrap();
        assert!(matches!(end, End::TooLong(Exceeded::Processor { .. })), "{end:?}");
        let (end, text) = run(limit, |out| {
            let stopped = getpid();
            // SAFETY: the child only sleeps, sends a signal and ends.
            if unsafe { libc::fork() } == 0 {
                std::thread::sleep(SHORT * 3);
                let _ = kill_process(stopped, Signal::CONT);
                leave(0);
            }
            let _ = kill_process(stopped, Signal::STOP);
            write!(out, "on again").unwrap();
        })
        .unwrap();
        assert_eq!((end, text.as_slice()), (End::Exited(0), b"on again".as_slice()));
    }

    #[test]
    fn a_child_that_says_more_than_anybody_listens_to_is_ended() {
        let (end, text) = run(LONG, |out| while out.write_all(&[b'x'; 4096]).is_ok() {}).unwrap();
        assert_eq!((end, text.len() >= SIZE), (End::TooMuch, true));
    }

    #[test]
    fn a_signal_and_a_panic_are_told() {
        let (end, _) = run(LONG, |_| {
            // SAFETY: ends this child by a signal, which is the point.
            unsafe { libc::raise(libc::SIGSEGV) };
        })
        .unwrap();
        assert_eq!(end, End::Signal(libc::SIGSEGV));
        let (end, text) = run(LONG, |_| panic!("three is not four")).unwrap();
        assert_eq!(end, End::Exited(PANICKED));
        assert!(String::from_utf8(text).unwrap().contains("three is not four"));
    }
}
