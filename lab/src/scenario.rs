/*!
What a scenario is.
*/
use std::fmt;

pub use crate::boots::Boot;
use crate::guest::Guest;

/// One story played in a guest: given a guest booted so, when root does this, then that.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Unique; a sentence that is true when the scenario passes.
    pub name: &'static str,
    /// How the guest is booted. Scenarios of one kind of boot share a guest and run in the order of [`crate::scenarios::all`].
    pub boot: Boot,
    /// The story. Any error, panic or hang is a failure, except [`Skip`].
    pub run: fn(&Guest) -> anyhow::Result<()>,
}

/// Returned by a scenario that cannot be played on this kernel, with the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skip(pub String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}
