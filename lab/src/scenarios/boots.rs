/*!
The guest itself: the requirements of every other scenario.
*/
use std::{fs::File, io::Read};

use anyhow::{Context, ensure};

use crate::{
    guest::Guest,
    scenario::{Boot, Depends, Scenario},
};

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "kernel-describes-its-types",
    boot: Boot::Plain,
    depends: Depends::Flavour,
    run: kernel_describes_its_types,
}];

fn kernel_describes_its_types(guest: &Guest) -> anyhow::Result<()> {
    ensure!(!guest.kernel_release()?.is_empty(), "the kernel has no release");
    let mut magic = [0; 2];
    File::open("/sys/kernel/btf/vmlinux")
        .and_then(|mut f| f.read_exact(&mut magic))
        .context("reading /sys/kernel/btf/vmlinux")?;
    ensure!(
        u16::from_ne_bytes(magic) == 0xeb9f,
        "/sys/kernel/btf/vmlinux does not begin as BTF does: {magic:x?}"
    );
    Ok(())
}
