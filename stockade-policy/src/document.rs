/*!
What one file says. Unlike a [`Policy`](crate::model::Policy) it need not say everything.
*/
use crate::model::{Accepted, Exception, LevelChoice, Mode, Reasons, Said, Scope, Settings, Unknown};

/// One file of a policy, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// `level`
    pub level: Option<Said<LevelChoice>>,
    /// `mode`
    pub mode: Option<Said<Mode>>,
    /// `unknown-reasons`
    pub unknown_reasons: Option<Said<Unknown>>,
    /// `[reasons]`
    pub reasons: Reasons,
    /// `[settings]`
    pub settings: Settings,
    /// `[[scope]]`
    pub scopes: Vec<Scope>,
    /// `[[exception]]`
    pub exceptions: Vec<Exception>,
    /// `[[accept]]`
    pub accepted: Vec<Accepted>,
    /// `pcr` under `[seal]`
    pub seal_pcr: Option<Said<u8>>,
    /// `require-tpm` under `[seal]`
    pub seal_require_tpm: Option<Said<bool>>,
}
