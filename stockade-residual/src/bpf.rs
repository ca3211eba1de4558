/*!
BPF programs with helpers that lockdown guards, and who holds them.
*/
use std::path::{Path, PathBuf};

use stockade_kernel::programs::{self, Hold, Program};

use crate::{Kind, Leftover, Process, Residue, Unseen, walk::Walk};

/// Looks at every loaded program but a known one; who holds one is asked for those found only.
pub fn look(walk: &Walk, bpf_folders: &[PathBuf], known: Option<u32>, residue: &mut Residue) {
    const WHAT: &str = "BPF programs that read kernel memory or write user memory";
    let found = match programs::look(known) {
        Ok(found) => found,
        Err(e) => {
            residue.unseen.push(Unseen { what: WHAT, why: e.to_string(), hidden_by: None });
            return;
        }
    };
    if let Some((id, error)) = found.hidden.first() {
        let why = format!(
            "{} of {} programs could not be read, the first was {id}: {error}",
            found.hidden.len(),
            found.hidden.len() + found.looked_at
        );
        residue.unseen.push(Unseen { what: WHAT, why, hidden_by: None });
    }
    if found.guarded.is_empty() {
        return;
    }
    let mut holders = walk.programs.clone();
    holders.extend(
        walk.perf_events.iter().filter_map(|&(pid, fd)| Some((pid, programs::of_perf_event(pid, fd)?))),
    );
    holders.sort_unstable();
    holders.dedup();
    let ids: Vec<u32> = found.guarded.iter().map(|p| p.id).collect();
    let holds = programs::holds(&ids, bpf_folders);
    for program in &found.guarded {
        let mut details = vec![format!("calls {}", program.helpers.join(", "))];
        let processes: Vec<u32> =
            holders.iter().filter(|(_, id)| *id == program.id).map(|(pid, _)| *pid).collect();
        details.extend(processes.iter().map(|&pid| {
            let process = Process::read(Path::new("/proc"), pid, None);
            format!("held by {} ({pid})", process.comm)
        }));
        let (mut links, mut pins) = (Vec::new(), Vec::new());
        for (_, hold) in holds.iter().filter(|(id, _)| *id == program.id) {
            match hold {
                Hold::Link(id) => links.push(id.to_string()),
                Hold::Pin(path) => pins.push(path.display().to_string()),
            }
        }
        details.extend((!links.is_empty()).then(|| format!("attached by link {}", links.join(", "))));
        details.extend(pins.iter().map(|pin| format!("pinned at {pin}")));
        let advice = advice(&processes, &pins);
        residue
            .leftovers
            .extend(program.reasons.iter().map(|reason| leftover(program, reason, &details, &advice)));
    }
}

fn leftover(program: &Program, reason: &'static str, details: &[String], advice: &str) -> Leftover {
    let name = if program.name.is_empty() { "without a name" } else { &program.name };
    let what = format!("BPF program {} {name} ({})", program.id, program.kind);
    Leftover {
        loaded_boot_ns: Some(program.loaded_boot_ns),
        details: details.to_vec(),
        ..Leftover::new(reason, Kind::BpfProgram, what, advice.to_owned())
    }
}

fn advice(processes: &[u32], pins: &[String]) -> String {
    let kill = processes.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    match (kill.is_empty(), pins.is_empty()) {
        (false, true) => format!("end what holds it: kill {kill}"),
        (true, false) => format!("remove its pins: rm {}", pins.join(" ")),
        (false, false) => format!("end what holds it and remove its pins: kill {kill}; rm {}", pins.join(" ")),
        (true, true) => {
            "no process and no pin holds it: detach it where it is attached (bpftool net, cgroup, perf show), or reboot".into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_told_by_id_name_and_type() {
        let program = Program {
            id: 12,
            name: "trace_exec".into(),
            kind: "kprobe".into(),
            loaded_boot_ns: 5,
            helpers: vec!["bpf_probe_read_kernel"],
            reasons: vec!["bpf-read-kernel"],
        };
        let leftover = leftover(&program, "bpf-read-kernel", &[], &advice(&[7, 8], &[]));
        assert_eq!(leftover.what, "BPF program 12 trace_exec (kprobe)");
        assert_eq!(leftover.loaded_boot_ns, Some(5));
        assert_eq!(leftover.advice, "end what holds it: kill 7 8");
    }
}
