//! `probe` leaves the machine unchanged.

use std::{collections::BTreeMap, fs};

use anyhow::{Result, ensure};

use super::lift_all;
use crate::{
    guest::Guest,
    program::stockade,
    scenario::{Boot, Depends, Scenario},
};

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "probe leaves everything as it was",
    boot: Boot::Plain,
    depends: Depends::Flavour,
    run: as_before,
}];

const MODULES: &str = "/proc/modules";

/// Files that the doors could change. Some are absent on some kernels, or refused at some levels.
const STATE: [&str; 17] = [
    "/proc/mounts",
    MODULES,
    "/proc/ioports",
    "/proc/net/xfrm_stat",
    "/proc/sys/kernel/tainted",
    "/proc/tty/driver/serial",
    "/sys/power/disk",
    "/sys/power/state",
    "/sys/kernel/kexec_loaded",
    "/sys/kernel/kexec_crash_loaded",
    "/sys/kernel/security/lockdown",
    "/sys/module/8250/parameters/share_irqs",
    "/sys/module/8250_core/parameters/share_irqs",
    "/sys/bus/pci/devices/0000:00:00.0/config",
    "/sys/kernel/debug/sched/verbose",
    "/sys/kernel/tracing/tracing_on",
    "/sys/kernel/tracing/kprobe_events",
];

type State = BTreeMap<&'static str, Option<String>>;

fn state() -> State {
    let read = |path: &str| {
        let text = String::from_utf8_lossy(&fs::read(path).ok()?).into_owned();
        // Reference counts of modules are left out: the kernel frees the network namespace of a probe asynchronously.
        let first = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
        Some(if path == MODULES { text.lines().map(first).collect::<Vec<_>>().join("\n") } else { text })
    };
    STATE.into_iter().map(|path| (path, read(path))).collect()
}

fn as_before(_: &Guest) -> Result<()> {
    lift_all()?;
    // The first attempt may make the kernel load modules that the operation needs, such as a cipher.
    stockade(&["probe"])?.exits(1)?;
    let free = state();
    let readable = free.values().flatten().count();
    ensure!(readable >= 12, "only {readable} files of the state could be read");
    stockade(&["probe"])?.exits(1)?;
    same(&free, "free")?;
    stockade(&["enforce", "confidentiality"])?.exits(0)?;
    let refused = state();
    stockade(&["probe"])?.exits(0)?;
    same(&refused, "refused")?;
    lift_all()?;
    same(&free, "free again")
}

fn same(before: &State, when: &str) -> Result<()> {
    for (path, now) in state() {
        let before = &before[path];
        ensure!(*before == now, "doors {when}: {path} was {before:?} and is {now:?}");
    }
    Ok(())
}
