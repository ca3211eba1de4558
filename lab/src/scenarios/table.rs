//! The table of reasons against the running kernel.

use anyhow::{Result, ensure};
use stockade_kernel::btf::KernelTypes;
use stockade_reasons::Level;

use crate::{
    guest::Guest,
    scenario::{Boot, Scenario},
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "the table knows every reason of this kernel", boot: Boot::Plain, run: complete },
    Scenario { name: "executables can be told in events on this kernel", boot: Boot::Plain, run: offsets },
];

fn complete(_: &Guest) -> Result<()> {
    let types = KernelTypes::of_running_kernel()?;
    ensure!(types.reasons.len() >= 20, "only {} reasons in BTF", types.reasons.len());
    for reason in &types.reasons {
        let known = stockade_reasons::by_enum_name(&reason.enum_name);
        let Some(known) = known else {
            anyhow::bail!("this kernel has {} ({}), the table does not", reason.enum_name, reason.number);
        };
        let integrity = known.level == Level::Integrity;
        ensure!(
            integrity == types.is_integrity(reason.number),
            "{} is on the other level in this kernel",
            reason.enum_name
        );
    }
    Ok(())
}

fn offsets(_: &Guest) -> Result<()> {
    let offsets = KernelTypes::of_running_kernel()?.offsets;
    ensure!(offsets.task_mm != 0 && offsets.superblock_device != 0, "{offsets:?}");
    Ok(())
}
