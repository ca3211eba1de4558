/*!
A guest that seals itself at every boot and is rebooted many times: a seal neither prevents the next boot nor outlasts a reboot.
*/
use std::{collections::HashSet, path::Path, time::Duration};

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::{
    boot::{Clock, End, Hardware, Machine, Next},
    follow::ENDED,
    initrd::{self, Program},
    kernels::Kernel,
    protocol::is_trouble,
};

/// A limit in processor time, larger than any boot with its seal takes.
const LIMIT: Duration = Duration::from_mins(10);

/// The guest's report about a boot at which it was sealed and the seal was verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// The kernel's boot_id.
    pub boot_id: String,
    /// The time from the kernel's start until `status` reported the seal as verified, on the guest's clock.
    pub verified_ms: u64,
    /// The part of it that `stockade seal` took.
    pub seal_ms: u64,
}

/// Reboots one guest this many times. Every boot, the first included, has to start unsealed and to end sealed and verified.
pub fn play(
    kernel: &Kernel,
    programs: &[Program],
    folder: &Path,
    times: usize,
) -> anyhow::Result<Vec<Sealed>> {
    let initrd = folder.join(format!("reboots-{}.cpio", kernel.id));
    initrd::write(kernel, programs, &initrd)?;
    let machine = Machine {
        kernel,
        initrd: &initrd,
        disk: None,
        cmdline: "stockade.run=again:/bin/stockade-seal-at-boot".to_owned(),
        hardware: Hardware::USUAL,
        console: folder.join(format!("reboots-{}.console", kernel.id)),
        clock: Clock::Instructions(2),
        limit: LIMIT,
    };
    let (mut sealed, mut noise, mut ended) = (Vec::new(), Vec::new(), 0);
    let end = machine.run_rebooting(|line| {
        if let Some(status) = line.text.strip_prefix(ENDED) {
            ended += 1;
            let goes_on = status == "0" && sealed.len() == ended && ended <= times;
            return if goes_on { Next::Hear } else { Next::End };
        }
        match serde_json::from_str::<Sealed>(line.text) {
            Ok(boot) => sealed.push(boot),
            Err(_) if line.text.trim().is_empty() => {}
            Err(_) => noise.push(line.text.to_owned()),
        }
        Next::Hear
    })?;
    let console = std::fs::read(&machine.console).context("reading the guest's console")?;
    let console = String::from_utf8_lossy(&console);
    if let Some(line) = console.lines().find(|line| is_trouble(line)) {
        bail!("the kernel went wrong: {line}");
    }
    ensure!(
        noise.is_empty() && sealed.len() == times + 1,
        "{} of {} boots were sealed and verified; the guest {}: {}\n{}",
        sealed.len(),
        times + 1,
        match end {
            End::Spun | End::Hung => "hung",
            End::Off => "powered off",
            End::Enough => "said something else",
        },
        noise.join("\n"),
        machine.console_tail()
    );
    let boots: HashSet<&str> = sealed.iter().map(|boot| boot.boot_id.as_str()).collect();
    ensure!(boots.len() == sealed.len(), "only {} of {} were boots of their own", boots.len(), sealed.len());
    Ok(sealed)
}
