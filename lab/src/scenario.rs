/*!
What a scenario is.
*/
use std::fmt;

use serde::{Deserialize, Serialize};

pub use crate::boots::Boot;
use crate::guest::Guest;

/// The part of a kernel that a scenario's outcome depends on. It decides on which kernels the tests play the scenario;
/// `cargo xtask test --all` plays everything on every kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Depends {
    /// On our user side alone. One kernel is enough.
    UserSide,
    /// On nothing that another scenario of the tests does not show as well. Only `cargo xtask test --all` plays it, on every kernel, and
    /// `cargo xtask lab --only`, on the newest.
    FullTest,
    /// On the kernel's series, but what could differ has not between the supported ones, or is shown by another scenario; or it shows a limit of the
    /// product and not a promise, or needs a boot of its own for each answer. The tests play it on the newest series alone.
    NewestSeries,
    /// On the kernel's series: what the verifier lets pass, which hooks there are, what an answer is worth. The generic flavour of each series is
    /// enough; the tests play it on the oldest and on the newest.
    Series,
    /// On the flavour, too: drivers and options differ. Every kernel plays it.
    Flavour,
}

impl fmt::Display for Depends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::UserSide => "user-side",
            Self::FullTest => "full-test",
            Self::NewestSeries => "newest-series",
            Self::Series => "series",
            Self::Flavour => "flavour",
        })
    }
}

/// One story played in a guest: given a guest booted so, when root does this, then that.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Unique; a sentence that is true when the scenario passes.
    pub name: &'static str,
    /// How the guest is booted. Scenarios of one kind of boot share a guest and run in the order of [`crate::scenarios::all`].
    pub boot: Boot,
    /// On which kernels it has to be played.
    pub depends: Depends,
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
