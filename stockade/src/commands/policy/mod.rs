/*!
`stockade policy`: what can be done with a policy before it is applied. One file for each.
*/
use anyhow::Result;

use crate::{Exit, flags};

pub mod check;

pub fn run(flags: &flags::Policy, json: bool) -> Result<Exit> {
    match flags {
        flags::Policy::Check(flags) => check::run(flags, json),
    }
}
