/*!
One file per command. Each first gathers a report, then prints it as text or JSON; the report's type
is the JSON's schema.
*/
use anyhow::{Result, anyhow};
use stockade_kernel::{btf::KernelTypes, enforce::reason_id};
use stockade_reasons::{Level, Reason};

pub mod check_host;
pub mod documents;
pub mod enforce;
pub mod explain;
pub mod lift;
pub mod probe;
pub mod residual;
pub mod status;
pub mod watch;

/// A reason by the name an administrator typed.
fn reason(name: &str) -> Result<&'static Reason> {
    stockade_reasons::by_id(name).ok_or_else(|| match stockade_reasons::nearest(name) {
        Some(near) => anyhow!("there is no reason {name:?}; did you mean {near}?"),
        None => anyhow!("there is no reason {name:?}; the reasons are: {}", all_ids()),
    })
}

fn reasons(names: &[String]) -> Result<Vec<&'static Reason>> {
    names.iter().map(|name| reason(name)).collect()
}

fn all_ids() -> String {
    stockade_reasons::all().iter().map(|r| r.id).collect::<Vec<_>>().join(", ")
}

/// Ids of the reasons in a set of this kernel.
fn ids(set: u64, types: &KernelTypes) -> Vec<String> {
    types.reasons.iter().filter(|r| set >> r.number & 1 == 1).map(|r| reason_id(types, r.number)).collect()
}

fn level_of(number: u8) -> Level {
    match number {
        0 => Level::None,
        1 => Level::Integrity,
        _ => Level::Confidentiality,
    }
}
