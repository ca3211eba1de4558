/*!
`stockade check-host`: can this host enforce, what is missing, how to get it.
*/
use std::{fmt::Write, path::Path};

use anyhow::Result;
use schemars::JsonSchema;
use serde::Serialize;
use stockade_kernel::{Error, attach::Attachment, btf::KernelTypes, cgroups, host, pins, seal};

use crate::{Exit, output};

/// What `check-host --json` prints.
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
    let checks = vec![
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
        must(
            "kernel tracing switch",
            if host::tracing_is_off() {
                Err("kernel.ftrace_enabled is 0, which silences every program attached to the kernel's functions; turn it on with: sysctl kernel.ftrace_enabled=1".into())
            } else {
                Ok("on".into())
            },
        ),
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

/// What policies can say on this kernel beyond levels and single reasons.
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
