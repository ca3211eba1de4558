//! What `watch` sees, what it writes to the kernel log, and a storm.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::lift_all;
use crate::{
    guest::Guest,
    program::{run, stockade},
    scenario::{Boot, Scenario},
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "watch says who, where and why", boot: Boot::Plain, run: who },
    Scenario { name: "the kernel's own line reaches the kernel log", boot: Boot::Plain, run: kernel_log },
    Scenario { name: "a second reader is turned away", boot: Boot::Plain, run: one_reader },
    Scenario { name: "watch does not read back what it wrote", boot: Boot::Plain, run: own_lines },
    Scenario { name: "watch follows enforcement that is started anew", boot: Boot::Plain, run: anew },
    Scenario {
        name: "watch shows what native lockdown refuses, each once",
        boot: Boot::NativeIntegrity,
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
        .args(["sh", "-c", "exec 2>/dev/null; : < /dev/mem; sleep 60"])
        .spawn()?;
    std::thread::sleep(Duration::from_millis(300));
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

/// What dd did, as watch shows it.
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

/// Waits until this process reads the events: it then holds the readers' lock.
fn until_it_watches(watch: &Child) -> Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(20) {
        let open = fs::read_dir(format!("/proc/{}/fd", watch.id()))?;
        let reads = open.flatten().any(|fd| {
            fs::read_link(fd.path()).is_ok_and(|file| file == Path::new("/run/stockade-watch.lock"))
        });
        std::thread::sleep(Duration::from_millis(300));
        if reads {
            return Ok(());
        }
    }
    anyhow::bail!("nobody reads the events")
}

fn anew(_: &Guest) -> Result<()> {
    lift_all()?;
    stockade(&["enforce", "integrity"])?.exits(0)?;
    let mut watch = follow("/tmp/anew")?;
    until_it_watches(&watch)?;
    stockade(&["lift"])?.exits(0)?;
    stockade(&["enforce", "integrity"])?.exits(0)?;
    std::thread::sleep(Duration::from_millis(2500));
    dd("/dev/mem")?;
    std::thread::sleep(Duration::from_millis(500));
    watch.kill()?;
    watch.wait()?;
    let seen = events(&fs::read_to_string("/tmp/anew")?)?;
    let of_dd = seen.iter().filter(|e| e["comm"] == "dd").count();
    ensure!(of_dd == 1, "{of_dd} events of dd: {seen:?}");
    Ok(())
}

fn native(_: &Guest) -> Result<()> {
    lift_all()?;
    // The kernel writes at most ten lines in five seconds.
    std::thread::sleep(Duration::from_secs(6));
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
    // The log still has the first one. Its clock runs apart from that of events, so order says nothing.
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

pub(super) fn follow(into: &str) -> Result<Child> {
    let out = fs::File::create(into)?;
    let child =
        Command::new("/bin/stockade").args(["watch", "--json"]).stdin(Stdio::null()).stdout(out).spawn()?;
    Ok(child)
}

fn one_reader(_: &Guest) -> Result<()> {
    lift_all()?;
    stockade(&["watch", "--no-follow"])?.exits(2)?.says("nothing is enforced")?;
    stockade(&["enforce", "integrity"])?.exits(0)?;
    let mut first = follow("/tmp/first")?;
    std::thread::sleep(Duration::from_millis(500));
    let second =
        stockade(&["watch", "--no-follow"])?.exits(2).and_then(|a| a.says("another `stockade watch`"));
    first.kill()?;
    first.wait()?;
    second?;
    Ok(())
}
