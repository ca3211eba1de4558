//! `stockade assess` leaves nothing behind, also when it is killed.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
    process::{Command, Stdio},
    ptr,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{
    boots::Boot,
    guest::Guest,
    program::{run, stockade},
    scenario::{Depends, Scenario},
};

pub(in crate::scenarios) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "assess leaves nothing behind",
        boot: Boot::AssessedTwice,
        depends: Depends::NewestSeries,
        run: nothing_left,
    },
    Scenario {
        name: "assess leaves nothing behind when it is killed",
        boot: Boot::AssessedTwice,
        depends: Depends::NewestSeries,
        run: killed,
    },
];

/// A snapshot of the system: the state of each file, module and process, by its name.
type Moment = BTreeMap<String, String>;

/// Files below /proc/sys that are counters or that the kernel changes by itself.
const RESTLESS: [&str; 9] = [
    "/proc/sys/fs/dentry-state",
    "/proc/sys/fs/file-nr",
    "/proc/sys/fs/inode-nr",
    "/proc/sys/fs/inode-state",
    "/proc/sys/fs/quota/",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/kernel/pty/nr",
    "/proc/sys/kernel/random/",
    "/proc/sys/net/netfilter/nf_conntrack_count",
];

/// Modules of the random number generator that the kernel's ciphers share.
const KEPT_BY_THE_KERNEL: [&str; 4] = ["drbg", "jitterentropy_rng", "sha512_generic", "sha512"];

/// Files that list objects of the kernel.
const LISTS: [&str; 10] = [
    "/proc/keys",
    "/proc/swaps",
    "/proc/self/mounts",
    "/proc/sysvipc/msg",
    "/proc/sysvipc/sem",
    "/proc/sysvipc/shm",
    "/proc/locks",
    "/sys/kernel/security/ima/runtime_measurements_count",
    "/sys/kernel/security/lockdown",
    "/sys/kernel/kexec_loaded",
];

fn now() -> Result<Moment> {
    let mut moment = Moment::new();
    settings(Path::new("/proc/sys"), &mut moment);
    for file in LISTS {
        let text = fs::read_to_string(file).unwrap_or_else(|error| error.to_string());
        moment.insert(file.into(), text);
    }
    let keys = fs::read_to_string("/proc/keys").unwrap_or_default();
    // The reference count and the expiry of a key change with every process, so they are left out.
    let named = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        [words.first().copied().unwrap_or_default(), &words.get(7..).unwrap_or_default().join(" ")].join(" ")
    };
    moment.insert("/proc/keys".into(), keys.lines().map(named).collect::<Vec<_>>().join("\n"));
    let modules = fs::read_to_string("/proc/modules").context("reading /proc/modules")?;
    for module in modules.lines() {
        let words: Vec<&str> = module.split_whitespace().collect();
        // A door of lockdown creates the kernel's first IPsec state. The kernel then takes a reference to a random number generator and keeps it, so
        // the reference counts of its modules grow. No module is loaded for it.
        let kept = KEPT_BY_THE_KERNEL.contains(&words[0]);
        let facts = if kept { String::new() } else { words[1..].join(" ") };
        moment.insert(format!("module {}", words[0]), facts);
    }
    for folder in
        ["/tmp", "/run", "/dev", "/sys/fs/cgroup", "/sys/fs/bpf", "/sys/block", "/sys/kernel/iommu_groups"]
    {
        files(Path::new(folder), &mut moment);
    }
    for (pid, name) in processes()? {
        moment.insert(format!("process {pid}"), name);
    }
    Ok(moment)
}

fn settings(folder: &Path, moment: &mut Moment) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            settings(&path, moment);
            continue;
        }
        let name = path.display().to_string();
        if !RESTLESS.iter().any(|restless| name.starts_with(restless))
            && let Ok(text) = fs::read_to_string(&path)
        {
            moment.insert(name, text);
        }
    }
}

/// Adds the names, types, owners and sizes of the files below a folder.
fn files(folder: &Path, moment: &mut Moment) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(facts) = fs::symlink_metadata(&path) else { continue };
        let is_device = facts.file_type().is_char_device() || facts.file_type().is_block_device();
        let size = if facts.is_file() && !path.starts_with("/sys") { facts.len() } else { 0 };
        moment.insert(
            path.display().to_string(),
            format!("mode {:o} owner {} device {is_device} size {size}", facts.mode(), facts.uid()),
        );
        if facts.is_dir() {
            files(&path, moment);
        }
    }
}

/// Returns the processes and kernel threads, without kworkers, which come and go.
fn processes() -> Result<BTreeMap<u32, String>> {
    let mut processes = BTreeMap::new();
    for entry in fs::read_dir("/proc").context("listing /proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default().trim().to_owned();
        if !name.starts_with("kworker") {
            processes.insert(pid, name);
        }
    }
    Ok(processes)
}

fn demand_the_same(before: &Moment, after: &Moment) -> Result<()> {
    let names = before.keys().chain(after.keys().filter(|name| !before.contains_key(*name)));
    let differs: Vec<String> = names
        .filter(|name| before.get(*name) != after.get(*name))
        .map(|name| format!("{name}: {:?} → {:?}", before.get(name), after.get(name)))
        .collect();
    ensure!(differs.is_empty(), "what differs:\n{}", differs.join("\n"));
    Ok(())
}

/// Returns the kernel log since the last call.
fn log() -> Result<String> {
    Ok(run(Command::new("/bin/busybox").args(["dmesg", "-c"]))?.out)
}

fn nothing_left(_: &Guest) -> Result<()> {
    adopt_orphans()?;
    log()?;
    let before = now()?;
    for arguments in [&["assess", "--json", "--quick"][..], &["assess", "--json"]] {
        let answer = stockade(arguments)?;
        ensure!(matches!(answer.code, 0 | 1), "{} ended with {}: {}", answer.line, answer.code, answer.err);
        settled(&before)?;
    }
    let log = log()?;
    let bad = log.lines().find(|line| line.contains("segfault") || line.contains("traps:"));
    ensure!(bad.is_none(), "the kernel's log says that a program crashed: {bad:?}");
    Ok(())
}

/// Makes this process the reaper of orphans, as PID 1 of a machine is: PID 1 of the guest does not reap them.
fn adopt_orphans() -> Result<()> {
    // SAFETY: this prctl takes numbers only.
    let done = unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
    ensure!(done == 0, "PR_SET_CHILD_SUBREAPER: {}", io::Error::last_os_error());
    Ok(())
}

/// Reaps orphans: until a process is reaped, the kernel keeps its resources, such as keys.
fn bury_orphans() {
    // SAFETY: waitpid takes a null pointer when no status is wanted; every child that the scenario waits for itself has been reaped.
    while unsafe { libc::waitpid(-1, ptr::null_mut(), libc::WNOHANG) } > 0 {}
}

/// Requires that the system returns to the snapshot within ten seconds. A child that is killed in a system call ends only when the call returns.
fn settled(before: &Moment) -> Result<()> {
    let begin = Instant::now();
    loop {
        bury_orphans();
        let same = demand_the_same(before, &now()?);
        if same.is_ok() || begin.elapsed() > Duration::from_secs(10) {
            return same;
        }
        sleep(Duration::from_millis(50));
    }
}

fn killed(_: &Guest) -> Result<()> {
    adopt_orphans()?;
    let before = now()?;
    // A whole run takes about two seconds here, five with measurements.
    for (delay, measured) in [
        (20, false),
        (150, false),
        (400, false),
        (700, false),
        (1000, false),
        (1300, false),
        (1700, true),
        (2500, true),
    ] {
        let mut command = Command::new("/bin/stockade");
        command.args(["assess", "--json"]).args((!measured).then_some("--quick"));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        sleep(Duration::from_millis(delay));
        child.kill()?;
        child.wait()?;
        settled(&before).with_context(|| format!("killed after {delay} ms"))?;
    }
    Ok(())
}
