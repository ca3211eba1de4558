//! The state that attacks begin in: an enforced policy, or a seal that holds.

use anyhow::{Result, ensure};
use serde_json::Value;

use super::{Setting, clocks, exceptions};
use crate::program::stockade;

/// The folder of the guest for files of attacks.
pub(super) const FOLDER: &str = "/run/attacks";

/// Enforces the policy of a setting.
pub(super) fn enforce(setting: Setting) -> Result<()> {
    match setting {
        Setting::Exceptions => clocks::enforce(),
        Setting::Programs => exceptions::enforce(),
        _ => stockade(&["enforce", "confidentiality"])?.exits(0)?.says("proven").map(drop),
    }
}

/// Requires that `status` reports a verified seal.
pub(super) fn is_sealed(status: &Value) -> Result<()> {
    let seal = &status["stockade"]["sealed"];
    ensure!(seal["verified"] == true, "status says of the seal: {status}");
    Ok(())
}
