/*!
How a seal is recorded: where others measure as well, and where nothing may be recorded at all. Which programs it trusts.
*/
use super::{About, Case, Finding, Report, code};
use crate::{trusted::ProgramHook, words::nearest};

/// Another program that extends a PCR of the operating system, and when.
struct User {
    pcr: u8,
    who: &'static str,
}

/// From the Linux TPM PCR Registry of the UAPI Group. PCR 13 is missing: systemd-stub measures extensions of the system image there, before the
/// kernel runs.
const USERS: [User; 7] = [
    User { pcr: 8, who: "GRUB, for its commands" },
    User {
        pcr: 9,
        who: "GRUB and the kernel's EFI stub, for files and the RAM disk; newer systemd, while it runs",
    },
    User {
        pcr: 10,
        who: "IMA, while the system runs: its own log then no longer leads to the register's value",
    },
    User {
        pcr: 11,
        who: "systemd, for the phases of booting and shutting down, to which disks may be bound",
    },
    User {
        pcr: 12,
        who: "systemd-stub, for the kernel's command line and credentials, to which disks may be bound",
    },
    User { pcr: 14, who: "shim, for the owner's keys, to which disks may be bound" },
    User { pcr: 15, who: "systemd, while the system runs: the machine's id, volume keys and file systems" },
];

pub(super) fn argue(case: &Case<'_>, report: &mut Report) {
    record(case, report);
    trusted_hooks(case, report);
}

/// Hooks and functions that this kernel lacks: no program can be attached there.
fn trusted_hooks(case: &Case<'_>, report: &mut Report) {
    for program in &case.policy.seal.trusted {
        let Some(hook) = &program.hook else { continue };
        let ProgramHook::Name(name) = &hook.value else { continue };
        let Some(function) = program.kind.value.kernel_function(name) else { continue };
        match (case.machine.function)(&function) {
            Some(true) => {}
            None => report
                .unseen
                .push("the hooks of the kernel: whether trusted programs fit it is not told".into()),
            Some(false) => {
                let about = About::Key(format!("seal.trust.{}", program.name.value));
                let message = format!("this kernel has no hook {name}: no program can be attached there");
                let finding = Finding::new(&code::TRUSTED_HOOK_ABSENT, about, &hook.origin, message);
                report.findings.push(match nearest(name, HOOKS.iter().copied()) {
                    Some(near) if near != name => finding.label(format!("did you mean {near}?")),
                    _ => finding,
                });
            }
        }
    }
}

/// Hooks on which programs of a seal are.
const HOOKS: [&str; 9] = [
    "locked_down",
    "bpf",
    "bpf_prog",
    "bpf_map",
    "file_open",
    "bprm_committed_creds",
    "task_alloc",
    "ptrace_access_check",
    "ptrace_traceme",
];

fn record(case: &Case<'_>, report: &mut Report) {
    let (pcr, require) = (&case.policy.seal.pcr, &case.policy.seal.require_tpm);
    let about = |key: &str| About::Key(format!("seal.{key}"));
    let finding = match pcr {
        None if require.value => {
            let message = "`require-tpm` demands a TPM, and nothing would be measured into it";
            Finding::new(&code::TPM_FOR_NOTHING, about("require-tpm"), &require.origin, message)
        }
        None => return,
        Some(pcr) => {
            if let Some(user) = USERS.iter().find(|user| user.pcr == pcr.value) {
                let message = format!("PCR {} is also extended by {}", user.pcr, user.who);
                report.findings.push(Finding::new(&code::PCR_SHARED, about("pcr"), &pcr.origin, message));
            }
            if require.value {
                return;
            }
            let message = format!("where no TPM answers, the seal is not recorded in PCR {}", pcr.value);
            Finding::new(&code::RECORD_OPTIONAL, about("pcr"), &pcr.origin, message)
        }
    };
    report.findings.push(finding);
}
