/*!
Attacks on a program that is excepted: on its open descriptors, its memory, and everything that could decide what it does.

The program is a copy of the guest's init, excepted for /dev/mem. An attack has reached what the policy refuses if it gets the program's
open descriptor, or if the program opens /dev/mem after an attacker controlled its memory or its start.
*/
use std::{
    ffi::CString,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use super::{Attack, Attempt, Outcome, Pins, Setting};
use crate::{
    program::stockade,
    syscall::{check, descriptor},
};

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new(
        "take-an-excepted-descriptor",
        "take the descriptor of /dev/mem from an excepted program by pidfd_getfd",
        Pins::Falls,
        || {
            let excepted = Excepted::start(HOLDS, |_| ())?;
            let [descriptor] = excepted.numbers()?;
            taken(excepted.pid(), descriptor)
        },
    )
    .under(Setting::Programs)
    .refused_when_sealed(),
    Attack::new(
        "take-a-descriptor-from-a-child",
        "take the same from a child that an excepted program has forked",
        Pins::Falls,
        || {
            let excepted = Excepted::start(FORKS, |_| ())?;
            let [child, descriptor] = excepted.numbers()?;
            taken(child, descriptor)
        },
    )
    .under(Setting::Programs)
    .refused_when_sealed(),
    Attack::new(
        "open-excepted-memory",
        "open the memory of an excepted program for writing, and let it go on",
        Pins::Holds,
        || {
            let excepted = Excepted::start(WAITS, |_| ())?;
            let pid = excepted.pid();
            excepted.goes_on_after(memory(pid))
        },
    )
    .under(Setting::Programs)
    .refused_when_sealed(),
    Attack::new(
        "seize-an-excepted-program",
        "trace an excepted program by PTRACE_SEIZE, and let it go on",
        Pins::Holds,
        || {
            let excepted = Excepted::start(WAITS, |_| ())?;
            // SAFETY: PTRACE_SEIZE takes no pointers here.
            let seized = check(unsafe { libc::ptrace(libc::PTRACE_SEIZE, excepted.pid(), 0, 0) });
            excepted.goes_on_after(seized)
        },
    )
    .under(Setting::Programs)
    .refused_when_sealed(),
    Attack::new(
        "open-shared-memory",
        "open the memory of an excepted program through a child that shares it",
        Pins::Holds,
        || {
            let excepted = Excepted::start(SHARES, |_| ())?;
            let [child] = excepted.numbers()?;
            excepted.goes_on_after(memory(child))
        },
    )
    .under(Setting::Programs)
    .refused_when_sealed(),
    Attack::new(
        "supervise-an-excepted-program",
        "answer an excepted program's system calls as the listener of a seccomp filter",
        Pins::Holds,
        || started(|command| before_exec(command, supervised)),
    )
    .under(Setting::Programs)
    .refused_when_sealed(),
    Attack::new(
        "excepted-with-a-variable",
        "start an excepted program with a variable that some library reads",
        Pins::Holds,
        || {
            let mut last = Outcome::Through;
            for variable in
                ["LD_PRELOAD", "OPENSSL_CONF", "MODPROBE_OPTIONS", "PYTHONPATH", "LANGUAGE", "PATHS"]
            {
                last = started(|command| _ = command.env(variable, "/tmp"))?.outcome;
                if matches!(last, Outcome::Reached(_)) {
                    break;
                }
            }
            Ok(last.into())
        },
    )
    .under(Setting::Programs)
    .refused_when_sealed(),
    Attack::new(
        "excepted-without-descriptors",
        "start an excepted program with a standard descriptor closed, so that what it opens takes its place",
        Pins::Holds,
        || {
            let closes = || {
                // SAFETY: close takes a number, and nothing else in this child uses the descriptor.
                check(unsafe { libc::close(2) }).map(drop)
            };
            let grows_and_closes = move || {
                // SAFETY: dup2 takes numbers; the descriptor table grows for 200.
                check(unsafe { libc::dup2(1, 200) })?;
                // SAFETY: close takes the number of the descriptor that dup2 has just created.
                check(unsafe { libc::close(200) })?;
                closes()
            };
            let small = started(|command| before_exec(command, closes))?;
            if matches!(small.outcome, Outcome::Reached(_)) {
                return Ok(small);
            }
            started(|command| before_exec(command, grows_and_closes))
        },
    )
    .under(Setting::Programs)
    .refused_when_sealed(),
    Attack::new(
        "probe-an-excepted-program",
        "set a uprobe in an excepted program's file, and start it",
        Pins::Holds,
        || {
            let probe = match uprobe(PROGRAM, EVERYBODY) {
                Ok(probe) => probe,
                Err(error) => return Attempt::impossible(format!("no uprobe can be set: {error}")),
            };
            Ok(started(|_| ())?.holding(probe))
        },
    )
    .under(Setting::Programs)
    .refused_when_sealed(),
    Attack::new(
        "take-a-probe-away",
        "set a uprobe in an excepted program until it has asked, and have the kernel forget that there was one",
        Pins::Holds,
        || {
            let probe = match uprobe(PROGRAM, EVERYBODY) {
                Ok(probe) => probe,
                Err(error) => return Attempt::impossible(format!("no uprobe can be set: {error}")),
            };
            let mut excepted = Excepted::start(TRAPS, |_| ())?;
            excepted.tell("ask\n")?;
            drop(probe);
            excepted.opens()
        },
    )
    .under(Setting::Programs)
    .refused_when_sealed(),
    Attack::new(
        "take-by-the-hands-of-a-probed-program",
        "take the descriptor of /dev/mem from an excepted program by another process of it, in which there is a uprobe",
        Pins::Falls,
        || {
            let holder = Excepted::start(HOLDS, |_| ())?;
            let [descriptor] = holder.numbers()?;
            let mut taker = Excepted::start(TAKES, |_| ())?;
            let _probe = match uprobe(PROGRAM, taker.pid()) {
                Ok(probe) => probe,
                Err(error) => return Attempt::impossible(format!("no uprobe can be set: {error}")),
            };
            taker.tell(&format!("{} {descriptor}\n", holder.pid()))?;
            taker.opens()
        },
    )
    .under(Setting::Programs)
    .refused_when_sealed(),
    Attack::new(
        "share-the-root-of-an-excepted-program",
        "start an excepted program from a child that shares root and working directory with its parent",
        Pins::Holds,
        shared_root,
    )
    .under(Setting::Programs)
    .refused_when_sealed(),
];

const POLICY: &str = "/etc/stockade/policy.toml";

/// A copy of the guest's init.
const PROGRAM: &str = "/root/attack-excepted";

/// First argument of the excepted program: its action before it reports that it is ready. Then it waits for the end of its input.
const WAITS: &str = "waits";
const HOLDS: &str = "holds";
const FORKS: &str = "forks";
const SHARES: &str = "shares";
/// Argument for a program that reports nothing and waits for nothing.
const OPENS: &str = "opens";
/// Argument for a program that opens /dev/mem when it is told to, executes a breakpoint once it continues, and opens /dev/mem again.
const TRAPS: &str = "traps";
/// Argument for a program that reads the id of a process and a descriptor's number, and takes that descriptor instead of opening /dev/mem.
const TAKES: &str = "takes";

/// Applies a policy that excepts the program, and checks that it does.
pub(super) fn enforce() -> Result<()> {
    let _ = fs::remove_file(PROGRAM);
    fs::copy("/init", PROGRAM).with_context(|| format!("copy /init to {PROGRAM}"))?;
    let text = format!(
        "level = \"confidentiality\"\n[[exception]]\nname = \"lab\"\nreasons = [\"dev-mem\"]\nexe = \"{PROGRAM}\"\n"
    );
    fs::create_dir_all(Path::new(POLICY).parent().context("it is in a folder")?)?;
    fs::write(POLICY, text).with_context(|| format!("write {POLICY}"))?;
    stockade(&["enforce"])?.exits(0)?;
    ensure!(
        Excepted::start(WAITS, |_| ())?.gets_through()?,
        "before the attack, the program is not excepted"
    );
    let harmless = |command: &mut Command| {
        command.envs([("PATH", "/bin"), ("LC_ALL", "C"), ("LISTEN_FDS", "1"), ("SYSTEMD_EXEC_PID", "1")]);
    };
    ensure!(Excepted::start(WAITS, harmless)?.gets_through()?, "harmless variables cost the exception");
    ensure!(File::open("/dev/mem").is_err(), "before the attack, this process opens /dev/mem");
    Ok(())
}

/// Runs as the excepted program, for `/init --excepted WHAT`. Returns its exit status: 0 if it has /dev/mem open, 1 if not.
///
/// # Errors
/// When it cannot report that it is ready, or cannot read its input.
pub fn play_excepted(what: &str) -> Result<u8> {
    let held = if matches!(what, HOLDS | FORKS) { Some(File::open("/dev/mem")?) } else { None };
    let descriptor = held.as_ref().map(AsRawFd::as_raw_fd);
    let child = match what {
        // SAFETY: this process has one thread; the child makes system calls only.
        FORKS => Some(check(unsafe { libc::fork() })?),
        SHARES => {
            let mut stack = vec![0u128; 4096];
            // SAFETY: the stack is leaked, so it outlives the child, which ends with this process; `rests` accesses no other memory.
            let child = check(unsafe {
                libc::clone(
                    rests,
                    stack.as_mut_ptr_range().end.cast(),
                    libc::CLONE_VM | libc::SIGCHLD,
                    std::ptr::null_mut(),
                )
            })?;
            std::mem::forget(stack);
            Some(child)
        }
        _ => None,
    };
    if child == Some(0) {
        rests(std::ptr::null_mut());
    }
    if what != OPENS {
        let numbers: Vec<_> = child.into_iter().chain(descriptor).map(|number| number.to_string()).collect();
        println!("{}", numbers.join(" "));
    }
    let mut told = String::new();
    match what {
        OPENS => {}
        TRAPS => {
            io::stdin().read_line(&mut told)?;
            println!("{}", File::open("/dev/mem").is_ok());
            io::stdin().read_to_end(&mut Vec::new())?;
            trap();
        }
        TAKES => {
            io::stdin().read_line(&mut told)?;
            println!();
            io::stdin().read_to_end(&mut Vec::new())?;
        }
        _ => _ = io::stdin().read_to_end(&mut Vec::new())?,
    }
    let opened = if what == TAKES {
        let numbers: Vec<i32> = told.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let [pid, descriptor] = numbers[..] else { bail!("it was told {told:?}") };
        take(pid, descriptor).map(drop)
    } else {
        File::open("/dev/mem").map(drop)
    };
    if let Some(child) = child {
        // SAFETY: kill takes numbers only, and the process is a child of this one.
        unsafe { libc::kill(child, libc::SIGKILL) };
    }
    Ok(u8::from(opened.is_err()))
}

/// Executes a breakpoint for which there is no probe, and continues behind it.
fn trap() {
    extern "C" fn goes_on(_: libc::c_int) {}
    let handler: extern "C" fn(libc::c_int) = goes_on;
    // SAFETY: the handler does nothing; the breakpoint changes no register and no memory.
    unsafe {
        libc::signal(libc::SIGTRAP, handler as libc::sighandler_t);
        core::arch::asm!("int3");
    }
}

/// Does nothing until it is killed, by its parent or with it.
extern "C" fn rests(_: *mut libc::c_void) -> libc::c_int {
    // SAFETY: these system calls take numbers only.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        loop {
            libc::pause();
        }
    }
}

/// The excepted program, started and waiting.
struct Excepted {
    child: Child,
    word: Option<ChildStdin>,
    out: BufReader<ChildStdout>,
    said: String,
}

impl Excepted {
    fn start(what: &str, change: impl FnOnce(&mut Command)) -> Result<Self> {
        let mut command = Command::new(PROGRAM);
        command.args(["--excepted", what]).env_clear();
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        change(&mut command);
        let mut child = command.spawn().context("start the excepted program")?;
        let word = child.stdin.take();
        let mut out = BufReader::new(child.stdout.take().context("it was piped")?);
        let mut said = String::new();
        out.read_line(&mut said).context("hear from the excepted program")?;
        let excepted = Self { child, word, out, said };
        ensure!(excepted.said.ends_with('\n'), "the excepted program did not get ready");
        Ok(excepted)
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("process numbers fit")
    }

    /// Returns the numbers that it printed.
    fn numbers<const N: usize>(&self) -> Result<[i32; N]> {
        let numbers: Vec<i32> = self.said.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let Ok(numbers) = <[i32; N]>::try_from(numbers) else { bail!("it said {:?}", self.said) };
        Ok(numbers)
    }

    /// Sends it a line, and waits for its answer.
    fn tell(&mut self, line: &str) -> Result<()> {
        self.word.as_mut().context("it goes on already")?.write_all(line.as_bytes())?;
        self.out.read_line(&mut String::new()).context("hear from the excepted program")?;
        Ok(())
    }

    /// Lets it continue, and returns the outcome of its attempt at /dev/mem.
    fn opens(self) -> Result<Attempt> {
        if self.gets_through()? {
            Ok(Outcome::Reached("/dev/mem, by the excepted program".into()).into())
        } else {
            Attempt::refused("the excepted program has no exception")
        }
    }

    /// Lets it continue, and reports whether it has opened /dev/mem.
    fn gets_through(mut self) -> Result<bool> {
        if let Some(mut word) = self.word.take() {
            let _ = word.write_all(b"go\n");
        }
        let status = self.child.wait()?;
        ensure!(matches!(status.code(), Some(0 | 1)), "the excepted program ended with {status}");
        Ok(status.success())
    }

    /// Lets it continue after an attempt to get control of it.
    fn goes_on_after<T>(self, attempt: io::Result<T>) -> Result<Attempt> {
        let through = self.gets_through()?;
        match attempt {
            Ok(_) if through => {
                Ok(Outcome::Reached("/dev/mem, by the hands of the excepted program".into()).into())
            }
            Ok(_) => Attempt::through(),
            Err(error) => {
                ensure!(through, "an access that was refused cost the program its exception");
                Attempt::refused(error)
            }
        }
    }
}

impl Drop for Excepted {
    fn drop(&mut self) {
        // The process group has its children too: one that stayed would keep the attack's mounts.
        // SAFETY: kill takes numbers only.
        unsafe { libc::kill(-self.pid(), libc::SIGKILL) };
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts the program with this change, and lets it open /dev/mem.
fn started(change: impl FnOnce(&mut Command)) -> Result<Attempt> {
    Excepted::start(WAITS, change)?.opens()
}

fn before_exec(command: &mut Command, what: impl FnMut() -> io::Result<()> + Send + Sync + 'static) {
    // SAFETY: the callers' closures make system calls only, and a scenario's process has one thread.
    unsafe { command.pre_exec(what) };
}

/// Takes a descriptor from a process by pidfd_getfd.
fn take(pid: i32, descriptor_there: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only.
    let process = descriptor(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    let number = process.as_raw_fd();
    // SAFETY: takes numbers only.
    descriptor(unsafe { libc::syscall(libc::SYS_pidfd_getfd, number, descriptor_there, 0) })
}

fn taken(pid: i32, descriptor_there: i32) -> Result<Attempt> {
    match take(pid, descriptor_there) {
        Ok(_) => Ok(Outcome::Reached("an open /dev/mem".into()).into()),
        Err(error) => Attempt::refused(error),
    }
}

fn memory(pid: i32) -> io::Result<File> {
    OpenOptions::new().write(true).open(format!("/proc/{pid}/mem"))
}

/// Puts this process under a seccomp filter that allows everything and has a listener, whose descriptor stays open over execve.
fn supervised() -> io::Result<()> {
    const SET_MODE_FILTER: libc::c_uint = 1;
    const NEW_LISTENER: libc::c_uint = 1 << 3;
    const RETURN: u16 = 0x06;
    const ALLOW: u32 = 0x7fff_0000;
    let mut filter = [libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: ALLOW }];
    let program = libc::sock_fprog { len: 1, filter: filter.as_mut_ptr() };
    // SAFETY: the filter and its one instruction live through the call.
    let listener = check(unsafe {
        libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, NEW_LISTENER, &raw const program)
    })?;
    let listener = i32::try_from(listener).map_err(io::Error::other)?;
    // SAFETY: F_SETFD takes a number, and the descriptor was just created.
    check(unsafe { libc::fcntl(listener, libc::F_SETFD, 0) }).map(drop)
}

/// The value in place of a process id for every process that executes the program.
const EVERYBODY: i32 = -1;

/// Sets a uprobe at the first instruction of a program, in this process or in every one.
fn uprobe(program: &str, pid: i32) -> Result<OwnedFd> {
    const ATTR_SIZE: usize = 112;
    // PERF_FLAG_FD_CLOEXEC: otherwise the program would inherit the descriptor and keep the probe.
    const CLOSE_ON_EXEC: libc::c_ulong = 8;
    let cpu = if pid == EVERYBODY { 0 } else { -1 };
    let kind: u32 = fs::read_to_string("/sys/bus/event_source/devices/uprobe/type")
        .context("look for the kernel's uprobes")?
        .trim()
        .parse()?;
    let path = CString::new(program)?;
    let mut attr = [0u8; ATTR_SIZE];
    attr[..4].copy_from_slice(&kind.to_ne_bytes());
    attr[4..8].copy_from_slice(&u32::try_from(ATTR_SIZE)?.to_ne_bytes());
    attr[56..64].copy_from_slice(&(path.as_ptr() as u64).to_ne_bytes());
    attr[64..72].copy_from_slice(&entry(program)?.to_ne_bytes());
    // SAFETY: the block and the path in it live through the call, and the block contains its size.
    let probe = descriptor(unsafe {
        libc::syscall(libc::SYS_perf_event_open, attr.as_ptr(), pid, cpu, -1, CLOSE_ON_EXEC)
    })?;
    Ok(probe)
}

/// Returns the file offset of a program's first instruction.
fn entry(program: &str) -> Result<u64> {
    const LOAD: u64 = 1;
    let image = fs::read(program)?;
    let number = |at: usize, size: usize| -> Result<u64> {
        let bytes = image.get(at..at + size).context("the program is cut off")?;
        Ok(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    };
    let (entry, table) = (number(24, 8)?, usize::try_from(number(32, 8)?)?);
    let (size, count) = (usize::try_from(number(54, 2)?)?, usize::try_from(number(56, 2)?)?);
    for at in (0..count).map(|n| table + n * size) {
        let (offset, address, length) = (number(at + 8, 8)?, number(at + 16, 8)?, number(at + 32, 8)?);
        if number(at, 4)? == LOAD && (address..address + length).contains(&entry) {
            return Ok(entry - address + offset);
        }
    }
    bail!("{program} has no part with its first instruction")
}

fn shared_root() -> Result<Attempt> {
    let words = [PROGRAM, "--excepted", OPENS].map(CString::new);
    let words: Vec<CString> = words.into_iter().collect::<Result<_, _>>()?;
    let mut arguments: Vec<_> = words.iter().map(|word| word.as_ptr()).collect();
    arguments.push(std::ptr::null());
    let environment = [std::ptr::null()];
    let flags = libc::CLONE_FS | libc::SIGCHLD;
    // SAFETY: without a stack of its own the child continues on a copy of this one, as after fork(2).
    let child = check(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })?;
    if child == 0 {
        // SAFETY: the strings and lists are terminated and were made before the clone; _exit ends the child if execve fails.
        unsafe {
            libc::execve(words[0].as_ptr(), arguments.as_ptr(), environment.as_ptr());
            libc::_exit(2);
        }
    }
    let mut status = 0;
    // SAFETY: the status lives through the call, and the child is this process's.
    unsafe { libc::waitpid(i32::try_from(child)?, &raw mut status, 0) };
    ensure!(libc::WIFEXITED(status), "the excepted program was killed");
    match libc::WEXITSTATUS(status) {
        0 => Ok(Outcome::Reached("/dev/mem, by the excepted program".into()).into()),
        1 => Attempt::refused("the excepted program has no exception"),
        other => bail!("the excepted program ended with {other}"),
    }
}
