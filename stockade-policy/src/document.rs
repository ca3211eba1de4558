/*!
What one file says. Unlike a [`Policy`](crate::model::Policy) it need not say everything.
*/
use crate::{
    model::{Accepted, Exception, LevelChoice, Mode, Reasons, Said, Scope, Settings, Unknown},
    trusted::TrustedProgram,
};

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
    /// `[seal]`
    pub seal: SealTable,
}

/// The table `[seal]` of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SealTable {
    /// `pcr`
    pub pcr: Option<Said<u8>>,
    /// `require-tpm`
    pub require_tpm: Option<Said<bool>>,
    /// `room-for-scopes`
    pub room_for_scopes: Option<Said<bool>>,
    /// `[[seal.trust]]`
    pub trusted: Vec<TrustedProgram>,
}
