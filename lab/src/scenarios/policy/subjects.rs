//! Exceptions by program: the processes that are labelled as that program, and processes that only resemble it.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{Tool, apply, enforced, expect, lift_all, opens, stockade, through, waiting, watched, write};
use crate::{
    guest::Guest,
    scenario::{Boot, Depends, Scenario},
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "an excepted program gets through and no other",
        boot: Boot::Plain,
        depends: Depends::Series,
        run: program,
    },
    Scenario {
        name: "a program replaced on disk is excepted no more",
        boot: Boot::Plain,
        depends: Depends::NewestSeries,
        run: replaced,
    },
    Scenario {
        name: "loader variables and tracers cost a program its exception",
        boot: Boot::Plain,
        depends: Depends::Series,
        run: influenced,
    },
    Scenario {
        name: "children inherit an exception only where it says so",
        boot: Boot::Plain,
        depends: Depends::Series,
        run: children,
    },
    Scenario {
        name: "the link to the executable excepts nobody",
        boot: Boot::Plain,
        depends: Depends::NewestSeries,
        run: disguised,
    },
    Scenario {
        name: "an exception can demand a user beside a program",
        boot: Boot::Plain,
        depends: Depends::NewestSeries,
        run: user,
    },
    Scenario {
        name: "an exception ends when it says so",
        boot: Boot::Plain,
        depends: Depends::NewestSeries,
        run: expires,
    },
    Scenario {
        name: "who ran before being excepted is named",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: before,
    },
    Scenario {
        name: "a program executed while no program was excepted has no exception later",
        boot: Boot::Plain,
        depends: Depends::NewestSeries,
        run: meanwhile,
    },
    Scenario {
        name: "a policy that is wrong changes nothing",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: wrong,
    },
    Scenario {
        name: "without the BPF security module exceptions by program are refused",
        boot: Boot::NoBpfLsm,
        depends: Depends::UserSide,
        run: no_lsm,
    },
];

const TOOL: &str = "/tmp/msrtool";

fn policy(more: &str) -> String {
    format!(
        "level = \"integrity\"\n[[exception]]\nname = \"vendor\"\nreasons = [\"dev-mem\", \"msr\"]\nexe = \"{TOOL}\"\n{more}"
    )
}

fn program(_: &Guest) -> Result<()> {
    lift_all()?;
    let tool = Tool::new(TOOL)?;
    apply(&policy(""))?;
    expect(&mut tool.opens_mem(), true, "the excepted program")?;
    expect(&mut opens("/bin/busybox", "/dev/mem"), false, "another program")?;
    expect(&mut opens(TOOL, "/sys/kernel/debug/sched/verbose"), false, "the program for another reason")?;
    let seen = watched()?;
    let use_of_it = seen.iter().find(|e| e["verdict"] == "excepted").context("no event of its use")?;
    ensure!(use_of_it["exception"] == "vendor" && use_of_it["reason"] == "dev-mem", "{use_of_it}");
    let status = stockade(&["status", "--json"])?.exits(0)?.json()?;
    ensure!(status["stockade"]["exceptions"][0]["name"] == "vendor", "{status}");
    let counted = status["stockade"]["counters"].as_array().into_iter().flatten();
    ensure!(counted.into_iter().any(|c| c["excepted"] == 1), "{status}");
    // The same policy applied again changes nothing.
    apply(&policy(""))?.says("Already in force")?;
    expect(&mut tool.opens_mem(), true, "the program once more")?;
    // A policy without the exception.
    apply("level = \"integrity\"")?;
    expect(&mut tool.opens_mem(), false, "the program without its exception")?;
    Ok(())
}

fn replaced(_: &Guest) -> Result<()> {
    lift_all()?;
    let tool = Tool::new(TOOL)?;
    apply(&policy(""))?;
    expect(&mut tool.opens_mem(), true, "the program")?;
    // Another file at the program's path.
    fs::copy("/bin/busybox", "/tmp/other")?;
    fs::rename("/tmp/other", TOOL)?;
    expect(&mut tool.opens_mem(), false, "another file under its name")?;
    apply(&policy(""))?;
    expect(&mut tool.opens_mem(), true, "the other file once the policy was applied again")?;
    // The same inode written again. Timestamps of file systems have a granularity of at most ten milliseconds, so the change time differs after this
    // sleep.
    sleep(Duration::from_millis(20));
    let same = fs::read("/bin/busybox")?;
    fs::write(TOOL, same)?;
    expect(&mut tool.opens_mem(), false, "the file written again")?;
    apply(&policy(""))?;
    expect(&mut tool.opens_mem(), true, "the written file once the policy was applied again")?;
    Ok(())
}

fn influenced(_: &Guest) -> Result<()> {
    lift_all()?;
    let tool = Tool::new(TOOL)?;
    apply(&policy(""))?;
    for variable in ["LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "GCONV_PATH", "GLIBC_TUNABLES"] {
        expect(tool.opens_mem().env(variable, "/tmp"), false, variable)?;
    }
    for variable in ["OPENSSL_CONF", "MODPROBE_OPTIONS", "PATHS", "LANGUAGE", "HOM"] {
        expect(tool.opens_mem().env(variable, "/tmp"), false, variable)?;
    }
    for variable in ["PATH", "LC_ALL", "_", "DBUS_SESSION_BUS_ADDRESS", "MEMORY_PRESSURE_WATCH"] {
        expect(tool.opens_mem().env(variable, "LD_PRELOAD=/tmp"), true, variable)?;
    }
    // The content of a long string is not searched for variables.
    let long = "LD_".repeat(2000);
    expect(tool.opens_mem().env("HOME", &long).env("LD_PRELOAD", "/tmp"), false, "behind a long variable")?;
    expect(tool.opens_mem().env("HOME", &long), true, "a long variable")?;
    // An argument is not taken for a variable.
    expect(
        Command::new(TOOL).arg0("busybox").args(["sh", "-c", ": < /dev/mem", "LD_PRELOAD=x"]),
        true,
        "an argument",
    )?;
    // More variables than the kernel side examines: the process gets no label.
    let mut many = tool.opens_mem();
    many.envs((0..20_000).map(|n| (format!("LC_{n}"), "x")));
    expect(&mut many, false, "too many variables to be looked at")?;

    // A program that is traced from its first instruction.
    let mut traced = tool.opens_mem();
    // SAFETY: the closure makes one async-signal-safe call, which takes numbers only.
    unsafe {
        traced.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    ensure!(!traced_through(traced)?, "a traced program got through");

    // A program whose /proc/PID/mem was opened for writing while it runs.
    let mut running = Command::new(TOOL);
    running.arg0("busybox").args(["sh", "-c", "echo; read line; : < /dev/mem"]);
    running.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for look in [false, true] {
        let mut child = running.spawn()?;
        BufReader::new(child.stdout.take().context("it was piped")?).read_line(&mut String::new())?;
        if look {
            drop(fs::OpenOptions::new().write(true).open(format!("/proc/{}/mem", child.id()))?);
        }
        drop(child.stdin.take());
        let status = child.wait()?;
        ensure!(status.success() != look, "memory open for writing: {look}, and it ended with {status}");
    }
    Ok(())
}

/// Runs a command that has called PTRACE_TRACEME, continues it after each stop, and reports whether it succeeded.
pub(in crate::scenarios) fn traced_through(mut command: Command) -> Result<bool> {
    let child = command.stderr(Stdio::null()).spawn()?;
    let pid = i32::try_from(child.id())?;
    loop {
        let mut status = 0;
        // SAFETY: the status lives through the call.
        ensure!(unsafe { libc::waitpid(pid, &raw mut status, 0) } == pid, "wait for the traced program");
        if libc::WIFEXITED(status) {
            return Ok(libc::WEXITSTATUS(status) == 0);
        }
        ensure!(libc::WIFSTOPPED(status), "the traced program was killed");
        // SAFETY: the child is stopped and traced by this process, and the arguments are numbers.
        unsafe { libc::ptrace(libc::PTRACE_CONT, pid, 0, 0) };
    }
}

fn children(_: &Guest) -> Result<()> {
    lift_all()?;
    let _tool = Tool::new(TOOL)?;
    let forked = || {
        let mut command = Command::new(TOOL);
        command.arg0("busybox").args(["sh", "-c", "( : < /dev/mem ) ; r=$?; exit $r"]);
        command
    };
    let by_thread = |mut command: Command| through(&mut command);
    apply(&policy(""))?;
    ensure!(!by_thread(forked())?, "a child got through without inheriting");
    apply(&policy("inherit = true\n"))?;
    ensure!(by_thread(forked())?, "a child did not inherit");
    // A program that the excepted program executes does not inherit.
    let mut other = Command::new(TOOL);
    other.arg0("busybox").args(["sh", "-c", "exec /bin/busybox dd if=/dev/mem of=/dev/null count=0"]);
    expect(&mut other, false, "a program executed by the excepted one")?;
    Ok(())
}

/// A process can make /proc/PID/exe show the excepted program, by PR_SET_MM_EXE_FILE; it gets no exception.
fn disguised(_: &Guest) -> Result<()> {
    lift_all()?;
    let _tool = Tool::new(TOOL)?;
    apply(&policy(""))?;
    // SAFETY: a scenario's process has one thread; the child makes system calls only.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: system calls on constants; the child leaves through _exit.
        unsafe {
            let file = libc::open(c"/tmp/msrtool".as_ptr(), libc::O_RDONLY);
            let set = libc::prctl(libc::PR_SET_MM, libc::PR_SET_MM_EXE_FILE, file, 0, 0);
            // While the old executable is mapped, PR_SET_MM_EXE_FILE fails with EBUSY; then the link does not change.
            let open = libc::open(c"/dev/mem".as_ptr(), libc::O_RDONLY);
            libc::_exit(if open >= 0 {
                1
            } else if set == 0 {
                0
            } else {
                2
            });
        }
    }
    let mut status = 0;
    // SAFETY: the status lives through the call; the child is this process's.
    ensure!(unsafe { libc::waitpid(pid, &raw mut status, 0) } == pid, "wait for the disguised process");
    ensure!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) != 1, "the disguised process got through");
    Ok(())
}

fn user(_: &Guest) -> Result<()> {
    lift_all()?;
    let tool = Tool::new(TOOL)?;
    apply(&policy("uid = 0\n"))?;
    expect(&mut tool.opens_mem(), true, "root")?;
    apply(&policy("uid = 1000\n"))?;
    expect(&mut tool.opens_mem(), false, "root, where user 1000 is excepted")?;
    Ok(())
}

fn expires(_: &Guest) -> Result<()> {
    lift_all()?;
    let tool = Tool::new(TOOL)?;
    let end = waiting::within(&[5, 20, 60], |seconds| {
        let end = jiff::Timestamp::now() + Duration::from_secs(seconds);
        apply(&policy(&format!("expires = {end}\n")))?;
        expect(&mut tool.opens_mem(), true, "before the end")
    })?;
    waiting::until("the exception's end", || Ok(!through(&mut tool.opens_mem())?))?;
    ensure!(Instant::now() >= end, "the exception ended before its time");
    Ok(())
}

fn before(_: &Guest) -> Result<()> {
    lift_all()?;
    let _tool = Tool::new(TOOL)?;
    let mut running = Command::new(TOOL);
    // `spawn` returns after the exec.
    let mut running = running.arg0("busybox").args(["sleep", "180"]).spawn()?;
    let told = apply(&policy(""));
    running.kill()?;
    running.wait()?;
    told?.says(&format!("process {} runs {TOOL} since before", running.id()))?;
    Ok(())
}

/// Programs that are executed while the policy in force names no program get no label.
fn meanwhile(_: &Guest) -> Result<()> {
    lift_all()?;
    let _tool = Tool::new(TOOL)?;
    apply(&policy(""))?;
    let mut running = Command::new(TOOL);
    running.arg0("busybox").args([
        "sh",
        "-c",
        "echo tool; read line; exec /bin/busybox sh -c 'echo other; read line; : < /dev/mem'",
    ]);
    let mut child = running.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut to = child.stdin.take().context("it was piped")?;
    let mut from = BufReader::new(child.stdout.take().context("it was piped")?);
    let mut said = String::new();
    from.read_line(&mut said)?;
    apply("level = \"integrity\"\n")?;
    to.write_all(b"\n")?;
    from.read_line(&mut said)?;
    apply(&policy(""))?;
    to.write_all(b"\n")?;
    let status = child.wait()?;
    ensure!(said == "tool\nother\n", "{said}");
    ensure!(!status.success(), "what the excepted program executed meanwhile got through");
    Ok(())
}

fn wrong(_: &Guest) -> Result<()> {
    lift_all()?;
    let tool = Tool::new(TOOL)?;
    for (text, words) in [
        ("level = \"integrty\"\n", "policy.toml:1"),
        ("level = \"integrity\"\nmoed = \"audit\"\n", "mode"),
        (
            &policy("digest = \"sha256:0000000000000000000000000000000000000000000000000000000000000000\"\n"),
            "content is another",
        ),
        (
            &policy(
                "digest = \"verity:sha256:0000000000000000000000000000000000000000000000000000000000000000\"\n",
            ),
            "fs-verity",
        ),
        ("[[exception]]\nname = \"x\"\nreasons = [\"msr\"]\nexe = \"/nowhere/at/all\"\n", "cannot be opened"),
        (
            "[[scope]]\nname = \"a\"\ncgroup = \"/p/x*\"\nlevel = \"integrity\"\n[[scope]]\nname = \"b\"\ncgroup = \"/p/*y\"\nlevel = \"integrity\"\n",
            "neither is part",
        ),
    ] {
        write(text)?;
        stockade(&["enforce"])?.exits(2)?.says(words)?;
        ensure!(!enforced()?, "something is enforced after: {words}");
    }
    // While the file is open for writing, its digest is not computed.
    let writer = fs::OpenOptions::new().write(true).open(TOOL)?;
    write(&policy("digest = \"sha256:0000000000000000000000000000000000000000000000000000000000000000\"\n"))?;
    stockade(&["enforce"])?.exits(2)?.says("open for writing")?;
    drop(writer);
    // A policy with a mistake leaves the policy in force.
    apply(&policy(""))?;
    write("level = \"none\"\nnonsense = 1\n")?;
    stockade(&["enforce"])?.exits(2)?.says("nonsense")?;
    write(&policy("digest = \"sha256:0000000000000000000000000000000000000000000000000000000000000000\"\n"))?;
    stockade(&["enforce"])?.exits(2)?;
    expect(&mut tool.opens_mem(), true, "the excepted program after a mistake")?;
    expect(&mut opens("/bin/busybox", "/dev/mem"), false, "another program after a mistake")?;
    // A policy file that other users may write is not applied.
    fs::set_permissions(super::POLICY, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
    let answer = stockade(&["enforce"])?;
    fs::set_permissions(super::POLICY, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    answer.exits(2)?;
    Ok(())
}

fn no_lsm(_: &Guest) -> Result<()> {
    lift_all()?;
    let _tool = Tool::new(TOOL)?;
    write(&policy(""))?;
    stockade(&["enforce"])?.exits(2)?.says("bpf is among the active security modules")?;
    ensure!(!enforced()?, "something is enforced");
    Ok(())
}
