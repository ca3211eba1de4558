/*!
`stockade lift`: the end of enforcement.
*/
use anyhow::Result;
use schemars::JsonSchema;
use serde::Serialize;
use stockade_kernel::{
    host,
    lift::{Lifted, lift},
};
use stockade_reasons::Level;

use crate::{Exit, flags, output};

/// The output of `lift --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Report {
    /// Whether anything was in force
    pub lifted: bool,
    /// Level of the kernel's own lockdown, which stays
    pub native_lockdown: String,
}

pub fn run(flags: &flags::Lift, json: bool) -> Result<Exit> {
    let lifted = lift(flags.force)? == Lifted::Lifted;
    let native = host::native_lockdown().unwrap_or(Level::None);
    if json {
        output::json(&Report { lifted, native_lockdown: native.to_string() })?;
        return Ok(Exit::Done);
    }
    output::text(if lifted {
        "Lifted: Stockade refuses nothing any more."
    } else {
        "Nothing to lift: Stockade enforces nothing here."
    })?;
    if native > Level::None {
        output::text(&format!("The kernel's own lockdown stays at {native} until reboot."))?;
    }
    Ok(Exit::Done)
}
