/*!
Scenarios, and the part of a kernel that the outcome of each depends on.
*/
use std::fmt;

use serde::{Deserialize, Serialize};

pub use crate::boots::Boot;
use crate::guest::Guest;

/// The part of a kernel that a scenario's outcome depends on. It decides on which kernels `cargo xtask test` plays the scenario; `cargo
/// xtask test --all` plays everything on every kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Depends {
    /// On the user side only. One kernel is enough.
    UserSide,
    /// On nothing that another scenario does not show too. `cargo xtask test --all` plays it on every kernel, `cargo xtask lab --only` on
    /// the newest; no other run plays it.
    FullTest,
    /// On the kernel's series, but the supported series do not differ in it, or another scenario shows the difference; or it shows a limit
    /// of the product and not a promise, or needs a boot for each answer. The tests play it on the newest series only.
    NewestSeries,
    /// On the kernel's series: the verifier, the hooks that exist, the meaning of a kernel's answer. The generic flavour of a series is
    /// enough; the tests play it on the oldest and the newest series.
    Series,
    /// On the flavour too: drivers and options differ. Every kernel plays it.
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

/// A story played in a guest: with the guest booted in this way, root acts, and the scenario checks the effect.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Unique; a sentence that is true when the scenario passes.
    pub name: &'static str,
    /// The boot of the guest. Scenarios of one boot share a guest and run in the order of [`crate::scenarios::all`].
    pub boot: Boot,
    /// The part of a kernel that its outcome depends on.
    pub depends: Depends,
    /// The code that plays it. Any error, panic or hang is a failure, except [`Skip`].
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
