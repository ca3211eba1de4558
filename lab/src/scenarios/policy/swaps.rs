//! A change of the policy is atomic: every request meanwhile is decided by either the old policy or the new one.

use std::{
    fmt::Write,
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use stockade_kernel::{Machine, enforce::enforce_on};
use stockade_policy::{
    load,
    load::{Trust, Where},
    model::Policy,
};
use stockade_reasons::Level;

use super::{Cgroup, Tool, apply, expect, lift_all, opens, stockade, write};
use crate::{
    guest::Guest,
    program::with_env,
    scenario::{Boot, Depends, Scenario},
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "ten thousand changes of policy and no decision of neither",
        boot: Boot::TwoProcessors,
        depends: Depends::NewestSeries,
        run: flips,
    },
    Scenario {
        name: "killed while applying a policy: the old one or the new",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: killed,
    },
    Scenario {
        name: "ten thousand exceptions and a thousand scopes load",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: large,
    },
];

const TOOL: &str = "/tmp/flipper";
const FLIPS: usize = 10_000;
const WHOLE_CHANGES: usize = 200;

/// A policy that refuses dev-mem everywhere and excepts the tool.
const STRICT: &str = "level = \"integrity\"\n\
    [[scope]]\nname = \"elsewhere\"\ncgroup = \"/elsewhere\"\nlevel = \"confidentiality\"\n\
    [[exception]]\nname = \"tool\"\nreasons = [\"dev-mem\"]\nexe = \"/tmp/flipper\"\n";

/// A policy that refuses dev-mem in one cgroup only and excepts the tool from another reason.
const LAX: &str = "level = \"none\"\n\
    [[scope]]\nname = \"cage\"\ncgroup = \"/cage\"\nlevel = \"integrity\"\n\
    [[exception]]\nname = \"tool\"\nreasons = [\"msr\"]\nexe = \"/tmp/flipper\"\n";

fn read(text: &str) -> Result<Policy> {
    write(text)?;
    Ok(load(Where::Named(&[super::POLICY.into()]), Trust::RootOnly)?.policy)
}

/// Both policies let the tool open /dev/mem outside the cgroup `/cage` and refuse other programs within it. The policy words of one with the tables
/// of the other would decide otherwise.
fn flips(_: &Guest) -> Result<()> {
    lift_all()?;
    let _tool = Tool::new(TOOL)?;
    let cage = Cgroup::new("/cage")?;
    let policies = [read(STRICT)?, read(LAX)?];
    let machine = Machine::look()?;
    enforce_on(machine.clone(), &policies[0], Level::None)?;
    let mut askers = Vec::new();
    for _ in 0..4 {
        let mut free = Command::new(TOOL);
        free.arg0("busybox").args(["sh", "-c", "while true < /dev/mem; do :; done; exit 3"]);
        askers.push(free.stderr(Stdio::null()).spawn()?);
        let mut caged = Command::new("/bin/busybox");
        caged.args(["sh", "-c", "until true < /dev/mem; do :; done; exit 4"]);
        cage.runs(&mut caged)?;
        askers.push(caged.stderr(Stdio::null()).spawn()?);
    }
    let flipped = flip(&machine, &policies, &mut askers);
    for asker in &mut askers {
        let _ = asker.kill();
        let _ = asker.wait();
    }
    let done = flipped?;
    let status = stockade(&["status", "--json"])?.exits(0)?.json()?;
    let mem =
        status["stockade"]["counters"].as_array().into_iter().flatten().find(|c| c["reason"] == "dev-mem");
    let mem = mem.context("nothing was decided")?;
    println!("{done} changes; meanwhile {mem}");
    ensure!(
        mem["refused"].as_u64() > Some(1000) && mem["excepted"].as_u64() > Some(1000),
        "too few decisions: {mem}"
    );
    Ok(())
}

/// Changes the policy: first by whole changes, then by the last step alone, while the tables of both policies are loaded.
fn flip(machine: &Machine, policies: &[Policy; 2], askers: &mut [Child]) -> Result<usize> {
    let mut unanswered = |done: usize| -> Result<()> {
        for asker in askers.iter_mut() {
            if let Some(status) = asker.try_wait()? {
                anyhow::bail!(
                    "after {done} changes a decision was neither policy's: {}",
                    if status.code() == Some(3) {
                        "the excepted program was refused"
                    } else {
                        "the caged one got through"
                    }
                );
            }
        }
        Ok(())
    };
    // A higher priority than the requesting processes have: the scenario tests requests during changes, not the scheduling of changes.
    // SAFETY: setpriority takes numbers only.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) };
    let deadline = Instant::now() + Duration::from_secs(40);
    let mut whole = 0;
    // The number of changes depends on the speed of the machine.
    while whole < 2 || (whole < WHOLE_CHANGES && Instant::now() < deadline) {
        enforce_on(machine.clone(), &policies[(whole + 1) % 2], Level::None)?;
        whole += 1;
        unanswered(whole)?;
    }
    println!("{whole} whole changes");
    enforce_on(machine.clone(), &policies[0], Level::None)?;
    write(LAX)?;
    with_env(&["enforce"], &[("STOCKADE_STOP_AT", "flipped")])?.exits(-1)?;
    for done in 0..FLIPS {
        stockade_kernel::lab::flip()?;
        if done % 20 == 0 {
            // Time for requests under this policy.
            std::thread::sleep(Duration::from_micros(500));
            unanswered(whole + done)?;
        }
    }
    Ok(whole + FLIPS)
}

fn killed(_: &Guest) -> Result<()> {
    let tool = Tool::new(TOOL)?;
    let cage = Cgroup::new("/cage")?;
    let kill_at = |step: &str| -> Result<()> {
        with_env(&["enforce"], &[("STOCKADE_STOP_AT", step)])?.exits(-1)?;
        Ok(())
    };
    for step in ["tables-written", "link-trace-me"] {
        lift_all()?;
        write(STRICT)?;
        kill_at(step)?;
        ensure!(!super::enforced()?, "killed at {step}: something is enforced");
        cage.expect(opens("/bin/busybox", "/dev/mem"), true)?;
        apply(STRICT)?;
        expect(&mut tool.opens_mem(), true, step)?;
        expect(&mut opens("/bin/busybox", "/dev/mem"), false, step)?;
    }
    let strict = |step: &str| -> Result<()> {
        expect(&mut tool.opens_mem(), true, step)?;
        expect(&mut opens("/bin/busybox", "/dev/mem"), false, step)?;
        cage.expect(opens("/bin/busybox", "/dev/mem"), false)
    };
    // From a policy without tables to one that needs another deciding program.
    for step in ["taken-over", "link-label"] {
        lift_all()?;
        apply("level = \"integrity\"\n")?;
        write(STRICT)?;
        kill_at(step)?;
        expect(&mut tool.opens_mem(), false, step)?;
        expect(&mut opens("/bin/busybox", "/proc/kcore"), true, step)?;
        apply("level = \"integrity\"\n")?;
        expect(&mut tool.opens_mem(), false, step)?;
        apply(STRICT)?;
        expect(&mut tool.opens_mem(), true, step)?;
        expect(&mut opens("/bin/busybox", "/dev/mem"), false, step)?;
    }
    let step = "slot-written";
    apply(STRICT)?;
    write(LAX)?;
    kill_at(step)?;
    strict(step)?;
    // The leftovers of a killed command do not prevent the next `enforce`.
    apply(STRICT)?;
    strict(step)?;
    write(LAX)?;
    kill_at("flipped")?;
    expect(&mut opens("/bin/busybox", "/dev/mem"), true, "killed after the change")?;
    cage.expect(opens("/bin/busybox", "/dev/mem"), false)?;
    apply(STRICT)?;
    strict("the policy after a kill")?;
    // A program that the next policy does not need, and the one after it does.
    apply("level = \"integrity\"\n")?;
    ensure!(
        !Path::new("/sys/fs/bpf/stockade/link-label").exists(),
        "an attachment that nobody needs is left"
    );
    apply(STRICT)?;
    strict("attached once more")
}

/// A large policy can be loaded, decides, and can be lifted. The benchmark measures the time.
fn large(_: &Guest) -> Result<()> {
    lift_all()?;
    fs::create_dir_all("/tmp/many")?;
    let mut text = String::from("level = \"integrity\"\n");
    for n in 0..10_000 {
        let path = format!("/tmp/many/{n}");
        fs::write(&path, "x")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        let _ = write!(
            text,
            "[[exception]]\nname = \"e{n}\"\nreasons = [\"msr\", \"dev-mem\"]\nexe = \"{path}\"\n"
        );
    }
    for n in 0..1000 {
        let _ =
            write!(text, "[[scope]]\nname = \"s{n}\"\ncgroup = \"/many/{n}\"\nlevel = \"confidentiality\"\n");
    }
    let tool = Tool::new("/tmp/many/77")?;
    let started = Instant::now();
    apply(&text)?;
    println!("10,000 exceptions and 1,000 scopes in {} ms", started.elapsed().as_millis());
    expect(&mut tool.opens_mem(), true, "one of ten thousand")?;
    expect(&mut opens("/bin/busybox", "/dev/mem"), false, "none of them")?;
    let many = Cgroup::new("/many")?;
    let one = Cgroup::new("/many/500")?;
    one.expect(opens("/bin/busybox", "/proc/kcore"), false)?;
    many.expect(opens("/bin/busybox", "/proc/kcore"), true)?;
    drop(one);
    apply("level = \"integrity\"\n")?;
    expect(&mut tool.opens_mem(), false, "one of them once they are gone")?;
    drop(tool);
    fs::remove_dir_all("/tmp/many")?;
    Ok(())
}
