/*!
What lockdown came too late for: files opened, memory mapped and code loaded before, which go on in spite of
the level. The kernel checks when something is opened or registered and takes nothing back.

| file | what it owns |
|---|---|
| `guarded.rs` | which files lockdown guards, told by device and inode number, not by name |
| `filesystems.rs` | file systems by device number; the trees of debugfs and tracefs, also unmounted |
| `walk.rs` | every process's descriptors and mappings |
| `process.rs` | what is known of one process |
| `tracing.rs` | kprobes, uprobes and other probes that were set |
| `loaded.rs` | kexec images, modules, what the kernel remembers as taint |
| `bpf.rs` | BPF programs, and who holds them |

It reads and changes nothing. What could not be looked at is said ([`Residue::unseen`]), and what the kernel
shows to nobody is in [`INVISIBLE`]: an empty list of leftovers alone proves nothing.

A look is no snapshot: a process that hands a descriptor on while it is looked at can slip through.

```no_run
// As root: everything that integrity would refuse today.
let integrity = |reason: &str| {
    stockade_reasons::by_id(reason).is_some_and(|reason| reason.level == stockade_reasons::Level::Integrity)
};
let residue = stockade_residual::look(&integrity, None);
for leftover in &residue.leftovers {
    println!("{}: {}; {}", leftover.reason, leftover.what, leftover.advice);
}
```
*/
#![deny(missing_docs)]

mod bpf;
mod filesystems;
mod guarded;
mod loaded;
mod process;
mod tracing;
mod walk;

use std::path::{Path, PathBuf};

pub use process::Process;

/// Something that was opened or loaded before and goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// The reason that would refuse it today: an id of the table.
    pub reason: &'static str,
    /// What sort of thing it is.
    pub kind: Kind,
    /// Which one, for instance `/dev/mem`.
    pub what: String,
    /// The process that has it, where it is a process's.
    pub process: Option<Process>,
    /// Descriptors it is open under, with the access they were opened for.
    pub descriptors: Vec<Descriptor>,
    /// Addresses it is mapped at, as in /proc/PID/maps, with the access.
    pub mappings: Vec<String>,
    /// When it was loaded, on the clock of [`stockade_kernel::host::boot_ns`], where the kernel says so. It says
    /// so of BPF programs only; for files the start of the process is all there is.
    pub loaded_boot_ns: Option<u64>,
    /// Who or what keeps it, or more about it.
    pub details: Vec<String>,
    /// What to do about it.
    pub advice: String,
}

impl Leftover {
    /// One of which no more is known.
    #[must_use]
    pub fn new(reason: &'static str, kind: Kind, what: String, advice: String) -> Self {
        Self {
            reason,
            kind,
            what,
            process: None,
            descriptors: Vec::new(),
            mappings: Vec::new(),
            loaded_boot_ns: None,
            details: Vec::new(),
            advice,
        }
    }
}

/// The sorts of leftovers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A file that is open, mapped or both.
    File,
    /// Registers of a PCI device mapped into a process.
    PciBar,
    /// A kprobe or another probe on kernel functions.
    Kprobe,
    /// A probe on a program's function, or on a trace event, set through tracefs.
    Uprobe,
    /// A kernel that kexec would start.
    KexecImage,
    /// A kernel that a crash would start; kdump loads one on purpose.
    CrashImage,
    /// A module that lockdown would not have let in.
    Module,
    /// What the kernel remembers and cannot undo.
    Taint,
    /// A BPF program with a guarded helper.
    BpfProgram,
}

/// An open descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Descriptor {
    /// Its number in the process.
    pub number: u32,
    /// What it was opened for.
    pub access: Access,
}

/// What a descriptor was opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Both.
    Both,
}

/// Something that could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unseen {
    /// What.
    pub what: &'static str,
    /// Why not.
    pub why: String,
    /// The reason of the table whose refusal hides it, if that is why.
    pub hidden_by: Option<&'static str>,
}

/// What a look found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Residue {
    /// What goes on.
    pub leftovers: Vec<Leftover>,
    /// What could not be looked at.
    pub unseen: Vec<Unseen>,
    /// What may be worth knowing and is no leftover.
    pub notes: Vec<String>,
    /// Processes looked at.
    pub processes: usize,
}

/// What no look can find, since the kernel shows it to nobody, or not without harm.
pub const INVISIBLE: [&str; 5] = [
    "I/O ports granted by ioperm or iopl (ioport): ioperm is shown only to a debugger that stops the process, iopl to nobody; children inherit both",
    "perf events that sample kernel registers (perf): the kernel does not say what an open perf event samples",
    "uprobes set through perf or BPF, and BPF's multi-kprobes: no list has them, and lockdown does not refuse them",
    "descriptors on their way through a socket, or kept by io_uring: they belong to no process's table",
    "what was written and stays: MSRs, PCI configuration, ports of serial lines, module parameters, memory itself",
];

/// Looks at everything. `refused` says of a reason whether it is refused now: what would only be refused is not
/// tried, so that looking leaves no refusal behind. `known` is a BPF program that need not be looked at: the
/// caller has loaded it.
///
/// Needs root in the machine's own namespaces; see [`incomplete_view`].
///
/// ```no_run
/// if let Some(why) = stockade_residual::incomplete_view() {
///     eprintln!("only a part of the machine is seen: {why}");
/// }
/// let residue = stockade_residual::look(&|_| false, None);
/// println!("{} leftovers in {} processes", residue.leftovers.len(), residue.processes);
/// ```
#[must_use]
pub fn look(refused: &dyn Fn(&str) -> bool, known: Option<u32>) -> Residue {
    let mut residue = Residue::default();
    let trees = filesystems::Trees::of_running_kernel(&mut residue.unseen);
    let guard = guarded::Guard::of_running_kernel(&trees, &mut residue.unseen);
    let walk = walk::all(Path::new("/proc"), &guard, &mut residue);
    tracing::look(&trees, &walk.perf_events, refused, &mut residue);
    loaded::look(Path::new("/"), &mut residue);
    bpf::look(&walk, &trees.bpf_folders(), known, &mut residue);
    residue.leftovers.sort_by(|a, b| (a.kind, &a.process, &a.what).cmp(&(b.kind, &b.process, &b.what)));
    residue
}

/// Why the caller sees only a part of the machine: another pid or user namespace than the machine's own.
#[must_use]
pub fn incomplete_view() -> Option<&'static str> {
    incomplete(|namespace| std::fs::read_link(format!("/proc/self/ns/{namespace}")).ok())
}

fn incomplete(namespace: impl Fn(&str) -> Option<PathBuf>) -> Option<&'static str> {
    // The numbers of the first namespaces are fixed: include/linux/proc_ns.h.
    let is = |name: &str, first: &str| namespace(name).is_some_and(|link| link == Path::new(first));
    if !is("pid", "pid:[4026531836]") {
        return Some("this runs in a pid namespace of its own, or without /proc: other processes are hidden");
    }
    if !is("user", "user:[4026531837]") {
        return Some("this runs in a user namespace of its own: other users' processes are hidden");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_does_not_see_the_machine() {
        let namespaces = |pid: &'static str, user: &'static str| {
            incomplete(move |name| Some(if name == "pid" { pid } else { user }.into()))
        };
        assert_eq!(namespaces("pid:[4026531836]", "user:[4026531837]"), None);
        assert!(namespaces("pid:[4026532201]", "user:[4026531837]").unwrap().contains("pid namespace"));
        assert!(namespaces("pid:[4026531836]", "user:[4026532200]").unwrap().contains("user namespace"));
        assert!(incomplete(|_| None).is_some(), "without an answer nothing is claimed");
    }
}
