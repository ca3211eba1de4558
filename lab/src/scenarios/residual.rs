//! Resources that were opened or loaded before lockdown and stay usable: `residual` finds each with its process and reason, and neither before it is
//! opened nor after it is closed.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{lift_all, waiting::until};
use crate::{
    guest::Guest,
    program::{run, stockade},
    scenario::{Boot, Depends, Scenario, Skip},
};
use left_open::{Children, KexecImage, Mapped, Mount, Node, TraceEvent, Unsigned};

pub(super) mod left_open;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "residue: nothing is found where nothing was opened",
        boot: Boot::Plain,
        depends: Depends::Flavour,
        run: nothing,
    },
    Scenario {
        name: "residue: without root nothing is claimed",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: not_root,
    },
    Scenario {
        name: "residue: an open /dev/mem is found whatever its path",
        boot: Boot::Plain,
        depends: Depends::NewestSeries,
        run: dev_mem,
    },
    Scenario {
        name: "residue: an open /dev/port is found",
        boot: Boot::Plain,
        depends: Depends::NewestSeries,
        run: dev_port,
    },
    Scenario {
        name: "residue: an open /dev/snapshot is found",
        boot: Boot::Plain,
        depends: Depends::NewestSeries,
        run: snapshot,
    },
    Scenario {
        name: "residue: a mapped /dev/mem is found",
        boot: Boot::Plain,
        depends: Depends::NewestSeries,
        run: dev_mem_mapped,
    },
    Scenario {
        name: "residue: an open kcore is found, also of an unmounted proc",
        boot: Boot::Plain,
        depends: Depends::NewestSeries,
        run: kcore,
    },
    Scenario {
        name: "residue: open files of debugfs are found if lockdown would refuse them",
        boot: Boot::Plain,
        depends: Depends::NewestSeries,
        run: debugfs,
    },
    Scenario {
        name: "residue: debugfs is known where it is not mounted",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: unmounted,
    },
    Scenario {
        name: "residue: an open file of tracefs is found",
        boot: Boot::Plain,
        depends: Depends::NewestSeries,
        run: tracefs,
    },
    Scenario {
        name: "residue: mapped registers of a PCI device are found",
        boot: Boot::Plain,
        depends: Depends::NewestSeries,
        run: bar,
    },
    Scenario {
        name: "residue: a kprobe set through tracefs is found",
        boot: Boot::Plain,
        depends: Depends::NewestSeries,
        run: kprobe,
    },
    Scenario {
        name: "residue: a uprobe is found, or said to be hidden",
        boot: Boot::Plain,
        depends: Depends::NewestSeries,
        run: uprobe,
    },
    Scenario {
        name: "residue: a kprobe of perf is found",
        boot: Boot::Plain,
        depends: Depends::Series,
        run: perf_kprobe,
    },
    Scenario {
        name: "residue: a kernel loaded for kexec is found",
        boot: Boot::Plain,
        depends: Depends::NewestSeries,
        run: kexec,
    },
    Scenario {
        name: "residue: a BPF program that reads kernel memory is found",
        boot: Boot::Plain,
        depends: Depends::Series,
        run: bpf_read,
    },
    Scenario {
        name: "residue: a BPF program that writes user memory is found",
        boot: Boot::Plain,
        depends: Depends::NewestSeries,
        run: bpf_write,
    },
    Scenario {
        name: "residue: threads with descriptors of their own are looked into",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: threads,
    },
    Scenario {
        name: "residue: processes that end while looked at do no harm",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: churn,
    },
    Scenario {
        name: "residue: one of 2000 processes is found",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: many,
    },
    // Last: an unsigned module taints the kernel until reboot.
    Scenario {
        name: "residue: an unsigned module is found, loaded and gone",
        boot: Boot::Plain,
        depends: Depends::NewestSeries,
        run: module,
    },
    Scenario {
        name: "residue: what native integrity lets through is told apart",
        boot: Boot::NativeIntegrity,
        depends: Depends::NewestSeries,
        run: native,
    },
    Scenario {
        name: "residue: native confidentiality from the start leaves nothing",
        boot: Boot::NativeConfidentiality,
        depends: Depends::NewestSeries,
        run: native_nothing,
    },
];

fn residual() -> Result<Value> {
    let answer = stockade(&["residual", "--json"])?;
    let report = answer.json()?;
    let found = report["found"].as_array().context("a list")?.len();
    let missed = report["not_looked_at"].as_array().context("a list")?.len();
    let wanted = match (found, missed) {
        (0, 0) => 0,
        (0, _) => 2,
        _ => 1,
    };
    ensure!(answer.code == wanted, "exit status {} with {found} found, {missed} missed", answer.code);
    Ok(report)
}

/// Returns the findings of this kind and reason. No other finding is allowed except a taint, which earlier scenarios cannot undo.
fn found(kind: &str, reason: &str) -> Result<Vec<Value>> {
    let report = residual()?;
    let all = report["found"].as_array().cloned().unwrap_or_default();
    ensure!(
        all.iter().all(|f| (f["kind"] == kind && f["reason"] == reason) || f["kind"] == "taint"),
        "more was found than was left open: {report:#}"
    );
    Ok(all.into_iter().filter(|f| f["kind"] == kind).collect())
}

fn none(kind: &str, reason: &str) -> Result<()> {
    let found = found(kind, reason)?;
    ensure!(found.is_empty(), "found where there is none: {found:#?}");
    Ok(())
}

/// Returns the finding of this kind and reason, of which there must be one.
fn one(kind: &str, reason: &str) -> Result<Value> {
    let mut found = found(kind, reason)?;
    ensure!(found.len() == 1, "not one but {}: {found:#?}", found.len());
    Ok(found.remove(0))
}

/// Enforces a level, requires that `enforce` reports one residue, and returns its finding.
fn left_after(level: &str, kind: &str, reason: &str) -> Result<Value> {
    stockade(&["enforce", level])?
        .exits(0)?
        .says("1 thing opened or loaded before goes on in spite of this: stockade residual")?;
    let found = one(kind, reason)?;
    ensure!(found["refused_now_by"] == "stockade", "{found:#}");
    stockade(&["residual"])?.exits(1)?.says("goes on in spite of what is in force: 1")?.says("to do:")?;
    Ok(found)
}

/// Requires that a finding names this process and its executable.
fn is_ours(found: &Value) -> Result<()> {
    let process = &found["process"];
    ensure!(process["pid"] == std::process::id(), "{found:#}");
    ensure!(process["exe"] == "/init", "{found:#}");
    ensure!(process["started_seconds_ago"].as_u64().is_some_and(|s| s < 60), "{found:#}");
    Ok(())
}

fn nothing(_: &Guest) -> Result<()> {
    lift_all()?;
    stockade(&["residual"])?.exits(0)?.says("Nothing was found.")?.says("ioperm")?;
    let report = residual()?;
    ensure!(report["processes"].as_u64() > Some(10), "{report:#}");
    // Neither Stockade's programs nor resources of the kernel are findings. Under confidentiality uprobes cannot be seen.
    let enforced = stockade(&["enforce", "integrity"])?.exits(0)?;
    ensure!(!enforced.out.contains("residual"), "{}", enforced.out);
    stockade(&["residual"])?.exits(0)?;
    stockade(&["enforce", "confidentiality"])?.exits(0)?;
    stockade(&["residual"])?
        .exits(2)?
        .says("Nothing was found in what could be looked at")?
        .says("tracefs")?;
    // `residual` does not try refused operations, so it causes no refusal.
    let status = stockade(&["status", "--json"])?.json()?;
    let counters = status["stockade"]["counters"].as_array().cloned().unwrap_or_default();
    ensure!(counters.iter().all(|c| c["reason"] != "tracefs" && c["reason"] != "debugfs"), "{counters:?}");
    Ok(())
}

fn not_root(_: &Guest) -> Result<()> {
    lift_all()?;
    let _mem = File::open("/dev/mem")?;
    let nobody = |args: &[&str]| run(Command::new("/bin/stockade").args(args).uid(65534).gid(65534));
    nobody(&["residual"])?.exits(2)?.says("run this as root")?.says("nothing was looked at")?;
    let answer = nobody(&["residual", "--json"])?.exits(2)?;
    ensure!(answer.json()?["error"].is_string() && !answer.out.contains("found"), "{}", answer.out);
    Ok(())
}

fn dev_mem(_: &Guest) -> Result<()> {
    lift_all()?;
    none("file", "dev-mem")?;
    let node = Node::new("/tmp/innocent", 1, 1)?;
    let file = File::open(&node.0)?;
    drop(node);
    let found = left_after("integrity", "file", "dev-mem")?;
    is_ours(&found)?;
    ensure!(found["what"] == "/dev/mem" && found["descriptors"][0]["access"] == "read", "{found:#}");
    drop(file);
    none("file", "dev-mem")
}

fn dev_port(_: &Guest) -> Result<()> {
    left_open("/dev/port", (1, 4), "dev-mem")
}

fn snapshot(_: &Guest) -> Result<()> {
    left_open("/dev/snapshot", (10, 231), "hibernation")
}

/// Plays an open device; skips the scenario if the kernel does not have it.
fn left_open(path: &str, (major, minor): (u32, u32), reason: &str) -> Result<()> {
    lift_all()?;
    none("file", reason)?;
    let node = Node::new("/tmp/innocent", major, minor)?;
    let file = match File::open(&node.0) {
        Ok(file) => file,
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENXIO | libc::ENODEV)) => {
            return Err(Skip(format!("this kernel has no {path}")).into());
        }
        Err(e) => return Err(e).with_context(|| format!("open {path}")),
    };
    drop(node);
    let found = left_after("integrity", "file", reason)?;
    is_ours(&found)?;
    ensure!(found["what"] == path && found["descriptors"][0]["access"] == "read", "{found:#}");
    drop(file);
    none("file", reason)
}

fn dev_mem_mapped(_: &Guest) -> Result<()> {
    lift_all()?;
    none("file", "dev-mem")?;
    // A page of the BIOS, which can be mapped also with CONFIG_STRICT_DEVMEM.
    let mapped = Mapped::page(Path::new("/dev/mem"), 0xf0000)?;
    let found = left_after("integrity", "file", "dev-mem")?;
    is_ours(&found)?;
    ensure!(found["mappings"].as_array().map(Vec::len) == Some(1), "{found:#}");
    ensure!(found["descriptors"].as_array().is_some_and(Vec::is_empty), "{found:#}");
    drop(mapped);
    none("file", "dev-mem")
}

fn kcore(_: &Guest) -> Result<()> {
    lift_all()?;
    none("file", "kcore")?;
    let file = File::open("/proc/kcore")?;
    let found = left_after("confidentiality", "file", "kcore")?;
    is_ours(&found)?;
    drop(file);
    lift_all()?;
    none("file", "kcore")?;
    let elsewhere = Mount::new("proc", "/tmp/elsewhere")?;
    let file = File::open("/tmp/elsewhere/kcore")?;
    drop(elsewhere);
    is_ours(&one("file", "kcore")?)?;
    drop(file);
    none("file", "kcore")
}

fn debugfs(_: &Guest) -> Result<()> {
    lift_all()?;
    let harmless = File::open("/sys/kernel/debug/kprobes/list")?;
    none("file", "debugfs")?;
    let file = File::open("/sys/kernel/debug/sched/verbose")?;
    let found = left_after("integrity", "file", "debugfs")?;
    is_ours(&found)?;
    ensure!(found["what"] == "/sys/kernel/debug/sched/verbose", "{found:#}");
    drop(file);
    none("file", "debugfs")?;
    drop(harmless);
    Ok(())
}

/// `residual` in a mount namespace without debugfs and tracefs, as in most containers and on hardened hosts.
fn unmounted(_: &Guest) -> Result<()> {
    lift_all()?;
    // SAFETY: the strings live through the calls; this process has one thread.
    let answer = unsafe {
        let private = libc::MS_REC | libc::MS_PRIVATE;
        libc::unshare(libc::CLONE_NEWNS)
            | libc::mount(std::ptr::null(), c"/".as_ptr(), std::ptr::null(), private, std::ptr::null())
            | libc::umount2(c"/sys/kernel/tracing".as_ptr(), libc::MNT_DETACH)
    };
    ensure!(answer == 0, "a namespace of one's own: {}", std::io::Error::last_os_error());
    let file = File::open("/sys/kernel/debug/sched/verbose")?;
    // SAFETY: the string lives through the call.
    let answer = unsafe { libc::umount2(c"/sys/kernel/debug".as_ptr(), libc::MNT_DETACH) };
    ensure!(answer == 0, "umount debugfs: {}", std::io::Error::last_os_error());
    is_ours(&one("file", "debugfs")?)?;
    drop(file);
    none("file", "debugfs")?;
    let answer = stockade(&["residual"])?.exits(0)?;
    ensure!(!Path::new("/sys/kernel/debug/sched").exists(), "looking mounted something: {}", answer.out);
    Ok(())
}

fn tracefs(_: &Guest) -> Result<()> {
    lift_all()?;
    none("file", "tracefs")?;
    let file = File::open("/sys/kernel/tracing/tracing_on")?;
    let found = left_after("confidentiality", "file", "tracefs")?;
    is_ours(&found)?;
    lift_all()?;
    // Integrity does not refuse the file, but it is listed.
    stockade(&["enforce", "integrity"])?.exits(0)?;
    let found = one("file", "tracefs")?;
    ensure!(found["refused_now_by"].is_null() && found["level"] == "confidentiality", "{found:#}");
    drop(file);
    none("file", "tracefs")
}

fn bar(_: &Guest) -> Result<()> {
    lift_all()?;
    none("pci-bar", "pci-access")?;
    let resource = left_open::edu_bar()?;
    // Lockdown refuses the mapping and not the open.
    let open = File::open(&resource)?;
    none("pci-bar", "pci-access")?;
    let mapped = Mapped::page(&resource, 0)?;
    let found = left_after("integrity", "pci-bar", "pci-access")?;
    is_ours(&found)?;
    ensure!(found["what"].as_str().is_some_and(|what| what.ends_with("/resource0")), "{found:#}");
    drop((mapped, open));
    none("pci-bar", "pci-access")
}

/// Reports whether a finding is a kprobe on vfs_fsync. With IBT the probe is at an offset, behind the ENDBR instruction.
fn is_on_vfs_fsync(found: &Value) -> bool {
    found["what"].as_str().is_some_and(|what| what.starts_with("kprobe on vfs_fsync"))
}

fn kprobe(_: &Guest) -> Result<()> {
    lift_all()?;
    none("kprobe", "kprobes")?;
    let event = TraceEvent::new("kprobe_events", "p:kprobes/residual vfs_fsync", "kprobes/residual")?;
    let found = one("kprobe", "kprobes")?;
    ensure!(is_on_vfs_fsync(&found), "{found:#}");
    ensure!(found["advice"].as_str().is_some_and(|a| a.contains("'-:kprobes/residual'")), "{found:#}");
    // Confidentiality refuses tracefs, but not the list of kprobes in debugfs.
    left_after("confidentiality", "kprobe", "kprobes")?;
    lift_all()?;
    drop(event);
    none("kprobe", "kprobes")
}

fn uprobe(_: &Guest) -> Result<()> {
    lift_all()?;
    none("uprobe", "tracefs")?;
    let event =
        TraceEvent::new("uprobe_events", "p:uprobes/residual /bin/busybox:0x1000", "uprobes/residual")?;
    stockade(&["enforce", "integrity"])?.exits(0)?;
    let found = one("uprobe", "tracefs")?;
    ensure!(found["what"].as_str().is_some_and(|w| w.contains("/bin/busybox:0x")), "{found:#}");
    ensure!(found["details"][0] == "trace event uprobes/residual", "{found:#}");
    stockade(&["enforce", "confidentiality"])?.exits(0)?;
    stockade(&["residual"])?
        .exits(2)?
        .says("uprobes and other probes set through tracefs: cannot be seen while tracefs is refused")?;
    lift_all()?;
    drop(event);
    none("uprobe", "tracefs")
}

fn perf_kprobe(_: &Guest) -> Result<()> {
    lift_all()?;
    none("kprobe", "kprobes")?;
    let event = left_open::perf_kprobe()?;
    let found = left_after("confidentiality", "kprobe", "kprobes")?;
    ensure!(is_on_vfs_fsync(&found), "{found:#}");
    let pid = format!("({})", std::process::id());
    let named =
        |d: &Value| d.as_str().is_some_and(|d| d.contains("perf events are open in") && d.contains(&pid));
    ensure!(found["details"].as_array().is_some_and(|d| d.iter().any(named)), "{found:#}");
    drop(event);
    none("kprobe", "kprobes")
}

fn kexec(_: &Guest) -> Result<()> {
    lift_all()?;
    none("kexec-image", "kexec")?;
    let image = KexecImage::load()?;
    let found = left_after("integrity", "kexec-image", "kexec")?;
    ensure!(found["advice"].as_str().is_some_and(|a| a.contains("kexec -s -u")), "{found:#}");
    // The advised command works while the level is in force.
    KexecImage::unload().context("unload as advised")?;
    none("kexec-image", "kexec")?;
    drop(image);
    Ok(())
}

fn bpf_read(_: &Guest) -> Result<()> {
    lift_all()?;
    none("bpf-program", "bpf-read-kernel")?;
    let program = left_open::program(b"residual_read\0\0\0", 113)?;
    let found = left_after("confidentiality", "bpf-program", "bpf-read-kernel")?;
    let what = found["what"].as_str().unwrap_or_default();
    ensure!(what.contains("residual_read") && what.ends_with("(kprobe)"), "{found:#}");
    ensure!(found["loaded_seconds_ago"].as_u64().is_some_and(|s| s < 60), "{found:#}");
    ensure!(found["details"][0] == "calls bpf_probe_read_kernel", "{found:#}");
    let ours = format!("kill {}", std::process::id());
    ensure!(found["advice"].as_str().is_some_and(|a| a.contains(&ours)), "{found:#}");
    left_open::pin(&program, "/sys/fs/bpf/residual")?;
    drop(program);
    let found = one("bpf-program", "bpf-read-kernel")?;
    ensure!(found["advice"] == "remove its pins: rm /sys/fs/bpf/residual", "{found:#}");
    fs::remove_file("/sys/fs/bpf/residual")?;
    soon("bpf-program", "bpf-read-kernel")?;
    // A program with another helper, bpf_ktime_get_ns, is no residue.
    let harmless = left_open::program(b"residual_clock\0\0", 5)?;
    none("bpf-program", "bpf-read-kernel")?;
    drop(harmless);
    Ok(())
}

fn bpf_write(_: &Guest) -> Result<()> {
    lift_all()?;
    none("bpf-program", "bpf-write-user")?;
    let program = left_open::program(b"residual_write\0\0", 36)?;
    let found = left_after("integrity", "bpf-program", "bpf-write-user")?;
    ensure!(found["details"][0] == "calls bpf_probe_write_user", "{found:#}");
    drop(program);
    soon("bpf-program", "bpf-write-user")
}

/// Waits until there is no finding of this kind and reason: the kernel frees a program some time after its last reference is gone.
fn soon(kind: &str, reason: &str) -> Result<()> {
    until("what nobody holds to be gone", || Ok(none(kind, reason).is_ok())).or_else(|_| none(kind, reason))
}

fn threads(_: &Guest) -> Result<()> {
    lift_all()?;
    none("file", "dev-mem")?;
    let mut children = Children::default();
    // A thread with a file descriptor table of its own.
    let pid = children.start(|| {
        let (done, ready) = std::sync::mpsc::channel();
        std::thread::spawn(move || -> Result<()> {
            // SAFETY: unshare takes flags only, and CLONE_FILES changes this thread alone.
            ensure!(unsafe { libc::unshare(libc::CLONE_FILES) } == 0, "unshare");
            let _mem = File::open("/dev/mem")?;
            done.send(())?;
            loop {
                std::thread::park();
            }
        });
        Ok(ready.recv()?)
    })?;
    let found = one("file", "dev-mem")?;
    ensure!(
        found["process"]["pid"] == pid && found["process"]["thread"].as_u64() > Some(pid.into()),
        "{found:#}"
    );
    drop(children);
    none("file", "dev-mem")?;
    // A process whose main thread has ended: /proc/PID shows neither file descriptors nor mappings.
    let mut children = Children::default();
    let pid = children.start(|| {
        let (done, ready) = std::sync::mpsc::channel();
        std::thread::spawn(move || -> Result<()> {
            let _mem = File::open("/dev/mem")?;
            let _mapped = Mapped::page(Path::new("/dev/mem"), 0xf0000)?;
            done.send(())?;
            loop {
                std::thread::park();
            }
        });
        ready.recv()?;
        left_open::end_this_thread_on_signal();
        Ok(())
    })?;
    end_first_thread(pid)?;
    let found = one("file", "dev-mem")?;
    ensure!(found["process"]["pid"] == pid, "{found:#}");
    ensure!(found["descriptors"].as_array().is_some_and(|d| !d.is_empty()), "{found:#}");
    ensure!(found["mappings"].as_array().is_some_and(|m| !m.is_empty()), "{found:#}");
    drop(children);
    none("file", "dev-mem")
}

/// Ends the main thread of a child by a signal, and waits until it is a zombie.
fn end_first_thread(pid: u32) -> Result<()> {
    // SAFETY: tgkill takes numbers only; the signal goes to the main thread of a child that was not reaped.
    unsafe { libc::syscall(libc::SYS_tgkill, pid, pid, libc::SIGUSR1) };
    until("the first thread's end", || Ok(fs::read_to_string(format!("/proc/{pid}/stat"))?.contains(") Z ")))
}

fn churn(_: &Guest) -> Result<()> {
    lift_all()?;
    let mut children = Children::default();
    for _ in 0..3 {
        children.start(|| {
            std::thread::spawn(|| {
                loop {
                    let _ = Command::new("/bin/busybox").arg("true").status();
                }
            });
            Ok(())
        })?;
    }
    for _ in 0..10 {
        let report = residual()?;
        ensure!(report["not_looked_at"].as_array().is_some_and(Vec::is_empty), "{report:#}");
        ensure!(report["found"].as_array().is_some_and(Vec::is_empty), "{report:#}");
    }
    Ok(())
}

/// 2000 processes. The promise is 300 ms on a real machine; an emulated machine on a busy host may take many times as long.
fn many(_: &Guest) -> Result<()> {
    lift_all()?;
    let mut children = Children::default();
    for _ in 0..1999 {
        children.start(|| Ok(()))?;
    }
    let pid = children.start(|| {
        std::mem::forget(File::open("/dev/mem")?);
        Ok(())
    })?;
    let begin = Instant::now();
    let found = one("file", "dev-mem")?;
    let took = begin.elapsed();
    ensure!(found["process"]["pid"] == pid, "{found:#}");
    let begin = Instant::now();
    let answer = stockade(&["enforce", "integrity"])?.exits(0)?;
    ensure!(answer.out.contains("stockade residual"), "{}", answer.out);
    ensure!(
        took < Duration::from_secs(10),
        "a look at 2000 processes took {took:?}, enforce {:?}",
        begin.elapsed()
    );
    Ok(())
}

fn module(_: &Guest) -> Result<()> {
    lift_all()?;
    none("module", "module-signature")?;
    let unsigned = Unsigned::msr()?;
    let found = left_after("integrity", "module", "module-signature")?;
    ensure!(found["what"] == "module msr", "{found:#}");
    ensure!(found["details"][0] == "unsigned (E)", "{found:#}");
    lift_all()?;
    drop(unsigned);
    none("module", "module-signature")?;
    let gone = one("taint", "module-signature")?;
    ensure!(gone["what"].as_str().is_some_and(|w| w.contains("loaded and is gone")), "{gone:#}");
    Ok(())
}

fn native(_: &Guest) -> Result<()> {
    lift_all()?;
    let file = File::open("/proc/kcore")?;
    let found = one("file", "kcore")?;
    ensure!(found["refused_now_by"].is_null() && found["level"] == "confidentiality", "{found:#}");
    stockade(&["residual"])?.exits(1)?.says("would go on under confidentiality: 1")?;
    left_after("confidentiality", "file", "kcore")?;
    drop(file);
    none("file", "kcore")?;
    lift_all()
}

fn native_nothing(_: &Guest) -> Result<()> {
    stockade(&["residual"])?
        .exits(0)?
        .says("confidentiality by the kernel's own lockdown")?
        .says("Nothing was found.")?;
    Ok(())
}
