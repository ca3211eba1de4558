//! Kernel security settings that a policy holds, against every writer, from every mount and namespace, in every spelling of the value.

use std::{
    ffi::CString,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::{fs::FileExt, process::CommandExt},
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use super::{Cgroup, apply, lift_all, watched};
use crate::{
    guest::Guest,
    program::{run, stockade},
    scenario::{Boot, Depends, Scenario},
};

mod attachment;
mod values;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "a frozen setting keeps its value whoever writes",
        boot: Boot::Plain,
        depends: Depends::Series,
        run: frozen,
    },
    Scenario {
        name: "a ratchet on a setting goes one way",
        boot: Boot::Plain,
        depends: Depends::Series,
        run: values::ratchets,
    },
    Scenario {
        name: "odd spellings do not change a setting that is held",
        boot: Boot::Plain,
        depends: Depends::NewestSeries,
        run: values::spellings,
    },
    Scenario {
        name: "a frozen setting survives any bytes",
        boot: Boot::Plain,
        depends: Depends::NewestSeries,
        run: values::any_bytes,
    },
    Scenario {
        name: "strings and lists of numbers can be frozen",
        boot: Boot::Plain,
        depends: Depends::Series,
        run: values::texts,
    },
    Scenario {
        name: "user namespaces have settings of their own that are held",
        boot: Boot::Plain,
        depends: Depends::NewestSeries,
        run: per_namespace,
    },
    Scenario {
        name: "writes to settings are told and counted",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: told,
    },
    Scenario {
        name: "settings with other ways are called held by name only",
        boot: Boot::Plain,
        depends: Depends::NewestSeries,
        run: name_only,
    },
    Scenario {
        name: "audited settings let writes through",
        boot: Boot::Plain,
        depends: Depends::NewestSeries,
        run: audited,
    },
    Scenario {
        name: "settings follow the policy",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: swapped,
    },
    Scenario {
        name: "killed at any step: settings are held or not",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: attachment::killed,
    },
    Scenario {
        name: "the default settings go with the level",
        boot: Boot::Plain,
        depends: Depends::NewestSeries,
        run: default,
    },
    Scenario {
        name: "settings that are no longer held are noticed",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: attachment::detached,
    },
    Scenario {
        name: "settings need the root of the cgroup tree",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: attachment::no_cgroups,
    },
    Scenario {
        name: "settings are held with the weaker attachment too",
        boot: Boot::NoBpfLsm,
        depends: Depends::Series,
        run: frozen,
    },
    Scenario {
        name: "settings are held under native confidentiality",
        boot: Boot::NativeConfidentiality,
        depends: Depends::NewestSeries,
        run: frozen,
    },
];

/// A sysctl. When this is dropped, the policy is lifted and the value restored.
struct Setting {
    path: String,
    before: String,
}

impl Setting {
    /// Returns the setting with this path below /proc/sys, or none if the kernel does not have it.
    fn there(name: &str) -> Result<Option<Self>> {
        let path = format!("/proc/sys/{name}");
        match fs::read_to_string(&path) {
            Ok(before) => Ok(Some(Self { path, before })),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("read {path}")),
        }
    }

    fn new(name: &str) -> Result<Self> {
        Self::there(name)?.with_context(|| format!("this kernel has no setting {name}"))
    }

    /// Sets a setting to this value.
    fn set(name: &str, value: &str) -> Result<Self> {
        let setting = Self::new(name)?;
        setting.writes(value.as_bytes(), true)?;
        Ok(setting)
    }

    fn value(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.path)
            .with_context(|| format!("read {}", self.path))?
            .trim_end()
            .to_owned())
    }

    /// Requires that a write succeeds, or that it fails with EPERM and leaves the value.
    fn writes(&self, bytes: &[u8], wanted: bool) -> Result<()> {
        let before = self.value()?;
        let answer = put(&self.path, bytes);
        let after = self.value()?;
        let said = format!("{:?} to {} ({before}, then {after})", String::from_utf8_lossy(bytes), self.path);
        match answer {
            Ok(()) => ensure!(wanted, "got through: {said}"),
            Err(e) if e.raw_os_error() == Some(libc::EPERM) => {
                ensure!(!wanted, "was refused: {said}");
                ensure!(before == after, "was refused and changed it: {said}");
            }
            Err(e) => bail!("{e}: {said}"),
        }
        Ok(())
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        let _ = stockade(&["lift", "--force"]);
        let _ = put(&self.path, self.before.as_bytes());
    }
}

/// Writes bytes by one write(2).
fn put(path: &str, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.write(bytes).map(drop)
}

/// Reports whether a write failed with EPERM.
fn refused(answer: &io::Result<usize>) -> bool {
    matches!(answer, Err(e) if e.raw_os_error() == Some(libc::EPERM))
}

fn hold(settings: &str) -> Result<()> {
    apply(&format!("level = \"none\"\n[settings]\n{settings}\n")).map(drop)
}

fn frozen(_: &Guest) -> Result<()> {
    lift_all()?;
    let kptr = Setting::set("kernel/kptr_restrict", "1")?;
    let other = Setting::new("kernel/panic")?;
    let open = OpenOptions::new().write(true).open(&kptr.path)?;
    hold("freeze = [\"kernel.kptr_restrict\"]")?;
    kptr.writes(b"0", false)?;
    kptr.writes(b"2", false)?;
    for same in ["1", "1\n", " 1", "01\n", "0x1"] {
        kptr.writes(same.as_bytes(), true)?;
    }
    ensure!(kptr.value()? == "1");
    ensure!(refused(&open.write_at(b"0", 0)), "a descriptor opened before writes");
    let busybox = |value: &str| {
        let mut command = Command::new("/bin/busybox");
        command.args(["sysctl", "-w", &format!("kernel.kptr_restrict={value}")]);
        command
    };
    run(&mut busybox("0"))?.says("Operation not permitted")?;
    run(&mut busybox("1"))?.exits(0)?;

    fs::create_dir_all("/tmp/proc")?;
    let second = Proc::mount("/tmp/proc")?;
    let through_second = put("/tmp/proc/sys/kernel/kptr_restrict", b"0");
    ensure!(refused(&through_second.map(|()| 0)), "another procfs writes");
    drop(second);

    let child = Cgroup::new("/settings")?;
    let deeper = Cgroup::new("/settings/deeper")?;
    for cgroup in [&child, &deeper] {
        let mut command = busybox("0");
        cgroup.runs(&mut command)?;
        run(&mut command)?.says("Operation not permitted")?;
    }
    drop(deeper);
    drop(child);
    ensure!(kptr.value()? == "1");
    other.writes(b"17", true)?;
    stockade(&["lift"])?.exits(0)?;
    kptr.writes(b"0", true)?;
    ensure!(kptr.value()? == "0", "lifted, and still held");
    Ok(())
}

/// Another procfs mount, unmounted when this is dropped.
struct Proc(CString);

impl Proc {
    fn mount(at: &str) -> Result<Self> {
        let path = CString::new(at)?;
        // SAFETY: the strings live through the call; proc needs no data.
        let answer =
            unsafe { libc::mount(c"proc".as_ptr(), path.as_ptr(), c"proc".as_ptr(), 0, std::ptr::null()) };
        ensure!(answer == 0, "mount a procfs at {at}: {}", io::Error::last_os_error());
        Ok(Self(path))
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        // SAFETY: the path lives through the call.
        unsafe { libc::umount2(self.0.as_ptr(), libc::MNT_DETACH) };
    }
}

/// Root of a user namespace may write this setting, which has a value for each user namespace.
fn per_namespace(_: &Guest) -> Result<()> {
    lift_all()?;
    let most = Setting::set("user/max_user_namespaces", "1000")?;
    let mapped = |script: &str| -> Result<String> {
        let mut command = Command::new("/bin/busybox");
        command.args(["sh", "-c", script]);
        // SAFETY: the closure makes async-signal-safe system calls on constants.
        unsafe {
            command.pre_exec(|| {
                let map = b"0 0 1";
                let step =
                    |answer: i64| if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) };
                step(libc::unshare(libc::CLONE_NEWUSER).into())?;
                // Before exec, at which a process without user id 0 in its namespace loses its capabilities.
                let fd = step(libc::open(c"/proc/self/uid_map".as_ptr(), libc::O_WRONLY).into())?;
                let fd = i32::try_from(fd).map_err(io::Error::other)?;
                step(libc::write(fd, map.as_ptr().cast(), map.len()) as i64)?;
                libc::close(fd);
                Ok(())
            });
        }
        let answer = run(&mut command)?;
        Ok(answer.out + &answer.err)
    };
    let script = "f=/proc/sys/user/max_user_namespaces; echo 5 > $f; echo 6 > $f; cat $f";
    let free = mapped(script)?;
    ensure!(free.trim() == "6", "not held, it can be raised again: {free}");
    hold("ratchet = [\"user.max_user_namespaces\"]\nfreeze = [\"kernel.kptr_restrict\"]")?;
    let held = mapped(script)?;
    ensure!(held.contains("Operation not permitted") && held.contains('5'), "{held}");
    let other = mapped("echo 0 > /proc/sys/kernel/kptr_restrict")?;
    ensure!(other.contains("ermission denied") || other.contains("not permitted"), "{other}");
    ensure!(most.value()? == "1000");
    Ok(())
}

fn told(_: &Guest) -> Result<()> {
    lift_all()?;
    let kptr = Setting::set("kernel/kptr_restrict", "1")?;
    let core = Setting::new("kernel/core_pattern")?;
    write_and_apply("ratchet = [\"kernel.kptr_restrict\"]\nfreeze = [\"kernel.core_pattern\"]")?
        .says("1 settings frozen, 1 can only become stricter")?;
    kptr.writes(b"0\n", false)?;
    kptr.writes(b"2", true)?;
    let long = format!("|/bin/\u{1b}[2J{}", "x".repeat(100));
    core.writes(long.as_bytes(), false)?;
    let seen = watched()?;
    let events: Vec<_> = seen.iter().filter(|e| e["type"] == "setting").collect();
    let [weaker, text] = events[..] else { bail!("not two events: {seen:?}") };
    let pid = std::process::id();
    ensure!(weaker["setting"] == "kernel.kptr_restrict" && weaker["held"] == "ratchet", "{weaker}");
    ensure!(weaker["verdict"] == "refused" && weaker["value"] == "0" && weaker["whole"] == true, "{weaker}");
    ensure!(
        weaker["tgid"] == pid && weaker["uid"] == 0 && weaker["cgroup_id"].as_u64() > Some(0),
        "{weaker}"
    );
    ensure!(weaker["exe"].is_string() && weaker["boot_ns"].as_u64() > Some(0), "{weaker}");
    ensure!(text["held"] == "freeze" && text["whole"] == false, "{text}");
    ensure!(
        text["value"].as_str().is_some_and(|v| v.starts_with("|/bin/") && !v.contains('\u{1b}')),
        "{text}"
    );
    kptr.writes(b"1", false)?;
    stockade(&["watch", "--no-follow"])?.exits(0)?.says("refused kernel.kptr_restrict = \"1\": ")?;
    let status = stockade(&["status", "--json"])?.exits(0)?.json()?;
    let ours = &status["stockade"]["settings"];
    ensure!(ours["writes_refused"] == 3 && ours["writes_audited"] == 0, "{ours}");
    ensure!(
        ours["frozen"][0] == "kernel.core_pattern" && ours["ratcheted"][0] == "kernel.kptr_restrict",
        "{ours}"
    );
    stockade(&["status"])?
        .exits(0)?
        .says("kernel.core_pattern")?
        .says("writes to settings: 3 refused, 0 audited")?;
    write_and_apply("freeze = [\"kernel.no_such_setting\"]")?
        .says("there is no setting kernel.no_such_setting here")?;
    Ok(())
}

/// Plays that a setting which Stockade reports as held under this name only can be changed in the other ways that it reports.
fn name_only(_: &Guest) -> Result<()> {
    const SECOND: &str = "/sys/module/kernel/parameters/panic";
    lift_all()?;
    let kptr = Setting::set("kernel/kptr_restrict", "1")?;
    let panic = Setting::new("kernel/panic")?;
    let hostname = Setting::new("kernel/hostname")?;
    let (timeout, name) = (panic.value()?, hostname.value()?);
    write_and_apply("freeze = [\"kernel.kptr_restrict\", \"kernel.panic\", \"kernel.hostname\"]")?
        .says("1 settings frozen")?
        .says("this name only")?
        .says("kernel.hostname, kernel.panic")?;
    let status = stockade(&["status", "--json"])?.exits(0)?.json()?;
    let ours = &status["stockade"]["settings"];
    ensure!(ours["frozen"] == serde_json::json!(["kernel.kptr_restrict"]), "{ours}");
    ensure!(ours["name_only"] == serde_json::json!(["kernel.hostname", "kernel.panic"]), "{ours}");
    stockade(&["status"])?.exits(0)?.says("name only      kernel.hostname, kernel.panic")?;
    let checked = stockade(&["policy", "check"])?;
    for words in ["SP315", SECOND, "sethostname"] {
        ensure!(checked.out.contains(words), "policy check does not say {words}: {}", checked.out);
    }
    stockade(&["policy", "show"])?
        .exits(0)?
        .says("# held under this name only, see SP315: kernel.hostname, kernel.panic")?;
    // A write to the name is refused, and the other way changes the value.
    kptr.writes(b"0", false)?;
    panic.writes(b"17", false)?;
    hostname.writes(b"door", false)?;
    fs::write(SECOND, "17").with_context(|| format!("write {SECOND}"))?;
    let by_second = panic.value()?;
    fs::write(SECOND, &timeout)?;
    run(Command::new("/bin/busybox").args(["hostname", "door"]))?.exits(0)?;
    let by_call = hostname.value()?;
    run(Command::new("/bin/busybox").args(["hostname", &name]))?.exits(0)?;
    ensure!(by_second == "17" && by_call == "door", "{by_second}, {by_call}: there is no other way");
    Ok(())
}

fn write_and_apply(settings: &str) -> Result<crate::program::Answer> {
    apply(&format!("level = \"none\"\n[settings]\n{settings}\n"))
}

fn audited(_: &Guest) -> Result<()> {
    lift_all()?;
    let kptr = Setting::set("kernel/kptr_restrict", "1")?;
    apply("level = \"none\"\nmode = \"audit\"\n[settings]\nfreeze = [\"kernel.kptr_restrict\"]\n")?
        .says("audited")?;
    kptr.writes(b"0", true)?;
    ensure!(kptr.value()? == "0");
    kptr.writes(b"0", true)?;
    let seen = watched()?;
    let events: Vec<_> = seen.iter().filter(|e| e["type"] == "setting").collect();
    ensure!(matches!(events[..], [e] if e["verdict"] == "audited" && e["value"] == "0"), "{seen:?}");
    stockade(&["status"])?.exits(0)?.says("writes to settings: 0 refused, 1 audited")?;
    apply("level = \"none\"\n[settings]\nfreeze = [\"kernel.kptr_restrict\"]\n")?;
    kptr.writes(b"1", false)?;
    stockade(&["enforce", "--audit"])?.exits(0)?;
    kptr.writes(b"1", true)
}

const PIN: &str = "/sys/fs/bpf/stockade/link-settings";

fn swapped(_: &Guest) -> Result<()> {
    lift_all()?;
    let kptr = Setting::set("kernel/kptr_restrict", "1")?;
    let dmesg = Setting::set("kernel/dmesg_restrict", "0")?;
    stockade(&["enforce", "integrity"])?.exits(0)?;
    ensure!(!Path::new(PIN).exists(), "held although the policy has no settings");
    hold("freeze = [\"kernel.kptr_restrict\"]")?;
    kptr.writes(b"0", false)?;
    dmesg.writes(b"1", true)?;
    hold("ratchet = [\"kernel.dmesg_restrict\"]")?;
    kptr.writes(b"0", true)?;
    dmesg.writes(b"0", false)?;
    stockade(&["enforce"])?.exits(0)?.says("Already in force")?;
    dmesg.writes(b"0", false)?;
    // A grant is applied as the policy in force with one more exception.
    stockade(&["grant", "msr", "--for", "5m", "--exe", "/bin/busybox"])?.exits(0)?;
    dmesg.writes(b"0", false)?;
    stockade(&["enforce", "integrity"])?.exits(0)?;
    dmesg.writes(b"0", true)?;
    ensure!(!Path::new(PIN).exists(), "still attached although nothing is held");
    hold("freeze = [\"kernel.dmesg_restrict\"]")?;
    dmesg.writes(b"1", false)?;
    stockade(&["lift"])?.exits(0)?;
    dmesg.writes(b"1", true)
}

/// Every setting of the default profile accepts a write of its current value, so an ordinary boot has no refusal.
fn default(_: &Guest) -> Result<()> {
    lift_all()?;
    let held = |level: &str| -> Result<Vec<String>> {
        apply(&format!("level = \"{level}\"\n[settings]\nratchet = [\"default\"]\n"))?;
        let status = stockade(&["status", "--json"])?.json()?;
        let list = status["stockade"]["settings"]["ratcheted"].as_array().cloned().unwrap_or_default();
        Ok(list.iter().filter_map(|name| Some(name.as_str()?.to_owned())).collect())
    };
    ensure!(held("none")?.is_empty());
    let integrity = held("integrity")?;
    ensure!(integrity.iter().any(|n| n == "kernel.ftrace_enabled"), "{integrity:?}");
    ensure!(!integrity.iter().any(|n| n == "kernel.kptr_restrict"), "{integrity:?}");
    let confidentiality = held("confidentiality")?;
    ensure!(integrity.iter().all(|name| confidentiality.contains(name)), "{confidentiality:?}");
    ensure!(confidentiality.iter().any(|n| n == "kernel.kptr_restrict"), "{confidentiality:?}");
    let mut again = 0;
    for name in &confidentiality {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        let Ok(value) = fs::read_to_string(&path) else { continue };
        // The kernel lets these settings change in one direction only, and refuses a write of their initial value even while they have it.
        if name == "kernel.modules_disabled" || name.starts_with("kernel.kexec_load_") {
            continue;
        }
        put(&path, value.as_bytes()).with_context(|| format!("{name} = {value:?}"))?;
        again += 1;
    }
    ensure!(again > 12, "only {again} settings of {} are there", confidentiality.len());
    let seen = watched()?;
    ensure!(!seen.iter().any(|e| e["type"] == "setting"), "{seen:?}");
    let off = put("/proc/sys/kernel/ftrace_enabled", b"0");
    ensure!(refused(&off.map(|()| 0)), "tracing was turned off");
    lift_all()
}
