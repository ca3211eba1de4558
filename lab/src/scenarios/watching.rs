//! The events that `watch` shows, and its lines in the kernel log.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{lift_all, waiting::until};
use crate::{
    guest::Guest,
    program::{run, stockade},
    scenario::{Boot, Depends, Scenario},
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "watch says who, where and why", boot: Boot::Plain, depends: Depends::Series, run: who },
    Scenario {
        name: "the kernel's own line reaches the kernel log",
        boot: Boot::Plain,
        depends: Depends::NewestSeries,
        run: kernel_log,
    },
    Scenario {
        name: "a second reader is turned away",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: one_reader,
    },
    Scenario {
        name: "watch does not read back what it wrote",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: own_lines,
    },
    Scenario {
        name: "watch follows enforcement that is started anew",
        boot: Boot::Plain,
        depends: Depends::NewestSeries,
        run: anew,
    },
    Scenario {
        name: "watch waits for enforcement that is half started",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: half_started,
    },
    Scenario {
        name: "watch shows what native lockdown refuses, each once",
        boot: Boot::NativeIntegrity,
        depends: Depends::NewestSeries,
        run: native,
    },
];

pub(super) fn events(text: &str) -> Result<Vec<Value>> {
    text.lines().map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))).collect()
}

fn who(_: &Guest) -> Result<()> {
    lift_all()?;
    stockade(&["enforce", "integrity"])?.exits(0)?;
    let mut child = Command::new("/bin/busybox")
        .args(["sh", "-c", "exec 2>/dev/null; true < /dev/mem; echo asked; sleep 180"])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = String::new();
    BufReader::new(child.stdout.take().context("it was piped")?).read_line(&mut said)?;
    ensure!(said == "asked\n", "the shell said {said:?}");
    let seen = stockade(&["watch", "--no-follow", "--json"])?.exits(0);
    let pid = child.id();
    child.kill()?;
    child.wait()?;
    let seen = events(&seen?.out)?;
    let event = seen
        .iter()
        .find(|e| e["reason"] == "dev-mem")
        .with_context(|| format!("no event for dev-mem in {seen:?}"))?;
    ensure!(event["verdict"] == "refused" && event["uid"] == 0, "{event}");
    ensure!(event["kernel_string"] == "/dev/mem,kmem,port", "{event}");
    let inode = {
        use std::os::unix::fs::MetadataExt;
        fs::metadata("/bin/busybox")?.ino()
    };
    ensure!(event["exe_inode"] == inode, "busybox has inode {inode}: {event}");
    ensure!(event["tgid"] == pid, "the shell's pid is {pid}: {event}");
    ensure!(event["exe_device"].as_str().is_some_and(|d| d.contains(':')), "{event}");
    ensure!(event["boot_ns"].as_u64() > Some(0) && event["cgroup_id"].as_u64() > Some(0), "{event}");
    Ok(())
}

fn kernel_log(_: &Guest) -> Result<()> {
    lift_all()?;
    let line = "Lockdown: dd: /dev/mem,kmem,port is restricted; see man kernel_lockdown.7";
    run(Command::new("/bin/busybox").args(["dmesg", "-c"]))?;
    stockade(&["enforce", "integrity"])?.exits(0)?;
    for _ in 0..30 {
        run(Command::new("/bin/dd").args(["if=/dev/mem", "of=/dev/null", "count=1"]))?;
    }
    stockade(&["watch", "--no-follow", "--kernel-log"])?.exits(0)?.says("refused /dev/mem,kmem,port: dd")?;
    let log = run(Command::new("/bin/busybox").args(["dmesg"]))?;
    let lines = log.out.matches(line).count();
    ensure!((1..=10).contains(&lines), "{lines} lines, not 1 to 10: {}", log.out);
    Ok(())
}

/// Returns the events of dd that `watch` shows now.
pub(super) fn of_dd() -> Result<Vec<Value>> {
    let seen = events(&stockade(&["watch", "--no-follow", "--json"])?.exits(0)?.out)?;
    Ok(seen.into_iter().filter(|e| e["comm"] == "dd").collect())
}

pub(super) fn dd(path: &str) -> Result<()> {
    run(Command::new("/bin/dd").args([&format!("if={path}"), "of=/dev/null", "bs=1", "count=1"])).map(drop)
}

fn own_lines(_: &Guest) -> Result<()> {
    lift_all()?;
    stockade(&["enforce", "integrity"])?.exits(0)?;
    dd("/dev/mem")?;
    stockade(&["watch", "--no-follow", "--kernel-log"])?.exits(0)?.says("refused /dev/mem,kmem,port: dd")?;
    ensure!(run(Command::new("/bin/busybox").args(["dmesg"]))?.out.contains("Lockdown: dd: /dev/mem"));
    let again = of_dd()?;
    ensure!(again.is_empty(), "its own line came back: {again:?}");
    Ok(())
}

/// A background `watch --json` with its output in a file.
pub(super) struct Watching {
    child: Child,
    into: PathBuf,
}

impl Watching {
    /// Starts `watch`, and waits until it has opened the kernel log, which it does after the ring buffer.
    pub(super) fn start(into: &str) -> Result<Self> {
        let out = fs::File::create(into)?;
        let mut command = Command::new("/bin/stockade");
        let child = command.args(["watch", "--json"]).stdin(Stdio::null()).stdout(out).spawn()?;
        let mut watching = Self { child, into: into.into() };
        until("somebody to read the events", || {
            watching.lives()?;
            let open = fs::read_dir(format!("/proc/{}/fd", watching.child.id()))?;
            Ok(open
                .flatten()
                .any(|fd| fs::read_link(fd.path()).is_ok_and(|file| file == Path::new("/dev/kmsg"))))
        })?;
        Ok(watching)
    }

    fn lives(&mut self) -> Result<()> {
        let ended = self.child.try_wait()?;
        ensure!(ended.is_none(), "`stockade watch` ended: {ended:?}");
        Ok(())
    }

    /// Returns the events on the complete lines that `watch` has written.
    pub(super) fn seen(&mut self) -> Result<Vec<Value>> {
        self.lives()?;
        let text = fs::read_to_string(&self.into)?;
        events(&text[..text.rfind('\n').map_or(0, |end| end + 1)])
    }

    /// Waits until there is an event of a program with this name, and returns the events.
    pub(super) fn until(&mut self, comm: &str) -> Result<Vec<Value>> {
        let mut seen = Vec::new();
        let came = until(comm, || {
            seen = self.seen()?;
            Ok(seen.iter().any(|e| e["comm"] == comm))
        });
        came.with_context(|| format!("{seen:?}"))?;
        Ok(seen)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn anew(_: &Guest) -> Result<()> {
    lift_all()?;
    stockade(&["enforce", "integrity"])?.exits(0)?;
    let mut watch = Watching::start("/tmp/anew")?;
    stockade(&["lift"])?.exits(0)?;
    stockade(&["enforce", "integrity"])?.exits(0)?;
    one_of_dd(&mut watch)
}

/// Requires that a request of dd has one event. The event of a later request shows that no other is pending.
pub(super) fn one_of_dd(watch: &mut Watching) -> Result<()> {
    dd("/dev/mem")?;
    watch.until("dd")?;
    run(Command::new("/bin/busybox").args(["head", "-c1", "/dev/mem"]))?.exits(1)?;
    let seen = watch.until("busybox")?;
    let of_dd = seen.iter().filter(|e| e["comm"] == "dd").count();
    ensure!(of_dd == 1, "{of_dd} events of dd: {seen:?}");
    Ok(())
}

/// `watch` looks for enforcement once a second, also while `enforce` has loaded the programs and not pinned them, which takes long on a busy
/// machine.
fn half_started(_: &Guest) -> Result<()> {
    lift_all()?;
    stockade(&["enforce", "integrity"])?.exits(0)?;
    let mut watch = Watching::start("/tmp/half-started")?;
    for _ in 0..20 {
        stockade(&["lift"])?.exits(0)?;
        let mut enforce =
            Command::new("/bin/stockade").args(["enforce", "integrity"]).stdout(Stdio::null()).spawn()?;
        let halted = halt_unpinned(&mut enforce)?;
        if halted {
            // Longer than the interval between two looks.
            sleep(Duration::from_secs(3));
            signal(&enforce, libc::SIGCONT)?;
        }
        let status = enforce.wait()?;
        ensure!(status.success(), "enforce ended with {status}");
        if halted {
            return one_of_dd(&mut watch);
        }
    }
    bail!("enforce could not be halted between loading and pinning")
}

/// Stops `enforce` while it holds a link that is not pinned, and reports whether that succeeded.
fn halt_unpinned(enforce: &mut Child) -> Result<bool> {
    while enforce.try_wait()?.is_none() {
        let open = fs::read_dir(format!("/proc/{}/fd", enforce.id()))?;
        let is_link = |file: PathBuf| file.to_string_lossy().contains("bpf_link");
        if open.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(is_link)) {
            signal(enforce, libc::SIGSTOP)?;
            let pinned = Path::new("/sys/fs/bpf/stockade/link").exists();
            if pinned {
                signal(enforce, libc::SIGCONT)?;
            }
            return Ok(!pinned);
        }
        sleep(Duration::from_millis(1));
    }
    Ok(false)
}

fn signal(child: &Child, number: i32) -> Result<()> {
    // SAFETY: kill takes numbers only; the child was not reaped, so its process id is not reused.
    let answer = unsafe { libc::kill(i32::try_from(child.id())?, number) };
    ensure!(answer == 0, "signal {number}: {}", std::io::Error::last_os_error());
    Ok(())
}

fn native(_: &Guest) -> Result<()> {
    lift_all()?;
    // The kernel writes at most ten lockdown lines in five seconds.
    sleep(Duration::from_secs(6));
    dd("/dev/mem")?;
    let alone = of_dd()?;
    ensure!(
        matches!(&alone[..], [e] if e["type"] == "native" && e["reason"] == "dev-mem" && e["verdict"] == "refused"),
        "{alone:?}"
    );
    stockade(&["enforce", "confidentiality"])?.exits(0)?;
    dd("/dev/mem")?;
    dd("/proc/kcore")?;
    dd("/dev/mem")?;
    // The log still has the first line. The clocks of log and events differ, so the order is not checked.
    let mut told: Vec<_> =
        of_dd()?.iter().map(|e| (e["type"].to_string(), e["reason"].to_string())).collect();
    told.sort();
    let quoted = |kind: &str, reason: &str| (format!("{kind:?}"), format!("{reason:?}"));
    let native = quoted("native", "dev-mem");
    ensure!(told == [quoted("event", "kcore"), native.clone(), native.clone(), native], "{told:?}");
    let text = stockade(&["watch", "--no-follow"])?.exits(0)?;
    text.says("refused by native lockdown /dev/mem,kmem,port: dd; why: stockade explain dev-mem")?;
    Ok(())
}

fn one_reader(_: &Guest) -> Result<()> {
    lift_all()?;
    stockade(&["watch", "--no-follow"])?.exits(2)?.says("nothing is enforced")?;
    stockade(&["enforce", "integrity"])?.exits(0)?;
    let _first = Watching::start("/tmp/first")?;
    stockade(&["watch", "--no-follow"])?.exits(2)?.says("another `stockade watch`")?;
    Ok(())
}
