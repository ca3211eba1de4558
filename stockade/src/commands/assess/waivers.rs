/*!
The effect of a file of waivers, as it is reported.
*/
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The effect of a file of waivers.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Waivers {
    /// The file
    pub file: String,
    /// Waivers whose last day has passed: what they are for counts again
    pub expired: Vec<Expired>,
    /// Findings that are waived and need no waiver, since they pass
    pub unneeded: Vec<String>,
}

/// A waiver that counts no longer.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Expired {
    /// The finding
    pub id: String,
    /// Why it was accepted
    pub reason: String,
    /// The last day on which it counted, by UTC
    pub expires: String,
    /// Where it is written
    pub at: String,
}
