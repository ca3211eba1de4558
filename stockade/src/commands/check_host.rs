/*!
`stockade check-host`: can this host enforce, what is missing, how to get it.
*/
use std::{fmt::Write, path::Path};

use anyhow::Result;
use schemars::JsonSchema;
use serde::Serialize;
use stockade_kernel::{
    Error,
    attach::Attachment,
    btf::KernelTypes,
    cgroups,
    enforce::SelfTest,
    host::{self, Tracing},
    pins, seal,
    trial::{self, Trial},
};

use crate::{Exit, output};

/// The output of `check-host --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Report {
    /// Whether `stockade enforce` can work here
    pub can_enforce: bool,
    /// What was looked at
    pub checks: Vec<Check>,
}

/// One thing that was looked at.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Check {
    /// What
    pub name: String,
    /// Whether it is as it must be; null for what is only worth knowing
    pub ok: Option<bool>,
    /// What was found, and how to get what is missing
    pub found: String,
}

const BPF_LSM: &str = "BPF security module";

pub fn run(json: bool) -> Result<Exit> {
    let must = |name: &str, result: Result<String, String>| {
        let ok = Some(result.is_ok());
        Check { name: name.into(), ok, found: result.unwrap_or_else(|e| e) }
    };
    let know = |name: &str, found: String| Check { name: name.into(), ok: None, found };
    let types = KernelTypes::of_running_kernel();
    let trial = trial();
    let tried = matches!(trial, Some(Ok(Trial::Worked(_, SelfTest::Passed { .. }))));
    let checks = vec![
        must("kernel", host::is_new_enough().map(|()| host::kernel_release()).map_err(|e| e.to_string())),
        must(
            "root",
            if host::is_root() {
                Ok("yes".into())
            } else if host::in_container() {
                Err("no: this is a user namespace of its own, as in a container; run this on the host itself"
                    .into())
            } else {
                Err("no: run this as root; it is needed to change what the kernel refuses".into())
            },
        ),
        must(
            "type information and hook",
            types
                .as_ref()
                .map(|t| format!("{} reasons known to this kernel", t.reasons.len()))
                .map_err(ToString::to_string),
        ),
        match host::active_lsms() {
            Ok(list) if host::has_bpf_lsm(&list) => must(BPF_LSM, Ok(format!("active ({list})"))),
            Ok(active) => match types.as_ref().map(|types| Attachment::ModifyReturn.check(types)) {
                Ok(Err(source)) => {
                    must(BPF_LSM, Err(Error::NoBpfLsm { active, source: Box::new(source) }.to_string()))
                }
                _ => know(BPF_LSM, super::weaker(&active, host::may_switch_in_kernel())),
            },
            Err(e) => must(BPF_LSM, Err(e.to_string())),
        },
        must(
            "BPF file system",
            if host::is_bpffs(Path::new(pins::BPFFS)) {
                Ok(format!("mounted at {}", pins::BPFFS))
            } else {
                Err(Error::NoBpffs { path: pins::BPFFS.into() }.to_string())
            },
        ),
        must("kernel tracing switch", tracing(host::tracing(), tried)),
        match trial {
            None => know(
                "trial attachment",
                "not tried: it takes root, a kernel that is new enough, and a BPF file system".into(),
            ),
            Some(result) => {
                must("trial attachment", result.map(|trial| tried_so(&trial)).map_err(|e| e.to_string()))
            }
        },
        know("scopes and exceptions", types.as_ref().map_or_else(ToString::to_string, policies)),
        know("seal", sealing()),
        know(
            "native lockdown",
            host::native_lockdown().map_or_else(
                |e| e.to_string(),
                |level| super::overruled(level).unwrap_or_else(|| level.to_string()),
            ),
        ),
        know(
            "Secure Boot",
            match host::secure_boot() {
                Ok(host::SecureBoot::On) => "on: level auto is integrity".into(),
                Ok(host::SecureBoot::Off) => "off: level auto is none".into(),
                Ok(host::SecureBoot::NoEfi) => "not booted by EFI: level auto is none".into(),
                Err(e) => e.to_string(),
            },
        ),
    ];
    let report = Report { can_enforce: checks.iter().all(|c| c.ok != Some(false)), checks };
    if json {
        output::json(&report)?;
    } else {
        let mut out = format!("Kernel {}\n", host::kernel_release());
        for check in &report.checks {
            let mark = match check.ok {
                Some(true) => "ok     ",
                Some(false) => "MISSING",
                None => "-      ",
            };
            let _ = writeln!(
                out,
                "{mark}  {:<26} {}",
                check.name,
                check.found.replace('\n', "\n                                    ")
            );
        }
        let _ = writeln!(
            out,
            "{}",
            if report.can_enforce { "This host can enforce." } else { "This host cannot enforce yet." }
        );
        output::text(&out)?;
    }
    Ok(if report.can_enforce { Exit::Done } else { Exit::No })
}

/// Attaches a program that refuses nothing and takes it off again, where what that takes is there.
fn trial() -> Option<Result<Trial, Error>> {
    let possible = host::is_root() && host::is_new_enough().is_ok() && host::is_bpffs(Path::new(pins::BPFFS));
    possible.then(trial::run)
}

fn tried_so(trial: &Trial) -> String {
    match trial {
        Trial::Worked(_, SelfTest::Passed { reason }) => format!(
            "a program that refuses nothing was attached, a request for {reason} reached it, and it was taken off again"
        ),
        Trial::Worked(_, SelfTest::NativeRefusesFirst) => {
            "a program that refuses nothing was attached and taken off again; the kernel's own lockdown refuses every request with which it \
             could be tried"
                .into()
        }
        Trial::Worked(_, SelfTest::NothingToTest) => {
            "a program that refuses nothing was attached and taken off again; this kernel has no door with which it could be tried".into()
        }
        Trial::InForce => "not needed: a policy is in force, and stockade status says whether it decides".into(),
        Trial::Sealed => "not needed: this machine is sealed, and stockade status says whether the seal holds".into(),
    }
}

/// A kernel without the function tracer attaches no program, unless it was just seen to.
fn tracing(tracing: Tracing, tried: bool) -> Result<String, String> {
    match tracing {
        Tracing::On => Ok("on".into()),
        Tracing::Off => Err("kernel.ftrace_enabled is 0, which silences every program attached to the kernel's functions; turn it on with: sysctl kernel.ftrace_enabled=1".into()),
        Tracing::Missing if tried => Ok("/proc/sys/kernel/ftrace_enabled is missing, and programs are attached all the same".into()),
        Tracing::Missing => Err("/proc/sys/kernel/ftrace_enabled is missing: this kernel was built without the function tracer, with which BPF programs are attached \
             to the kernel's functions; boot one with CONFIG_FUNCTION_TRACER=y and CONFIG_DYNAMIC_FTRACE=y"
            .into()),
    }
}

/// Whether enforcement can be made irremovable here.
fn sealing() -> String {
    if !host::is_root() {
        return "only root can tell".into();
    }
    match seal::is_sealed() {
        Ok(false) => {}
        Ok(true) => return "this machine is sealed: stockade status says what and since when".into(),
        Err(error) => return error.to_string(),
    }
    match host::active_lsms().map(|list| seal::obstacles(&list)) {
        Err(e) => e.to_string(),
        Ok(obstacles) if obstacles.is_empty() => {
            "possible: stockade seal (it also looks for BPF programs of others that could undo it)".into()
        }
        Ok(obstacles) => format!("not possible:\n- {}", obstacles.join("\n- ")),
    }
}

/// Describes the parts of policies that this kernel supports beyond levels and single reasons.
fn policies(types: &KernelTypes) -> String {
    if let Some((owner, field)) = types.missing.first() {
        return format!(
            "not on this kernel, which is older than 5.17 or keeps no {owner}.{field} that could be found; levels and [reasons] work"
        );
    }
    if cgroups::root().is_err() {
        return "for programs only: the cgroup hierarchy of version 2 is not mounted (mount -t cgroup2 none /sys/fs/cgroup)".into();
    }
    if host::active_lsms().is_ok_and(|list| host::has_bpf_lsm(&list)) {
        "for cgroups, units and programs".into()
    } else {
        "for cgroups and units; for programs only where bpf is among the active security modules".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_the_function_tracer_is_not_one_whose_switch_is_on() {
        assert_eq!(tracing(Tracing::On, false).as_deref(), Ok("on"));
        assert!(tracing(Tracing::Off, true).is_err_and(|why| why.contains("sysctl kernel.ftrace_enabled=1")));
        assert!(tracing(Tracing::Missing, false).is_err_and(|why| why.contains("CONFIG_FUNCTION_TRACER=y")));
        assert!(tracing(Tracing::Missing, true).is_ok());
    }
}
