/*!
Completions and man pages, made from the same definition that parses the command line; the policy's page from its
reference in docs/.
*/
use std::io::Write;

use anyhow::{Context, Result, anyhow};
use clap::CommandFactory;
use clap_complete::Shell;

use crate::{Exit, flags, manual, output};

pub fn completions(flags: &flags::Completions) -> Result<Exit> {
    let shell: Shell = flags.shell.parse().map_err(|e: String| anyhow!(e))?;
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut flags::Flags::command(), "stockade", &mut script);
    std::io::stdout().lock().write_all(&script)?;
    Ok(Exit::Done)
}

pub fn man(flags: &flags::Man) -> Result<Exit> {
    std::fs::create_dir_all(&flags.folder).with_context(|| format!("create {}", flags.folder.display()))?;
    clap_mangen::generate_to(flags::Flags::command(), &flags.folder)
        .with_context(|| format!("write man pages to {}", flags.folder.display()))?;
    let page = flags.folder.join("stockade.policy.5");
    std::fs::write(&page, manual::policy_page()).with_context(|| format!("write {}", page.display()))?;
    output::text(&format!("Man pages written to {}", flags.folder.display()))?;
    Ok(Exit::Done)
}
