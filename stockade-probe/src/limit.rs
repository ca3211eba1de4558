/*!
How much a child may use before it is ended. Its limit is processor time of its own: a machine that is busy with other work gives a
child less of it in the same time, so a limit of elapsed time would turn load into a verdict. A long second limit ends a child that hangs.

```text
elapsed = running           counted by the first limit, with the processes that the child started and has reaped
        + waiting for a processor   counted by neither: it is the machine's load
        + anything else     counted by the second limit: asleep, stopped, blocked in the kernel
```

A process that the child started and that still runs is counted once the child has reaped it. Until then the child waits for it, which
the second limit bounds. The kernel tells how long a process waited for a processor in `/proc/PID/schedstat`; where it does not
(without `CONFIG_SCHED_INFO`, or without /proc), that time counts as if the child slept. The kernel adds a wait when it ends, so
a process that is ready to run right now is not said to hang.
*/
use std::{
    fmt, fs,
    time::{Duration, Instant},
};

/// How much a child may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Processor time.
    pub processor: Duration,
    /// Time in which it neither runs nor waits for a processor.
    pub idle: Duration,
}

impl Limit {
    /// The usual one of something that takes an instant: so much processor time, and half a minute for something that hangs.
    #[must_use]
    pub const fn of_processor_time(processor: Duration) -> Self {
        Self { processor, idle: Duration::from_secs(30) }
    }
}

/// The limit that a child went beyond, and what it had used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceeded {
    /// It ran, and did not come to an end.
    Processor {
        /// Processor time.
        used: Duration,
    },
    /// It hung.
    Idle {
        /// Elapsed time since it was started.
        elapsed: Duration,
        /// Processor time.
        used: Duration,
    },
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Processor { used } => {
                write!(f, "used {:.1} s of processor time without an answer", used.as_secs_f64())
            }
            Self::Idle { elapsed, used } => write!(
                f,
                "did not answer for {:.1} s and used {:.1} s of processor time: it hangs",
                elapsed.as_secs_f64(),
                used.as_secs_f64()
            ),
        }
    }
}

/// A running child and its limit.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    pid: libc::pid_t,
    limit: Limit,
    begin: Instant,
}

/// The shortest time between two looks at what a child has used.
const PAUSE: Duration = Duration::from_millis(10);

impl Allowance {
    /// Of a child that was started just now. It must not be reaped as long as this is asked, since its id could be another's then.
    #[must_use]
    pub fn start(pid: libc::pid_t, limit: Limit) -> Self {
        Self { pid, limit, begin: Instant::now() }
    }

    /// Whether the child went beyond its limit.
    #[must_use]
    pub fn exceeded(&self) -> Option<Exceeded> {
        let used = processor_time(self.pid);
        if used >= self.limit.processor {
            return Some(Exceeded::Processor { used });
        }
        let elapsed = self.begin.elapsed();
        let is_idle =
            elapsed >= self.limit.idle && !is_ready(self.pid) && self.idle(elapsed, used) >= self.limit.idle;
        is_idle.then_some(Exceeded::Idle { elapsed, used })
    }

    /// How long there is nothing to look at, unless the child ends: no limit can be reached before.
    #[must_use]
    pub fn look_again_in(&self) -> Duration {
        let used = processor_time(self.pid);
        let elapsed = self.begin.elapsed();
        let idle = if elapsed < self.limit.idle { elapsed } else { self.idle(elapsed, used) };
        let left = self.limit.processor.saturating_sub(used).min(self.limit.idle.saturating_sub(idle));
        left.max(PAUSE)
    }

    fn idle(&self, elapsed: Duration, used: Duration) -> Duration {
        elapsed.saturating_sub(used).saturating_sub(waited(self.pid))
    }
}

/// Processor time of this process and of those that it started and reaped. Zero where the kernel does not tell.
fn processor_time(pid: libc::pid_t) -> Duration {
    own_time(pid) + reaped_time(pid)
}

/// By the process's own clock, which is exact where /proc counts in hundredths of a second.
fn own_time(pid: libc::pid_t) -> Duration {
    let mut clock = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `clock` is live for the call, which writes it.
    if unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) } != 0 {
        return Duration::ZERO;
    }
    // SAFETY: `time` is live for the call, which writes it; a clock of a process that is gone is an error.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Duration::ZERO;
    }
    duration(&time)
}

fn duration(time: &libc::timespec) -> Duration {
    Duration::new(time.tv_sec.try_into().unwrap_or_default(), time.tv_nsec.try_into().unwrap_or_default())
}

/// `cutime` and `cstime` of `/proc/PID/stat`, fields 16 and 17.
fn reaped_time(pid: libc::pid_t) -> Duration {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // SAFETY: takes a number.
    let ticks = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).unwrap_or_default().max(1);
    Duration::from_millis(reaped_ticks(&text).saturating_mul(1000) / ticks)
}

/// Whether the process's first thread runs or waits for a processor.
fn is_ready(pid: libc::pid_t) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| state(&stat) == Some("R"))
}

fn state(stat: &str) -> Option<&str> {
    stat.rsplit_once(')')?.1.split_whitespace().next()
}

/// The name in parentheses may have spaces and parentheses of its own; the fields after it begin with the third.
fn reaped_ticks(stat: &str) -> u64 {
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields.split_whitespace().skip(13).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
}

/// How long the process's first thread was ready to run and had no processor: the second number of `/proc/PID/schedstat`.
fn waited(pid: libc::pid_t) -> Duration {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    Duration::from_nanos(text.split_whitespace().nth(1).and_then(|ns| ns.parse().ok()).unwrap_or_default())
}

/// How a child is busy, stopped and starved, without a clock on the wall.
#[cfg(test)]
pub(crate) mod trials {
    use std::{fs, mem, time::Duration};

    use super::{own_time, processor_time, waited};

    /// Spins until this process has used so much processor time.
    pub fn spin(time: Duration) {
        while own_time(0) < time {
            std::hint::spin_loop();
        }
    }

    /// Spins without an end.
    pub fn spin_for_ever() -> ! {
        loop {
            std::hint::spin_loop();
        }
    }

    /// Stops this process, which another one lets go on after so long. Returns how much processor time it has used by then.
    pub fn stopped_for(time: Duration) -> Duration {
        let this = std::process::id().cast_signed();
        // SAFETY: the child only sleeps, sends a signal and ends.
        let waker = unsafe { libc::fork() };
        if waker == 0 {
            std::thread::sleep(time);
            // SAFETY: sends a signal to the parent and ends at once.
            unsafe {
                libc::kill(this, libc::SIGCONT);
                libc::_exit(0);
            }
        }
        // SAFETY: stops this process; the waker sends SIGCONT later than this, unless no time is given to stop in.
        unsafe { libc::raise(libc::SIGSTOP) };
        // SAFETY: reaps the waker.
        unsafe { libc::waitpid(waker, std::ptr::null_mut(), 0) };
        processor_time(0)
    }

    /// Starves this process beside a busy one on the same processor until it has waited so long for it. Returns whether it did:
    /// where the kernel does not tell how long a process waited, nothing is tried.
    #[must_use]
    pub fn starve(time: Duration) -> bool {
        if fs::read_to_string("/proc/self/schedstat").is_err() {
            return false;
        }
        // SAFETY: a set of processors is plain data, for which zeros are a value.
        let mut processors: libc::cpu_set_t = unsafe { mem::zeroed() };
        // SAFETY: takes no arguments; on the running processor of this thread.
        let here = usize::try_from(unsafe { libc::sched_getcpu() }).unwrap_or_default();
        // SAFETY: the set is live and has room for that processor.
        unsafe { libc::CPU_SET(here, &mut processors) };
        // SAFETY: the set is live for the call.
        if unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const processors) } != 0 {
            return false;
        }
        // SAFETY: the child only spins; it dies with this process.
        let busy = unsafe { libc::fork() };
        if busy == 0 {
            // SAFETY: takes numbers.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            spin_for_ever();
        }
        let idle = libc::sched_param { sched_priority: 0 };
        // SAFETY: the parameters are live for the call, which makes this process the last to get a processor.
        unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const idle) };
        let this = std::process::id().cast_signed();
        while waited(this) < time {
            std::hint::spin_loop();
        }
        // SAFETY: ends and reaps the child that was started here.
        unsafe {
            libc::kill(busy, libc::SIGKILL);
            libc::waitpid(busy, std::ptr::null_mut(), 0);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_of_reaped_processes_is_read_behind_any_name() {
        let stat = "7 (a ) (b) S 1 7 7 0 -1 4194304 100 200 0 0 11 12 13 14 20 0 1 0 5 0 0";
        assert_eq!(reaped_ticks(stat), 27);
        assert_eq!(state(stat), Some("S"));
        assert_eq!((reaped_ticks(""), state("")), (0, None));
    }

    #[test]
    fn what_runs_reaches_the_first_limit_only() {
        let limit = Limit { processor: Duration::ZERO, idle: Duration::MAX };
        let exceeded = Allowance::start(std::process::id().cast_signed(), limit).exceeded();
        assert!(matches!(exceeded, Some(Exceeded::Processor { .. })), "{exceeded:?}");
    }

    #[test]
    fn both_limits_are_named() {
        let used = Duration::from_millis(40);
        let idle = Exceeded::Idle { elapsed: Duration::from_mins(1), used };
        assert_eq!(idle.to_string(), "did not answer for 60.0 s and used 0.0 s of processor time: it hangs");
        let processor = Exceeded::Processor { used: Duration::from_secs(3) };
        assert_eq!(processor.to_string(), "used 3.0 s of processor time without an answer");
    }
}
