/*!
`cargo xtask demo`: Stockade in a guest, to look at or to play with.
*/
use std::{io::IsTerminal, time::Duration};

use clap::Args;
use stockade_lab::{
    boot::{Clock, Hardware, Machine},
    initrd, kernels,
};

use crate::{programs, setup, workspace};

/// The demonstration and its kernel.
#[derive(Debug, Args)]
pub struct Flags {
    /// A shell in the guest instead of the demonstration; `exit` ends it
    #[arg(long)]
    shell: bool,
    /// The guest's kernel
    #[arg(long, value_name = "KERNEL", default_value = "6.12-cloud", value_parser = clap::builder::PossibleValuesParser::new(kernels::ids()))]
    on: String,
}

/// Boots a guest and runs the demonstration.
pub fn run(flags: &Flags) -> anyhow::Result<()> {
    print!("{}", plan(&flags.on));
    setup::need(&[setup::LAB])?;
    let programs = programs::build()?;
    let kernel = kernels::get(&flags.on, false)?;
    let folder = workspace::lab_folder()?;
    let disk = folder.join(format!("demo-{}.cpio", kernel.id));
    initrd::write(&kernel, &programs, &disk)?;
    let machine = Machine {
        kernel: &kernel,
        initrd: &disk,
        disk: None,
        cmdline: format!("stockade.run={}", if flags.shell { "shell" } else { "demo" }),
        hardware: Hardware::USUAL,
        console: folder.join("demo.console"),
        clock: Clock::Host,
        limit: Duration::from_mins(10),
    };
    if flags.shell {
        if std::io::stdin().is_terminal() {
            println!("Debian's kernel {} in a throw-away guest; `exit` ends it.", kernel.release);
        }
        return machine.run_on_terminal();
    }
    machine.run_program(|line| println!("{line}"))
}

/// Describes the packages, downloads and builds that are missing, and how long they take on two processors.
fn plan(kernel: &str) -> String {
    let missing = setup::missing(&[setup::LAB, setup::LINKER]);
    let fetched = kernels::is_fetched(kernel);
    let built = workspace::target_folder().join("dist/stockade").exists();
    let mut text =
        "Stockade in a throw-away virtual machine. Nothing of this machine's kernel is touched.\n".to_owned();
    if !missing.is_empty() {
        text += &format!("  installs Debian packages, about a minute: {}\n", missing.join(" "));
    }
    if !fetched {
        text += &format!("  fetches Debian's kernel {kernel}, half a minute, into the user's cache\n");
    }
    text += if built {
        "  builds what has changed since the last time\n"
    } else {
        "  compiles the release program and the guest's own programs, two to three minutes\n"
    };
    text + "  boots the machine and plays the tour, half a minute\n"
}
