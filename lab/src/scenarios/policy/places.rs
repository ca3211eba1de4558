//! Scopes and exceptions by cgroup, for cgroups that exist when the policy is applied and for later ones.

use std::fs;

use anyhow::{Context, Result, ensure};

use super::{Cgroup, TREE, apply, expect, lift_all, opens, stockade, watched};
use crate::{
    guest::Guest,
    scenario::{Boot, Depends, Scenario},
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "a scope decides for its cgroup and all below",
        boot: Boot::Plain,
        depends: Depends::Series,
        run: scope,
    },
    Scenario {
        name: "cgroups that appear later are in their scope at once",
        boot: Boot::Plain,
        depends: Depends::Series,
        run: later,
    },
    Scenario {
        name: "scopes tighten, and loosen where they say so",
        boot: Boot::Plain,
        depends: Depends::NewestSeries,
        run: nested,
    },
    Scenario {
        name: "an exception can be for a unit",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: unit,
    },
    Scenario {
        name: "places work with the weaker attachment too",
        boot: Boot::NoBpfLsm,
        depends: Depends::NewestSeries,
        run: scope,
    },
    Scenario {
        name: "policies load under native confidentiality",
        boot: Boot::NativeConfidentiality,
        depends: Depends::NewestSeries,
        run: under_native,
    },
];

const BUSYBOX: &str = "/bin/busybox";

fn kcore() -> std::process::Command {
    opens(BUSYBOX, "/proc/kcore")
}

fn scope(_: &Guest) -> Result<()> {
    lift_all()?;
    let pods = Cgroup::new("/pods")?;
    apply(
        "level = \"integrity\"\n[[scope]]\nname = \"pods\"\ncgroup = \"/pods\"\nlevel = \"confidentiality\"\n",
    )?;
    expect(&mut kcore(), true, "the host")?;
    pods.expect(kcore(), false)?;
    let deeper = Cgroup::new("/pods/a")?;
    let deepest = Cgroup::new("/pods/a/b")?;
    deepest.expect(kcore(), false)?;
    deeper.expect(opens(BUSYBOX, "/dev/mem"), false)?;
    let seen = watched()?;
    let event = seen.iter().find(|e| e["reason"] == "kcore").context("no event for kcore")?;
    ensure!(event["place"] == "/pods", "{event}");
    stockade(&["status"])?.exits(0)?.says("pods (/pods)")?;
    drop(deepest);
    drop(deeper);
    Ok(())
}

fn later(_: &Guest) -> Result<()> {
    lift_all()?;
    let slice = Cgroup::new("/machine.slice")?;
    apply(
        "level = \"none\"\n\
         [[scope]]\nname = \"containers\"\ncgroup = \"/machine.slice/docker-*.scope\"\nlevel = \"confidentiality\"\n\
         [[scope]]\nname = \"one\"\ncgroup = \"/machine.slice/docker-one.scope\"\nlevel = \"integrity\"\n\
         [[scope]]\nname = \"late\"\ncgroup = \"/late.slice\"\nlevel = \"confidentiality\"\n\
         [[scope]]\nname = \"top\"\ncgroup = \"/top-*\"\nlevel = \"confidentiality\"\n",
    )?;
    slice.expect(kcore(), true)?;
    let docker = Cgroup::new("/machine.slice/docker-0123456789abcdef0123456789abcdef0123456789abcdef.scope")?;
    docker.expect(kcore(), false)?;
    let other = Cgroup::new("/machine.slice/docker-x.slice")?;
    other.expect(kcore(), true)?;
    let podman = Cgroup::new("/machine.slice/podman-docker-x.scope")?;
    podman.expect(kcore(), true)?;
    // The most specific scope applies; this one is laxer than the pattern.
    let one = Cgroup::new("/machine.slice/docker-one.scope")?;
    one.expect(kcore(), true)?;
    one.expect(opens(BUSYBOX, "/dev/mem"), false)?;
    let late = Cgroup::new("/late.slice")?;
    late.expect(kcore(), false)?;
    let below = Cgroup::new("/late.slice/machine.slice")?;
    below.expect(kcore(), false)?;
    let top = Cgroup::new("/top-x")?;
    top.expect(kcore(), false)?;
    drop(below);
    // The cgroup is created anew, as when a unit is restarted.
    drop(late);
    let late = Cgroup::new("/late.slice")?;
    late.expect(kcore(), false)?;
    drop(late);
    // Cgroups whose path is too long to be looked up are counted.
    let long = format!("/machine.slice/{}", "x".repeat(250));
    let long = Cgroup::new(&long)?;
    long.expect(kcore(), true)?;
    stockade(&["status"])?.exits(0)?.says("1 new cgroups could not be looked up")?;
    Ok(())
}

fn nested(_: &Guest) -> Result<()> {
    lift_all()?;
    let a = Cgroup::new("/a")?;
    let b = Cgroup::new("/a/b")?;
    let c = Cgroup::new("/a/b/c")?;
    apply(
        "level = \"integrity\"\n\
         [[scope]]\nname = \"a\"\ncgroup = \"/a\"\nlevel = \"confidentiality\"\n\
         [[scope]]\nname = \"b\"\ncgroup = \"/a/b\"\nlevel = \"none\"\n\
         [[scope]]\nname = \"c\"\ncgroup = \"/a/b/c\"\nlevel = \"none\"\nloosen = true\n",
    )?;
    a.expect(kcore(), false)?;
    // This scope is laxer than its parent, but has no `loosen = true`.
    b.expect(kcore(), false)?;
    c.expect(kcore(), true)?;
    c.expect(opens(BUSYBOX, "/dev/mem"), true)?;
    expect(&mut opens(BUSYBOX, "/dev/mem"), false, "the host")?;
    drop(c);
    drop(b);
    Ok(())
}

fn unit(_: &Guest) -> Result<()> {
    lift_all()?;
    fs::create_dir_all(format!("{TREE}/system.slice"))?;
    let slice = Cgroup("/system.slice".into());
    fs::create_dir_all("/run/systemd/system")?;
    fs::write("/run/systemd/system/flash.service", "[Service]\nExecStart=/bin/true\n")?;
    let policy = "level = \"integrity\"\n\
         [[exception]]\nname = \"flash\"\nreasons = [\"dev-mem\"]\nunit = \"flash.service\"\n";
    apply(policy)?;
    let service = Cgroup::new("/system.slice/flash.service")?;
    service.expect(opens(BUSYBOX, "/dev/mem"), true)?;
    slice.expect(opens(BUSYBOX, "/dev/mem"), false)?;
    let seen = watched()?;
    let excepted = seen.iter().find(|e| e["verdict"] == "excepted").context("no event of its use")?;
    ensure!(excepted["exception"] == "flash", "{excepted}");
    drop(service);
    // A restarted unit has another cgroup with the same path.
    let service = Cgroup::new("/system.slice/flash.service")?;
    service.expect(opens(BUSYBOX, "/dev/mem"), true)?;
    drop(service);
    Ok(())
}

/// Native lockdown refuses first, so the scenario checks only that every program loads.
fn under_native(_: &Guest) -> Result<()> {
    lift_all()?;
    let _tool = super::Tool::new("/tmp/tool")?;
    apply(
        "level = \"integrity\"\n\
         [[scope]]\nname = \"pods\"\ncgroup = \"/pods/*\"\nlevel = \"confidentiality\"\n\
         [[exception]]\nname = \"tool\"\nreasons = [\"dev-mem\"]\nexe = \"/tmp/tool\"\n",
    )?
    .says("stays refused")?;
    let pods = Cgroup::new("/pods")?;
    let pod = Cgroup::new("/pods/one")?;
    pod.expect(kcore(), false)?;
    drop(pod);
    drop(pods);
    Ok(())
}
