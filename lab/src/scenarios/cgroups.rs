//! Hosts with cgroup v1, with both versions and with cgroup v2: enforcement does not depend on the version, and `watch` names a cgroup only if it is
//! a v2 cgroup with a known path.

use std::{
    ffi::CString,
    fs,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::lift_all;
use crate::{
    guest::Guest,
    program::stockade,
    scenario::{Boot, Depends, Scenario},
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "with cgroup v2 events name the cgroup",
        boot: Boot::Plain,
        depends: Depends::Series,
        run: unified,
    },
    Scenario {
        name: "with both cgroup versions events name the v2 cgroup",
        boot: Boot::Plain,
        depends: Depends::NewestSeries,
        run: hybrid,
    },
    Scenario {
        name: "with cgroup v1 alone events name no cgroup",
        boot: Boot::Plain,
        depends: Depends::NewestSeries,
        run: legacy,
    },
];

const ROOT: &str = "/sys/fs/cgroup";

/// Controllers that have a v1 hierarchy in every kernel of the lab.
pub(super) const CONTROLLERS: [&str; 3] = ["cpu", "pids", "freezer"];

/// A cgroup in some hierarchy, removed when this is dropped.
struct Cgroup(String);

impl Cgroup {
    fn new(root: &str) -> Result<Self> {
        let folder = format!("{root}/stockade-lab");
        fs::create_dir(&folder).with_context(|| format!("make the cgroup {folder}"))?;
        Ok(Self(folder))
    }

    fn id(&self) -> Result<u64> {
        Ok(fs::metadata(&self.0)?.ino())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

fn unified(_: &Guest) -> Result<()> {
    let cgroup = Cgroup::new(ROOT)?;
    let event = refused_in(&[&cgroup])?;
    ensure!(event["cgroup_id"] == cgroup.id()?, "the cgroup has id {}: {event}", cgroup.id()?);
    ensure!(event["cgroup"] == "/stockade-lab", "{event}");
    Ok(())
}

/// Mounts v1 hierarchies and a v2 hierarchy beside them, as systemd does in its hybrid mode.
fn hybrid(_: &Guest) -> Result<()> {
    let [_, pids, _] = mount_v1()?;
    let v2 = format!("{ROOT}/unified");
    mount("cgroup2", &v2, "")?;
    let (cgroup, other) = (Cgroup::new(&v2)?, Cgroup::new(&pids)?);
    let event = refused_in(&[&cgroup, &other])?;
    ensure!(event["cgroup_id"] == cgroup.id()?, "the v2 cgroup has id {}: {event}", cgroup.id()?);
    ensure!(event["cgroup"] == "/stockade-lab", "{event}");
    Ok(())
}

/// The v2 hierarchy is not mounted, and every process is in its root.
fn legacy(_: &Guest) -> Result<()> {
    let [cpu, pids, _] = mount_v1()?;
    // Also a named hierarchy without controllers, as systemd has in its legacy mode.
    let named = format!("{ROOT}/systemd");
    mount("cgroup", &named, "none,name=systemd")?;
    let cgroups = [Cgroup::new(&cpu)?, Cgroup::new(&pids)?, Cgroup::new(&named)?];
    let event = refused_in(&cgroups.each_ref())?;
    ensure!(event["cgroup_id"] == 1, "the root of the v2 hierarchy has id 1: {event}");
    ensure!(event["cgroup"].is_null(), "no v2 hierarchy is mounted, and a path is told: {event}");
    let text = stockade(&["status"])?.exits(0)?.out;
    ensure!(text.contains("since the start"), "{text}");
    Ok(())
}

/// Replaces the cgroup mounts with v1 hierarchies in a new mount namespace, so that the mounts of the guest stay. Returns the folders.
pub(super) fn mount_v1() -> Result<[String; 3]> {
    // SAFETY: unshare takes flags only; a scenario's process has one thread.
    let answer = unsafe { libc::unshare(libc::CLONE_NEWNS) };
    ensure!(answer == 0, "unshare: {}", std::io::Error::last_os_error());
    // SAFETY: the strings live through the calls. The mounts become private, so that no other namespace sees later ones.
    let answer = unsafe {
        let flags = libc::MS_REC | libc::MS_PRIVATE;
        libc::mount(c"none".as_ptr(), c"/".as_ptr(), std::ptr::null(), flags, std::ptr::null())
            | libc::umount2(c"/sys/fs/cgroup".as_ptr(), 0)
    };
    ensure!(answer == 0, "leave the cgroups of the guest: {}", std::io::Error::last_os_error());
    mount("tmpfs", ROOT, "")?;
    let folders = CONTROLLERS.map(|controller| format!("{ROOT}/{controller}"));
    for (folder, controller) in folders.iter().zip(CONTROLLERS) {
        mount("cgroup", folder, controller)?;
    }
    Ok(folders)
}

pub(super) fn mount(kind: &str, folder: &str, options: &str) -> Result<()> {
    fs::create_dir_all(folder)?;
    let [kind, place, data] = [kind, folder, options].map(CString::new);
    let (kind, place, data) = (kind?, place?, data?);
    // SAFETY: the strings live through the call.
    let answer =
        unsafe { libc::mount(kind.as_ptr(), place.as_ptr(), kind.as_ptr(), 0, data.as_ptr().cast()) };
    ensure!(answer == 0, "mount {kind:?} {options} at {folder}: {}", std::io::Error::last_os_error());
    Ok(())
}

/// Returns the event of a process in these cgroups whose request is refused, read while the process runs. Requires that enforcement, `watch` and
/// `status` work.
fn refused_in(cgroups: &[&Cgroup]) -> Result<Value> {
    lift_all()?;
    stockade(&["enforce", "integrity"])?.exits(0)?.says("proven")?;
    let lists: Vec<String> = cgroups.iter().map(|cgroup| format!("{}/cgroup.procs", cgroup.0)).collect();
    let mut shell = Command::new("/bin/busybox");
    shell.args(["sh", "-c", "true < /dev/mem; echo refused; read go"]);
    shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    // SAFETY: a scenario's process has one thread, so the child may allocate.
    unsafe {
        shell.pre_exec(move || lists.iter().try_for_each(|list| fs::write(list, "0")));
    }
    let mut child = shell.spawn()?;
    let mut said = [0; 1];
    std::io::Read::read(child.stdout.as_mut().context("it was piped")?, &mut said)?;
    let seen = stockade(&["watch", "--no-follow", "--json"])?.exits(0);
    let status = stockade(&["status", "--json"])?.exits(0);
    let tgid = child.id();
    drop(child.stdin.take());
    child.wait()?;
    let status = status?.json()?;
    ensure!(status["stockade"]["level"] == "integrity", "{status}");
    ensure!(Path::new("/sys/fs/bpf/stockade/link").exists(), "no link is pinned");
    let seen = seen?.out;
    seen.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|event| event["reason"] == "dev-mem" && event["tgid"] == tgid)
        .with_context(|| format!("no refusal of /dev/mem to process {tgid} in {seen}"))
}
