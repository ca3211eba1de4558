//! Runs a probe in a forked child, with a [limit](crate::limit), and brings its outcome back over a pipe.
//!
//! ```text
//! parent                         child
//!   pipe, fork ───────────────▶  probe()
//!   poll(pidfd), limit           one write: tag(1) errno(4, little-endian, 0 = none) text(≤ 1024)
//!   read the pipe ◀────────────  _exit
//! ```
//!
//! A message is smaller than `PIPE_BUF`: one write, never in part, and the child never waits for the
//! parent to read. What the child opens, mounts or is granted is gone when it ends.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::answer::{Answer, Outcome, check};
use crate::limit::{Allowance, Exceeded, Limit};

/// The longest text a message carries, in bytes.
const TEXT: usize = 1024;

/// How long a killed child may take to go. One that is stuck in the kernel may never go.
const GRACE: Duration = Duration::from_secs(1);

/// Runs `probe` in a child that has `limit` to answer. A child that goes beyond it is killed;
/// that, its death by a signal, and an end without an answer are [`Answer::Failed`].
pub(crate) fn run(limit: Limit, probe: impl FnOnce() -> Outcome) -> Outcome {
    match attempt(limit, probe) {
        Ok(outcome) => outcome,
        Err(error) => Outcome::failed(format!("running the probe in a child: {error}")).with(&error),
    }
}

fn attempt(limit: Limit, probe: impl FnOnce() -> Outcome) -> io::Result<Outcome> {
    let (mut reader, writer) = pipe()?;
    let parent = std::process::id();
    // SAFETY: fork() itself has no precondition. The child keeps to its own copy of memory, allocates with
    // the C library's allocator, which is made usable after a fork, and leaves through _exit.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        drop(reader);
        answer_and_exit(parent, writer, probe);
    }
    check(pid.into())?;
    drop(writer);

    let child = match Child::watch(pid) {
        Ok(child) => child,
        Err(error) => {
            kill(pid);
            reap(pid, 0);
            return Err(error);
        }
    };
    if let Some(exceeded) = child.exceeds(Allowance::start(pid, limit))? {
        kill(pid);
        child.ends_within(GRACE)?;
        reap(pid, libc::WNOHANG);
        return Ok(Outcome::failed(format!("the probe {exceeded}; it was killed")));
    }
    if let Some(status) = reap(pid, 0)
        && libc::WIFSIGNALED(status)
    {
        return Ok(Outcome::failed(format!("the probe was killed by signal {}", libc::WTERMSIG(status))));
    }
    let mut message = [0; 5 + TEXT];
    let length = match reader.read(&mut message) {
        // Somebody else has the other end, a child of another thread's for instance, and nobody has written.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        length => length?,
    };
    Ok(decode(&message[..length]).unwrap_or_else(|| Outcome::failed("the probe ended without an answer")))
}

/// The child's whole life after the fork.
fn answer_and_exit(parent: u32, mut writer: File, probe: impl FnOnce() -> Outcome) -> ! {
    // SAFETY: PR_SET_PDEATHSIG takes a signal number and touches no memory.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    if std::os::unix::process::parent_id() != parent {
        // The parent died before it could be said that this ends with it.
        // SAFETY: _exit ends the process at once.
        unsafe { libc::_exit(1) }
    }
    let outcome =
        catch_unwind(AssertUnwindSafe(probe)).unwrap_or_else(|_| Outcome::failed("the probe panicked"));
    // A write that fails is seen by the parent as an end without an answer.
    let _ = writer.write(&encode(&outcome));
    // SAFETY: _exit ends the process at once; it runs no exit handler of the parent's program.
    unsafe { libc::_exit(0) }
}

/// A pipe that is closed on exec and never blocks: the reader, the writer.
fn pipe() -> io::Result<(File, File)> {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for the two descriptors.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) }.into())?;
    // SAFETY: pipe2 succeeded, so both are open and nobody else owns them.
    Ok(unsafe { (File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1])) })
}

/// A child seen through a pidfd (Linux 5.3), which becomes readable when the child ends.
struct Child(OwnedFd);

impl Child {
    fn watch(pid: libc::pid_t) -> io::Result<Self> {
        // SAFETY: pidfd_open takes two integers.
        let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
        let fd = i32::try_from(fd).map_err(io::Error::other)?;
        // SAFETY: pidfd_open succeeded, so the descriptor is open and nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Waits for its end, or until it goes beyond its limit.
    fn exceeds(&self, allowance: Allowance) -> io::Result<Option<Exceeded>> {
        loop {
            if self.ends_within(allowance.look_again_in())? {
                return Ok(None);
            }
            // It may have ended between the two looks, and what it used is still told as long as it is not reaped.
            if let Some(exceeded) = allowance.exceeded() {
                return Ok((!self.ends_within(Duration::ZERO)?).then_some(exceeded));
            }
        }
    }

    fn ends_within(&self, limit: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).as_millis();
            let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: `poll` is one valid pollfd.
            let ready = unsafe { libc::poll(&raw mut poll, 1, i32::try_from(left).unwrap_or(i32::MAX)) };
            match check(ready.into()) {
                Ok(ready) => return Ok(ready > 0),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn kill(pid: libc::pid_t) {
    // SAFETY: kill takes two integers. The child is not reaped yet, so the pid is still its own.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

/// The status of a child that has ended; none if somebody else has reaped it or it is still there.
fn reap(pid: libc::pid_t, flags: i32) -> Option<i32> {
    let mut status = 0;
    // SAFETY: `status` is a valid place for the status.
    let reaped = unsafe { libc::waitpid(pid, &raw mut status, flags) };
    (reaped == pid).then_some(status)
}

fn encode(outcome: &Outcome) -> Vec<u8> {
    let (tag, text) = match &outcome.answer {
        Answer::Refused => (b'r', ""),
        Answer::RefusedElsewhere(what) => (b'e', what.as_str()),
        Answer::Free => (b'f', ""),
        Answer::Absent(why) => (b'a', why.as_str()),
        Answer::NeedsRoot(what) => (b'n', what.as_str()),
        Answer::Failed(what) => (b'x', what.as_str()),
        // A probe that runs never says this; were it to, its text would not be static on the other side.
        Answer::Never(why) => (b'x', *why),
    };
    let mut message = vec![tag];
    message.extend(outcome.errno.unwrap_or(0).to_le_bytes());
    message.extend(text.bytes().take(TEXT));
    message
}

fn decode(message: &[u8]) -> Option<Outcome> {
    let (tag, rest) = message.split_first()?;
    let (errno, text) = rest.split_first_chunk::<4>()?;
    let text = String::from_utf8_lossy(text).into_owned();
    let answer = match tag {
        b'r' => Answer::Refused,
        b'e' => Answer::RefusedElsewhere(text),
        b'f' => Answer::Free,
        b'a' => Answer::Absent(text),
        b'n' => Answer::NeedsRoot(text),
        b'x' => Answer::Failed(text),
        _ => return None,
    };
    let errno = Some(i32::from_le_bytes(*errno)).filter(|errno| *errno != 0);
    Some(Outcome { answer, errno })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::trials;

    const LONG: Limit = Limit { processor: Duration::from_mins(1), idle: Duration::from_mins(10) };
    const SHORT: Duration = Duration::from_millis(100);

    fn why(outcome: Outcome) -> String {
        match outcome.answer {
            Answer::Failed(what) => what,
            other => panic!("expected Failed, got {other:?}"),
        }
    }

    #[test]
    fn a_child_that_answers_is_heard() {
        assert_eq!(run(LONG, || Outcome::refused(libc::EPERM)), Outcome::refused(libc::EPERM));
        assert_eq!(run(LONG, Outcome::free), Outcome::free());
        assert_eq!(run(LONG, || Outcome::absent("kein Gerät")), Outcome::absent("kein Gerät"));
    }

    #[test]
    fn a_child_that_hangs_is_killed() {
        let outcome = run(Limit { idle: SHORT, ..LONG }, || {
            std::thread::sleep(LONG.idle);
            Outcome::free()
        });
        let why = why(outcome);
        assert!(why.contains("did not answer for 0.") && why.contains("it hangs; it was killed"), "{why}");
    }

    #[test]
    fn a_child_that_spins_is_killed() {
        let outcome = run(Limit { processor: SHORT, ..LONG }, || trials::spin_for_ever());
        let why = why(outcome);
        assert!(why.contains("of processor time without an answer"), "{why}");
    }

    #[test]
    fn a_child_whose_children_spin_is_killed_when_it_has_reaped_them() {
        let outcome = run(Limit { processor: SHORT, ..LONG }, || {
            loop {
                // SAFETY: the child spins for a while and ends; this process reaps it.
                match unsafe { libc::fork() } {
                    0 => {
                        trials::spin(SHORT / 2);
                        // SAFETY: ends the child at once.
                        unsafe { libc::_exit(0) }
                    }
                    // SAFETY: reaps that child.
                    pid => unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) },
                };
            }
        });
        assert!(why(outcome).contains("of processor time without an answer"));
    }

    #[test]
    fn a_child_that_gets_no_processor_for_longer_than_its_limit_is_heard() {
        let limit = Limit { processor: SHORT * 2, ..LONG };
        let stopped = run(limit, || {
            let used = trials::stopped_for(limit.processor * 3);
            if used < limit.processor { Outcome::free() } else { Outcome::failed("it ran instead") }
        });
        assert_eq!(stopped, Outcome::free());
    }

    #[test]
    fn a_child_that_is_starved_for_longer_than_it_may_hang_is_heard() {
        let limit = Limit { processor: LONG.processor, idle: SHORT * 3 };
        let starved = run(limit, || {
            if trials::starve(limit.idle * 2) { Outcome::free() } else { Outcome::absent("no schedstat") }
        });
        assert!(matches!(starved.answer, Answer::Free | Answer::Absent(_)), "{starved:?}");
    }

    #[test]
    fn a_child_that_dies_by_a_signal_has_failed() {
        let outcome = run(LONG, || {
            // SAFETY: ends this child by a signal, which is the point.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
            Outcome::free()
        });
        assert!(why(outcome).contains("signal 9"));
    }

    #[test]
    fn a_child_that_ends_silently_has_failed() {
        // SAFETY: ends this child without an answer, which is the point.
        let outcome = run(LONG, || unsafe { libc::_exit(0) });
        assert!(why(outcome).contains("without an answer"));
    }

    #[test]
    fn nothing_of_the_child_reaches_the_parent() {
        let mut touched = false;
        run(LONG, || {
            touched = true;
            Outcome::free()
        });
        assert!(!touched);
    }

    #[test]
    fn a_message_survives_the_pipe_and_a_long_one_is_cut() {
        for outcome in [
            Outcome::free(),
            Outcome::refused(libc::EINVAL),
            Outcome::refused_elsewhere("IMA"),
            Outcome::needs_root("CAP_SYS_BOOT"),
            Outcome::failed("x").with(&io::Error::from_raw_os_error(libc::EIO)),
        ] {
            assert_eq!(decode(&encode(&outcome)), Some(outcome));
        }
        assert_eq!(encode(&Outcome::absent("x".repeat(5000))).len(), 5 + TEXT);
        assert_eq!(decode(b""), None);
        assert_eq!(decode(b"r\0"), None);
        assert_eq!(decode(b"?\0\0\0\0"), None);
    }
}
