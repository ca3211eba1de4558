//! The table of reasons compared with the running kernel.

use anyhow::{Result, ensure};
use stockade_kernel::{btf::KernelTypes, lab};
use stockade_reasons::Level;

use crate::{
    guest::Guest,
    scenario::{Boot, Depends, Scenario},
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "the table knows every reason of this kernel",
        boot: Boot::Plain,
        depends: Depends::Flavour,
        run: complete,
    },
    Scenario {
        name: "executables can be told in events on this kernel",
        boot: Boot::Plain,
        depends: Depends::Flavour,
        run: offsets,
    },
    Scenario {
        name: "a kernel that hides executables still takes the program",
        boot: Boot::Plain,
        depends: Depends::Series,
        run: no_executable,
    },
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

/// Loads the program with the offsets that [`KernelTypes`] has if a field of the path to the executable is missing.
fn no_executable(_: &Guest) -> Result<()> {
    let mut types = KernelTypes::of_running_kernel()?;
    types.offsets.task_mm = 0;
    types.offsets.mm_exe_file = 0;
    types.offsets.file_inode = 0;
    types.offsets.inode_number = 0;
    types.offsets.inode_superblock = 0;
    types.offsets.superblock_device = 0;
    lab::load_only(&types)?;
    // The test can fail: the verifier refuses an offset that points into a field.
    types.offsets.task_mm = 1;
    ensure!(lab::load_only(&types).is_err(), "the verifier took an offset that points into a field");
    Ok(())
}
