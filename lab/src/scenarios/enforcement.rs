//! Levels, audit mode and single reasons: the doors that are refused to root under each policy.

use std::{collections::BTreeMap, fs::File, process::Command};

use anyhow::{Result, bail, ensure};
use stockade_kernel::btf::KernelTypes;
use stockade_reasons::Level;

use super::lift_all;
use crate::{
    guest::Guest,
    program::{run, stockade},
    scenario::{Boot, Depends, Scenario},
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "all doors are free before anything is enforced",
        boot: Boot::Plain,
        depends: Depends::Flavour,
        run: free,
    },
    Scenario {
        name: "integrity shuts its doors and no others",
        boot: Boot::Plain,
        depends: Depends::Flavour,
        run: integrity,
    },
    Scenario {
        name: "confidentiality shuts every door",
        boot: Boot::Plain,
        depends: Depends::Flavour,
        run: confidentiality,
    },
    Scenario {
        name: "audit lets everything through and reports it",
        boot: Boot::Plain,
        depends: Depends::Series,
        run: audit,
    },
    Scenario {
        name: "one reason is let through, the rest stays shut",
        boot: Boot::Plain,
        depends: Depends::Series,
        run: allow,
    },
    Scenario {
        name: "one reason is refused without any level",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: deny,
    },
    Scenario {
        name: "one reason is audited under a level",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: audit_reason,
    },
    Scenario {
        name: "enforcing twice is a no-op that says so",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: twice,
    },
    Scenario {
        name: "enforcement outlives the command and ends with lift",
        boot: Boot::Plain,
        depends: Depends::Series,
        run: outlives,
    },
    Scenario {
        name: "nothing is refused once lift has returned",
        boot: Boot::Plain,
        depends: Depends::NewestSeries,
        run: lift_is_done,
    },
    Scenario { name: "auto without EFI is none", boot: Boot::Plain, depends: Depends::UserSide, run: auto },
    Scenario {
        name: "a real program is refused with the kernel's errno",
        boot: Boot::Plain,
        depends: Depends::Series,
        run: real_program,
    },
    Scenario {
        name: "two commands at once take turns",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: at_once,
    },
    Scenario {
        name: "status and check-host tell the truth",
        boot: Boot::Plain,
        depends: Depends::UserSide,
        run: status,
    },
];

/// The answer and errno of each door, by reason and door.
type Doors = BTreeMap<(String, String), (String, Option<i64>)>;

/// Returns the doors that can be tried in this guest, with their answers.
pub(super) fn doors() -> Result<Doors> {
    let probe = stockade(&["probe", "--json"])?;
    let report = probe.json()?;
    let mut doors = BTreeMap::new();
    for door in report["doors"].as_array().into_iter().flatten() {
        let text = |key: &str| door[key].as_str().unwrap_or_default().to_owned();
        let answer = text("answer");
        if matches!(answer.as_str(), "failed" | "needs-root" | "refused-by-other") {
            bail!("{} ({}) answered {answer}: {}", text("reason"), text("door"), door["detail"]);
        }
        if matches!(answer.as_str(), "not-present" | "never-tried") {
            continue;
        }
        doors.insert((text("reason"), text("door")), (answer, door["errno"].as_i64()));
    }
    ensure!(doors.len() >= 14, "only {} doors could be tried: the guest lacks something", doors.len());
    Ok(doors)
}

/// Requires that Stockade refuses exactly the doors for which `refused` returns true.
pub(super) fn expect(refused: impl Fn(&str, bool) -> bool) -> Result<()> {
    let types = KernelTypes::of_running_kernel()?;
    let mut wrong = Vec::new();
    for ((reason, door), (answer, _)) in doors()? {
        let known = stockade_reasons::by_id(&reason).expect("doors carry ids of the table");
        let integrity = types.number(known.enum_name).is_some_and(|n| types.is_integrity(n));
        ensure!(
            integrity == (known.level == Level::Integrity),
            "{reason} is on another level in this kernel"
        );
        let wanted = if refused(&reason, integrity) { "refused-by-stockade" } else { "free" };
        if answer != wanted {
            wrong.push(format!("{reason} ({door}): {answer}, not {wanted}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

fn free(_: &Guest) -> Result<()> {
    lift_all()?;
    expect(|_, _| false)?;
    stockade(&["probe"])?.exits(1)?.says(" 0 doors refused".trim_start())?;
    stockade(&["status"])?.exits(1)?.says("enforces nothing")?;
    Ok(())
}

fn integrity(_: &Guest) -> Result<()> {
    lift_all()?;
    stockade(&["enforce", "integrity"])?.exits(0)?.says("Undo with: stockade lift")?.says("proven")?;
    expect(|_, integrity| integrity)
}

fn confidentiality(_: &Guest) -> Result<()> {
    lift_all()?;
    stockade(&["enforce", "confidentiality"])?.exits(0)?;
    expect(|_, _| true)?;
    stockade(&["probe"])?.exits(0)?;
    Ok(())
}

fn audit(_: &Guest) -> Result<()> {
    lift_all()?;
    stockade(&["enforce", "confidentiality", "--audit"])?.exits(0)?;
    let tried = doors()?.len();
    expect(|_, _| false)?;
    let status = stockade(&["status", "--json"])?.exits(0)?.json()?;
    let counted = status["stockade"]["counters"].as_array().map_or(0, Vec::len);
    ensure!(counted >= 12, "{tried} doors were tried and only {counted} reasons were audited: {status}");
    for counter in status["stockade"]["counters"].as_array().into_iter().flatten() {
        ensure!(counter["refused"] == 0, "audit refused something: {counter}");
    }
    Ok(())
}

fn allow(_: &Guest) -> Result<()> {
    lift_all()?;
    stockade(&["enforce", "integrity", "--allow", "hibernation", "--allow", "pci-access"])?
        .exits(0)?
        .says("allowed by name")?;
    expect(|reason, integrity| integrity && !["hibernation", "pci-access"].contains(&reason))
}

fn deny(_: &Guest) -> Result<()> {
    lift_all()?;
    stockade(&["enforce", "none", "--deny", "kexec"])?.exits(0)?;
    expect(|reason, _| reason == "kexec")?;
    stockade(&["enforce", "integrity", "--audit", "--deny", "kcore"])?.exits(0)?;
    expect(|reason, _| reason == "kcore")
}

fn audit_reason(_: &Guest) -> Result<()> {
    lift_all()?;
    stockade(&["enforce", "integrity", "--audit-reason", "kexec"])?.exits(0)?;
    expect(|reason, integrity| integrity && reason != "kexec")?;
    let status = stockade(&["status", "--json"])?.exits(0)?.json()?;
    let kexec =
        status["stockade"]["counters"].as_array().into_iter().flatten().find(|c| c["reason"] == "kexec");
    ensure!(kexec.is_some_and(|c| c["audited"].as_u64() >= Some(1)), "kexec was not audited: {status}");
    Ok(())
}

fn twice(_: &Guest) -> Result<()> {
    lift_all()?;
    stockade(&["enforce", "integrity", "--allow", "perf", "--deny", "kcore"])?.exits(0)?;
    let link =
        || -> Result<_> { Ok(stockade(&["status", "--json"])?.json()?["stockade"]["link_id"].clone()) };
    let before = link()?;
    stockade(&["enforce", "integrity", "--deny", "kcore", "--allow", "perf"])?
        .exits(0)?
        .says("Already in force")?;
    stockade(&["enforce", "confidentiality"])?.exits(0)?.says("instead of the policy before")?;
    ensure!(link()? == before, "a change of policy must not attach anew: there would be a moment without");
    Ok(())
}

fn outlives(_: &Guest) -> Result<()> {
    lift_all()?;
    stockade(&["enforce", "confidentiality"])?.exits(0)?;
    ensure!(File::open("/proc/kcore").is_err(), "no process of ours is alive, and kcore opens");
    stockade(&["lift"])?.exits(0)?.says("Lifted")?;
    ensure!(File::open("/proc/kcore").is_ok(), "lift has returned, and kcore is still refused");
    stockade(&["lift"])?.exits(0)?.says("Nothing to lift")?;
    ensure!(!std::path::Path::new("/sys/fs/bpf/stockade").exists(), "lift left pins behind");
    Ok(())
}

/// The kernel detaches a program some time after its last pin was removed; `lift` must not return before.
fn lift_is_done(_: &Guest) -> Result<()> {
    lift_all()?;
    for round in 0..20 {
        stockade(&["enforce", "confidentiality"])?.exits(0)?;
        stockade(&["lift"])?.exits(0)?;
        ensure!(File::open("/proc/kcore").is_ok(), "round {round}: lift has returned, and kcore is refused");
    }
    Ok(())
}

fn auto(_: &Guest) -> Result<()> {
    lift_all()?;
    stockade(&["enforce", "auto"])?.exits(0)?.says("auto is none")?;
    expect(|_, _| false)
}

fn real_program(_: &Guest) -> Result<()> {
    lift_all()?;
    let dd =
        || run(Command::new("/bin/busybox").args(["dd", "if=/dev/mem", "of=/dev/null", "bs=1", "count=1"]));
    dd()?.exits(0)?;
    stockade(&["enforce", "integrity", "--audit"])?.exits(0)?;
    dd()?.exits(0)?;
    stockade(&["enforce", "integrity"])?.exits(0)?;
    dd()?.exits(1)?.says("Operation not permitted")?;
    Ok(())
}

pub(super) fn at_once(_: &Guest) -> Result<()> {
    lift_all()?;
    for round in 0..4 {
        let racers: Vec<_> = ["integrity", "confidentiality", "integrity", "confidentiality"]
            .map(|level| std::thread::spawn(move || stockade(&["enforce", level])?.exits(0)))
            .into_iter()
            .collect();
        for racer in racers {
            racer.join().map_err(|_| anyhow::anyhow!("round {round}: a racer panicked"))??;
        }
        let level = stockade(&["status", "--json"])?.exits(0)?.json()?["stockade"]["level"].clone();
        ensure!(level == "integrity" || level == "confidentiality", "round {round}: {level}");
        let links = std::fs::read_dir("/sys/fs/bpf")?.flatten().filter(|e| e.file_name() != ".").count();
        ensure!(links == 1, "round {round}: {links} entries in the BPF file system");
        stockade(&["lift"])?.exits(0)?;
    }
    Ok(())
}

fn status(_: &Guest) -> Result<()> {
    lift_all()?;
    stockade(&["check-host"])?
        .exits(0)?
        .says("This host can enforce")?
        .says("for cgroups, units and programs")?;
    stockade(&["enforce", "integrity", "--allow", "msr"])?.exits(0)?;
    let status = stockade(&["status", "--json"])?.exits(0)?.json()?;
    ensure!(status["stockade"]["level"] == "integrity", "{status}");
    ensure!(status["stockade"]["sealed"].is_null(), "{status}");
    ensure!(status["stockade"]["allowed"][0] == "msr", "{status}");
    ensure!(status["native_lockdown"] == "none", "{status}");
    // kernel.ftrace_enabled=0 keeps every BPF LSM program from being called; `status` must report it.
    let switch = "/proc/sys/kernel/ftrace_enabled";
    match std::fs::write(switch, "0") {
        Ok(()) => {}
        // Newer kernels refuse the write while a program is attached; then there is nothing to report.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EBUSY | libc::EOPNOTSUPP)) => return Ok(()),
        Err(e) => bail!("write 0 to {switch}: {e}"),
    }
    let warned = stockade(&["status"])?
        .exits(1)
        .and_then(|answer| answer.says("NOT ENFORCED: kernel.ftrace_enabled is 0"));
    let refused = stockade(&["enforce", "confidentiality"])?
        .exits(2)
        .and_then(|a| a.says("ftrace_enabled"))
        .and_then(|a| a.says("nothing was changed"));
    std::fs::write(switch, "1")?;
    warned?;
    refused?;
    let level = stockade(&["status", "--json"])?.exits(0)?.json()?["stockade"]["level"].clone();
    ensure!(level == "integrity", "a policy that could not be proven was left behind: {level}");
    Ok(())
}
