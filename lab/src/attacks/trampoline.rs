//! Attacks that fill the trampolines that call Stockade's programs, with programs of types that stay allowed.

use std::os::fd::OwnedFd;

use anyhow::Result;

use super::{
    Attack, Attempt, Pins,
    bpf::{self, FENTRY, FEXIT, Kind},
    calls::Undo,
};

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new(
        "fill-the-trampoline",
        "attach fentry programs to bpf_lsm_locked_down until it is full",
        Pins::Holds,
        || fill(FENTRY, "bpf_lsm_locked_down"),
    ),
    Attack::new(
        "fill-the-trampoline-by-fexit",
        "the same with fexit programs, which run afterwards",
        Pins::Holds,
        || fill(FEXIT, "bpf_lsm_locked_down"),
    ),
    Attack::new(
        "fill-the-caller",
        "attach fentry programs to security_locked_down until it is full",
        Pins::Holds,
        || fill(FENTRY, "security_locked_down"),
    ),
    Attack::new(
        "come-and-go",
        "attach a program to bpf_lsm_locked_down and take it off, fifty times",
        Pins::Holds,
        || {
            let program = match bpf::load_for(FENTRY, "bpf_lsm_locked_down", 0)? {
                Ok(program) => program,
                Err(error) => return Attempt::refused(error),
            };
            for _ in 0..50 {
                if let Err(error) = bpf::attach(&program) {
                    return Attempt::refused(error);
                }
            }
            Attempt::through()
        },
    ),
    Attack::new(
        "no-more-compiler",
        "switch the BPF compiler off by net.core.bpf_jit_enable",
        Pins::Holds,
        || {
            let undo = Undo("echo 1 > /proc/sys/net/core/bpf_jit_enable");
            Ok(Attempt::from_result(std::fs::write("/proc/sys/net/core/bpf_jit_enable", "0"))?.holding(undo))
        },
    ),
    Attack::new(
        "count-programs",
        "have the kernel measure every program by kernel.bpf_stats_enabled",
        Pins::Holds,
        || {
            let undo = Undo("echo 0 > /proc/sys/kernel/bpf_stats_enabled");
            Ok(Attempt::from_result(std::fs::write("/proc/sys/kernel/bpf_stats_enabled", "1"))?.holding(undo))
        },
    ),
];

/// More programs than a trampoline holds, which is 38.
const ENOUGH: usize = 64;

fn fill(kind: Kind, function: &str) -> Result<Attempt> {
    let mut held: Vec<(OwnedFd, OwnedFd)> = Vec::new();
    let mut refused = None;
    for _ in 0..ENOUGH {
        let loaded = bpf::load_for(kind, function, 0)?;
        let attached = loaded.and_then(|program| Ok((bpf::attach(&program)?, program)));
        match attached {
            Ok(pair) => held.push(pair),
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    match refused {
        // A full trampoline is the aim of the attack.
        Some(error) if held.is_empty() => Attempt::refused(error),
        _ => Ok(Attempt::through()?.holding(held)),
    }
}
