/*!
`cargo xtask bench`: the cost of decisions, in instructions. Guest time counts instructions here, so
figures repeat exactly on any host.
*/
use std::time::Duration;

use clap::Args;
use stockade_lab::{boot::Machine, initrd, kernels};

use crate::{programs, setup, workspace};

/// Where to measure.
#[derive(Debug, Args)]
pub struct Flags {
    /// The kernels to measure on
    #[arg(long, value_name = "KERNEL,…", value_delimiter = ',', default_value = "6.12-generic", value_parser = clap::builder::PossibleValuesParser::new(kernels::ids()))]
    on: Vec<String>,
}

/// Measures and prints.
pub fn run(flags: &Flags) -> anyhow::Result<()> {
    setup::need(&[setup::LAB])?;
    let programs = programs::build()?;
    let folder = workspace::lab_folder()?;
    for id in &flags.on {
        let kernel = kernels::get(id, false)?;
        let disk = folder.join(format!("bench-{id}.cpio"));
        initrd::write(&kernel, &programs, &disk)?;
        println!("{} ({})", kernel.id, kernel.release);
        let machine = Machine {
            kernel: &kernel,
            initrd: &disk,
            disk: None,
            cmdline: "stockade.run=exec:/bin/stockade-bench".to_owned(),
            console: folder.join(format!("bench-{id}.console")),
            count_instructions: true,
            patience: Duration::from_mins(10),
        };
        machine.run_program(|line| println!("{line}"))?;
    }
    Ok(())
}
