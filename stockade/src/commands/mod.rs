/*!
One file per command. Each first gathers a report, then prints it as text or JSON; the report's type
is the JSON's schema.
*/
use anyhow::{Result, anyhow};
use stockade_kernel::{attach::Attachment, btf::KernelTypes, host};
use stockade_policy::{
    compile::CompiledSetting,
    settings::{self, Coverage},
};
use stockade_reasons::{Level, Reason};

pub mod assess;
pub mod check_host;
pub mod documents;
pub mod enforce;
pub mod explain;
pub mod grant;
pub mod lift;
pub mod policy;
pub mod probe;
mod record;
pub mod residual;
pub mod seal;
pub mod seal_record;
pub mod status;
pub mod trust;
pub mod version;
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
    types.reasons.iter().filter(|r| set >> r.number & 1 == 1).map(|r| types.reason_id(r.number)).collect()
}

/// How to come by the rights that an answer takes.
fn how_to_be_root() -> &'static str {
    if host::in_container() {
        "run this on the host itself, outside the container"
    } else {
        "run this as root"
    }
}

fn attachment(attachment: Attachment) -> &'static str {
    match attachment {
        Attachment::BpfLsm => "bpf-lsm",
        Attachment::RootCgroup => "root-cgroup",
        Attachment::ModifyReturn => "modify-return",
    }
}

/// Returns the warning for a machine on which only [`Attachment::ModifyReturn`] works.
fn weaker(active_lsms: &str, may_switch: Option<bool>) -> String {
    let how_weak = match may_switch {
        Some(false) => {
            "this kernel as booted does not switch tasks in the middle of a decision, so that does not happen"
        }
        Some(true) => "this kernel switches tasks in the middle of decisions, so root can bring that about",
        None => {
            "a kernel with full or lazy preemption lets root bring that about, and whether this one has it cannot be read"
        }
    };
    format!(
        "bpf is not among the active security modules ({active_lsms}), so Stockade attaches by modify-return, which is weaker: \
         a request that comes while another one is being decided on the same processor is let through; {how_weak} (status counts them). \
         For the stronger way add lsm={active_lsms},bpf to the kernel command line and reboot"
    )
}

/// Returns the warning for an exception while the kernel's own lockdown has a level.
fn overruled(native: Level) -> Option<String> {
    (native > Level::None).then(|| {
        format!(
            "the kernel's own lockdown is at {native}: what it refuses stays refused until reboot, and an exception in Stockade has no effect on that"
        )
    })
}

/// Names of settings whose value is held in this way, as sysctl(8) has them.
fn held(settings: &[CompiledSetting], hold: u32) -> Vec<String> {
    let these = settings.iter().filter(|setting| setting.rule.hold == hold);
    let names = these.map(|setting| settings::dotted(&setting.name));
    names.filter(|name| settings::coverage(name) == Coverage::Value).collect()
}

/// Names of settings that are held under this name only: their value can change by other ways.
fn name_only(settings: &[CompiledSetting]) -> Vec<String> {
    let names = settings.iter().map(|setting| settings::dotted(&setting.name));
    names.filter(|name| settings::coverage(name) != Coverage::Value).collect()
}

fn level_of(number: u8) -> Level {
    match number {
        0 => Level::None,
        1 => Level::Integrity,
        _ => Level::Confidentiality,
    }
}
